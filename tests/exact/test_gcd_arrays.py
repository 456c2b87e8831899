"""gcd over arrays at the Python door: broadcasting, types, overflow; values are the kernels'."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crystalline import exact


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5,), (5,)),
        ((5,), ()),
        ((), (5,)),
        ((), ()),
        ((3, 4), (4,)),
        ((3, 1), (1, 4)),
        ((3, 4), ()),
        ((1,), (6,)),
        ((1, 1), (6,)),
        ((0,), ()),
        ((2, 0, 3), (3,)),
    ],
)
def test_broadcasting(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 10**6, a), rng.integers(0, 10**6, b)
    for got, want in [
        (exact.gcd_array(x, y), np.gcd(x, y)),
        (exact.lcm_array(x, y), np.lcm(x, y)),
        (exact.coprime_array(x, y), np.gcd(x, y) == 1),
        (exact.gcd_similarity(x, y), np.gcd(x, y) / np.maximum(np.maximum(x, y), 1)),
    ]:
        assert got.shape == np.shape(want)
        assert (got == want).all()


def test_strided_and_reversed_input() -> None:
    x = np.arange(240, dtype=np.uint64).reshape(12, 20)[::-2, ::3]
    y = np.arange(7, 49, dtype=np.int16).reshape(7, 6).T
    assert (exact.gcd_array(x, y) == np.gcd(x, y.astype(np.uint64))).all()


def test_matrices() -> None:
    a, b = [6, 0, 35, 2**63], [4, 21, 2**62]
    assert exact.gcd_matrix(a, b).tolist() == [[math.gcd(x, y) for y in b] for x in a]
    want = [[math.gcd(x, y) / max(x, y) for y in b] for x in a]
    assert exact.gcd_similarity_matrix(a, b).tolist() == want
    symmetric = exact.gcd_similarity_matrix(range(1, 40), range(1, 40))
    assert (symmetric == symmetric.T).all()
    assert (symmetric.diagonal() == 1).all()
    with pytest.raises(ValueError, match="b must have one dimension, not 2"):
        exact.gcd_matrix([1], [[1]])


def test_overflow_and_bad_input() -> None:
    with pytest.raises(OverflowError, match="lcm of 4294967296 and 4294967297"):
        exact.lcm_array([1, 2**32], [7, 2**32 + 1])
    with pytest.raises(OverflowError, match="lcm of 6148914691236517206 and 7"):
        exact.lcm_array([7, 6148914691236517206], 7)
    with pytest.raises(TypeError, match="a must be integers, not float64"):
        exact.gcd_array(np.array([1.0]), [2])
    with pytest.raises(ValueError, match="b must not be negative, as -2 is"):
        exact.gcd_array([1], [-2])
    with pytest.raises(ValueError, match="shape mismatch"):
        exact.gcd_array([1, 2], [1, 2, 3])
    with pytest.raises(MemoryError, match="matrix of 10000000 x 10000000"):
        big = np.ones(10**7, dtype=np.uint64)
        exact.gcd_matrix(big, big)


def test_lists_longer_than_numpy_converts_at_once() -> None:
    x = list(range(1, 300_001))
    assert (exact.gcd_array(x, 6) == np.gcd(np.array(x, np.uint64), np.uint64(6))).all()
    assert exact.gcd_array([[2, 4]] * 300_000, [6, 10]).shape == (300_000, 2)
    with pytest.raises(ValueError, match="negative"):
        exact.gcd_array([*x, -1], 6)
    with pytest.raises(OverflowError, match="below 2\\^64"):
        exact.gcd_array([*x, 2**64], 6)
