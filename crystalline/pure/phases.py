"""Phases of numbers on two circles, and how well those of two numbers agree.

The phases of n are its golden angle n 2 pi / phi^2 and its hour on the clock, 2 pi (n mod 12) / 12.
The alignment of a and b over H harmonics is the mean of the 2 H cosines

    cos h (golden(a) - golden(b))   and   cos h (clock(a) - clock(b)),   h = 1 .. H,

the correlation of two signals that have unit power at these frequencies and the numbers' phases:
in [-1, 1], symmetric, 1 of a number with itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crystalline.exact import BigFixed, golden_direction
from crystalline.pure.coordinates import (
    FRAC_BITS,
    clock_direction,
    rounded_quotient,
)

HARMONICS = 4
_GUARD_BITS = 16


def phase_alignment(
    a: int, b: int, harmonics: int = HARMONICS, prec_bits: int = FRAC_BITS
) -> BigFixed:
    """Return the alignment of two numbers, within one unit in the last place.

    >>> float(phase_alignment(7, 7)), round(float(phase_alignment(5, 17)), 6)
    (1.0, 0.391403)
    >>> phase_alignment(5, 17) == phase_alignment(17, 5)
    True
    """
    _check(harmonics)
    work = prec_bits + _GUARD_BITS + harmonics.bit_length()
    total = 0
    for h in range(1, harmonics + 1):
        difference = h * abs(a - b)
        golden, clock = golden_direction(difference, work), clock_direction(difference, work)
        total += int(golden[0].mantissa) + int(clock[0].mantissa)
    shift = work - prec_bits
    return BigFixed.from_mantissa(rounded_quotient(total, 2 * harmonics << shift), prec_bits)


def phase_table(
    numbers: npt.NDArray[np.uint64], harmonics: int = HARMONICS
) -> npt.NDArray[np.float64]:
    """Return the phases of numbers [n] as [n, 4 H]: cosine and sine of each, golden ones first.

    Half the inner product of two rows over H is the alignment.  Correct to 2^-53 and half a unit
    in the last place of a double.

    >>> rows = phase_table(np.array([5, 17], np.uint64))
    >>> rows.shape, round(float(rows[0] @ rows[1]) / 8, 6)
    ((2, 16), 0.391403)
    """
    _check(harmonics)
    table = np.empty((len(numbers), 2, harmonics, 2))
    hours = [[float(x) for x in clock_direction(hour, 64)] for hour in range(12)]
    for row, n in zip(table, numbers.tolist(), strict=True):
        for h in range(1, harmonics + 1):
            row[0, h - 1] = [float(x) for x in golden_direction(h * n, 64)]
            row[1, h - 1] = hours[h * n % 12]
    return table.reshape(len(numbers), 4 * harmonics)


def _check(harmonics: int) -> None:
    if harmonics < 1:
        raise ValueError(f"harmonics is {harmonics}, expected 1 or more")
