"""Tables of neighbors against brute force in Python's integers; their cache; their threads."""

from __future__ import annotations

import json
import logging
import math
import threading
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import neighbors as kernel
from crystalline.data.crystal import neighbors
from crystalline.data.crystal.affixes import Affix, Derivations, find_derivations
from crystalline.data.crystal.neighbors import NeighborTable, load_or_build, neighbor_table
from crystalline.data.crystal.tokens import Crystal
from crystalline.exact import next_prime, prime_array, spiral_place

WORDS = Path(__file__).parents[2] / "golden" / "morphology" / "words.txt"


@lru_cache(maxsize=32)
def random_crystal(V: int, share: float, seed: int = 0, affixes: int = 7) -> Crystal:
    """About `share` of the tokens derive from one before them, in chains of any depth."""
    rng = np.random.default_rng((V, seed))
    parent = np.arange(V, dtype=np.int32)
    affix = np.full(V, -1, np.int32)
    derived = np.flatnonzero(rng.random(V) < share)[1:]
    parent[derived] = (rng.random(derived.size) * derived).astype(np.int32)
    affix[derived] = (rng.random(derived.size) ** 2 * affixes).astype(np.int32)
    names = tuple(Affix("abcdefghijklmnopqrstuvwxyz"[i], "suffix") for i in range(affixes))
    texts = tuple(f"t{i}" for i in range(V))
    return Crystal.of(texts, rng.integers(0, 50, V), Derivations(parent, affix, names))


@lru_cache(maxsize=1)
def real_crystal() -> Crystal:
    lines = WORDS.read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")][:2500]
    counts = np.array([count for count, _ in rows], np.int64)
    words = [json.loads(word) for _, word in rows]
    return Crystal.of(words, counts, find_derivations(words, counts))


def crystal_of_primes(primes: list[int]) -> Crystal:
    """Roots only, with these numbers."""
    V = len(primes)
    return Crystal(
        texts=tuple(map(str, primes)),
        counts=np.arange(V, dtype=np.int64),
        parent=np.arange(V, dtype=np.int32),
        root=np.arange(V, dtype=np.int32),
        affix=np.full(V, -1, np.int32),
        affixes=(),
        affix_primes=np.empty(0, np.uint64),
        numbers=np.array(primes, np.uint64),
        generation=0,
    )


@cache
def place(number: int) -> tuple[int, int]:
    return spiral_place(number)


def similarity(a: int, b: int) -> float:
    """S in Python's own arithmetic."""
    (ax, ay), (bx, by) = place(a), place(b)
    distance = math.sqrt((ax - bx) ** 2 + (ay - by) ** 2)
    return 0.7 * (math.gcd(a, b) / max(a, b)) + 0.3 / (1.0 + distance)


def brute_force(crystal: Crystal, token: int, k: int) -> list[tuple[int, float]]:
    numbers = crystal.numbers.tolist()
    others = [b for b in range(len(numbers)) if b != token]
    scored = [(-similarity(numbers[token], numbers[b]), b) for b in others]
    return [(b, -score) for score, b in sorted(scored)[:k]]


def assert_right(crystal: Crystal, k: int, tokens: npt.NDArray[np.intp]) -> NeighborTable:
    table = neighbor_table(crystal, k)
    for token in tokens.tolist():
        expected = brute_force(crystal, token, k)
        width = len(expected)
        assert table.ids[token, :width].tolist() == [b for b, _ in expected], token
        scores = np.array([score for _, score in expected])
        np.testing.assert_allclose(table.weights[token, :width], scores / scores.sum(), rtol=1e-6)
        assert not table.weights[token, width:].any()
    return table


def assert_is_a_table(table: NeighborTable, V: int, k: int) -> None:
    assert (table.ids.shape, table.ids.dtype) == ((V, k), np.int32)
    assert (table.weights.shape, table.weights.dtype) == ((V, k), np.float32)
    assert 0 <= table.ids.min() <= table.ids.max() < V
    assert (table.weights >= 0).all()
    assert (np.diff(table.weights, axis=1) <= 0).all(), "the largest first"
    total = table.weights.astype(np.float64).sum(axis=1)
    assert (np.isclose(total, 1.0, rtol=0, atol=1e-6) | (total == 0)).all()
    if V > 1:
        assert (table.ids != np.arange(V)[:, None]).all(), "nobody is his own neighbor"


# --- by primes -----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 16])
@pytest.mark.parametrize(("V", "share"), [(2, 0.5), (3, 0.9), (40, 0.0), (300, 0.5), (400, 0.9)])
def test_the_table_is_that_of_brute_force(V: int, share: float, k: int) -> None:
    crystal = random_crystal(V, share)
    table = assert_right(crystal, k, np.arange(V))
    assert_is_a_table(table, V, k)


def test_a_vocabulary_of_several_blocks() -> None:
    """Where most tokens are passed over: rows of many kinds, in 6 blocks of tokens and of rows."""
    crystal = random_crystal(3000, 0.6, seed=1, affixes=20)
    assert int(crystal.numbers.max()) > 1 << 40
    extremes = np.argsort(crystal.numbers)[[0, 1, 2, 10, 100, -100, -10, -2, -1]]
    shared = np.random.default_rng(2).integers(0, 3000, 60)
    assert_right(crystal, 16, np.concatenate([extremes, shared]))


def test_the_words_of_a_real_corpus() -> None:
    crystal = real_crystal()
    assert (crystal.affix >= 0).sum() > 200
    derived = np.flatnonzero(crystal.affix >= 0)[::20]
    table = assert_right(crystal, 16, np.concatenate([derived, np.arange(0, 2500, 61)]))
    # Neighborhood is not mutual: that a is near b says nothing of the k nearest to a.
    mutual = (table.ids[table.ids] == np.arange(2500)[:, None, None]).any(axis=2)
    assert 0.2 < mutual.mean() < 0.999


def test_numbers_as_large_as_they_can_be() -> None:
    """Places 2^31 apart, the squares of which only just fit; and close ones beside them."""
    rng = np.random.default_rng(3)
    starts = [1, 2**20, 2**61, 2**62 - 2**33, (2**31 - 1) ** 2, 2**62 - 2000]
    primes: list[int] = []
    for start in starts + rng.integers(1, 2**62, 100).tolist():
        for _ in range(3):
            primes.append(next_prime(max([start, *[p for p in primes if 0 <= p - start < 1000]])))
    primes = sorted({p for p in primes if p < 2**62})
    rng.shuffle(primes)
    assert max(primes) > 2**62 - 2000
    assert_right(crystal_of_primes(primes), 5, np.arange(0, len(primes), 3))


def test_equal_similarities_come_by_id() -> None:
    """Below a number, all have the same larger one, and distances repeat."""
    primes = prime_array(700).tolist()
    np.random.default_rng(5).shuffle(primes)
    crystal, ties, cut = crystal_of_primes(primes), 0, 0
    assert_right(crystal, 6, np.arange(len(primes)))
    for token in range(len(primes)):
        scores = [score for _, score in brute_force(crystal, token, 7)]
        ties += len(set(scores[:6])) < 6
        cut += scores[5] == scores[6]
    assert ties > 10
    assert cut > 1


def test_exact_rational_arithmetic_would_choose_the_same_up_to_rounding() -> None:
    """The float64 S stands within 4 units of 2^-53 of the true one."""
    crystal = real_crystal()
    numbers = crystal.numbers.tolist()
    rng = np.random.default_rng(4)
    for a, b in rng.integers(0, 2500, (300, 2)).tolist():
        if a == b:
            continue
        (ax, ay), (bx, by) = place(numbers[a]), place(numbers[b])
        root = Fraction(math.isqrt(((ax - bx) ** 2 + (ay - by) ** 2) << 200), 1 << 100)
        ratio = Fraction(math.gcd(numbers[a], numbers[b]), max(numbers[a], numbers[b]))
        true = Fraction(7, 10) * ratio + Fraction(3, 10) / (1 + root)
        got = Fraction(float(neighbors.similarities(numbers[a], numbers[b])))
        assert abs(got - true) <= 4 * true / 2**53


def test_similarities_are_those_of_the_table() -> None:
    crystal = random_crystal(300, 0.5)
    table = neighbor_table(crystal, 299)
    pairs = neighbors.similarities(crystal.numbers[:, None], crystal.numbers[table.ids])
    assert (np.diff(pairs, axis=1) <= 0).all()
    np.testing.assert_array_equal(
        table.weights, (pairs / pairs.sum(axis=1, keepdims=True)).astype(np.float32)
    )
    whole = neighbors.similarities(crystal.numbers[:, None], crystal.numbers)
    assert (np.diag(whole) == 1.0).all()
    assert (whole == whole.T).all()
    assert whole[3, 5] == similarity(int(crystal.numbers[3]), int(crystal.numbers[5]))


def test_the_table_does_not_depend_on_threads() -> None:
    crystal = random_crystal(3000, 0.6, seed=1, affixes=20)
    expected = neighbor_table(crystal, 7, threads=1)
    for threads in (2, 5, None):
        table = neighbor_table(crystal, 7, threads=threads)
        assert table.ids.tobytes() == expected.ids.tobytes()
        assert table.weights.tobytes() == expected.weights.tobytes()


def test_rows_are_filled_where_they_are_asked_for() -> None:
    V, k = 40, 3
    numbers = random_crystal(V, 0.0).numbers
    places = np.array([place(n) for n in numbers.tolist()], np.float64)
    order = np.arange(V, dtype=np.int32)
    ids, scores = np.full((V, k), -7, np.int32), np.full((V, k), np.nan)
    x, y = (np.ascontiguousarray(column) for column in places.T)
    arguments = (numbers, np.ones(V, np.uint64), x, y, order, order, order, order + 1)
    kernel.fill(*arguments, 5, 9, ids, scores)
    assert (ids[5:9] == neighbor_table(random_crystal(V, 0.0), k).ids[5:9]).all()
    untouched = np.r_[0:5, 9:V]
    assert (ids[untouched] == -7).all()
    assert np.isnan(scores[untouched]).all()
    with pytest.raises(ValueError, match="rows 5 to 41 of 40 tokens, 3 neighbors"):
        kernel.fill(*arguments, 5, 41, ids, scores)
    with pytest.raises(ValueError, match="y has 39 elements, expected 40"):
        kernel.fill(*arguments[:3], y[1:], *arguments[4:], 0, 1, ids, scores)
    with pytest.raises(ValueError, match="token 1 has an impossible number"):
        kernel.fill(numbers << np.uint64(58), *arguments[1:], 0, 1, ids, scores)
    with pytest.raises(ValueError, match="token 3 has an impossible number or family"):
        kernel.fill(*arguments[:5], np.where(order == 3, 40, order).astype(np.int32),
                    *arguments[6:], 0, 1, ids, scores)  # fmt: skip


def test_a_vocabulary_smaller_than_k_fills_up_with_nothing() -> None:
    for V in (1, 2, 5):
        for kind in ("primes", "morphology"):
            assert_is_a_table(neighbor_table(random_crystal(V, 0.0), 6, similarity=kind), V, 6)
    table = neighbor_table(random_crystal(5, 0.0), 6)
    assert (table.weights[:, :4] > 0).all()
    assert (table.weights[:, 4:] == 0).all()
    assert neighbor_table(random_crystal(1, 0.0), 2) == (pytest.approx(0), pytest.approx(0))


def test_progress_counts_the_rows_in_the_calling_thread() -> None:
    seen: list[tuple[str, int, int]] = []
    here = threading.current_thread()

    def progress(stage: str, done: int, total: int) -> None:
        assert threading.current_thread() is here
        seen.append((stage, done, total))

    neighbor_table(random_crystal(3000, 0.6, seed=1, affixes=20), 2, progress=progress)
    assert len(seen) == 6
    assert seen[-1] == ("Finding neighbors", 3000, 3000)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_an_interrupt_ends_the_threads() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        neighbor_table(random_crystal(3000, 0.6, seed=1, affixes=20), 2, progress=interrupt)
    assert not [t for t in threading.enumerate() if t.name.startswith("neighbors")]


def test_impossible_arguments() -> None:
    with pytest.raises(ValueError, match="k is 0: at least one neighbor is needed"):
        neighbor_table(random_crystal(5, 0.0), 0)
    with pytest.raises(ValueError, match="the similarity is 'sound', not"):
        neighbor_table(random_crystal(5, 0.0), 1, similarity="sound")  # type: ignore[arg-type]


# --- by morphology -------------------------------------------------------------------------


def test_the_family_by_counts() -> None:
    found = Derivations(
        parent=np.array([0, 0, 1, 3, 0, 5, 5], np.int32),
        affix=np.array([-1, 0, 1, -1, 1, -1, 0], np.int32),
        affixes=(Affix("ing", "suffix"), Affix("s", "suffix")),
    )
    texts = ("run", "running", "runnings", "the", "runs", "walk", "walking")
    crystal = Crystal.of(texts, np.array([8, 3, 0, 99, 3, 4, 1]), found)
    table = neighbor_table(crystal, 3, similarity="morphology")
    assert_is_a_table(table, 7, 3)
    expected = {  # token -> neighbors and their counts, at least 1
        0: [(1, 3), (4, 3), (2, 1)],
        1: [(0, 8), (4, 3), (2, 1)],
        2: [(0, 8), (1, 3), (4, 3)],
        3: [],
        4: [(0, 8), (1, 3), (2, 1)],
        5: [(6, 1)],
        6: [(5, 4)],
    }
    for token, family in expected.items():
        size, total = len(family), sum(count for _, count in family)
        assert table.ids[token, :size].tolist() == [other for other, _ in family]
        shares = [count / total for _, count in family]
        np.testing.assert_allclose(table.weights[token, :size], shares, rtol=1e-7)
        assert not table.weights[token, size:].any()


def test_large_families_keep_the_most_frequent() -> None:
    crystal = random_crystal(400, 0.9)
    table = neighbor_table(crystal, 4, similarity="morphology")
    assert_is_a_table(table, 400, 4)
    counts = np.maximum(crystal.counts, 1)
    for token in range(400):
        family = [b for b in crystal.family(token) if b != token]
        family.sort(key=lambda b: (-counts[b], b))
        size = min(len(family), 4)
        assert table.ids[token, :size].tolist() == family[:4]
        assert np.count_nonzero(table.weights[token]) == size


# --- the cache -----------------------------------------------------------------------------


def same(a: NeighborTable, b: NeighborTable) -> bool:
    return all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(a, b, strict=True)
    )


def forbid_building(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NeighborTable:
        raise AssertionError("built again")

    monkeypatch.setattr(neighbors, "neighbor_table", refuse)


@pytest.mark.parametrize("kind", ["primes", "morphology"])
def test_a_table_is_read_back(
    kind: neighbors.Similarity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crystal = random_crystal(300, 0.5)
    built = load_or_build(tmp_path, crystal, 5, kind)
    assert same(built, neighbor_table(crystal, 5, similarity=kind))
    forbid_building(monkeypatch)
    read = load_or_build(tmp_path, random_crystal(300, 0.5), 5, kind)
    assert same(read, built)
    assert read.ids.flags.writeable


def test_every_key_has_its_own_file(tmp_path: Path) -> None:
    crystal, other = random_crystal(300, 0.5), random_crystal(300, 0.5, seed=1)
    for made, k, kind in (
        (crystal, 5, "primes"), (crystal, 6, "primes"), (crystal, 5, "morphology"),
        (other, 5, "primes"),
    ):  # fmt: skip
        table = load_or_build(tmp_path, made, k, kind)
        assert same(table, neighbor_table(made, k, similarity=kind))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "longer", "empty", "other"])
def test_damage_is_noticed_and_mended(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crystal = random_crystal(300, 0.5)
    built = load_or_build(tmp_path, crystal, 5)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = {
        "cut": whole[:-7],
        "flip": whole[:-90] + bytes([whole[-90] ^ 1]) + whole[-89:],
        "longer": whole + b"\0",
        "empty": b"",
        "other": whole.replace(b'"k": 5', b'"k": 6'),
    }[damage]
    assert damaged != whole
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING, "crystalline"):
        assert same(load_or_build(tmp_path, crystal, 5), built)
    assert "made again" in caplog.text
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_used_costs_only_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crystal = random_crystal(300, 0.5)
    built = neighbor_table(crystal, 5)
    with caplog.at_level(logging.WARNING, "crystalline"):
        assert same(load_or_build(tmp_path / "missing", crystal, 5), built)
        assert "will be made again next time" in caplog.text
        load_or_build(tmp_path, crystal, 5)
        (path,) = tmp_path.iterdir()
        path.unlink()
        path.mkdir()
        assert same(load_or_build(tmp_path, crystal, 5), built)


def test_many_at_once_read_whole_tables(tmp_path: Path) -> None:
    crystal = random_crystal(300, 0.5)
    expected = neighbor_table(crystal, 5)
    found: list[NeighborTable] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_or_build(tmp_path, crystal, 5)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(same(table, expected) for table in found)
    assert len(list(tmp_path.iterdir())) == 1
