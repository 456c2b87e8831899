"""Work on large NumPy arrays in parts, between which Python hears Ctrl-C.

One call of NumPy runs to its end whatever happens; over gigabytes that takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PART = 1 << 21  # elements: some ten milliseconds


def slices(size: int, part: int = PART) -> Iterator[slice]:
    """Yield the slices of a vector of that size.

    >>> list(slices(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, size, part):
        yield slice(start, min(start + part, size))


def assign(to: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Do to[...] = source, which has the same shape and shares no memory with it.

    >>> a = np.zeros((2, 3)); assign(a, np.ones((2, 3))); a.sum()
    np.float64(6.0)
    """
    if to.size <= PART:
        to[...] = source
        return
    rows = max(1, PART * len(to) // to.size)
    for part in slices(len(to), rows):
        if rows == 1:
            assign(to[part.start], source[part.start])
        else:
            to[part] = source[part]


def contiguous(array: npt.NDArray[Any], dtype: Any = None) -> npt.NDArray[Any]:
    """Return the array, or where it is not C-contiguous and of that type, a copy that is.

    >>> contiguous(np.arange(6).reshape(2, 3).T, np.uint64).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    if array.flags.c_contiguous and array.dtype == (dtype or array.dtype):
        return array
    return copied(array, dtype)


def copied(array: npt.NDArray[Any], dtype: Any = None) -> npt.NDArray[Any]:
    """Return a C-contiguous copy, of another type if need be."""
    result = np.empty(array.shape, dtype or array.dtype)
    assign(result, array)
    return result


def reshaped(array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the elements in another shape: a view where that can be, else copied in parts.

    >>> reshaped(np.arange(6).reshape(2, 3).T, (6,)).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    if array.size <= PART or array.flags.c_contiguous:
        return array.reshape(shape)
    try:
        return np.reshape(array, shape, copy=False)
    except ValueError:
        return copied(array).reshape(shape)
    except TypeError:  # NumPy 2.0, which cannot be asked
        return array.reshape(shape)


def concatenated(arrays: Sequence[npt.NDArray[Any]], axis: int) -> npt.NDArray[Any]:
    """Return arrays of one type joined along an axis counted from the first, as NumPy joins them.

    >>> concatenated([np.zeros((1, 2)), np.ones((1, 2))], 0).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    shapes = {(*array.shape[:axis], *array.shape[axis + 1 :]) for array in arrays}
    if len(shapes) > 1 or sum(array.size for array in arrays) <= PART:
        return np.concatenate(arrays, axis=axis)  # or what it says of unequal shapes
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    result = np.empty(shape, arrays[0].dtype)
    at = 0
    for array in arrays:
        end = at + array.shape[axis]
        assign(result[(slice(None),) * axis + (slice(at, end),)], array)
        at = end
    return result


def evaluate(
    function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], rows: npt.NDArray[Any], dtype: Any
) -> npt.NDArray[Any]:
    """Return function(rows), one element for each of rows[n, ...].

    >>> evaluate(lambda rows: rows.any(axis=-1), np.eye(2, 3), bool).tolist()
    [True, True]
    """
    result = np.empty(len(rows), dtype)
    for part in slices(len(rows), max(1, PART * len(rows) // max(rows.size, 1))):
        result[part] = function(rows[part])
    return result
