"""The sieve against a naive one and known counts, around every wheel, segment and size limit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import flint
import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.primes import counting, primality, sieve

TOP = 2**64 - 1
SEGMENT = 30 * 2**15  # numbers of a first-level segment
STRETCH = 30 * 2**19  # of a second-level one


def naive(limit: int) -> npt.NDArray[np.int64]:
    """Return the primes below `limit` by the oldest way."""
    alive = np.ones(limit, dtype=bool)
    alive[:2] = False
    for p in range(2, int(limit**0.5) + 1):
        if alive[p]:
            alive[p * p :: p] = False
    return np.flatnonzero(alive)


PRIMES = naive(2 * STRETCH + 10**5)


def expected(low: int, high: int) -> list[int]:
    first, last = np.searchsorted(PRIMES, [low, high + 1])
    return PRIMES[first:last].tolist()


def by_flint(low: int, high: int) -> list[int]:
    return [n for n in range(low, high + 1) if flint.fmpz(n).is_prime()]


def test_every_small_interval() -> None:
    for low in range(70):
        for high in range(low - 1, 140):
            if high >= 0:
                assert sieve.array(low, high, 0).tolist() == expected(low, high), (low, high)


@pytest.mark.parametrize(
    "middle",
    [
        *(30, 12 * 30, 163, 163**2, 167**2, 1009**2, 2**16, 65521, 65537),
        *(SEGMENT, 2 * SEGMENT, STRETCH, 2 * STRETCH),
    ],
)
def test_ends_at_every_residue(middle: int) -> None:
    for low in range(max(middle - 31, 0), middle + 31):
        high = 2 * middle - low + 30
        if low <= high:
            got = sieve.array(low, high, 0).tolist()
            assert got == expected(low, high), (low, high)
            assert sieve.count(low, high) == len(got)


def test_whole_range_at_once_and_in_pieces() -> None:
    limit = 2 * STRETCH + 10**5 - 1
    whole = sieve.array(0, limit, 10)
    assert whole.dtype == np.uint64
    assert (whole == PRIMES.astype(np.uint64)).all()
    narrow = sieve.array(0, limit, len(PRIMES), True)
    assert narrow.dtype == np.uint32
    assert (narrow == PRIMES).all()
    cuts = [0, 29, 997, 123457, SEGMENT + 1, 10**7 + 19, STRETCH - 1, STRETCH + 77, limit + 1]
    pieces = [sieve.array(a, b - 1, 0) for a, b in pairwise(cuts)]
    assert (np.concatenate(pieces) == whole).all()


@pytest.mark.parametrize(
    ("power", "count"),
    [*enumerate([0, 4, 25, 168, 1229, 9592, 78498, 664579, 5761455, 50847534])],  # OEIS A006880
)
def test_known_counts(power: int, count: int) -> None:
    assert sieve.count(0, 10**power) == count
    assert counting.prime_pi(10**power) == count


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (2**32 - 500, 2**32 + 500),
        ((2**16 + 1) ** 2 - 200, (2**16 + 1) ** 2 + 200),
        (2**40 - 300, 2**40 + 300),  # sieving primes pass 2^20 here
        ((2**20 + 7) ** 2 - 100, (2**20 + 7) ** 2 + 100),  # 2^20 + 7 is prime
        (10**15, 10**15 + 1500),
        (2**63 - 400, 2**63 + 400),
        ((2**32 - 5) ** 2 - 300, (2**32 - 5) ** 2 + 300),  # the largest square of a prime
        (TOP - 1000, TOP),
        (TOP, TOP),
        (TOP - 58, TOP - 58),
    ],
)
def test_high_intervals(low: int, high: int) -> None:
    want = by_flint(low, high)
    assert sieve.array(low, high, 0).tolist() == want
    assert sieve.count(low, high) == len(want)


def test_primes_beyond_2_20_sieve_long_intervals() -> None:
    """Long enough that larger primes are made and crossed off instead of survivors tested."""
    low = 4 * 10**12
    high = low + 3 * 10**7
    found = sieve.array(low, high, 10**6)
    out = np.empty(found.size, dtype=np.uint8)
    primality.are_prime(found, out)
    assert out.all()
    assert found.size == counting.prime_pi(high) - counting.prime_pi(low - 1)


def test_counting_without_sieving() -> None:
    assert [counting.prime_pi(x) for x in range(3000)] == [
        int(np.searchsorted(PRIMES, x, side="right")) for x in range(3000)
    ]
    for x in [2**16, 2**16 + 1, 65521, 10**6 + 3, 1009**2, 1009**2 - 1, 31**4, 31**4 - 1, 37**4]:
        assert counting.prime_pi(x) == int(np.searchsorted(PRIMES, x, side="right")), x


@pytest.mark.parametrize(
    ("x", "count"),
    [  # OEIS A006880
        (10**10, 455052511),
        (10**11, 4118054813),
        (10**12, 37607912018),
        (10**13, 346065536839),
        (2**40, 41203088796),  # OEIS A007053
    ],
)
def test_known_large_counts(x: int, count: int) -> None:
    assert counting.prime_pi(x) == count


def test_narrow_asks_for_32_bits() -> None:
    with pytest.raises(ValueError, match="4294967296 do not fit into 32 bits"):
        sieve.array(0, 2**32, 10, True)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__, "-k", "whole or ends or small or narrow")
