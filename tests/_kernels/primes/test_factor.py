"""64-bit factors: multiplied up again and judged prime by python-flint; every size of factor."""

from __future__ import annotations

import math

import flint
import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.primes import ecm, factor, primality


def check(n: int) -> None:
    found = factor.factor(n)
    assert math.prod(p**e for p, e in found) == n
    assert [p for p, _ in found] == sorted({p for p, _ in found})
    assert all(e > 0 and flint.fmpz(p).is_prime() for p, e in found), n


def prime(rng: np.random.Generator, bits: int) -> int:
    while True:
        p = primality.next_prime(int(rng.integers(2 ** (bits - 1), 2**bits, dtype=np.uint64)))
        if p.bit_length() == bits:
            return p


def test_every_small_number() -> None:
    for n in range(1, 20_000):
        check(n)


@pytest.mark.parametrize("bits", [20, 34, 35, 42, 43, 54, 55, 60, 61, 64])
def test_random_numbers(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for n in rng.integers(2 ** (bits - 1), 2**bits, 300, dtype=np.uint64).tolist():
        check(n)


@pytest.mark.parametrize("bits", range(9, 33))
def test_products_of_two_primes(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for other in {9, 12, bits - 1, bits, min(64 - bits, 40)} - {8}:
        for _ in range(8):
            p, q = prime(rng, bits), prime(rng, other)
            assert factor.factor(p * q) == ([(p, 2)] if p == q else sorted([(p, 1), (q, 1)]))


def test_squares_cubes_and_products_of_several() -> None:
    rng = np.random.default_rng(8)
    for bits in range(9, 33):
        p = prime(rng, bits)
        assert factor.factor(p * p) == [(p, 2)]
    for bits in range(9, 22):
        p, q = prime(rng, bits), prime(rng, 64 - 2 * bits if 64 - 2 * bits < 40 else 20)
        assert factor.factor(p**3) == [(p, 3)]
        assert factor.factor(p * p * q) == ([(p, 3)] if p == q else sorted([(p, 2), (q, 1)]))
    for bits in (9, 10, 13, 16):
        four = [prime(rng, bits) for _ in range(4 if bits > 10 else 6)]
        found = factor.factor(math.prod(four))
        assert sorted(p for p, e in found for _ in range(e)) == sorted(four)
    top = 2**32 - 5  # the largest prime below 2^32
    assert factor.factor(top * top) == [(top, 2)]
    assert factor.factor(top * (2**32 - 17)) == [(2**32 - 17, 1), (top, 1)]


@pytest.mark.parametrize(
    "n",
    [
        *(2**63, 2**64 - 1, 2**64 - 59, 3**40, 5**27, 251**8, 257**7, 263**7, 65537**3),
        614889782588491410,  # the product of the first 15 primes
        *(4295098369, 66049, 257 * 263, 341550071728321, 3825123056546413051),
    ],
)
def test_particular_numbers(n: int) -> None:
    check(n)


def _arrays(n: list[int]) -> tuple[npt.NDArray[np.uint64], ...]:
    return (
        np.array(n, dtype=np.uint64),
        np.full((len(n), 15), 9, dtype=np.uint64),
        np.full((len(n), 15), 9, dtype=np.uint8),
        np.full(len(n), 9, dtype=np.uint8),
    )


def test_arrays() -> None:
    rng = np.random.default_rng(2)
    numbers = [1, 2, 614889782588491410, *rng.integers(1, 2**50, 300).tolist()]
    n, primes, exponents, counts = _arrays(numbers)
    assert factor.factor_array(n, primes, exponents, counts) == -1
    for i, number in enumerate(numbers):
        c = counts[i]
        pairs = list(zip(primes[i, :c].tolist(), exponents[i, :c].tolist(), strict=True))
        assert pairs == factor.factor(number)
        assert not primes[i, c:].any()
        assert not exponents[i, c:].any()
    out = np.full((len(numbers), 15), 9, dtype=np.uint8)
    assert factor.signatures(n, out) == -1
    assert (out == -np.sort(-exponents.astype(int), axis=1)).all()


def test_zero_and_wrong_shapes() -> None:
    n, primes, exponents, counts = _arrays([5, 0])
    assert factor.factor_array(n, primes, exponents, counts) == 1
    assert factor.signatures(n, exponents) == 1
    with pytest.raises(ValueError, match="0 has no factorization"):
        factor.factor(0)
    with pytest.raises(ValueError, match="a row of primes has 14 elements, expected 15"):
        factor.factor_array(n, primes[:, :14].copy(), exponents, counts)


def test_curves_refuse_what_they_cannot_do() -> None:
    primes = np.array([2, 3, 5], dtype=np.uint64)
    for n in (10, 1, 2**2048 + 1):
        with pytest.raises(ValueError, match=f"2 to {ecm.MOST_BITS} bits, not {n}"):
            ecm.curve(n, 2, 9, primes, 2400)
    with pytest.raises(ValueError, match="at least 2400, not 2399"):
        ecm.curve(35, 2, 9, primes, 2399)


def _z_of_first_stage(n: int, x: int, s: int, primes: list[int], bound: int) -> int:
    """Return the Z that Montgomery's ladder comes to, in Python's integers."""

    def twice(p: tuple[int, int]) -> tuple[int, int]:
        t, u = (p[0] + p[1]) ** 2 % n, (p[0] - p[1]) ** 2 % n
        return t * u % n, (t - u) * ((t - u) * s + u) % n

    def add(p: tuple[int, int], q: tuple[int, int], d: tuple[int, int]) -> tuple[int, int]:
        t, v = (p[0] - p[1]) * (q[0] + q[1]), (p[0] + p[1]) * (q[0] - q[1])
        return d[1] * (t + v) ** 2 % n, d[0] * (t - v) ** 2 % n

    factors, packed = [], 1
    for prime_ in primes:
        power = prime_
        while power * prime_ <= bound:
            power *= prime_
        if packed * power >= 2**64:
            factors.append(packed)
            packed = 1
        packed *= power
    point = (x, 1)
    for k in [*factors, packed]:
        low, high = point, twice(point)
        for bit in bin(k)[3:]:
            both = add(high, low, point)
            low, high = (both, twice(high)) if bit == "1" else (twice(low), both)
        point = low
    return point[1]


@pytest.mark.parametrize("limbs", [1, 2, 3, 4, 5, 6, 7, 13, 32])
def test_first_stage_against_python(limbs: int) -> None:
    """Moduli just below a power of 2^64 carry the most; those just above have a top limb of 1."""
    primes = [q for q in range(2, 2400 if limbs < 8 else 300) if flint.fmpz(q).is_prime()]
    for n in (2 ** (64 * limbs) - 1, 2 ** (64 * limbs) - 2**32 - 1, 2 ** (64 * limbs - 64) + 39):
        if n < 3 or n % 2 == 0:
            continue
        z, _ = ecm.curve(n, 5, n - 77, np.array(primes, dtype=np.uint64), 2400)
        size = (n.bit_length() + 63) // 64  # residues carry the factor 2^(64 size)
        assert z == _z_of_first_stage(n, 5, n - 77, primes, 2400) * 2 ** (64 * size) % n


@pytest.mark.parametrize("bits", [64, 65, 128, 192, 257, 320, 384, 448, 1024, 2048])
def test_first_stage_finds_small_primes(bits: int) -> None:
    """The Z of a first stage vanishes modulo p just where the order of the point divides it."""
    rng = np.random.default_rng(bits)
    p = 1009
    n = int.from_bytes(rng.bytes(bits // 8), "little") | 1 | 1 << (bits - 1)
    n = n // p // 2 * 2 * p + p  # odd, a multiple of p
    primes = np.array([q for q in range(2, 2400) if flint.fmpz(q).is_prime()], dtype=np.uint64)
    for x, s in [(2, 9), (5, 77), (11, 400)]:
        z, product = ecm.curve(n, x, s, primes, 2400)
        assert 0 <= z < n
        assert z % p == 0  # every curve modulo 1009 has fewer than 1,074 points: smooth
        assert product % p != 0 or n % p**2 == 0
