"""Prime numbers: counted, listed, found by number, tested.

Intervals are half-open like Python's ranges: `start` is included, `stop` is not.  Below 2^64
everything here is proven; beyond, `is_prime` and what uses it rest on the test of Baillie,
Pomerance, Selfridge and Wagstaff, which no composite is known to pass and none is proven to fail.

Factorization is in `factoring`, primes kept for look-up in `prime_cache`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline._kernels.primes import counting, primality, sieve
from crystalline.exact import _arguments as arguments
from crystalline.exact import _parts as parts

_SIEVE_NS = 0.1  # a number of an interval, sieved
_LEGENDRE_NS = 1.5  # x^(3/4) / log x of these count the primes up to x


def _interval(start: SupportsIndex, stop: SupportsIndex | None) -> tuple[int, int]:
    """Return the first and the last number of an interval below 2^64; first > last when empty."""
    if stop is None:
        start, stop = 0, start
    first = max(arguments.integer("start", start), 0)
    last = arguments.integer("stop", stop) - 1
    if last >= arguments.LIMIT:
        raise OverflowError(f"stop must be at most 2^64, not {arguments.short(last + 1)}")
    return (first, last) if last >= first else (1, 0)


def count_estimate(first: int, last: int) -> int:
    """Return about how many primes p with first <= p <= last there are, rather too many.

    >>> count_estimate(0, 10**6) >= 78498
    True
    """
    if last < first:
        return 0
    middle = (first + last) / 2 if first else last / 2
    density = 1 / max(math.log(max(middle, 3)) - (0 if first else 0.6), 1)
    expected = (last - first + 1) * density
    return int(expected * 1.02 + 5 * math.sqrt(expected) + 64)


def prime_array(start: SupportsIndex, stop: SupportsIndex | None = None) -> npt.NDArray[np.uint64]:
    """Return the primes below `start`, or from `start` up to but not including `stop`, ascending.

    `stop` may be up to 2^64.  Raises OverflowError beyond, MemoryError before an array that does
    not fit is begun.  Takes 8 bytes a prime and about 0.1 ns a number at 10^8; memory for
    sieving stays below 40 MB whatever the interval.

    >>> prime_array(20)
    array([ 2,  3,  5,  7, 11, 13, 17, 19], dtype=uint64)
    >>> prime_array(2**64 - 100, 2**64)
    array([18446744073709551521, 18446744073709551533, 18446744073709551557],
          dtype=uint64)
    """
    first, last = _interval(start, stop)
    expected = count_estimate(first, last)
    arguments.room(f"an array of about {expected} primes", 8 * expected)
    return sieve.array(first, last, expected).astype(np.uint64, copy=False)


def count_primes(start: SupportsIndex, stop: SupportsIndex | None = None) -> int:
    """Return the number of primes below `start`, or from `start` to `stop`, `stop` not included.

    Sieves short intervals and takes the difference of two `prime_pi` for long ones, whichever is
    estimated to be quicker.

    >>> count_primes(100), count_primes(90, 100), count_primes(10**18, 10**18 + 1000)
    (25, 1, 23)
    """
    first, last = _interval(start, stop)
    if last < first:
        return 0
    sieving = (last - first) * _SIEVE_NS + math.sqrt(last)
    if first > 0:
        counting_both = _counting_ns(last) + _counting_ns(first - 1)
    else:
        counting_both = _counting_ns(last)
    if counting_both < sieving and last < 1 << 53:
        return prime_pi(last) - (prime_pi(first - 1) if first else 0)
    return sieve.count(first, last)


def _counting_ns(x: int) -> float:
    return _LEGENDRE_NS * math.sqrt(x * math.sqrt(x)) / math.log(x + 3)


def prime_pi(x: SupportsIndex) -> int:
    """Return the number of primes up to x, x included.

    Legendre's formula over all quotients at once (`_kernels.primes.counting`), without sieving:
    50 ms at 10^12, 0.25 s at 10^13, and about five times as long for each factor of ten beyond,
    with 9 sqrt(x) bytes of memory, which MemoryError guards.  0 for negative x.

    >>> prime_pi(100), prime_pi(10**11)
    (25, 4118054813)
    """
    n = arguments.integer("x", x)
    if n < 2:
        return 0
    if n >= 1 << 63:
        raise OverflowError(f"x must be below 2^63, not {arguments.short(n)}")
    arguments.room(f"counting the primes up to {n}", 9 * math.isqrt(n))
    return counting.prime_pi(n)


def _li(x: float) -> float:
    """Return the logarithmic integral by Ramanujan's series, for x > 1, to double precision."""
    log = math.log(x)
    total, inner, power = 0.0, 0.0, 1.0
    for k in range(1, 400):
        power *= -log / k if k > 1 else log
        if k % 2:
            inner += 1 / k
        term = power * inner / 2.0 ** (k - 1)
        total += term
        if abs(term) < 1e-17 * abs(total):
            break
    return 0.5772156649015329 + math.log(log) + math.sqrt(x) * total


def _riemann(x: float) -> float:
    """Return the first terms of Riemann's approximation to the number of primes up to x."""
    return _li(x) - _li(math.sqrt(x)) / 2 - _li(x ** (1 / 3)) / 3


def nth_prime(n: SupportsIndex) -> int:
    """Return the n-th prime, counted from 1: nth_prime(1) is 2.

    Counts the primes up to an estimate and sieves from there.  Limits and time are those of
    `prime_pi` at the result.

    >>> nth_prime(1), nth_prime(25), nth_prime(10**9)
    (2, 97, 22801763489)
    """
    wanted = arguments.integer("n", n, least=1)
    if wanted <= 1000:
        return int(prime_array(7920)[wanted - 1])
    if wanted > 216289611853439384:  # of the primes below 2^63; p(n) > n log n tells sooner
        raise OverflowError(f"the prime number {arguments.short(wanted)} is not below 2^63")
    x = wanted * math.log(wanted)
    for _ in range(20):  # Newton's steps; the slope of the count is 1 / log x
        step = (wanted - _riemann(x)) * math.log(x)
        x += step
        if abs(step) < 0.5:
            break
    at = int(x)
    missing = wanted - prime_pi(at)  # positive: the missing-th prime above `at`
    width = int((abs(missing) + 10) * math.log(x) * 1.2) + 1000
    while missing > 0:
        found = prime_array(at + 1, at + 1 + width)
        if found.size >= missing:
            return int(found[missing - 1])
        missing -= found.size
        at += width
    while True:
        found = prime_array(max(at + 1 - width, 0), at + 1)
        if found.size > -missing:
            return int(found[found.size - 1 + missing])
        missing += found.size
        at -= width


def iter_primes(start: SupportsIndex = 0, stop: SupportsIndex | None = None) -> Iterator[int]:
    """Yield the primes from `start` on, up to but not including `stop`, or without end.

    Sieves in blocks below 2^64, so memory stays small; beyond, one number after the other.

    >>> from itertools import islice
    >>> list(islice(iter_primes(10**10), 3))
    [10000000019, 10000000033, 10000000061]
    """
    at = max(arguments.integer("start", start), 0)
    end = None if stop is None else arguments.integer("stop", stop)
    return _primes_from(at, end)


def _primes_from(at: int, end: int | None) -> Iterator[int]:
    below = arguments.LIMIT if end is None else min(end, arguments.LIMIT)
    width = 1 << 12
    while at < below:
        block_end = min(at + width, below)
        yield from sieve.array(at, block_end - 1, count_estimate(at, block_end - 1)).tolist()
        at = block_end
        width = min(2 * width, 1 << 24)
    while end is None or at < end:
        at = next_prime(at - 1)
        if end is not None and at >= end:
            return
        yield at
        at += 1


def next_prime(n: SupportsIndex) -> int:
    """Return the smallest prime above n; a probable prime (see `is_prime`) beyond 2^64.

    >>> next_prime(89), next_prime(-5), next_prime(10**20)
    (97, 2, 100000000000000000039)
    """
    at = max(arguments.integer("n", n), 0)
    if at < arguments.LIMIT:
        found = primality.next_prime(at)
        if found:
            return found
        at = arguments.LIMIT
    at += 1 + (at & 1)
    while not is_prime(at):
        at += 2
    return at


def previous_prime(n: SupportsIndex) -> int:
    """Return the largest prime below n; a probable prime (see `is_prime`) beyond 2^64.

    Raises ValueError when there is none.

    >>> previous_prime(97), previous_prime(2**64)
    (89, 18446744073709551557)
    """
    at = arguments.integer("n", n)
    if at <= 2:
        raise ValueError(f"there is no prime below {at}")
    if at > arguments.LIMIT:
        at -= 1 + (at & 1)
        while at > arguments.LIMIT:
            if is_prime(at):
                return at
            at -= 2
    if at == arguments.LIMIT:
        return arguments.LIMIT - 59
    return primality.previous_prime(at)


def is_prime(n: SupportsIndex) -> bool:
    """Return whether n is prime.

    Below 2^64 the answer is proven.  Beyond, True means a probable prime: n passed the strong
    test to base 2 and the strong Lucas test with Selfridge's parameters (Baillie and Wagstaff,
    Math. Comp. 35, 1980); False is always proven.

    >>> is_prime(2**61 - 1), is_prime(561), is_prime(2**127 - 1)
    (True, False, True)
    """
    number = n if type(n) is int else arguments.integer("n", n)
    if number < arguments.LIMIT:
        return number >= 2 and primality.is_prime(number)
    if math.gcd(number, _small_primorial()) != 1:
        return False
    return is_strong_probable_prime(number, 2) and is_strong_lucas_probable_prime(number)


@cache
def _small_primorial() -> int:
    return primorial(211)


def are_prime(n: Any) -> npt.NDArray[np.bool_]:
    """Return for each of an array of integers below 2^64 whether it is prime; proven.

    Keeps the shape; releases the GIL.  Four numbers are tested side by side: about 25 ns for a
    random number.

    >>> are_prime([2, 3, 4, 2**61 - 1])
    array([ True,  True, False,  True])
    """
    numbers = arguments.words("n", n)
    flat = parts.contiguous(numbers).reshape(-1)
    out = np.empty(flat.size, dtype=np.uint8)
    primality.are_prime(flat, out)
    return out.view(np.bool_).reshape(numbers.shape)


def is_strong_probable_prime(n: SupportsIndex, base: SupportsIndex) -> bool:
    """Return whether the odd n > 2 passes Miller's test to `base`: a prime always does.

    >>> is_strong_probable_prime(2047, 2), is_strong_probable_prime(2047, 3)
    (True, False)
    """
    number = _odd(n)
    a = arguments.integer("base", base) % number
    if a == 0:
        raise ValueError(f"the base must not be a multiple of {number}")
    rest = number - 1
    twos = (rest & -rest).bit_length() - 1
    x = pow(a, rest >> twos, number)
    if x in (1, rest):
        return True
    for _ in range(twos - 1):
        x = x * x % number
        if x == rest:
            return True
    return False


def is_strong_lucas_probable_prime(n: SupportsIndex) -> bool:
    """Return whether the odd n > 2 passes the strong Lucas test: a prime always does.

    Selfridge's parameters (method A): D is the first of 5, -7, 9, -11, ... with Jacobi symbol
    (D / n) = -1, P = 1, Q = (1 - D) / 4.

    >>> is_strong_lucas_probable_prime(5459), is_strong_lucas_probable_prime(5461)
    (True, False)
    """
    number = _odd(n)
    if math.isqrt(number) ** 2 == number:
        return False
    D = 5
    while (symbol := _jacobi(D, number)) != -1:
        if symbol == 0 and abs(D) % number:
            return False
        D = -D - 2 if D > 0 else -D + 2
    Q = (1 - D) // 4
    rest = number + 1
    twos = (rest & -rest).bit_length() - 1
    U, V, power = 1, 1, Q
    for bit in bin(rest >> twos)[3:]:
        U = U * V % number
        V = (V * V - 2 * power) % number
        power = power * power % number
        if bit == "1":
            U, V = U + V, D * U + V
            U = (U + number if U & 1 else U) // 2 % number
            V = (V + number if V & 1 else V) // 2 % number
            power = power * Q % number
    if U == 0 or V == 0:
        return True
    for _ in range(twos - 1):
        V = (V * V - 2 * power) % number
        if V == 0:
            return True
        power = power * power % number
    return False


def _odd(n: SupportsIndex) -> int:
    number = arguments.integer("n", n, least=3)
    if number % 2 == 0:
        raise ValueError(f"n must be odd, not {arguments.short(number)}")
    return number


def _jacobi(a: int, n: int) -> int:
    """Return the Jacobi symbol (a / n) for odd n > 0."""
    a %= n
    sign = 1
    while a:
        twos = (a & -a).bit_length() - 1
        a >>= twos
        if twos % 2 and n % 8 in (3, 5):
            sign = -sign
        if a % 4 == 3 and n % 4 == 3:
            sign = -sign
        a, n = n % a, a
    return sign if n == 1 else 0


def primorial(n: SupportsIndex) -> int:
    """Return the product of the primes up to n; 1 for n < 2.

    >>> primorial(10), primorial(1)
    (210, 1)
    """
    limit = arguments.integer("n", n)
    if limit < 2:
        return 1
    arguments.room(
        f"the primes up to {arguments.short(limit)} and their product",
        10 * count_estimate(0, limit) if limit < arguments.LIMIT else limit,
    )
    primes = prime_array(limit + 1)
    return math.prod(
        _products([math.prod(primes[part].tolist()) for part in parts.slices(primes.size, 1024)])
    )


def _products(numbers: list[int]) -> list[int]:
    """Multiply neighbors until two are left, so that factors stay of equal size."""
    while len(numbers) > 2:
        pairs = [a * b for a, b in zip(numbers[::2], numbers[1::2], strict=False)]
        numbers = pairs + numbers[len(numbers) // 2 * 2 :]
    return numbers
