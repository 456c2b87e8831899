"""Divisors, cofactors, inverses, Jacobi symbols against gmpy2; half-gcd forced on small sizes."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext

import gmpy2
import pytest

from crystalline._kernels.bigint import gcd, tuning
from tests._kernels.bigint.numbers import B, limbs, number, room, shaped, size

FORCED = {
    "measured": {},
    "lehmer": {"gcd_hgcd": 10**9, "hgcd": 10**9},
    "half-gcd": {"gcd_hgcd": 1, "hgcd": 1},
    "half-gcd over lehmer": {"gcd_hgcd": 32, "hgcd": 25},
}


def forced(name: str) -> AbstractContextManager[None]:
    return tuning.forced(**FORCED[name]) if FORCED[name] else nullcontext()


def gcd_of(a: int, b: int) -> int:
    g = room(max(size(a), size(b)))
    n = gcd.gcd(g, limbs(a), limbs(b))
    assert n == 0 or g[n - 1] != 0
    return number(g[:n])


def gcdext_of(a: int, b: int) -> tuple[int, int, int]:
    g, s, t = room(max(size(a), size(b))), room(size(b) + 1), room(size(a) + 1)
    gn, sn, tn = gcd.gcdext(g, s, t, limbs(a), limbs(b))
    x, y = number(s[: abs(sn)]), number(t[: abs(tn)])
    assert sn == 0 or s[abs(sn) - 1] != 0
    assert tn == 0 or t[abs(tn) - 1] != 0
    return number(g[:gn]), -x if sn < 0 else x, -y if tn < 0 else y


def check(a: int, b: int) -> None:
    """Every function on a pair: s and t are unique but where a or b is 2 g or a multiple."""
    g = int(gmpy2.gcd(a, b))
    assert gcd_of(a, b) == g
    got, s, t = gcdext_of(a, b)
    assert got == g
    assert s * a + t * b == g
    if a and b:
        assert (got, s, t) == tuple(map(int, gmpy2.gcdext(a, b)))
    if b & 1:
        assert gcd.jacobi(limbs(a), limbs(b)) == gmpy2.jacobi(a, b)
    if b > 0 and g == 1:
        r = room(size(b))
        gcd.invert(r, limbs(a), limbs(b))
        assert number(r) == (pow(a, -1, b) if b > 1 else 0)
    elif b > 0:
        with pytest.raises(ZeroDivisionError):
            gcd.invert(room(size(b)), limbs(a), limbs(b))


EDGES = [0, 1, 2, 3, 4, 6, 9, B - 1, B, B + 1, B**2 - 1, B**2, B**2 + 1, 3 * B**2, B**3 // 2, B**5]


def test_pairs_of_edges() -> None:
    for a in EDGES:
        for b in EDGES:
            check(a, b)


def test_jacobi_of_small_numbers() -> None:
    for b in range(1, 80, 2):
        for a in range(100):
            assert gcd.jacobi(limbs(a), limbs(b)) == gmpy2.jacobi(a, b)


@pytest.mark.parametrize("name", FORCED)
def test_shaped_numbers(name: str) -> None:
    rng = random.Random(name)
    with forced(name):
        for an in [1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 25, 33, 40, 63, 80]:
            for bn in sorted({1, 2, 3, an - 1 or 1, an, an + 1, 2 * an}):
                for _ in range(3):
                    check(shaped(rng, an), shaped(rng, bn))


@pytest.mark.parametrize("name", FORCED)
def test_common_divisors(name: str) -> None:
    rng = random.Random(f"common {name}")
    with forced(name):
        for n, common in [(2, 1), (3, 2), (5, 1), (9, 8), (20, 7), (40, 39), (64, 20), (100, 3)]:
            for _ in range(4):
                g, x, y = shaped(rng, common), shaped(rng, n), shaped(rng, n)
                check(g * x, g * y)
                check(g * x, g)
                check(g, g * y)
                check(g * x, 2 * g)


@pytest.mark.parametrize("name", FORCED)
def test_quotients_that_are_all_small_or_huge(name: str) -> None:
    """Fibonacci numbers have the longest run of quotients 1; others have one of many limbs."""
    rng = random.Random(f"quotients {name}")
    with forced(name):
        for k in (90, 91, 180, 187, 500, 1501, 4000):
            check(int(gmpy2.fib(k)), int(gmpy2.fib(k - 1)))
            check(int(gmpy2.fib(k)) * 3, int(gmpy2.fib(k - 2)) * 3)
        for _ in range(12):
            a, b = 1, 0  # from a chosen run of quotients, backwards
            while size(a) < 45:
                q = rng.choice([1, 1, 2, 3, B - 1, B, rng.getrandbits(rng.randrange(1, 500)) + 1])
                a, b = q * a + b, a
            check(a, b)
            check(a, b + 1)
            check(b, a)


@pytest.mark.parametrize("bits", [20_000, 100_000, 300_000])
def test_large_numbers(bits: int) -> None:
    rng = random.Random(bits)
    a, b, g = rng.getrandbits(bits), rng.getrandbits(bits - 77), rng.getrandbits(3000) | 1
    check(a * g, b * g)
    check(a, b)


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="a's 2 limbs are not normalized"):
        gcd.gcd(room(2), limbs(1, 2), limbs(1))
    with pytest.raises(ValueError, match="g has 1 elements, expected 2"):
        gcd.gcd(room(1), limbs(B), limbs(1))
    with pytest.raises(ValueError, match="Jacobi symbol is even"):
        gcd.jacobi(limbs(1), limbs(2))
    with pytest.raises(ZeroDivisionError, match="modulo 0"):
        gcd.invert(room(0), limbs(1), limbs(0))
