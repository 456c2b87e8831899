"""Factorization of integers of any size, what follows from it, what is not found, Ctrl-C."""

from __future__ import annotations

import math

import flint
import numpy as np
import pytest
import sympy
from sympy.functions.combinatorial.numbers import mobius, totient

from crystalline import exact

LARGE = [
    2**64,
    2**64 + 1,
    2**127 - 1,
    2**89 + 1,
    2**101 - 1,  # two primes of 13 and 18 digits
    10**40 - 1,
    math.factorial(40),
    (2**64 + 13) ** 3,
    (2**64 + 13) ** 2 * (10**20 + 39) ** 2,
    (2**31 - 1) ** 7,
    6**90 * (10**15 + 37) ** 6,
    3 * (2**89 - 1) ** 2,
    16381**2 * 16411**5,  # around the end of trial division
    (10**12 + 39) * (10**30 + 57),
    2**300,
]


@pytest.mark.parametrize("n", LARGE)
def test_large_numbers(n: int) -> None:
    found = exact.factor(n)
    assert found.is_complete
    assert found.n == n == math.prod(p**e for p, e in found.items())
    assert list(found) == sorted(found)
    assert all(flint.fmpz(p).is_prime() for p in found)


def test_small_numbers_against_sympy() -> None:
    for n in [*range(1, 2000), 2**63, 2**64 - 1]:
        assert exact.factor(n) == sympy.factorint(n)


def test_what_is_not_found_is_marked() -> None:
    hard = (10**30 + 57) * (10**31 + 33)
    found = exact.factor(12 * hard, digits=15)
    assert not found.is_complete
    assert found.composite == hard
    assert dict(found) == {2: 2, 3: 1}
    assert found.n == 12 * hard
    assert repr(found) == f"Factorization({{2: 2, 3: 1}}, composite={hard})"
    for function in (exact.totient, exact.divisors, exact.mobius, exact.factor_signature):
        with pytest.raises(ArithmeticError, match=f"{hard} is composite"):
            function(found)
    long = (2**1279 - 1) * (2**2203 - 1)
    assert exact.factor(6 * long).composite == long


def test_the_mapping_is_a_value() -> None:
    a, b = exact.factor(360), exact.factor(360)
    assert a == b == {2: 3, 3: 2, 5: 1}
    assert hash(a) == hash(b)
    assert a != exact.factor(361)
    assert (a[2], 7 in a, len(a), a.get(7, 0)) == (3, False, 3, 0)
    assert exact.factor(1) == {}
    assert exact.factor(1).n == 1
    with pytest.raises(KeyError):
        a[7]


def test_arithmetic_functions_against_sympy() -> None:
    for n in [*range(1, 400), 720720, 2**40 * 3**5, 10**18 + 9]:
        assert exact.divisors(n) == sympy.divisors(n)
        assert exact.divisor_count(n) == sympy.divisor_count(n)
        assert [exact.divisor_sum(n, k) for k in range(3)] == [
            sympy.divisor_sigma(n, k) for k in range(3)
        ]
        assert exact.totient(n) == totient(n)
        assert exact.mobius(n) == mobius(n)
        assert exact.radical(n) == math.prod(sympy.primefactors(n))
        assert list(exact.factor_signature(n)) == sorted(sympy.factorint(n).values())[::-1]


def test_arrays() -> None:
    n = np.array([[360, 1, 97], [2**63, 2**64 - 1, 614889782588491410]], dtype=np.uint64)
    signatures = exact.factor_signatures(n)
    assert signatures.shape == (2, 3, 15)
    for at, number in np.ndenumerate(n):
        want = exact.factor_signature(int(number))
        assert signatures[at].tolist() == [*want, *[0] * (15 - len(want))]
    primes, exponents, starts = exact.factor_arrays(n.ravel())
    for i, number in enumerate(n.ravel().tolist()):
        part = slice(starts[i], starts[i + 1])
        pairs = zip(primes[part].tolist(), exponents[part].tolist(), strict=True)
        assert exact.factor(number) == dict(pairs)
    assert [a.size for a in exact.factor_arrays([])] == [0, 0, 1]


def test_bad_input() -> None:
    for n in (0, -12):
        with pytest.raises(ValueError, match=f"n must be at least 1, not {n}"):
            exact.factor(n)
    with pytest.raises(TypeError, match=r"n must be an integer, not 2\.5"):
        exact.factor(2.5)  # type: ignore[arg-type]
    for digits in (14, 41):
        with pytest.raises(ValueError, match=f"digits must be from 15 to 40, not {digits}"):
            exact.factor(12, digits=digits)
    with pytest.raises(ValueError, match="0 has no factorization"):
        exact.factor_signatures([3, 0])
    with pytest.raises(ValueError, match="0 has no factorization"):
        exact.factor_arrays([3, 0])
    with pytest.raises(ValueError, match="one dimension, not 2"):
        exact.factor_arrays([[3]])
    with pytest.raises(MemoryError, match="divisors would take"):
        exact.divisors(exact.factor(math.prod(sympy.primerange(400))))
    with pytest.raises(ValueError, match="k must be at least 0, not -1"):
        exact.divisor_sum(6, -1)
