"""Factorization of integers, and the functions of number theory that follow from it.

Below 2^64 a factorization is always complete and proven.  Beyond, factors are looked for in
rising order of cost: trial division, perfect powers, Pollard's p - 1, then elliptic curves, up to
the size of factor that `digits` asks for.  A `Factorization` says in `composite` what resisted:
1, or a product of primes that are all likely to be larger.  Factors beyond 2^64 are probable
primes (`is_prime`).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline._kernels.primes import ecm
from crystalline._kernels.primes import factor as kernel
from crystalline.exact import _arguments as arguments
from crystalline.exact import _parts as parts
from crystalline.exact.primes import is_prime, prime_array

# Factors of so many digits are found with a chance of 1 - 1/e by so many curves with that first
# bound (Zimmermann, Dodson, ANTS-VII, 2006; half as many again, for a shorter second stage).
_LEVELS = (
    (15, 2_400, 40),
    (20, 11_000, 140),
    (25, 50_000, 450),
    (30, 250_000, 1_100),
    (35, 1_000_000, 2_700),
    (40, 3_000_000, 7_500),
)
_SECOND_STAGE = 80  # times the first bound
_TRIAL_LIMIT = 1 << 14
_SORTED_AT_ONCE = 1 << 19  # numbers
_SLOTS = 15  # different primes that a 64-bit number can have
_MOST_DIGITS = _LEVELS[-1][0]


class Factorization(Mapping[int, int]):
    """The prime factors of n as a mapping, prime to exponent, in ascending order.

    `composite` is the part of n whose factors were not found, 1 when there is none.

    >>> f = factor(2**7 * 97**2 * (2**61 - 1)); dict(f)
    {2: 7, 97: 2, 2305843009213693951: 1}
    >>> f.is_complete, f.composite, f.n == 2**7 * 97**2 * (2**61 - 1)
    (True, 1, True)
    """

    __slots__ = ("_composite", "_exponents")

    def __init__(self, exponents: Mapping[int, int], composite: int = 1) -> None:
        self._exponents = dict(sorted(exponents.items()))
        self._composite = composite

    def __getitem__(self, prime: int) -> int:
        return self._exponents[prime]

    def __iter__(self) -> Iterator[int]:
        return iter(self._exponents)

    def __len__(self) -> int:
        return len(self._exponents)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Factorization):
            return self._exponents == other._exponents and self._composite == other._composite
        if isinstance(other, Mapping):
            return self._composite == 1 and self._exponents == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self._composite, *self._exponents.items()))

    def __repr__(self) -> str:
        rest = "" if self.is_complete else f", composite={self._composite}"
        return f"Factorization({self._exponents}{rest})"

    @property
    def composite(self) -> int:
        """What is left of n: 1, or a composite number whose factors were not found."""
        return self._composite

    @property
    def is_complete(self) -> bool:
        """Whether every factor is there."""
        return self._composite == 1

    @property
    def n(self) -> int:
        """The number that was factored."""
        product = self._composite
        for p, e in self._exponents.items():
            product *= p**e
        return product


def factor(n: SupportsIndex, *, digits: int = 25) -> Factorization:
    """Return the prime factors of n >= 1.

    Below 2^64: complete, some 40 microseconds at most.  Beyond: primes of up to `digits` decimal
    digits (15 to 40) are likely to be found, and so is any number's factorization whose second
    largest prime has no more; what is not found is in `composite`.  With the default a number of
    200 bits that resists takes some 20 seconds; every five digits more take seven times as long.
    Numbers of more than 2,048 bits are only divided by small primes and tried for powers.
    Ctrl-C ends it at any time.

    Raises ValueError for n < 1.

    >>> factor(2**128 + 1)
    Factorization({59649589127497217: 1, 5704689200685129054721: 1})
    >>> factor((10**30 + 57) * (10**31 + 33), digits=15).is_complete
    False
    """
    number = arguments.integer("n", n, least=1)
    if not 15 <= digits <= _MOST_DIGITS:
        raise ValueError(f"digits must be from 15 to {_MOST_DIGITS}, not {arguments.short(digits)}")
    exponents: Counter[int] = Counter()
    if number >= arguments.LIMIT:
        number = _divide_by_small(number, exponents)
    composite = 1
    waiting = [(number, 1)]
    while waiting:
        m, exponent = waiting.pop()
        if m < arguments.LIMIT:
            for p, e in kernel.factor(m):
                exponents[p] += e * exponent
        elif is_prime(m):
            exponents[m] += exponent
        else:
            root, power = _perfect_power(m)
            if power > 1:
                waiting.append((root, exponent * power))
            elif (divisor := _divisor(m, digits)) == 1:
                composite *= m**exponent
            else:
                waiting += _coprime_parts(m, divisor, exponent)
    return Factorization(exponents, composite)


@cache
def _trial_primes() -> tuple[int, ...]:
    return tuple(prime_array(_TRIAL_LIMIT).tolist())


def _divide_by_small(n: int, exponents: Counter[int]) -> int:
    for p in _trial_primes():
        while n % p == 0:
            n //= p
            exponents[p] += 1
    return n


def _coprime_parts(m: int, divisor: int, exponent: int) -> list[tuple[int, int]]:
    """Split m = a b into powers of numbers without common factors, as (number, exponent)."""
    parts = [(divisor, exponent), (m // divisor, exponent)]
    while True:
        (a, i), (b, j), *rest = parts
        common = math.gcd(a, b)
        if common == 1:
            return [part for part in parts if part[0] > 1]
        if rest or a == b:
            return [(a, i), (b, j), *rest] if a != b else [(a, i + j)]
        parts = [(a // common, i), (b // common, j), (common, i + j)]
        if parts[0][0] == 1 or parts[1][0] == 1:
            return [part for part in parts if part[0] > 1]


def _perfect_power(n: int) -> tuple[int, int]:
    """Return (r, k) with r^k = n for the largest such prime k, (n, 1) when there is none."""
    for k in reversed(prime_array(n.bit_length() // 13 + 2).tolist()):  # no factor below 2^14
        root = _integer_root(n, k)
        if root**k == n:
            return root, k
    return n, 1


def _integer_root(n: int, k: int) -> int:
    """Return the largest r with r^k <= n, by Newton's iteration from above."""
    if k == 2:
        return math.isqrt(n)
    r = 1 << -(-n.bit_length() // k)
    while True:
        following = ((k - 1) * r + n // r ** (k - 1)) // k
        if following >= r:
            return r
        r = following


def _divisor(n: int, digits: int) -> int:
    """Return a proper divisor of the composite n, or 1 when none was found."""
    if n.bit_length() > ecm.MOST_BITS:
        return 1
    found = _minus_one(n, 20_000 if digits < 25 else 100_000)
    if 1 < found < n:
        return found
    choose = random.Random(n)  # the same curves for the same number
    for level, bound, curves in _LEVELS:
        if level > digits:
            return 1
        primes = prime_array(_SECOND_STAGE * bound)
        for _ in range(curves):
            found = _curve(n, choose.randrange(6, 1 << 63), primes, bound)
            if 1 < found < n:
                return found
    return 1


def _minus_one(n: int, bound: int) -> int:
    """Return gcd(3^E - 1, n), E the product of the prime powers up to bound (Pollard, 1974)."""
    x = 3
    for start in range(2, bound, 1000):  # in parts: Ctrl-C is seen between them
        exponent = 1
        for p in prime_array(start, min(start + 1000, bound)).tolist():
            exponent *= p ** int(math.log(bound, p) + 1e-9)
        x = pow(x, exponent, n)
    return math.gcd(x - 1, n)


def _curve(n: int, sigma: int, primes: npt.NDArray[np.uint64], bound: int) -> int:
    """Return what one curve with Suyama's parameter finds: a divisor of n, perhaps 1 or n."""
    u, v = (sigma * sigma - 5) % n, 4 * sigma % n
    below = 16 * u**3 * v * v**3 % n
    common = math.gcd(below, n)
    if common != 1:
        return common
    inverse = pow(below, -1, n)
    x = 16 * u**6 * v * inverse % n
    s = (v - u) ** 3 * (3 * u + v) * v**3 * inverse % n
    z, product = ecm.curve(n, x, s, primes, bound)
    found = math.gcd(z, n)
    return found if found != 1 else math.gcd(product, n)


def _complete(n: SupportsIndex | Factorization) -> Factorization:
    """Return the factorization of n; ArithmeticError when it is not complete."""
    found = n if isinstance(n, Factorization) else factor(n)
    if not found.is_complete:
        raise ArithmeticError(
            f"{found.composite} is composite and its factors were not found; "
            "factor(n, digits=...) looks longer, and its result may be given instead of n"
        )
    return found


def divisors(n: SupportsIndex | Factorization) -> list[int]:
    """Return the divisors of n >= 1 in ascending order.

    This and the functions below take an integer or its `Factorization`, and raise
    ArithmeticError for a number that `factor` could not factor completely.

    >>> divisors(60)
    [1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60]
    """
    found = _complete(n)
    count = divisor_count(found)
    arguments.room(f"a list of {count} divisors", 48 * count)
    result = [1]
    for p, e in found.items():
        # Each ascending; merged by Python, which hears Ctrl-C, where there are many.
        runs = [[d * power for d in result] for power in (p**i for i in range(e + 1))]
        if len(result) * len(runs) > _SORTED_AT_ONCE:
            result = list(heapq.merge(*runs))
        else:
            result = sorted(itertools.chain.from_iterable(runs))
    return result


def divisor_count(n: SupportsIndex | Factorization) -> int:
    """Return the number of divisors of n >= 1.

    >>> divisor_count(60)
    12
    """
    return math.prod(e + 1 for e in _complete(n).values())


def divisor_sum(n: SupportsIndex | Factorization, k: int = 1) -> int:
    """Return the sum of the k-th powers of the divisors of n >= 1, for k >= 0.

    >>> divisor_sum(60), divisor_sum(6, 2)
    (168, 50)
    """
    power = arguments.integer("k", k, least=0)
    found = _complete(n)
    arguments.room("the sum of such powers of divisors", power * (found.n.bit_length() - 1) // 4)
    return math.prod(sum(p ** (power * i) for i in range(e + 1)) for p, e in found.items())


def totient(n: SupportsIndex | Factorization) -> int:
    """Return how many of 1..n are prime to n >= 1 (Euler's phi).

    >>> totient(60), totient(2**61 - 1) == 2**61 - 2
    (16, True)
    """
    return math.prod((p - 1) * p ** (e - 1) for p, e in _complete(n).items())


def mobius(n: SupportsIndex | Factorization) -> int:
    """Return Möbius's mu of n >= 1: 0 for multiples of a square, else (-1)^(number of primes).

    >>> [mobius(n) for n in (1, 2, 4, 6, 30)]
    [1, -1, 0, 1, -1]
    """
    exponents = _complete(n).values()
    return 0 if any(e > 1 for e in exponents) else (-1) ** len(exponents)


def radical(n: SupportsIndex | Factorization) -> int:
    """Return the product of the different primes of n >= 1.

    >>> radical(60)
    30
    """
    return math.prod(_complete(n))


def factor_signature(n: SupportsIndex | Factorization) -> tuple[int, ...]:
    """Return the exponents in the factorization of n >= 1, in descending order.

    >>> factor_signature(360), factor_signature(1)
    ((3, 2, 1), ())
    """
    return tuple(sorted(_complete(n).values(), reverse=True))


def factor_signatures(n: Any) -> npt.NDArray[np.uint8]:
    """Return the factor signatures of an array of integers from 1 to 2^64 - 1.

    Shape (...) gives (..., 15), uint8: exponents in descending order, then zeros; no 64-bit
    number has more than 15 different primes.  Releases the GIL; Ctrl-C ends it.

    >>> factor_signatures([360, 97])[:, :4].tolist()
    [[3, 2, 1, 0], [1, 0, 0, 0]]
    """
    numbers = arguments.words("n", n)
    flat = parts.contiguous(numbers).reshape(-1)
    out = np.empty((flat.size, _SLOTS), dtype=np.uint8)
    if kernel.signatures(flat, out) >= 0:
        raise ValueError("0 has no factorization")
    return out.reshape(*numbers.shape, _SLOTS)


def factor_arrays(
    n: Any,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the factorizations of a vector of integers from 1 to 2^64 - 1, end to end.

    The result is (primes, exponents, starts): the factors of n[i] are those from starts[i] to
    starts[i + 1], primes ascending.  Releases the GIL; Ctrl-C ends it.

    >>> primes, exponents, starts = factor_arrays([12, 1, 97])
    >>> primes.tolist(), exponents.tolist(), starts.tolist()
    ([2, 3, 97], [2, 1, 1], [0, 2, 2, 3])
    """
    numbers = arguments.words("n", n)
    if numbers.ndim != 1:
        raise ValueError(f"n must have one dimension, not {numbers.ndim}")
    size = numbers.size
    arguments.room(f"the factors of {size} numbers", size * _SLOTS * 9)
    primes = np.empty((size, _SLOTS), dtype=np.uint64)
    exponents = np.empty((size, _SLOTS), dtype=np.uint8)
    counts = np.empty(size, dtype=np.uint8)
    if kernel.factor_array(parts.contiguous(numbers), primes, exponents, counts) >= 0:
        raise ValueError("0 has no factorization")
    starts = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    filled = exponents > 0
    return primes[filled], exponents[filled], starts
