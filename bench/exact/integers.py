"""BigInt against gmpy2 and against Python's int: the integer rows of bench_exact."""

from __future__ import annotations

import math
import operator
import random
import sys
from collections.abc import Callable
from typing import Any

import gmpy2

from bench.exact.pairs import Row
from crystalline.exact import BigInt, gcd, isqrt

BITS = (256, 4_096, 65_536)


def _number(bits: int, seed: int) -> int:
    """A random number of exactly so many bits, odd."""
    return random.Random(seed).getrandbits(bits) | 1 << bits - 1 | 1


def _binary(
    name: str, f: Callable[[Any, Any], Any], a: int, b: int, at_most: float, peer: str = "gmpy2"
) -> Row:
    x, y = BigInt(a), BigInt(b)
    u, v = (gmpy2.mpz(a), gmpy2.mpz(b)) if peer == "gmpy2" else (a, b)
    return Row(name, lambda: f(x, y), peer, lambda: f(u, v), at_most, _equal)


def _equal(ours: Any, theirs: Any) -> None:
    if isinstance(ours, tuple):
        assert tuple(map(int, ours)) == tuple(map(int, theirs))
    elif isinstance(ours, str):
        assert ours == theirs
    else:
        assert int(ours) == int(theirs)


def _against_gmpy2() -> list[Row]:
    mul = operator.mul
    asked = {256: 2.0, 4_096: 2.0, 65_536: 1.2, 262_144: 1.2, 10**6: 0.65, 10**7: 0.45}
    rows = [
        _binary(f"mul {bits:,} bits", mul, _number(bits, 1), _number(bits, 2), ratio)
        for bits, ratio in asked.items()
    ]
    rows += [
        _binary(f"divmod {2 * n:,} / {n:,} bits", divmod, _number(2 * n, 3), _number(n, 4), 2.0)
        for n in (65_536, 10**6)
    ]
    base, exponent, modulus = (_number(2_048, seed) for seed in (5, 6, 7))
    x, e, m = BigInt(base), BigInt(exponent), BigInt(modulus)
    u, k, w = gmpy2.mpz(base), gmpy2.mpz(exponent), gmpy2.mpz(modulus)
    rows.append(
        Row("powmod 2,048 bits", lambda: pow(x, e, m), "gmpy2", lambda: pow(u, k, w), 2.0, _equal)
    )
    number = 10**99_999 + _number(300_000, 8)
    ours, theirs = BigInt(number), gmpy2.mpz(number)
    text = str(ours)
    rows += [
        Row("to 10^5 digits", lambda: str(ours), "gmpy2", lambda: str(theirs), 2.0, _equal),
        Row(
            "from 10^5 digits", lambda: BigInt(text), "gmpy2", lambda: gmpy2.mpz(text), 2.0, _equal
        ),
    ]
    a, b = _number(100_000, 9), _number(100_000, 10)
    x1, y1, u1, v1 = BigInt(a), BigInt(b), gmpy2.mpz(a), gmpy2.mpz(b)
    rows.append(
        Row(
            "gcd 100,000 bits",
            lambda: gcd(x1, y1),
            "gmpy2",
            lambda: gmpy2.gcd(u1, v1),
            3.0,
            _equal,
        )
    )
    return rows


def _against_int(bits: int) -> list[Row]:
    a, b, long = _number(bits, 11), _number(bits, 12), _number(2 * bits, 13)
    rows = [
        _binary(f"{name} {bits:,} bits", f, a, b, 1.0, "int")
        for name, f in (
            ("add", operator.add),
            ("sub", operator.sub),
            ("mul", operator.mul),
            ("and", operator.and_),
            ("compare", operator.lt),
        )
    ]
    rows.append(_binary(f"divmod {2 * bits:,} / {bits:,} bits", divmod, long, b, 1.0, "int"))
    x, y, text = BigInt(a), BigInt(b), str(BigInt(a))
    exponent = _number(100, 14)
    p = BigInt(exponent)

    def row(name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Row:
        return Row(f"{name} {bits:,} bits", ours, "int", theirs, 1.0, _equal)

    return [
        *rows,
        row("pow, 100-bit exponent, mod", lambda: pow(y, p, x), lambda: pow(b, exponent, a)),
        row("str", lambda: str(x), lambda: str(a)),
        row("from str", lambda: BigInt(text), lambda: int(text)),
        row("<< 77", lambda: x << 77, lambda: a << 77),
        row(">> 77", lambda: x >> 77, lambda: a >> 77),
        row("gcd", lambda: gcd(x, y), lambda: math.gcd(a, b)),
        row("isqrt", lambda: isqrt(x), lambda: math.isqrt(a)),
        row("hash", lambda: hash(x), lambda: hash(a)),
    ]


def rows() -> list[Row]:
    """Every integer row: gmpy2 by the sizes of the table, then int at three sizes."""
    sys.set_int_max_str_digits(0)
    return _against_gmpy2() + [row for bits in BITS for row in _against_int(bits)]
