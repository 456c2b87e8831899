"""Directions of many angles times 0, 1, 2, ...: doubles within 2^-50, the same on every machine.

An angle is a fraction of a turn in fixed point, so that its multiples are exact however many they
are.  Only the directions of a coarse and of a fine table are computed as such, in fixed point;
the others are products of one of each, in additions and multiplications of doubles, which IEEE 754
leaves no choice of a result.  Single directions at any precision are in `golden`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline.exact import _arguments as arguments
from crystalline.exact.array import BigFixedArray
from crystalline.exact.functions import pi

TURN_BITS = 128  # an angle counts 2^-128 turns
_WORD_BITS = 64


def rotations(
    turns: Sequence[int], count: SupportsIndex, start: SupportsIndex = 0
) -> npt.NDArray[np.float64]:
    """Return (cos, sin) of i · a for i = start, ..., start + count - 1 and every angle a.

    turns: the angles [M], integers in units of 2^-TURN_BITS turns, of any size and sign.
    The result is [count, M, 2], each within 2^-50 of the cosine or sine of that very angle.

    >>> eighth = 1 << TURN_BITS - 3
    >>> rotations([eighth, -eighth], 2, start=8).round(4).tolist()
    [[[1.0, 0.0], [1.0, 0.0]], [[0.7071, 0.7071], [0.7071, -0.7071]]]
    """
    size = arguments.integer("count", count, least=0)
    first = arguments.integer("start", start)
    fine = 1 << (size.bit_length() + 1) // 2
    near = _directions(turns, range(fine))[None]
    far = _directions(turns, range(first, first + size, fine))[:, None]
    result = np.empty((far.shape[0], fine, len(turns), 2))
    np.subtract(far[..., 0] * near[..., 0], far[..., 1] * near[..., 1], out=result[..., 0])
    np.add(far[..., 1] * near[..., 0], far[..., 0] * near[..., 1], out=result[..., 1])
    return result.reshape(far.shape[0] * fine, len(turns), 2)[:size]


def _directions(turns: Sequence[int], multiples: range) -> npt.NDArray[np.float64]:
    """Return (cos, sin) of every multiple of every angle, correctly rounded: [n, M, 2].

    The turn is cut off after 64 bits and the angle rounded twice to so many: it is wrong by less
    than 8 units of 2^-64, and so are its cosine and sine before they become doubles.
    """
    mask = (1 << TURN_BITS) - 1
    shift = TURN_BITS - _WORD_BITS
    words = [[(i * turn & mask) >> shift for turn in turns] for i in multiples]
    limbs = np.zeros((len(multiples), len(turns), 2), np.uint64)
    limbs[..., 0] = np.array(words, np.uint64).reshape(limbs.shape[:2])
    once = BigFixedArray.of(pi(2 * _WORD_BITS) * 2, 2 * _WORD_BITS, _WORD_BITS)
    angles = BigFixedArray.from_limbs(limbs, _WORD_BITS) * once
    return np.stack([angles.cos().to_floats(), angles.sin().to_floats()], axis=-1)
