"""The Python face of the primes: values against sympy and python-flint, ends, and bad input."""

from __future__ import annotations

import math
from itertools import islice

import flint
import numpy as np
import pytest
import sympy

from crystalline import exact
from crystalline.exact import primes

CARMICHAEL_BIG = 1195068768795265792518361315725116351898245581  # Arnault, 1995: bases up to 31
# Strong pseudoprimes to the first 12 and 13 primes as bases, OEIS A014233.
STRONG_PSEUDOPRIMES = [318665857834031151167461, 3317044064679887385961981]


def test_array_is_half_open() -> None:
    assert exact.prime_array(2).tolist() == []
    assert exact.prime_array(3).tolist() == [2]
    assert exact.prime_array(7, 13).tolist() == [7, 11]
    assert exact.prime_array(-10, 3).tolist() == [2]
    assert exact.prime_array(13, 7).tolist() == []
    assert exact.prime_array(-5).tolist() == []
    assert exact.prime_array(10**6).tolist() == list(sympy.primerange(10**6))
    assert exact.prime_array(np.uint8(11), 14).dtype == np.uint64
    assert exact.prime_array(2**64 - 59, 2**64).tolist() == [2**64 - 59]


def test_hours_of_the_clock() -> None:
    """The clock positions 1, 5, 7, 11 hold every prime beyond 3."""
    hours = exact.clock_positions(exact.prime_array(4, 10**5))[:, 1]
    assert sorted(set(hours.tolist())) == [1, 5, 7, 11]


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        *[(0, 1), (0, 3), (3, 3), (4, 3), (90, 97), (90, 98), (0, 10**8), (10**8, 2 * 10**8)],
        *[(10**12, 10**12 + 10**4), (10**9, 3 * 10**9), (2**64 - 10**4, 2**64)],
    ],
)
def test_count_agrees_with_the_array_or_with_sympy(start: int, stop: int) -> None:
    want = sum(1 for _ in sympy.primerange(start, stop)) if stop - start < 10**5 else None
    if want is None:
        want = int(sympy.primepi(stop - 1)) - int(sympy.primepi(start - 1))
    assert exact.count_primes(start, stop) == want


def test_both_ways_of_counting_agree() -> None:
    for start, stop in [(0, 10**7), (123456789, 234567890), (10**10, 10**10 + 10**7)]:
        counted = exact.prime_pi(stop - 1) - exact.prime_pi(start - 1)
        assert counted == exact.prime_array(start, stop).size


def test_prime_pi() -> None:
    assert [exact.prime_pi(x) for x in (-7, 0, 1, 2, 3, 4)] == [0, 0, 0, 1, 2, 2]
    assert exact.prime_pi(10**12) == 37607912018


def test_nth_prime() -> None:
    small = list(sympy.primerange(120_000))
    for n in [*range(1, 1100, 7), 999, 1000, 1001, 5000, 9999, 10000, 10001, len(small)]:
        assert exact.nth_prime(n) == small[n - 1]
    # OEIS A006988: the prime number 10^k
    assert [exact.nth_prime(10**k) for k in (5, 7, 9, 11)] == [
        *(1299709, 179424673, 22801763489, 2760727302517)
    ]
    for n in (10**6 + 1, 23456789):
        assert exact.prime_pi(exact.nth_prime(n)) == n
        assert exact.is_prime(exact.nth_prime(n))


def test_iterator_matches_the_array_and_goes_on() -> None:
    assert list(exact.iter_primes(0, 10**5)) == exact.prime_array(10**5).tolist()
    assert list(exact.iter_primes(97, 101)) == [97]
    assert list(exact.iter_primes(5, 5)) == []
    assert all(type(p) is int for p in islice(exact.iter_primes(), 10))
    around = list(islice(exact.iter_primes(2**64 - 100), 5))
    assert around == [2**64 - 95, 2**64 - 83, 2**64 - 59, 2**64 + 13, 2**64 + 37]
    assert list(exact.iter_primes(2**64, 2**64 + 30)) == [2**64 + 13]


def test_iterator_refuses_at_once() -> None:
    with pytest.raises(TypeError, match=r"start must be an integer, not 1\.5"):
        exact.iter_primes(1.5)  # type: ignore[arg-type]


def test_next_and_previous_beyond_64_bits() -> None:
    for n in (2**64 - 59, 2**64 - 60, 2**64, 2**64 + 13, 10**25, 2**127):
        after = exact.next_prime(n)
        assert after == int(sympy.nextprime(n))
        assert exact.previous_prime(after) == (n if exact.is_prime(n) else sympy.prevprime(n + 1))
    assert exact.previous_prime(2**64 + 1) == 2**64 - 59
    assert exact.next_prime(-(10**30)) == 2
    for n in (2, 1, -5):
        with pytest.raises(ValueError, match=f"no prime below {n}"):
            exact.previous_prime(n)


def test_is_prime_beyond_64_bits() -> None:
    assert exact.is_prime(2**89 - 1)
    assert exact.is_prime(2**521 - 1)
    assert not exact.is_prime(2**67 - 1)
    assert not exact.is_prime((2**64 - 59) ** 2)
    assert not exact.is_prime((2**64 - 59) * (2**64 + 13))
    for n in [CARMICHAEL_BIG, *STRONG_PSEUDOPRIMES]:
        assert not exact.is_prime(n)
    for n in STRONG_PSEUDOPRIMES:
        assert all(exact.is_strong_probable_prime(n, a) for a in sympy.primerange(38))
        assert not exact.is_strong_lucas_probable_prime(n)
    for start in (2**64, 10**24, 3**100):
        for n in range(start, start + 300):
            assert exact.is_prime(n) == flint.fmpz(n).is_probable_prime()
    assert not exact.is_prime(-7)


def test_lucas_test_against_the_list() -> None:
    """OEIS A217255: strong Lucas pseudoprimes."""
    found = [
        n
        for n in range(3, 60_000, 2)
        if primes.is_strong_lucas_probable_prime(n) != exact.is_prime(n)
    ]
    assert found == [5459, 5777, 10877, 16109, 18971, 22499, 24569, 25199, 40309, 58519]


def test_strong_test_against_the_list() -> None:
    """OEIS A001262: strong pseudoprimes to base 2."""
    found = [
        n for n in range(3, 50_000, 2) if primes.is_strong_probable_prime(n, 2) != exact.is_prime(n)
    ]
    assert found == [2047, 3277, 4033, 4681, 8321, 15841, 29341, 42799, 49141]


def test_are_prime_keeps_the_shape() -> None:
    n = np.arange(60, dtype=np.int32).reshape(3, 20).T  # neither contiguous nor unsigned
    assert (exact.are_prime(n) == np.vectorize(exact.is_prime)(n)).all()
    assert exact.are_prime([]).shape == (0,)
    assert exact.are_prime(7).shape == ()
    assert exact.are_prime([2**64 - 59, 2]).tolist() == [True, True]


def test_primorial() -> None:
    assert [exact.primorial(n) for n in (-1, 0, 1, 2, 3, 4, 5)] == [1, 1, 1, 2, 6, 6, 30]
    assert exact.primorial(10**4) == math.prod(sympy.primerange(10**4))


@pytest.mark.parametrize(
    "function",
    [
        *(exact.prime_array, exact.count_primes, exact.prime_pi, exact.nth_prime, exact.is_prime),
        *(exact.next_prime, exact.previous_prime, exact.primorial, exact.iter_primes),
    ],
)
def test_only_integers_are_taken(function: object) -> None:
    assert callable(function)
    for value in (2.0, "7", None):
        with pytest.raises(TypeError, match="must be an integer"):
            function(value)


def test_absurd_sizes_are_refused_at_once() -> None:
    with pytest.raises(MemoryError, match="an array of about"):
        exact.prime_array(2**63)
    with pytest.raises(
        OverflowError, match="stop must be at most 2\\^64, not 18446744073709551617"
    ):
        exact.prime_array(0, 2**64 + 1)
    with pytest.raises(OverflowError, match="at most 2"):
        exact.count_primes(10**40)
    with pytest.raises(OverflowError, match="x must be below 2\\^63"):
        exact.prime_pi(2**63)
    with pytest.raises(MemoryError, match="counting the primes up to"):
        exact.prime_pi(2**63 - 1)
    with pytest.raises(OverflowError, match="prime number 1000000000000000000000"):
        exact.nth_prime(10**21)
    with pytest.raises(MemoryError, match="their product"):
        exact.primorial(10**15)
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        exact.nth_prime(0)


def test_bad_arrays() -> None:
    with pytest.raises(TypeError, match="must be integers, not float64"):
        exact.are_prime(np.array([2.0]))
    with pytest.raises(TypeError, match=r"an element of n must be an integer, not 2\.0"):
        exact.are_prime([3, 2.0])
    with pytest.raises(ValueError, match="must not be negative, as -3 is"):
        exact.are_prime([5, -3])
    with pytest.raises(OverflowError, match="below 2\\^64"):
        exact.are_prime([2, 2**64])
    with pytest.raises(ValueError, match="at least 0, not -1"):
        exact.are_prime([2**63, -1])
    with pytest.raises(ValueError, match="n must be odd, not 10"):
        primes.is_strong_lucas_probable_prime(10)
    with pytest.raises(ValueError, match="multiple of 7"):
        primes.is_strong_probable_prime(7, 14)


def test_messages_with_numbers_of_many_digits() -> None:
    """Python prints no more than 4,300 digits."""
    huge = 10**5000
    for call in (exact.prime_pi, exact.nth_prime, exact.prime_array):
        with pytest.raises(OverflowError, match=r"some 2\^16609"):
            call(huge)
    for guarded in (exact.primorial, lambda n: exact.divisor_sum(6, n)):
        with pytest.raises(MemoryError, match=r"would take some 2\^"):
            guarded(huge)
    assert exact.divisor_sum(1, huge) == 1
