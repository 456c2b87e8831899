"""Number theory on BigInt against gmpy2 and the laws that define each function."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import gmpy2
import pytest

from crystalline.exact import (
    BigInt,
    gcd,
    invert,
    iroot,
    is_power,
    is_square,
    isqrt,
    isqrt_rem,
    jacobi,
    lcm,
    popcount,
    remove,
    valuation,
    xgcd,
)
from tests.exact.fuzz_integer import number

RANDOM = random.Random(11)
VALUES = [0, 1, -1, 2, -6, 9, 35, -(2**64), 2**64 - 1, 3**80, -(6**60)]
VALUES += [number(RANDOM, 6_000) for _ in range(60)]
PAIRS = [(a, b) for a in VALUES[:20] for b in VALUES[:20]]
TRIPLES = zip(VALUES[20:40], VALUES[40:60], VALUES[50:70], strict=True)
PAIRS += [(a * c, b * c) for a, b, c in TRIPLES]


def test_divisors_and_cofactors() -> None:
    for a, b in PAIRS:
        g, s, t = xgcd(a, b)
        assert g == gcd(BigInt(a), b) == math.gcd(a, b), (a, b)
        assert s * a + t * b == g, (a, b)
        if a and b and abs(a) != abs(b):
            assert 2 * g * abs(s) <= abs(b) or abs(s) <= 1, (a, b)
            assert 2 * g * abs(t) <= abs(a) or abs(t) <= 1, (a, b)
        assert lcm(a, BigInt(b)) == math.lcm(a, b), (a, b)
        assert all(type(x) is BigInt for x in (g, s, t, lcm(a, b)))
    assert (gcd(), gcd(-4), gcd(12, 18, -27)) == (0, 4, 3)
    assert (lcm(), lcm(-4), lcm(4, 6, 0)) == (1, 4, 0)


def test_inverses_are_those_of_pow() -> None:
    for a, m in PAIRS:
        try:
            expected: Any = pow(a, -1, m)
        except ValueError:
            with pytest.raises(ValueError, match=r"not invertible|cannot be 0"):
                invert(a, m)
        else:
            assert invert(a, BigInt(m)) == expected, (a, m)


def test_roots() -> None:
    for n in map(abs, VALUES):
        s, r = isqrt_rem(n)
        assert (int(s), int(r)) == gmpy2.isqrt_rem(n)
        assert isqrt(BigInt(n)) == s
        assert is_square(n) == gmpy2.is_square(n)
        assert is_square(n * n)
        assert is_power(n) == gmpy2.is_power(n)
        for k in (1, 2, 3, 5, 64, 7_000, 2**70):
            root, exact = iroot(n, k)
            if k < 2**63:
                assert (int(root), exact) == gmpy2.iroot(n, k), (n, k)
            else:
                assert (root, exact) == (min(n, 1), n < 2)
            if k < 8:
                assert iroot(n**k, k) == (n, True)
    assert not is_square(-4)


def test_jacobi_symbols() -> None:
    for a, n in PAIRS:
        if n > 0 and n % 2:
            assert jacobi(a, BigInt(n)) == gmpy2.jacobi(a, n), (a, n)


def test_valuations() -> None:
    for n in VALUES:
        for factor in (2, 3, 6, 2**64, 10**30):
            if n == 0:
                continue
            for power in (0, 1, 5):
                m = n * factor**power
                rest, count = remove(m, factor)
                assert (int(rest), count) == gmpy2.remove(m, factor), (m, factor)
                assert valuation(BigInt(m), BigInt(factor)) == count
    assert [popcount(n) for n in (0, 1, 2**100 - 1)] == [0, 1, 100]


BAD: list[tuple[Callable[..., Any], tuple[Any, ...], type[Exception], str]] = [
    (isqrt, (-7,), ValueError, "-7"),
    (isqrt_rem, (-7,), ValueError, "-7"),
    (iroot, (-7, 3), ValueError, "-7"),
    (iroot, (7, 0), ValueError, "0"),
    (is_power, (-7,), ValueError, "-7"),
    (jacobi, (3, 8), ValueError, "8"),
    (jacobi, (3, -7), ValueError, "-7"),
    (jacobi, (3, 0), ValueError, "0"),
    (invert, (6, 9), ValueError, "6 modulo 9"),
    (invert, (6, 0), ValueError, "6"),
    (remove, (0, 3), ValueError, "0"),
    (valuation, (9, 1), ValueError, "1"),
    (remove, (9, -3), ValueError, "-3"),
    (popcount, (-1,), ValueError, "-1"),
    (gcd, (1.5, 2), TypeError, "float"),
    (lcm, (2, "3"), TypeError, "str"),
    (isqrt, (2.0,), TypeError, "float"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_names_the_value(case: int) -> None:
    function, arguments, kind, text = BAD[case]
    with pytest.raises(kind, match=text):
        function(*arguments)
