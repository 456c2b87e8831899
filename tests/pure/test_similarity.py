"""Similarities: their laws, each part against its definition, and batches against single pairs."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.exact import nth_prime, prime_array
from crystalline.pure import CrystallineEmbeddings, lattice_distance, prime_similarity
from crystalline.pure.similarity import checked_pairs, checked_weights
from tests.oracles import tokens as oracle

WEIGHTS = (0.5, 0.3, 0.2)


def vocabulary(dimension: int = 3) -> CrystallineEmbeddings:
    """Forty roots from 11 on, and what four affixes make of some of them."""
    tokens = CrystallineEmbeddings(dimension)
    roots = prime_array(11, nth_prime(44) + 1).tolist()
    numbers = [*roots, *(2 * r for r in roots[::2]), *(6 * r for r in roots[::4]), 7 * 9 * 11]
    order = np.random.default_rng(6).permutation(len(numbers))
    tokens.add_tokens([f"t{i}" for i in order], [numbers[i] for i in order])
    return tokens


TOKENS = vocabulary()
IDS = st.integers(0, len(TOKENS) - 1)
SHARES = st.lists(st.integers(0, 64), min_size=2, max_size=2).map(sorted)


def weights_of(shares: list[int]) -> tuple[float, float, float]:
    low, high = shares
    return low / 64, (high - low) / 64, (64 - high) / 64


@given(IDS, IDS, SHARES)
def test_laws(a: int, b: int, shares: list[int]) -> None:
    weights = weights_of(shares)
    value = TOKENS.similarity(a, b, weights)
    assert 0 <= value <= 1
    assert value == TOKENS.similarity(b, a, weights)
    assert TOKENS.similarity(a, a, weights) == 1
    if a != b:
        assert value < 1


@given(IDS, IDS, SHARES)
def test_equals_its_definition(a: int, b: int, shares: list[int]) -> None:
    points = TOKENS.positions.to_floats()
    numbers, parent = [token.number for token in TOKENS], TOKENS.morphology.parent.tolist()
    want = oracle.similarity(points, numbers, parent, a, b, weights_of(shares))
    assert TOKENS.similarity(a, b, weights_of(shares)) == pytest.approx(want, rel=1e-14)


@pytest.mark.parametrize("dimension", [1, 2, 3, 10])
def test_batch_equals_single_bit_for_bit(dimension: int) -> None:
    tokens = vocabulary(dimension)
    n = len(tokens)
    pairs = np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2)
    assert len(pairs) > 1024  # more than two blocks of the kernel
    many = tokens.similarities(pairs, WEIGHTS)
    phases = tokens.phase_alignments(pairs, 5)
    for i in np.random.default_rng(1).choice(len(pairs), 700, replace=False):
        a, b = pairs[i].tolist()
        assert tokens.similarity(a, b, WEIGHTS) == many[i]
        assert tokens.phase_alignments([[a, b]], 5)[0] == phases[i]
    square = many.reshape(n, n)
    assert (square == square.T).all()
    assert (square.diagonal() == 1).all()
    assert (tokens.similarities(pairs[::3][::-1], WEIGHTS) == many[::3][::-1]).all()
    assert tokens.similarities([]).shape == (0,)


def test_what_derives_is_nearer_kin() -> None:
    tokens = CrystallineEmbeddings(3)
    for text, number in [("run", 5), ("running", 10), ("runs", 15), ("runnings", 30), ("sit", 7)]:
        tokens.add_token(text, number)
    kin = [tokens.similarity("run", other, (0, 0, 1)) for other in range(5)]
    assert kin == [1, 1 / 2, 1 / 2, 1 / 3, 0]
    assert tokens.similarity("running", "runs", (0, 0, 1)) == 1 / 3
    assert tokens.similarity("running", "runnings", (0, 0, 1)) == 1 / 4  # 30 derives from 15
    assert tokens.prime_similarity("running", "runs") == Fraction(1, 3)
    assert tokens.similarity("running", "runs", (0, 1, 0)) == 1 / 3


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_lattice_distance(dimension: int) -> None:
    tokens = vocabulary(dimension)
    with mpmath.workprec(500):
        for a, b in [(0, 1), (3, 3), (5, 40), (60, 2)]:
            gaps = [
                mpmath.mpf(int(x.mantissa) - int(y.mantissa)) / 2**192
                for x, y in zip(tokens[a].coordinates, tokens[b].coordinates, strict=True)
            ]
            want = mpmath.sqrt(sum(gap**2 for gap in gaps))
            found = tokens.lattice_distance(a, b)
            assert abs(int(found.mantissa) - want * 2**192) <= 0.5
            assert found == tokens.lattice_distance(b, a)
            nearness = tokens.similarity(a, b, (1, 0, 0))
            assert nearness == pytest.approx(float(1 / (1 + want)), rel=1e-14)


def test_the_distance_is_that_of_the_lattice() -> None:
    """Lattice coordinates with the Gram matrix of the basis measure the same length."""
    tokens = vocabulary(3)
    tokens.set_basis([[3, 1, 0], [1, 2, 5], [0, 1, 1]])
    gram = tokens.lattice_basis.gram()
    scale = tokens.lattice_basis.denominator**2
    rows = tokens.lattice_positions.to_fractions()
    for a, b in [(0, 1), (7, 50)]:
        c = [x - y for x, y in zip(rows[a], rows[b], strict=True)]
        pairs = ((c[i] * c[j] * gram[i][j]) for i in range(3) for j in range(3))
        square = sum(pairs, Fraction(0)) / scale
        assert abs(tokens.lattice_distance(a, b).as_fraction() ** 2 - square) < Fraction(1, 2**170)


def test_exact_parts_of_numbers_and_places() -> None:
    assert prime_similarity(2**70, 2**69 * 3) == Fraction(1, 3)
    a, b = TOKENS[0].coordinates, TOKENS[1].coordinates
    assert lattice_distance(a, b) == TOKENS.lattice_distance(0, 1)
    assert lattice_distance(a, a) == 0


@pytest.mark.parametrize(
    "weights", [(0.5, 0.5, 0.5), (1, 1, -1), (0.3, 0.3, 0.3), (math.nan, 0, 1)]
)
def test_bad_weights(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="the weights"):
        TOKENS.similarity(0, 1, weights)


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.1), (1 / 3, 1 / 3, 1 / 3), (1, 0, 0)])
def test_good_weights(weights: tuple[float, float, float]) -> None:
    assert checked_weights(weights) == weights


def test_bad_pairs() -> None:
    with pytest.raises(IndexError, match="there is no token -1, only 0 to 4"):
        checked_pairs([[0, -1]], 5)
    with pytest.raises(IndexError, match="there is no token 5"):
        checked_pairs([[5, 0]], 5)
    with pytest.raises(ValueError, match=r"pairs have the shape \(1, 3\)"):
        checked_pairs([[1, 2, 3]], 5)
    with pytest.raises(TypeError, match="pairs are float64"):
        checked_pairs([[0.0, 1.0]], 5)
    with pytest.raises(KeyError, match="there is no token 'nobody'"):
        TOKENS.similarity("nobody", 0)
