"""Root discovery: cosines against float64 NumPy, the same bits always, and what it changes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from crystalline.data.crystal import discovery
from crystalline.data.crystal.affixes import Affix, Derivations
from crystalline.data.crystal.discovery import Changes, Closeness, changes, discover
from crystalline.data.crystal.tokens import Crystal, build_crystal
from crystalline.data.tokenizer import Tokenizer

STDLIB = Path(os.__file__).parent
WIDTH = 24


def random_rows(n: int, width: int = WIDTH, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


# --- closeness --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "width"), [(1, 1), (2, 3), (37, 17), (300, 64), (5, 1)])
def test_closeness_is_the_cosine_of_centered_rows(n: int, width: int, monkeypatch) -> None:
    monkeypatch.setattr(discovery, "_ROWS", 16)
    rows = random_rows(n, width) + 3
    first, second = np.random.default_rng(2).integers(0, n, (2, 200))
    x = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    norms = np.linalg.norm(x, axis=1)
    expected = np.zeros(200)
    scale = norms[first] * norms[second]
    dots = np.einsum("ij,ij->i", x[first], x[second])
    expected[scale > 0] = dots[scale > 0] / scale[scale > 0]
    found = Closeness(rows)(first, second)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(found).max() <= 1


def test_closeness_takes_off_what_is_common_to_all() -> None:
    rows = random_rows(500)
    shifted = (rows + np.float32(1000)).astype(np.float32)
    plain = Closeness(rows)(np.arange(250), np.arange(250, 500))
    moved = Closeness(shifted)(np.arange(250), np.arange(250, 500))
    np.testing.assert_allclose(plain, moved, atol=1e-3)


def test_a_pair_has_the_same_bits_in_any_company() -> None:
    rows = random_rows(200, 33)
    pairs = np.random.default_rng(3).integers(0, 200, (2, 150))
    together = Closeness(rows)(*pairs)
    alone = [Closeness(rows)(pairs[0, i : i + 1], pairs[1, i : i + 1])[0] for i in range(150)]
    assert together.tobytes() == np.array(alone).tobytes()
    assert Closeness(rows)(*pairs[::-1]).tobytes() == together.tobytes()


def test_the_sum_is_a_fixed_tree() -> None:
    """Whole numbers beyond 2^53 tell one order of additions from another."""
    rows = np.random.default_rng(4).integers(-(2**60), 2**60, (13, 3)).astype(np.float64)

    def tree(values: list[float]) -> float:
        while len(values) > 1:
            half = len(values) // 2
            values = [values[i] + values[half + i] for i in range(half)] + values[2 * half :]
        return values[0]

    expected = [tree(column) for column in rows.T.tolist()]
    assert discovery._tree_sum(rows).tolist() == expected
    assert discovery._tree_sum(np.asfortranarray(rows)).tolist() == expected


@pytest.mark.parametrize("shape", [(3, 4), (5, 4), (4,)])
def test_embeddings_of_another_vocabulary_are_refused(shape: tuple[int, ...]) -> None:
    found = Derivations(np.arange(4, dtype=np.int32), np.full(4, -1, np.int32), ())
    crystal = Crystal.of("abcd", np.ones(4), found)
    with pytest.raises(ValueError, match="are not of 4 tokens"):
        discover(crystal, np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        discover(crystal, np.full((4, 2), np.nan, np.float32))


# --- discovery --------------------------------------------------------------------------------

_STEMS = "walk talk cook jump play call help look work ask turn start open end move"
STEMS = _STEMS.split()
FRIENDS = ("wand", "wanding")  # in spelling only: what they mean has nothing to do with each other


def synthetic() -> tuple[Tokenizer, np.ndarray]:
    """A word vocabulary of stems, forms in -ing, -ed and -s, and a pair of false friends."""
    words = [s + e for s in STEMS for e in ("", "ing", "ed", "s")] + list(FRIENDS)
    tokenizer = Tokenizer.train("word", ["\n".join(words)], 1000)
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for place, word in enumerate(words):
        counts[tokenizer.encode(word)] = 40 + (90 - place if word in STEMS else place % 7)
    return tokenizer, counts


def meaning(crystal: Crystal, seed: int = 5) -> np.ndarray:
    """Embeddings in which the forms of a stem are close, and the false friends opposite."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((crystal.vocab_size, WIDTH))
    for stem in STEMS:
        center = random.standard_normal(WIDTH) * 4
        for ending in ("", "ing", "ed", "s"):
            token = crystal.find(stem + ending)
            rows[token] = center + random.standard_normal(WIDTH) * 0.4
    first, second = (crystal.find(word) for word in FRIENDS)
    rows[second] = -4 * rows[first]
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def spelled() -> Crystal:
    return build_crystal(*synthetic())


def roots(crystal: Crystal) -> dict[str, str]:
    return {
        text: crystal.texts[crystal.root[token]]
        for token, text in enumerate(crystal.texts)
        if text is not None
    }


def test_false_friends_fall_apart(spelled: Crystal) -> None:
    assert roots(spelled)["wanding"] == "wand", "spelling alone is fooled"
    found = discover(spelled, meaning(spelled))
    assert roots(found)["wanding"] == "wanding"
    assert all(roots(found)[stem + "ing"] == stem for stem in STEMS)
    assert found.generation == spelled.generation + 1
    assert len(set(found.numbers.tolist())) == found.vocab_size
    # the number of a root that was a product is a prime now
    token = found.find("wanding")
    assert found.factors(token) == (int(found.numbers[token]),)
    told = changes(spelled, found)
    assert (token, spelled.find("wand"), token) in told.rooted
    assert "another root" in str(told)


def test_a_pair_that_spelling_missed_is_found(spelled: Crystal) -> None:
    """The same the other way round: what was held apart comes together when it is close."""
    apart = discover(spelled, meaning(spelled))
    rows = meaning(spelled)
    first, second = (spelled.find(word) for word in FRIENDS)
    rows[second] = rows[first] * np.float32(1.1)
    together = discover(apart, rows)
    assert roots(together)["wanding"] == "wand"
    assert together.generation == 2
    assert changes(apart, together).rooted == ((second, second, first),)


def test_nothing_new_is_the_same_object(spelled: Crystal) -> None:
    rows = meaning(spelled)
    found = discover(spelled, rows)
    assert discover(found, rows) is found
    assert discover(found, rows * np.float32(2)) is found, "only angles count"


def test_the_same_bits_every_time_and_after_a_reload(spelled: Crystal, tmp_path: Path) -> None:
    rows = meaning(spelled)
    found = discover(spelled, rows)
    spelled.save(tmp_path / "crystal.json")
    again = discover(Crystal.load(tmp_path / "crystal.json"), np.asfortranarray(rows))
    assert again.sha256 == found.sha256
    assert again.generation == found.generation == 1


def test_real_text_with_learned_looking_embeddings_is_deterministic() -> None:
    text = (STDLIB / "argparse.py").read_text("utf-8")
    tokenizer = Tokenizer.train("word", [text], 1500)
    counts = np.bincount(tokenizer.encode(text), minlength=tokenizer.vocab_size)
    crystal = build_crystal(tokenizer, counts)
    rows = random_rows(crystal.vocab_size)
    found = discover(crystal, rows)
    assert found.sha256 == discover(crystal, rows.copy()).sha256
    assert len(set(found.numbers.tolist())) == found.vocab_size


def test_changes_name_affixes_gained_and_lost() -> None:
    ing, s = Affix("ing", "suffix"), Affix("s", "suffix")

    def crystal(affix: Affix | None) -> Crystal:
        derived = affix is not None
        found = Derivations(
            np.array([0, 0 if derived else 1], np.int32),
            np.array([-1, 0 if derived else -1], np.int32),
            (affix,) if affix is not None else (),
        )
        return Crystal.of(("a", "b"), np.ones(2), found)

    assert changes(crystal(ing), crystal(s)) == Changes((), ("-s",), ("-ing",))
    assert changes(crystal(None), crystal(s)) == Changes(((1, 1, 0),), ("-s",), ())
    assert str(changes(crystal(ing), crystal(s))) == (
        "0 tokens have another root; gained -s; lost -ing"
    )
