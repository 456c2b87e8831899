"""Batched gcd kernels against math.gcd, with zeros, equal numbers, powers of two and odd tails."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.primes import gcd as kernel

TOP = 2**64 - 1
EDGES = [
    *(0, 1, 2, 3, 6, TOP, TOP - 1, TOP // 3, TOP // 5 * 3, 2**32, 2**32 - 1, 2**32 + 1),
    *(1 << k for k in range(0, 64, 7)),
    *(3 << k for k in range(0, 62, 9)),
    *(2**63, 2**63 - 1, 2**63 + 1, 2**31, 2**33, 2**62 + 2**31, 2**64 - 59, 2**64 - 2**32),
]


def _words(values: list[int]) -> npt.NDArray[np.uint64]:
    return np.array(values, dtype=np.uint64)


def _structured(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Pairs with large common factors of every size, sometimes equal, sometimes with a zero."""
    rng = np.random.default_rng(seed)
    a, b = [], []
    for i in range(count):
        shared = int(rng.integers(1, 2 ** int(rng.integers(1, 64)), dtype=np.uint64))
        limit = TOP // shared
        x, y = (int(rng.integers(0, limit, dtype=np.uint64, endpoint=True)) for _ in "ab")
        a.append(shared * x)
        b.append(shared * x if i % 11 == 0 else shared * y)
    return a, b


def test_every_pair_of_edges() -> None:
    a = [x for x in EDGES for _ in EDGES]
    b = EDGES * len(EDGES)
    out = np.empty(len(a), dtype=np.uint64)
    kernel.gcd(_words(a), _words(b), out)
    assert out.tolist() == [math.gcd(x, y) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("size", [*range(71), 1000, 70001])
def test_sizes(size: int) -> None:
    a, b = _structured(min(size, 2000), size)
    repeat = size // max(len(a), 1) + 1
    a, b = (a * repeat)[:size], (b * repeat)[:size]
    memory = np.full(size + 3, 7, dtype=np.uint64)
    out = memory[1 : size + 1]  # not at a multiple of 16 bytes, with guards around it
    kernel.gcd(_words(a), _words(b), out)
    assert out.tolist() == [math.gcd(x, y) for x, y in zip(a, b, strict=True)]
    assert memory[0] == memory[size + 1] == 7


@pytest.mark.parametrize("scalar", [0, 1, 12, 2**40, 3**40, TOP])
@pytest.mark.parametrize("size", [1, 33, 100])
def test_one_against_many(scalar: int, size: int) -> None:
    a, _ = _structured(size, scalar % 97 + size)
    out = _words(a)
    kernel.gcd(out, _words([scalar]), out)  # in place
    assert out.tolist() == [math.gcd(x, scalar) for x in a]


def test_lcm_and_its_overflow() -> None:
    a = [0, 4, 2**32, 2**63, TOP, 6, 2**32 + 1]
    b = [5, 6, 2**31, 2**63, TOP, 0, 2**32 - 1]
    out = np.empty(len(a), dtype=np.uint64)
    assert kernel.lcm(_words(a), _words(b), out) == -1
    assert out.tolist() == [math.lcm(x, y) for x, y in zip(a, b, strict=True)]
    a, b = [*a * 100, 2**32, 3], [*b * 100, 2**32 + 1, 5]
    out = np.empty(len(a), dtype=np.uint64)
    assert kernel.lcm(_words(a), _words(b), out) == 700
    assert kernel.lcm(_words([3, 5]), _words([2**63]), out[:2]) == 0


def test_coprime() -> None:
    a, b = _structured(600, 5)
    out = np.empty(600, dtype=np.uint8)
    kernel.coprime(_words(a), _words(b), out)
    assert out.tolist() == [int(math.gcd(x, y) == 1) for x, y in zip(a, b, strict=True)]
    assert 0 < out.sum() < 600


def test_similarity_is_rounded_correctly_below_2_53() -> None:
    rng = np.random.default_rng(3)
    a = (rng.integers(0, 2**53, 1500, dtype=np.uint64) // np.uint64(64)) * np.uint64(60)
    b = np.roll(a, 7) // np.uint64(6) * np.uint64(6)
    a[:3], b[:3] = [0, 0, 5], [0, 9, 5]
    out = np.empty(1500)
    kernel.similarity(a, b, out)
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    assert out.tolist() == [math.gcd(x, y) / max(x, y) if x or y else 1.0 for x, y in pairs]


def test_similarity_beyond_2_53() -> None:
    a, b = _structured(1000, 9)
    out = np.empty(1000)
    kernel.similarity(_words(a), _words(b), out)
    for got, x, y in zip(out.tolist(), a, b, strict=True):
        exact = Fraction(math.gcd(x, y), max(x, y)) if x or y else Fraction(1)
        assert abs(Fraction(got) - exact) <= 2 * Fraction(math.ulp(got))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 600), (2, 1025), (0, 4), (4, 0)])
def test_matrices(shape: tuple[int, int]) -> None:
    a, _ = _structured(shape[0], 1)
    _, b = _structured(shape[1], 2)
    out = np.empty(shape, dtype=np.uint64)
    kernel.gcd_matrix(_words(a), _words(b), out)
    assert out.tolist() == [[math.gcd(x, y) for y in b] for x in a]
    similar, row = np.empty(shape), np.empty(shape[1])
    kernel.similarity_matrix(_words(a), _words(b), similar)
    for i, x in enumerate(a):
        kernel.similarity(_words(b), _words([x]), row) if b else None
        assert (similar[i] == row).all()


def test_lengths_are_checked() -> None:
    three, four = _words([1, 2, 3]), _words([1, 2, 3, 4])
    for call in (kernel.gcd, kernel.lcm):
        with pytest.raises(ValueError, match="b has 3 elements, expected 4"):
            call(four, three, four.copy())
        with pytest.raises(ValueError, match="out has 3 elements, expected 4"):
            call(four, four, three.copy())
    with pytest.raises(ValueError, match="a row of out has 2 elements, expected 4"):
        kernel.gcd_matrix(three, four, np.empty((3, 2), dtype=np.uint64))


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
