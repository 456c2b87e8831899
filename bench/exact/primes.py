"""Rows of the primes: batched gcd, sieving and counting, primality, semiprimes.

primesieve does not build from its Python package here, so the sieve is set against a NumPy sieve
of odd numbers.  Where that took 107 ms, primesieve counted the primes below 10^8 in 6.0 ms and
listed them in 30 ms; the rows ask for twice those, as ratios to NumPy.
"""

from __future__ import annotations

from typing import Any

import flint
import numpy as np
import numpy.typing as npt

from bench.exact.pairs import Row
from crystalline import exact
from crystalline._kernels.primes import sieve

LIMIT = 10**8


def _numpy_primes(limit: int) -> npt.NDArray[np.int64]:
    """Return the primes below `limit` by a sieve of odd numbers in NumPy."""
    odd = np.ones(limit // 2, dtype=bool)  # odd[i]: 2 i + 1
    odd[0] = False
    for i in range(1, int(limit**0.5) // 2 + 1):
        if odd[i]:
            odd[2 * i * (i + 1) :: 2 * i + 1] = False
    return np.concatenate([[2], 2 * np.flatnonzero(odd) + 1])


def _numpy_count(limit: int) -> int:
    return len(_numpy_primes(limit))


def _equal(ours: Any, theirs: Any) -> None:
    assert np.array_equal(np.asarray(ours), np.asarray(theirs)), "the two sides disagree"


def rows() -> list[Row]:
    """Return the rows of this part."""
    rng = np.random.default_rng(4)
    a = rng.integers(0, 2**64, 10**6, dtype=np.uint64)
    b = rng.integers(0, 2**64, 10**6, dtype=np.uint64)
    candidates = rng.integers(0, 2**64, 10**4, dtype=np.uint64)
    candidate_objects = [flint.fmpz(n) for n in candidates.tolist()]
    halves = rng.integers(2**31, 2**32, 100).tolist()
    primes = [exact.next_prime(n) for n in halves]
    semiprimes = [p * q for p, q in zip(primes[::2], primes[1::2], strict=True)]
    semiprime_objects = [flint.fmpz(n) for n in semiprimes]
    return [
        Row(
            "gcd of 10^6 pairs of 64 bits",
            lambda: exact.gcd_array(a, b),
            "numpy",
            lambda: np.gcd(a, b),
            0.1,
            _equal,
        ),
        Row(
            "primes below 10^8, counted by sieving",
            lambda: sieve.count(0, LIMIT - 1),
            "numpy sieve",
            lambda: _numpy_count(LIMIT),
            0.11,
        ),
        Row(
            "primes below 10^8, counted",
            lambda: exact.count_primes(LIMIT),
            "numpy sieve",
            lambda: _numpy_count(LIMIT),
            0.11,
        ),
        Row(
            "primes below 10^8, as an array",
            lambda: exact.prime_array(LIMIT),
            "numpy sieve",
            lambda: _numpy_primes(LIMIT),
            0.56,
            _equal,
        ),
        Row(
            "10,000 tests of primality at 64 bits",
            lambda: exact.are_prime(candidates),
            "python-flint",
            lambda: [n.is_prime() for n in candidate_objects],
            1.5,
            _equal,
        ),
        Row(
            "10,000 tests of primality at 64 bits, one by one",
            lambda: [exact.is_prime(n) for n in candidates.tolist()],
            "python-flint",
            lambda: [n.is_prime() for n in candidate_objects],
            3,
            _equal,
        ),
        Row(
            "50 semiprimes of 64 bits",
            lambda: [dict(exact.factor(n)) for n in semiprimes],
            "python-flint",
            lambda: [{int(p): e for p, e in n.factor()} for n in semiprime_objects],
            1.0,
        ),
    ]
