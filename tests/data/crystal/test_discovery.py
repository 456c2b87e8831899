"""Root discovery: cosines against float64 NumPy, the same bits always, and what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crystalline.data.crystal import discovery
from crystalline.data.crystal.affixes import Affix, Derivations, find_derivations
from crystalline.data.crystal.discovery import Changes, Closeness, changes, discover
from crystalline.data.crystal.tokens import Crystal
from crystalline.exact import nth_prime, prime_array

WORDS = Path(__file__).resolve().parents[2] / "golden" / "morphology" / "words.txt"
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

# Word and parent: in spelling only, and in meaning but too rare a change for spelling to tell.
FRIENDS = {" also": " so", " into": " to", " fever": " ever", " cloud": " loud", " fear": " ear"}
KIN = {
    " contemptuous": " contempt",
    " safety": " safe",
    " children": " child",
    " forgotten": " forgot",
    " fully": " full",
    " visitor": " visit",
}


@pytest.fixture(scope="module")
def spelled() -> Crystal:
    """The 5,000 most frequent words of the novels of Dickens, by spelling and counts alone."""
    lines = WORDS.read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")][:5000]
    texts = [json.loads(text) for _, text in rows]
    counts = np.array([int(count) for count, _ in rows])
    return Crystal.of(texts, counts, find_derivations(texts, counts))


@pytest.fixture(scope="module")
def meaning(spelled: Crystal) -> np.ndarray:
    """Embeddings in which families are close, and so are KIN; FRIENDS are not."""
    random = np.random.default_rng(5)
    centers = random.standard_normal((spelled.vocab_size, WIDTH)) * 3
    rows = centers[spelled.root]
    for child, parent in KIN.items():
        rows[spelled.find(child)] = rows[spelled.find(parent)]
    for child in FRIENDS:
        rows[spelled.find(child)] = random.standard_normal(WIDTH) * 3
    rows += random.standard_normal(rows.shape) * 0.5
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def found(spelled: Crystal, meaning: np.ndarray) -> Crystal:
    return discover(spelled, meaning)


def related(crystal: Crystal, pairs: dict[str, str]) -> list[str]:
    """Those words of `pairs` that are in the family of their partner."""
    tokens = {a: (crystal.find(a), crystal.find(b)) for a, b in pairs.items()}
    return [a for a, (x, y) in tokens.items() if crystal.root[x] == crystal.root[y]]


def test_false_friends_fall_apart(spelled: Crystal, found: Crystal) -> None:
    fooled = related(spelled, FRIENDS)
    assert len(fooled) >= 3, "spelling alone is fooled"
    assert related(found, FRIENDS) == []
    told = {token: (before, now) for token, before, now in changes(spelled, found).rooted}
    for word in fooled:
        token = found.find(word)
        assert told[token] == (spelled.root[token], token)
        assert spelled.factors(token) != found.factors(token) == (int(found.numbers[token]),)
    assert "another root" in str(changes(spelled, found))


def test_kin_that_spelling_missed_are_found(spelled: Crystal, found: Crystal) -> None:
    missed = set(KIN) - set(related(spelled, KIN))
    assert len(missed) >= 3, "spelling alone does not see them"
    assert set(related(found, KIN)) == set(KIN)
    for child in missed:
        token, parent = found.find(child), found.find(KIN[child])
        assert int(found.numbers[token]) % int(found.numbers[parent]) == 0


def test_without_that_evidence_they_stay_apart(spelled: Crystal, meaning: np.ndarray) -> None:
    rows = meaning.copy()
    for child in KIN:
        rows[spelled.find(child)] = random_rows(1, seed=spelled.find(child))[0] * 3
    apart = related(discover(spelled, rows), KIN)
    assert set(apart) <= set(related(spelled, KIN))


def test_a_remap_is_a_whole_new_vocabulary(spelled: Crystal, found: Crystal) -> None:
    assert (spelled.generation, found.generation) == (0, 1)
    assert found.texts == spelled.texts
    assert np.array_equal(found.counts, spelled.counts)
    assert len(set(found.numbers.tolist())) == found.vocab_size
    roots = int((found.affix < 0).sum())
    primes = sorted(int(n) for n in found.numbers[found.affix < 0])
    assert primes == prime_array(nth_prime(roots + len(found.affixes)) + 1)[-roots:].tolist()
    untouched = [t for t in range(5000) if found.root[t] == spelled.root[t]]
    assert len(untouched) > 4500


def test_nothing_new_is_the_same_object(found: Crystal, meaning: np.ndarray) -> None:
    assert discover(found, meaning) is found
    assert discover(found, meaning * np.float32(2)) is found, "only angles count"


def test_the_same_bits_every_time_and_after_a_reload(
    spelled: Crystal, found: Crystal, meaning: np.ndarray
) -> None:
    reloaded = Crystal.from_json(spelled.to_json())
    again = discover(reloaded, np.asfortranarray(meaning))
    assert again.sha256 == found.sha256


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
