"""Where a number lies: its place on Ulam's spiral and its directions by the golden angle.

The coordinates of a number n >= 2 in d dimensions, with (x, y) its place on Ulam's spiral and
a = n 2 pi / phi^2 its golden angle:

    d = 1:    x + y / phi
    d >= 2:   x, y, cos a, sin a, cos 2a, sin 2a, cos 3a, ...   as many as d

so that the spiral says in which region a number lies, and the harmonics of an irrational angle
part neighbors there.  x and y are exact; every other coordinate is within one unit of 2^-192.

Different numbers have different coordinates.  For d >= 2 their places differ by an integer.  For
d = 1, let p and q be the differences of x and y: (p + q / phi)(p - q phi) = p^2 - p q - q^2 is an
integer, and not 0 since phi is irrational; hence |p + q / phi| >= 1 / (|p| + 2 |q|), which is more
than 2^-35 for numbers below 2^64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from crystalline.exact import (
    BigFixed,
    BigFixedArray,
    golden_direction,
    golden_turn,
    mul,
    phi,
    pi,
    spiral_place,
    sqrt,
)

WIDTH_BITS = 256
FRAC_BITS = 192
_GUARD_BITS = 64


def coordinates(number: int, dimension: int) -> tuple[BigFixed, ...]:
    """Return the coordinates of a number from 2 to 2^64 - 1: [dimension] with 192 bits each.

    >>> [round(float(c), 6) for c in coordinates(7, 4)]
    [-1.0, -1.0, -0.460907, -0.887448]
    >>> [round(float(c), 6) for c in coordinates(7, 1)]
    [-1.618034]
    """
    x, y = spiral_place(number)
    if dimension == 1:
        work = FRAC_BITS + _GUARD_BITS
        # 1 / phi = phi - 1; |y| < 2^32 leaves the product of the rounded phi 2^-224 from the true.
        mantissa = ((x - y) << work) + y * int(phi(work).mantissa)
        return (BigFixed.from_mantissa(rounded_quotient(mantissa, 1 << _GUARD_BITS), FRAC_BITS),)
    found = [BigFixed(x, FRAC_BITS), BigFixed(y, FRAC_BITS)]
    for harmonic in range(1, dimension // 2 + dimension % 2):
        found += golden_direction(harmonic * number, FRAC_BITS)
    return tuple(found[:dimension])


def golden_angle(number: int) -> BigFixed:
    """Return number 2 pi / phi^2 modulo 2 pi, in radians, to within one unit of 2^-192.

    >>> round(float(golden_angle(1)), 9), round(float(golden_angle(5)), 9)
    (2.39996323, 5.716630841)
    """
    work = FRAC_BITS + _GUARD_BITS
    angle = mul(BigFixed.from_mantissa(2 * golden_turn(number, work), work), pi(work), work)
    return angle.with_precision(FRAC_BITS)


def clock_direction(hours: int, prec_bits: int = FRAC_BITS) -> tuple[BigFixed, BigFixed]:
    """Return (cos, sin) of 2 pi hours / 12: exact at 0, 3, 6 and 9, rounded once elsewhere.

    >>> [round(float(c), 6) for c in clock_direction(1)], [float(c) for c in clock_direction(-3)]
    ([0.866025, 0.5], [0.0, -1.0])
    """
    half = BigFixed.from_mantissa(1 << prec_bits >> 1, prec_bits)
    root = sqrt(BigFixed("0.75", prec_bits), prec_bits)
    values = (half + half, root, half, half - half)
    turn = [*values, *(-v for v in values[2::-1]), *(-v for v in values[1:]), *values[2:0:-1]]
    return turn[hours % 12], turn[(hours - 3) % 12]


def from_mantissas(rows: Iterable[Sequence[int]], width: int) -> BigFixedArray:
    """Return rows of integers in units of 2^-192 as an array [n, width] of 256 bits.

    OverflowError for one of 2^255 or more.

    >>> from_mantissas([[1 << 192, -1 << 191]], 2).to_strings()
    [['1.0', '-0.5']]
    """
    size = WIDTH_BITS // 8
    try:
        data = bytearray().join(m.to_bytes(size, "little", signed=True) for r in rows for m in r)
    except OverflowError:
        raise OverflowError(
            f"a coordinate does not fit in {WIDTH_BITS} bits with {FRAC_BITS} after the point"
        ) from None
    limbs = np.frombuffer(data, np.uint64).reshape(-1, width, size // 8)
    return BigFixedArray.from_limbs(limbs, FRAC_BITS)


def rounded_quotient(top: int, bottom: int) -> int:
    """Return top / bottom for bottom > 0, rounded to the nearest integer, ties to even.

    >>> [rounded_quotient(n, 4) for n in (1, 2, 3, 6, -2, -6, -7)]
    [0, 0, 1, 2, 0, -2, -2]
    """
    quotient, rest = divmod(top, bottom)
    return quotient + (2 * rest + (quotient & 1) > bottom)
