"""The numbers of vocabularies: primes and products, all different, kept whole through a file."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.data.crystal.affixes import Affix, Derivations
from crystalline.data.crystal.tokens import LIMIT, Crystal, build_crystal, token_texts
from crystalline.data.tokenizer import KINDS, Tokenizer
from crystalline.errors import DataError
from crystalline.exact import factor

STDLIB = Path(os.__file__).parent
ARRAYS = ("counts", "parent", "root", "affix", "affix_primes", "numbers")

ING, S, UN = Affix("ing", "suffix"), Affix("s", "suffix"), Affix("un", "prefix")
CASE = Affix("Aa", "case")


def made(
    links: dict[str, tuple[str, Affix] | None], counts: list[int], affixes: tuple[Affix, ...]
) -> Crystal:
    """A crystal from word → (parent, affix)."""
    words = list(links)
    parent = np.arange(len(words), dtype=np.int32)
    affix = np.full(len(words), -1, np.int32)
    for token, link in enumerate(links.values()):
        if link is not None:
            parent[token], affix[token] = words.index(link[0]), affixes.index(link[1])
    return Crystal.of(words, np.array(counts), Derivations(parent, affix, affixes))


def same(a: Crystal, b: Crystal) -> bool:
    return (a.texts, a.affixes, a.generation) == (b.texts, b.affixes, b.generation) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS
    )


def check_numbers(crystal: Crystal) -> None:
    """Every number is the product that the morphology says, by an independent factorization."""
    prime = {index: int(p) for index, p in enumerate(crystal.affix_primes)}
    a, roots = len(prime), [t for t in range(crystal.vocab_size) if crystal.parent[t] == t]
    first = [sympy.prime(k) for k in range(1, a + len(roots) + 1)]
    assert list(prime.values()) == first[:a]
    by_count = sorted(roots, key=lambda t: (-crystal.counts[t], t))
    assert [int(crystal.numbers[t]) for t in by_count] == first[a:]
    assert len(set(crystal.numbers.tolist())) == crystal.vocab_size
    for token in range(crystal.vocab_size):
        chain, at = Counter[int](), token
        while crystal.parent[at] != at:
            chain[prime[int(crystal.affix[at])]] += 1
            at = int(crystal.parent[at])
        assert crystal.affix[at] == -1
        assert crystal.root[token] == at
        chain[int(crystal.numbers[at])] += 1
        assert dict(factor(int(crystal.numbers[token]))) == chain
        assert crystal.factors(token) == tuple(sorted(chain.elements()))
        assert math.prod(crystal.factors(token)) == int(crystal.numbers[token]) < LIMIT
        assert crystal.signature(token) == tuple(sorted(chain.values(), reverse=True))
        assert crystal.is_root(token) == (token == at)


# --- numbers ----------------------------------------------------------------------------------


@pytest.fixture
def run() -> Crystal:
    """The example of the specification."""
    links = {"runs": ("run", S), "run": None, "running": ("run", ING)}
    return made(links, [2, 9, 5], (ING, S))


def test_run_running_runs(run: Crystal) -> None:
    assert {text: run.factors(run.find(text)) for text in run.texts} == {
        "run": (5,),
        "running": (2, 5),
        "runs": (3, 5),
    }
    assert dict(zip(run.texts, run.numbers.tolist(), strict=True)) == {
        "run": 5,
        "running": 10,
        "runs": 15,
    }
    assert [run.texts[t] for t in run.derived(run.find("run"))] == ["running", "runs"]
    assert [run.texts[run.root[t]] for t in range(3)] == ["run"] * 3
    assert run.derived(run.find("runs")) == []
    assert [run.is_root(t) for t in range(3)] == [False, True, False]
    check_numbers(run)


def test_run_running_runs_from_text_alone() -> None:
    text = "run\n" * 50 + "running\n" * 20 + "runs\n" * 10
    tokenizer = Tokenizer.train("word", [text], 100)
    counts = np.bincount(tokenizer.encode(text), minlength=tokenizer.vocab_size)
    counts[tokenizer.encode("\n")] = 0  # or it would be the most frequent root
    crystal = build_crystal(tokenizer, counts)
    run, running, runs = (crystal.find(word) for word in ("run", "running", "runs"))
    assert crystal.numbers[[run, running, runs]].tolist() == [5, 2 * 5, 3 * 5]
    assert crystal.root[[run, running, runs]].tolist() == [run] * 3
    assert crystal.derived(run) == [running, runs]
    assert [str(affix) for affix in crystal.affixes] == ["-ing", "-s"]
    check_numbers(crystal)


def test_families_and_chains() -> None:
    links = {
        "tie": None,
        "UNTIES": ("unties", CASE),
        "unties": ("untie", S),
        "ties": ("tie", S),
        "untie": ("tie", UN),
        "cat": None,
        "cats": ("cat", S),
        "dog": None,
    }
    crystal = made(links, [5, 7, 4, 5, 8, 6, 6, 90], (S, UN, CASE))
    assert [crystal.texts[t] for t in crystal.family(2)] == [
        "tie", "untie", "UNTIES", "ties", "unties",
    ]  # fmt: skip
    assert crystal.family(7) == [7]
    assert [crystal.texts[t] for t in crystal.derived(0)] == ["untie", "ties"]
    assert crystal.affixes_of(1) == [1, 0, 2]
    # 2 -s, 3 un-, 5 Aa; then dog 7 (90 times), cat 11, tie 13
    assert crystal.numbers.tolist() == [13, 2 * 3 * 5 * 13, 2 * 3 * 13, 26, 39, 11, 22, 7]
    check_numbers(crystal)


def test_an_affix_put_on_twice_is_a_square() -> None:
    crystal = made({"a": None, "as": ("a", S), "ass": ("as", S)}, [3, 2, 1], (S,))
    assert crystal.numbers.tolist() == [3, 6, 12]
    assert crystal.signature(2) == (2, 1)
    check_numbers(crystal)


def test_equal_products_make_the_rarer_token_a_root() -> None:
    re = Affix("re", "prefix")
    links = {
        "do": None,
        "undo": ("do", UN),
        "redo": ("do", re),
        "reundo": ("undo", re),
        "unredo": ("redo", UN),
        "reundos": ("reundo", S),
        "unredos": ("unredo", S),
    }
    for common, rare in (("reundo", "unredo"), ("unredo", "reundo")):
        counts = [9 if word != rare else 1 for word in links]
        crystal = made(links, counts, (S, UN, re))
        assert crystal.is_root(crystal.find(rare))
        assert not crystal.is_root(crystal.find(common))
        # What derives from the cut token stays with it.
        assert crystal.texts[crystal.root[crystal.find(rare + "s")]] == rare
        assert crystal.texts[crystal.root[crystal.find(common + "s")]] == "do"
        check_numbers(crystal)


def test_a_product_that_would_be_too_large_makes_a_root() -> None:
    words = ["x" + "s" * n for n in range(80)]
    links = {word: (words[n - 1], S) if n else None for n, word in enumerate(words)}
    crystal = made(links, [1] * 80, (S,))
    # Roots are 3, 5, 7: 3 * 2^60 < 2^62, and the next begins a chain of its own.
    depth = [len(crystal.factors(t)) - 1 for t in range(80)]
    assert depth[:62] == [*range(61), 0]
    assert crystal.texts[crystal.root[79]] == words[61]
    check_numbers(crystal)


def test_an_affix_that_loses_its_last_token_gets_no_prime() -> None:
    twin = Affix("s", "prefix")
    links = {"a": None, "as": ("a", S), "b": None, "bing": ("b", ING)}
    crystal = made(links, [4, 3, 2, 1], (twin, S, UN, ING))
    assert crystal.affixes == (S, ING)
    assert crystal.numbers.tolist() == [5, 10, 7, 21]
    check_numbers(crystal)


def test_a_vocabulary_without_derivations_is_primes_by_count() -> None:
    crystal = made({"a": None, "b": None, "c": None}, [5, 9, 5], ())
    assert crystal.numbers.tolist() == [3, 2, 5]
    assert crystal.affix_primes.size == 0
    check_numbers(crystal)


def test_symmetry_groups_go_round() -> None:
    crystal = made(dict.fromkeys("abcdefghijklmnop"), list(range(16)), ())
    assert [crystal.group(t) for t in range(16)] == [*range(12), 0, 1, 2, 3]


@pytest.mark.parametrize("parent", [[1, 2, 0], [0, 5, 2], [0, -1, 2]])
def test_a_morphology_that_is_no_forest_is_refused(parent: list[int]) -> None:
    found = Derivations(np.array(parent, np.int32), np.zeros(3, np.int32), (S,))
    with pytest.raises(ValueError, match=r"circle|not one of"):
        Crystal.of(("a", "b", "c"), np.ones(3), found)


def test_columns_of_different_vocabularies_are_refused() -> None:
    found = Derivations(np.zeros(1, np.int32), np.full(1, -1, np.int32), ())
    with pytest.raises(ValueError, match="not of one vocabulary"):
        Crystal.of(("a", "b"), np.ones(2), found)
    tokenizer = Tokenizer.train("char", ["ab"], 0)
    with pytest.raises(ValueError, match="are not of 2 tokens"):
        build_crystal(tokenizer, np.ones(3, np.int64))


@st.composite
def forests(draw: st.DrawFn) -> Crystal:
    """Any morphology at all, chains and equal products included."""
    n = draw(st.integers(1, 40))
    affixes = tuple(Affix(chr(97 + i), "suffix") for i in range(draw(st.integers(1, 5))))
    order = draw(st.permutations(range(n)))
    parent, affix = np.arange(n, dtype=np.int32), np.full(n, -1, np.int32)
    for place, token in enumerate(order):
        if place and draw(st.booleans()):
            parent[token] = order[draw(st.integers(0, place - 1))]
            affix[token] = draw(st.integers(0, len(affixes) - 1))
    counts = np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    texts = [draw(st.none() | st.text(max_size=3)) for _ in range(n)]
    return Crystal.of(texts, counts, Derivations(parent, affix, affixes), generation=n % 3)


@settings(max_examples=150)
@given(forests())
def test_any_morphology_factors_back_and_survives_its_text(crystal: Crystal) -> None:
    check_numbers(crystal)
    again = Crystal.from_json(crystal.to_json())
    assert same(crystal, again)
    assert again.sha256 == crystal.sha256
    children = sorted(c for t in range(crystal.vocab_size) for c in crystal.derived(t))
    assert children == [t for t in range(crystal.vocab_size) if not crystal.is_root(t)]


def test_it_cannot_be_changed(run: Crystal) -> None:
    for name in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(run, name)[0] = 1


# --- real vocabularies --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_vocabulary_of_real_text(kind: str, tmp_path: Path) -> None:
    text = (STDLIB / "argparse.py").read_text("utf-8")
    tokenizer = Tokenizer.train(kind, [text], 1500)
    counts = np.bincount(tokenizer.encode(text), minlength=tokenizer.vocab_size)
    crystal = build_crystal(tokenizer, counts)
    check_numbers(crystal)
    assert crystal.generation == 0
    assert crystal.counts.tolist() == counts.tolist()
    assert crystal.vocab_size == tokenizer.vocab_size
    if tokenizer.eot_id is not None:
        assert crystal.texts[tokenizer.eot_id] is None
        assert crystal.is_root(tokenizer.eot_id)
    if kind in ("word", "bpe"):
        assert len(crystal.affixes) > 0
        assert any(len(crystal.family(t)) > 2 for t in range(crystal.vocab_size))
    crystal.save(tmp_path / "crystal.json")
    again = Crystal.load(tmp_path / "crystal.json")
    assert same(crystal, again)
    assert again.sha256 == crystal.sha256
    assert again.to_json() == crystal.to_json()
    assert build_crystal(tokenizer, counts).sha256 == crystal.sha256
    counts[counts.argmax()] += 1
    assert build_crystal(tokenizer, counts).sha256 != crystal.sha256


def test_texts_are_those_of_whole_characters_and_no_special_token() -> None:
    tokenizer = Tokenizer.train("bpe", ["naïve naïve 日本 日本 <unk>"] * 3, 270)
    for token, text in enumerate(token_texts(tokenizer)):
        if token == tokenizer.eot_id:
            assert text is None
        elif text is None:
            with pytest.raises(UnicodeDecodeError):
                tokenizer.token_bytes(token).decode()
        else:
            assert text == tokenizer.decode([token]) != ""
    words = Tokenizer.train("word", ["one two <unk>"], 100)
    assert token_texts(words)[:2] == [None, None]
    assert " two" in token_texts(words)


# --- the file -----------------------------------------------------------------------------------


def test_the_file_can_be_read_by_people(run: Crystal, tmp_path: Path) -> None:
    run.save(tmp_path / "crystal.json")
    text = (tmp_path / "crystal.json").read_text()
    assert '\n["running", 5, 10, 1, 0],\n' in text or '\n["running", 5, 10, 1, 0]\n' in text
    document = json.loads(text)
    assert document["columns"] == ["text", "count", "number", "parent", "affix"]
    assert document["affixes"] == [["suffix", "ing", 2], ["suffix", "s", 3]]
    assert document["sha256"] == run.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["crystal.json"]


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"running", 5', '"running", 6', "checksum"),
        ('"running"', '"runninG"', "checksum"),
        ('10, 1, 0', '20, 1, 0', "impossible"),
        ('"suffix"', '"prefix"', "checksum"),
        ('"generation": 0', '"generation": 1', "checksum"),
        ('"sha256": "', '"sha256": "0', "checksum"),
        ('"running", 5, ', '"running", ', "a value is missing"),
        ('10, 1, 0', '10, 7, 0', "a value is missing"),
        ('10, 1, 0', '10, 1, null', "a value is missing"),
        ('"generation"', '"generaxion"', "a value is missing"),
        ('10, 1, 0', f'{2**70}, 1, 0', "a number of 22 digits"),
        ('"version": 1', '"version": 99', "has version 99; this program reads 1"),
        ('crystalline vocabulary', 'something', "is no crystal.json"),
        ('"tokens": [', '"tokens": ', "not valid JSON"),
        ("\n}\n", "", "not valid JSON"),
    ],
)  # fmt: skip
def test_damage_is_one_clear_sentence(
    run: Crystal, tmp_path: Path, old: str, new: str, match: str
) -> None:
    path = tmp_path / "crystal.json"
    run.save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=match) as caught:
        Crystal.load(path)
    assert str(path) in caught.value.message
    assert caught.value.advice


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('10, 1, 0', '20, 1, 0'),  # not the product
        ('10, 1, 0', '10, 1, -1'),  # derives, and has no affix
        ('10, 1, 0', '10, 1, -2'),
        ('10, 1, 0', '10, 1, 5'),
        ('"running", 5', '"running", -5'),
        ('"suffix", "ing", 2', '"suffix", "ing", 0'),
        ('"suffix", "ing"', '"nonsense", "ing"'),
        ('"running"', '7'),
        ('"running"', '"\\ud800"'),
        ('"generation": 0', '"generation": -1'),
        ('"generation": 0', '"generation": "0"'),
    ],
)  # fmt: skip
def test_a_well_signed_forgery_is_not_believed(
    run: Crystal, tmp_path: Path, old: str, new: str
) -> None:
    text = run.to_json()
    assert old in text
    body = text.partition(f'"sha256": "{run.sha256}",\n')[2].removesuffix("\n}\n")
    forged = body.replace(old, new, 1)
    sha256 = hashlib.sha256(forged.encode()).hexdigest()
    path = tmp_path / "crystal.json"
    path.write_text(text.replace(body, forged).replace(run.sha256, sha256))
    with pytest.raises(DataError, match="impossible"):
        Crystal.load(path)


def test_a_long_chain_of_derivations_is_refused_at_once() -> None:
    """Following it would take the square of its length."""
    rows = [[f"t{n}", 1, 2, max(0, n - 1), 0 if n else -1] for n in range(50_000)]
    head = {"format": "crystalline vocabulary", "version": 1, "sha256": "0" * 64}
    document = head | {"generation": 0, "affixes": [["suffix", "s", 3]], "tokens": rows}
    began = time.perf_counter()
    with pytest.raises(DataError, match="impossible"):
        Crystal.from_json(json.dumps(document))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"3", b"\xff\xfe", b'{"format": 3}'])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "crystal.json").write_bytes(content)
    with pytest.raises(DataError):
        Crystal.load(tmp_path / "crystal.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json cannot be read \(No such file"):
        Crystal.load(tmp_path / "gone.json")
