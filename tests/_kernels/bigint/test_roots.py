"""Integer roots of limb vectors against Python and gmpy2, at powers and beside them."""

from __future__ import annotations

import math
import random

import gmpy2
import pytest

from crystalline._kernels.bigint import roots
from tests._kernels.bigint.numbers import B, limbs, number, room, shaped, size


def check_sqrt(x: int) -> None:
    n = size(x)
    s, r = room((n + 1) // 2), room(n)
    rn = roots.sqrtrem(s, r, limbs(x))
    assert number(s) == math.isqrt(x)
    assert number(r[:rn]) == x - math.isqrt(x) ** 2
    assert rn == 0 or r[rn - 1] != 0
    assert roots.is_square(limbs(x)) == (math.isqrt(x) ** 2 == x)


def check_root(x: int, k: int) -> None:
    s = room(size(x) // k + 1)
    n, exact = roots.root(s, limbs(x), k)
    assert (number(s[:n]), exact) == tuple(gmpy2.iroot(gmpy2.mpz(x), k))
    assert n == 0 or s[n - 1] != 0


def test_square_roots_of_small_numbers() -> None:
    for x in [*range(1, 300), *(2**k + d for k in range(10, 330) for d in (-1, 0, 1))]:
        check_sqrt(x)


def test_square_roots_beside_squares() -> None:
    rng = random.Random(1)
    for n in [*range(1, 20), 32, 33, 50, 65]:
        for _ in range(8):
            x = shaped(rng, n)
            for d in (-1, 0, 1, 2 * x, 2 * x + 1):
                check_sqrt(x * x + d or 1)
            check_sqrt(shaped(rng, n))


def test_square_roots_of_all_ones() -> None:
    """Quotients of B^l, which do not fit their limbs, arise where the upper half is no square."""
    for n in range(1, 40):
        for low in range(0, 64 * n, 13):
            check_sqrt(B**n - (1 << low))
        check_sqrt(B**n - 1)


@pytest.mark.parametrize("bits", [100_000, 400_001])
def test_square_roots_of_large_numbers(bits: int) -> None:
    check_sqrt(random.Random(bits).getrandbits(bits) | 1 << (bits - 1))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 10, 16, 63, 64, 65, 100, 1000, B - 1])
def test_roots_beside_powers(k: int) -> None:
    rng = random.Random(k)
    check_root(0, k)
    for x in (1, 2, 3, B - 1, B, 2**31, 2**32, 2**32 - 1, 2**33 + 1, 10**30, rng.getrandbits(900)):
        check_root(x, k)
        if k < 200 and x.bit_length() * k < 100_000:
            for d in (-1, 0, 1):
                check_root(max(x**k + d, 0), k)
    for n in (1, 2, 5, 30):
        check_root(shaped(rng, n), k)


def test_roots_of_large_numbers() -> None:
    rng = random.Random(9)
    x = rng.getrandbits(30_000)
    for k in (3, 5, 17, 999):
        check_root(x, k)
    check_root(rng.getrandbits(9_000) ** 3 - 1, 3)


def test_squares() -> None:
    found = [x for x in range(3000) if roots.is_square(limbs(x))]
    assert found == [x * x for x in range(55)]


def test_perfect_powers() -> None:
    assert [x for x in range(3000) if roots.is_power(limbs(x))] == [
        x for x in range(3000) if gmpy2.is_power(gmpy2.mpz(x))
    ]
    rng = random.Random(4)
    for bits in (5, 20, 64, 100, 200):
        for k in (2, 3, 5, 6, 7, 11, 13, 35):
            x = rng.getrandbits(bits) | 1 << (bits - 1)
            assert roots.is_power(limbs(x**k))
            assert roots.is_power(limbs((2 * x) ** k))
            for y in (x**k + 1, x**k - 1, 3 * x**k, 4 * x**k, x**k << 64):
                assert roots.is_power(limbs(y)) == gmpy2.is_power(gmpy2.mpz(y))


def test_numbers_that_have_no_root() -> None:
    with pytest.raises(ValueError, match="a has no limbs"):
        roots.sqrtrem(room(0), room(0), limbs(0))
    with pytest.raises(ValueError, match="0th root"):
        roots.root(room(1), limbs(2), 0)
    with pytest.raises(ValueError, match="2 limbs are not normalized"):
        roots.is_square(limbs(1, 2))
