"""Nearest tokens equal brute force in exact arithmetic, ties and near-ties included."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.exact import BigFixed, BigFixedArray, nth_prime, prime_array
from crystalline.exact.lattice import LatticeBasis
from crystalline.pure import CrystallineEmbeddings, TokenIndex
from crystalline.pure.coordinates import FRAC_BITS, from_mantissas
from crystalline.pure.nearest import MOST_CELL_DIMENSIONS
from tests.oracles import tokens as oracle


def embed(count: int, dimension: int = 3, basis: Any = None) -> CrystallineEmbeddings:
    tokens = CrystallineEmbeddings(dimension, basis)
    primes = prime_array(nth_prime(count) + 1).tolist()
    tokens.add_tokens([f"t{i}" for i in range(count)], primes)
    return tokens


def places(tokens: CrystallineEmbeddings) -> list[list[Fraction]]:
    return [[c.as_fraction() for c in token.coordinates] for token in tokens]


@pytest.mark.parametrize("point", [(0, 0, 0), (3, -4, 0.5), (-2.5, 1.5, -1), (100, -1000, 7)])
def test_nearest_and_five_of_twenty(point: tuple[float, ...]) -> None:
    tokens = embed(20)
    exact = [Fraction(x) for x in point]
    found = tokens.k_nearest(point, 5)
    assert [n.token.id for n in found] == oracle.nearest(places(tokens), exact, 5)
    assert tokens.nearest(point) == found[0]
    for n in found:
        pairs = zip(places(tokens)[n.token.id], exact, strict=True)
        square = sum((a - b) ** 2 for a, b in pairs)
        assert n.squared_distance.as_fraction() == square
        assert abs(n.distance.as_fraction() ** 2 - square) < Fraction(1, 2**150)


def test_ten_thousand_random_queries_of_a_thousand_tokens() -> None:
    tokens = embed(1000)
    reach = np.array([60, 60, 1.5])
    queries = np.random.default_rng(20).uniform(-reach, reach, (10_000, 3))
    want = oracle.nearest_of_many(places(tokens), queries)
    assert (tokens.nearest_many(queries) == want).all()
    assert len(set(want.tolist())) > 900


def test_ten_thousand_queries_that_are_often_ties() -> None:
    """In the plane all tokens lie at integers; from half-integers many are equally far."""
    tokens = embed(1000, 2, [[3, 1], [-1, 2]])
    queries = np.random.default_rng(4).integers(-110, 110, (10_000, 2))
    whole = 2 * tokens.positions.to_floats().astype(np.int64)
    squares = ((queries[:, None] - whole[None]) ** 2).sum(axis=2)
    want = squares.argmin(axis=1)  # the first of equals
    ties = ((squares == squares.min(axis=1)[:, None]).sum(axis=1) > 1).sum()
    assert ties > 1000
    assert (tokens.nearest_many(queries / 2) == want).all()
    k = np.argsort(squares, axis=1, kind="stable")[:, :7]
    assert (tokens.k_nearest_many(queries / 2, 7) == k).all()


def test_single_queries_equal_the_batch() -> None:
    tokens = embed(300)
    queries = np.random.default_rng(8).normal(0, 15, (200, 3))
    many = tokens.k_nearest_many(queries, 4)
    for query, row in zip(queries, many, strict=True):
        assert [n.token.id for n in tokens.k_nearest(query, 4)] == row.tolist()
    assert (tokens.nearest_many(queries) == many[:, 0]).all()
    assert tokens.nearest_many(np.zeros((0, 3))).shape == (0,)
    assert tokens.nearest_many([]).shape == (0,)


def test_every_token_is_nearest_to_its_own_place() -> None:
    tokens = embed(1000)
    assert (tokens.nearest_many(tokens.positions) == np.arange(1000)).all()
    assert tokens.nearest(tokens[999].coordinates).squared_distance == 0


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 8, 9, 16])
def test_all_dimensions(dimension: int) -> None:
    assert 8 <= MOST_CELL_DIMENSIONS < 9
    tokens = embed(100, dimension)
    rng = np.random.default_rng(dimension)
    queries = rng.normal(0, 10, (40, dimension))
    exact = places(tokens)
    for query, row in zip(queries, tokens.k_nearest_many(queries, 3), strict=True):
        assert row.tolist() == oracle.nearest(exact, [Fraction(x) for x in query.tolist()], 3)


BASES = {
    "skew": [[1, 0, 0], [97, 1, 0], [-31, 55, 1]],
    "fine": [[Fraction(1, 64), 0, 0], [0, Fraction(1, 128), 0], [0, 0, Fraction(3, 64)]],
    "coarse": [[40, 3, 0], [1, 50, 0], [0, 0, 70]],
    "uneven": [[2**40, 0, 0], [0, 1, 0], [1, 0, Fraction(1, 2**30)]],
}


@pytest.mark.parametrize("name", BASES)
def test_the_basis_changes_no_answer(name: str) -> None:
    tokens = embed(500)
    queries = np.random.default_rng(2).uniform(-40, 40, (500, 3))
    want = tokens.k_nearest_many(queries, 2)
    tokens.set_basis(BASES[name])
    assert (tokens.k_nearest_many(queries, 2) == want).all()
    tokens.optimize_basis()
    assert (tokens.k_nearest_many(queries, 2) == want).all()


def test_far_queries() -> None:
    tokens = embed(50)
    exact = places(tokens)
    for query in itertools.product([2**62, -(2**50) - 0.5, 3], repeat=3):
        want = oracle.nearest(exact, [Fraction(x) for x in query], 50)
        assert [n.token.id for n in tokens.k_nearest(query, 50)] == want
    with pytest.raises(OverflowError):
        tokens.nearest([2**63, 0, 0])


UNIT = 1 << FRAC_BITS


def index_of(rows: Sequence[Sequence[int]]) -> TokenIndex:
    d = len(rows[0])
    identity = LatticeBasis([[int(i == j) for j in range(d)] for i in range(d)])
    return TokenIndex(from_mantissas(rows, d), identity)


def brute(rows: Sequence[Sequence[int]], query: Sequence[int], k: int) -> list[int]:
    squares = [sum((a - b) ** 2 for a, b in zip(r, query, strict=True)) for r in rows]
    return sorted(range(len(rows)), key=lambda i: (squares[i], i))[:k]


def test_places_that_no_double_tells_apart() -> None:
    """A hundred points within 2^-180 of each other, a thousand away from the query."""
    rng = np.random.default_rng(3)
    jitter = rng.integers(-2000, 2000, (100, 3)).tolist()
    rows = [[1000 * UNIT + a, 17 * UNIT + b, c] for a, b, c in jitter]
    index = index_of(rows)
    query = [0, 1, 2]
    ((found, _),) = index.nearest(from_mantissas([query], 3), 10)
    assert found == brute(rows, query, 10)
    assert index.nearest_rows(from_mantissas([query], 3), 1).tolist() == [[found[0]]]


@pytest.mark.parametrize("bits", [30, 45, 52, 60])
def test_places_far_out_and_close_together(bits: int) -> None:
    """Doubles order them wrongly: their rounding out there is no longer small at all."""
    rng = np.random.default_rng(bits)
    spread = (1 << max(bits - 46, 0)) * UNIT
    rows = [
        [(UNIT << bits) + round(spread * x) for x in row]
        for row in rng.normal(size=(300, 3)).tolist()
    ]
    queries = [
        [(UNIT << bits) + round(spread * x) for x in row]
        for row in rng.normal(size=(50, 3)).tolist()
    ]
    index = index_of(rows)
    found = index.nearest_rows(from_mantissas(queries, 3), 4)
    assert found.tolist() == [brute(rows, query, 4) for query in queries]
    nearest = index.nearest_rows(from_mantissas(queries, 3), 1)
    assert (nearest[:, 0] == found[:, 0]).all()


def test_all_on_a_sphere() -> None:
    """Equally far points come by their row, however many they are."""
    corners = list(itertools.product([UNIT, -UNIT], repeat=6))
    corners = [corners[i] for i in np.random.default_rng(1).permutation(64)]
    index = index_of(corners)
    assert index.nearest_rows(from_mantissas([[0] * 6], 6), 64).tolist() == [list(range(64))]
    assert index.nearest_rows(from_mantissas([[0] * 6], 6), 1).tolist() == [[0]]


@settings(max_examples=150)
@given(st.data())
def test_random_places(data: st.DataObject) -> None:
    d = data.draw(st.integers(1, 4))
    # Multiples of a half, and steps of a unit around them: ties and near-ties.
    entry = st.builds(
        lambda half, units: half * (UNIT // 2) + units, st.integers(-6, 6), st.integers(-1, 1)
    )
    point = st.lists(entry, min_size=d, max_size=d)
    rows = data.draw(st.lists(point, min_size=1, max_size=60))
    queries = data.draw(st.lists(point, min_size=1, max_size=5))
    k = data.draw(st.integers(1, len(rows)))
    index = index_of(rows)
    found = index.nearest(from_mantissas(queries, d), k)
    for query, (ids, squares) in zip(queries, found, strict=True):
        assert ids == brute(rows, query, k)
        want = [sum((a - b) ** 2 for a, b in zip(rows[i], query, strict=True)) for i in ids]
        assert squares == want
    rows_only = index.nearest_rows(from_mantissas(queries, d), k)
    assert rows_only.tolist() == [ids for ids, _ in found]


def test_points_may_be_any_numbers() -> None:
    tokens = embed(30)
    want = tokens.nearest([0.5, -3, 0.25]).token
    for point in (
        [Fraction(1, 2), -3, BigFixed(Fraction(1, 4), 2)],
        BigFixedArray.of([0.5, -3, 0.25]),
        np.array([0.5, -3, 0.25]),
        ["0.5", "-3", "0.25"],
    ):
        assert tokens.nearest(point).token is want


def test_cache_and_statistics() -> None:
    tokens = embed(40)
    assert tokens.statistics.lookups == 0
    assert tokens.statistics.mean_lookup_s == 0
    first = tokens.nearest([1, 2, 3])
    again = tokens.nearest([1.0, 2.0, 3.0])
    assert first == again
    assert (tokens.statistics.lookups, tokens.statistics.cache_hits) == (2, 1)
    tokens.k_nearest([1, 2, 3], 2)
    tokens.nearest_many(np.zeros((10, 3)))
    assert (tokens.statistics.lookups, tokens.statistics.cache_hits) == (13, 1)
    assert 0 < tokens.statistics.mean_lookup_s < 1
    # What changes empties the cache: the new token is nearer than any.
    point = tokens[first.token.id].coordinates
    assert tokens.nearest([2, -1, 0]).token.number != 10
    tokens.add_token("ten", 10)
    assert tokens.nearest([2, -1, 0]).token.number == 10
    assert tokens.nearest(point).token == first.token


def test_the_cache_is_bounded() -> None:
    tokens = embed(5)
    for i in range(1100):
        tokens.nearest([i, 0, 0])
    assert len(tokens._cache) == 1024
    hits = tokens.statistics.cache_hits
    tokens.nearest([1099, 0, 0])
    tokens.nearest([0, 0, 0])
    assert tokens.statistics.cache_hits == hits + 1


def test_answers_in_the_cache_are_not_the_callers() -> None:
    tokens = embed(5)
    tokens.k_nearest([0, 0, 0], 2).clear()
    assert len(tokens.k_nearest([0, 0, 0], 2)) == 2


def test_bad_input() -> None:
    tokens = embed(3)
    with pytest.raises(ValueError, match="the 0 nearest of 3 tokens do not exist"):
        tokens.k_nearest([0, 0, 0], 0)
    with pytest.raises(ValueError, match="the 4 nearest of 3 tokens"):
        tokens.k_nearest_many([[0, 0, 0]], 4)
    with pytest.raises(ValueError, match="the 1 nearest of 0 tokens"):
        CrystallineEmbeddings(3).nearest([0, 0, 0])
    with pytest.raises(ValueError, match=r"a point has the shape \(2,\), expected \(3,\)"):
        tokens.nearest([0, 0])
    with pytest.raises(ValueError, match="points have the shape"):
        tokens.nearest_many(np.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        tokens.nearest([0, float("nan"), 0])
