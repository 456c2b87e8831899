"""Arguments of the number-theoretic functions: integers and arrays of 64-bit integers, checked.

Whatever has `__index__` is an integer here (int, BigInt, NumPy's integers); bool is one too, as
everywhere in Python.  Nothing is rounded: floats are refused even where they are whole.
"""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline.exact import _parts as parts
from crystalline.machine.memory import available_bytes

LIMIT = 1 << 64
_LONG_LIST = 1 << 18  # elements that NumPy converts in one go


def integer(name: str, value: SupportsIndex, *, least: int | None = None) -> int:
    """Return `value` as an int; TypeError for anything else, ValueError below `least`.

    >>> integer("n", np.uint8(7))
    7
    """
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if least is not None and n < least:
        raise ValueError(f"{name} must be at least {least}, not {short(n)}")
    return n


def word(name: str, value: SupportsIndex, *, least: int = 0) -> int:
    """Return `value` as an int from `least` to 2^64 - 1; OverflowError above."""
    n = integer(name, value, least=least)
    if n >= LIMIT:
        raise OverflowError(f"{name} must be below 2^64, not {short(n)}")
    return n


def words(name: str, values: Any) -> npt.NDArray[np.uint64]:
    """Return integers from 0 to 2^64 - 1 as a uint64 array of their own shape, copied if need be.

    TypeError for what is not integers, ValueError for negative ones, OverflowError from 2^64 on.

    >>> words("n", [1, 2**64 - 1])
    array([                   1, 18446744073709551615], dtype=uint64)
    """
    if isinstance(values, list | tuple) and len(values) > _LONG_LIST:
        pieces = [words(name, values[part]) for part in parts.slices(len(values), _LONG_LIST)]
        return parts.concatenated(pieces, 0)
    array = np.asarray(values)
    if array.dtype == np.uint64:
        return array
    if array.dtype.kind in "ub" or array.size == 0:
        return parts.contiguous(array, np.uint64)
    if array.dtype.kind == "i":
        if array.min() < 0:
            raise ValueError(f"{name} must not be negative, as {array.min()} is")
        return parts.contiguous(array, np.uint64)
    if array.dtype.kind == "O" or isinstance(values, list | tuple):
        # Lists with integers on both sides of 2^63 make NumPy take float64.
        objects = np.asarray(values, dtype=object)
        flat = [word(f"an element of {name}", item) for item in objects.ravel().tolist()]
        return np.array(flat, dtype=np.uint64).reshape(objects.shape)
    raise TypeError(f"{name} must be integers, not {array.dtype}")


def room(what: str, size_bytes: int) -> None:
    """Raise MemoryError when `size_bytes` for `what` are more than the machine has to give."""
    available = available_bytes()
    if size_bytes > available:
        needed = short(size_bytes)
        raise MemoryError(f"{what} would take {needed} bytes; {available} are available")


def short(n: int) -> str:
    """Return n for a message: in decimal, or roughly where that would fill a page.

    >>> short(-12), short(10**50)
    ('-12', 'some 2^166')
    """
    if abs(n) < 10**40:
        return str(n)
    return f"some {'-' if n < 0 else ''}2^{n.bit_length() - 1}"
