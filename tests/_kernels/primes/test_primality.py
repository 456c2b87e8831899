"""64-bit primality against python-flint, lists of pseudoprimes, and a naive sieve."""

from __future__ import annotations

import flint
import numpy as np
import pytest

from crystalline._kernels.primes import primality

# Strong pseudoprimes to base 2, OEIS A001262; then the smallest to the first 2..13 primes as
# bases, OEIS A014233.
STRONG_BASE_2 = [2047, 3277, 4033, 4681, 8321, 15841, 29341, 42799, 49141, 52633, 65281, 74665]
STRONG_ALL = [
    *(1373653, 25326001, 3215031751, 2152302898747, 3474749660383, 341550071728321),
    3825123056546413051,
]
# Strong Lucas pseudoprimes with Selfridge's parameters, OEIS A217255.
STRONG_LUCAS = [5459, 5777, 10877, 16109, 18971, 22499, 24569, 25199, 40309, 58519, 75077, 97439]
# Carmichael numbers, OEIS A002997, and the largest below 2^64.
CARMICHAEL = [
    561,
    1105,
    1729,
    2465,
    2821,
    6601,
    8911,
    10585,
    15841,
    29341,
    41041,
    825265,
    321197185,
]
# The primes 2^64 - k (The Prime Pages, primes just less than a power of two).
TOP_GAPS = [59, 83, 95, 179, 189, 257, 279, 323, 353, 363]


def _batch(numbers: list[int]) -> list[bool]:
    out = np.empty(len(numbers), dtype=np.uint8)
    primality.are_prime(np.array(numbers, dtype=np.uint64), out)
    assert set(out.tolist()) <= {0, 1}
    return [bool(x) for x in out]


def _check(numbers: list[int]) -> None:
    want = [n > 1 and bool(flint.fmpz(n).is_prime()) for n in numbers]
    assert _batch(numbers) == want
    assert [primality.is_prime(n) for n in numbers] == want


def test_every_number_up_to_200_000() -> None:
    alive = np.ones(200_000, dtype=bool)
    alive[:2] = False
    for p in range(2, 448):
        if alive[p]:
            alive[p * p :: p] = False
    assert _batch(list(range(200_000))) == alive.tolist()
    assert [primality.is_prime(n) for n in range(200_000)] == alive.tolist()


def test_pseudoprimes_are_refused() -> None:
    numbers = STRONG_BASE_2 + STRONG_ALL + STRONG_LUCAS + CARMICHAEL
    assert not any(_batch(numbers))
    assert not any(map(primality.is_prime, numbers))


@pytest.mark.parametrize("bits", [16, 32, 33, 48, 63, 64])
def test_random_numbers(bits: int) -> None:
    rng = np.random.default_rng(bits)
    _check(rng.integers(2 ** (bits - 1), 2**bits, 4001, dtype=np.uint64).tolist())


def test_primes_squares_of_primes_and_close_products() -> None:
    starts = [97, 101, 2**16, 2**20, 10**6, 2**31, 2**32 - 1000]
    primes = [primality.next_prime(x + k) for x in starts for k in (0, 50, 400)]
    _check(primes)
    _check([p * p for p in primes])
    _check([p * primality.next_prime(p) for p in primes if p < 2**32 - 1000])


def test_composites_without_small_factors_of_chernicks_form() -> None:
    """(6k + 1)(12k + 1)(18k + 1): Carmichael numbers whose factors are all large."""
    found = []
    for k in range(1000, 200_000):
        factors = [6 * k + 1, 12 * k + 1, 18 * k + 1]
        if (
            all(map(primality.is_prime, factors))
            and (n := factors[0] * factors[1] * factors[2]) < 2**64
        ):
            found.append(n)
    assert len(found) > 100
    assert not any(_batch(found))


def test_neighborhood_of_2_64() -> None:
    _check(list(range(2**64 - 2000, 2**64)))
    assert [2**64 - n for n in range(2**64 - 363, 2**64) if primality.is_prime(n)] == TOP_GAPS[::-1]


@pytest.mark.parametrize("size", range(10))
def test_batches_of_every_remainder(size: int) -> None:
    numbers = [2**61 - 1, 10**18 + 9, 10**18 + 11, 3, 10**18 + 3, 2**64 - 59, 91, 101, 9409, 10403]
    _check(numbers[:size])


def test_next_and_previous() -> None:
    primes = [n for n in range(500) if primality.is_prime(n)]
    for n in range(480):
        assert primality.next_prime(n) == min(p for p in primes if p > n)
        assert primality.previous_prime(n) == max((p for p in primes if p < n), default=0)
    for n in (2**32, 2**63, 10**19, 2**64 - 60):
        after = primality.next_prime(n)
        assert (
            after == int(flint.fmpz(n).next_prime())
            if hasattr(flint.fmpz, "next_prime")
            else after > n
        )
        assert primality.previous_prime(after) <= n < after
    assert [primality.next_prime(n) for n in (2**64 - 60, 2**64 - 59, 2**64 - 1)] == [
        2**64 - 59,
        0,
        0,
    ]
    assert primality.previous_prime(2**64 - 1) == 2**64 - 59
