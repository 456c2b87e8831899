"""Directions by the golden angle 2 pi / phi^2: n of them are spread as evenly as can be.

The n-th direction has the angle n 2 pi / phi^2 (137.5 degrees a step; Vogel, Math. Biosci. 44,
1979), and its cosine and sine come in fixed point at any precision.  Many multiples of an angle,
in doubles, are in `rotations`.
"""

from __future__ import annotations

from typing import SupportsIndex

from crystalline.exact import _arguments as arguments
from crystalline.exact.fixed import BigFixed, mul
from crystalline.exact.functions import cos, phi, pi, sin

_GUARD_BITS = 16


def golden_turn(n: SupportsIndex, prec_bits: SupportsIndex = 64) -> int:
    """Return the fraction of n / phi^2, n golden angles in turns, in units of 2^-prec_bits.

    Within 1 unit around the circle, for any integer n: since 1 / phi^2 = 2 - phi, it is the
    fraction of -n phi, taken from phi with one more bit than n has and rounded.

    >>> golden_turn(1) / 2**64, golden_turn(-1) / 2**64
    (0.38196601125010515, 0.6180339887498949)
    """
    number = arguments.integer("n", n)
    bits = arguments.integer("prec_bits", prec_bits, least=1)
    more = number.bit_length() + 1
    product = number * int(phi(bits + more).mantissa)
    return ((1 << more - 1) - product >> more) % (1 << bits)


def golden_direction(n: SupportsIndex, prec_bits: SupportsIndex = 64) -> tuple[BigFixed, BigFixed]:
    """Return (cos a, sin a) of a = n 2 pi / phi^2 with `prec_bits` bits, for any integer n.

    Each is within 1 unit in the last place: 16 guard bits hold the errors of the turn (1 unit), of
    the product with 2 pi (8) and of cosine and sine (1).

    >>> [round(float(c), 12) for c in golden_direction(1)]
    [-0.737368878078, 0.675490294262]
    >>> [float(c) for c in golden_direction(0)]
    [1.0, 0.0]
    """
    number = arguments.integer("n", n)
    bits = arguments.integer("prec_bits", prec_bits, least=1)
    work = bits + _GUARD_BITS
    angle = mul(BigFixed.from_mantissa(2 * golden_turn(number, work), work), pi(work), work)
    return cos(angle, work).with_precision(bits), sin(angle, work).with_precision(bits)
