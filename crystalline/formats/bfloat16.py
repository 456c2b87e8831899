"""bfloat16 as NumPy has it not: the upper half of a float32's bits, held as uint16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


def widen(upper: Bits) -> Floats:
    """Return the float32 of each value, exactly.

    >>> widen(np.array([0x3F80, 0xC000], np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    return (upper.astype(np.uint32) << 16).view(np.float32)


def narrow(values: Floats) -> Bits:
    """Return the nearest bfloat16 of each value, ties to even; the values are no NaN.

    What is beyond the largest bfloat16 becomes infinite, as hardware does it.

    >>> [hex(x) for x in narrow(np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8], np.float32))]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    bits = values.view(np.uint32)
    rounding = ((bits >> 16) & 1) + 0x7FFF
    return ((bits + rounding) >> 16).astype(np.uint16)
