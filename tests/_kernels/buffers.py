"""Arrays for kernels that read or write where they should not: off a cache line, between guards.

An array from `place` starts `offset` floats past a multiple of 64 bytes.  The
numbers around it are NaN: what reads them gives NaN, what writes them is found
by `guards_intact`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SIZES = range(71)
U = 2.0**-24  # unit roundoff of float32

GUARD = 32  # numbers on either side, two vectors of the widest level
NAN_BITS = 0x7FC0BEEF

F32 = npt.NDArray[np.float32]


def place(values: npt.ArrayLike, offset: int = 1) -> F32:
    """Copy values as float32 into a guarded array that starts `offset` floats past a line."""
    values = np.asarray(values, np.float32)
    raw = np.full(values.size + 2 * GUARD + 32, NAN_BITS, np.uint32)
    start = GUARD + (-(raw.ctypes.data // 4 + GUARD)) % 16 + offset
    view = raw.view(np.float32)[start : start + values.size].reshape(values.shape)
    view[...] = values
    return view


def guards_intact(*arrays: F32) -> bool:
    """Return whether nothing around arrays made by `place` has been written."""
    for array in arrays:
        raw = array
        while isinstance(raw.base, np.ndarray):
            raw = raw.base
        bits = raw.view(np.uint32).ravel()
        start = (array.ctypes.data - raw.ctypes.data) // 4
        around = np.concatenate([bits[:start], bits[start + array.size :]])
        if not (around == NAN_BITS).all():
            return False
    return True


def normal(rng: np.random.Generator, *shape: int) -> F32:
    """Standard normal float32 numbers, guarded and misaligned."""
    return place(rng.standard_normal(shape))


def same_bits(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Return whether two arrays agree to the last bit, NaN and -0 included."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def same_but_nan(a: F32, b: F32) -> bool:
    """Return whether two arrays agree to the last bit, but for the bits of a NaN."""
    nan = np.isnan(a) & np.isnan(b)
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | nan).all())
