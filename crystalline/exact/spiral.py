"""Ulam's spiral: from a number to its place in the plane and back, exact at any size.

1 lies at the origin, 2 one step east of it at (1, 0), and the spiral turns counterclockwise: 3 at
(1, 1), 4 at (0, 1), 5 at (-1, 1), ...  Ring k holds the numbers (2k - 1)^2 + 1 to (2k + 1)^2, all
places with max(|x|, |y|) = k (Stein, Ulam, Wells, Amer. Math. Monthly 71, 1964).

The functions of single numbers take integers of any size; those of arrays take 64-bit ones.
"""

from __future__ import annotations

import math
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline._kernels.primes import spiral as kernel
from crystalline.exact import _arguments as arguments
from crystalline.exact import _parts as parts


def spiral_place(n: SupportsIndex) -> tuple[int, int]:
    """Return the place (x, y) of the number n >= 1.

    >>> [spiral_place(n) for n in (1, 2, 3, 10)]
    [(0, 0), (1, 0), (1, 1), (2, -1)]
    """
    number = arguments.integer("n", n, least=1)
    k = (math.isqrt(number - 1) + 1) // 2
    if k == 0:
        return 0, 0
    along = number - 1 - (2 * k - 1) ** 2
    side, step = divmod(along, 2 * k)
    if side == 0:
        return k, step - k + 1
    if side == 1:
        return k - 1 - step, k
    if side == 2:
        return -k, k - 1 - step
    return step - k + 1, -k


def spiral_number(x: SupportsIndex, y: SupportsIndex) -> int:
    """Return the number at the place (x, y).

    >>> spiral_number(0, 0), spiral_number(2, -1), spiral_number(10**30, 0) % 1000
    (1, 10, 1)
    """
    east, north = arguments.integer("x", x), arguments.integer("y", y)
    k = max(abs(east), abs(north))
    if k == 0:
        return 1
    if north == -k:
        along = 7 * k + east - 1
    elif east == k:
        along = k + north - 1
    elif north == k:
        along = 3 * k - east - 1
    else:
        along = 5 * k - north - 1
    return (2 * k - 1) ** 2 + 1 + along


def spiral_distance_squared(a: SupportsIndex, b: SupportsIndex) -> int:
    """Return the squared Euclidean distance of the places of two numbers.

    >>> spiral_distance_squared(1, 10)
    5
    """
    (ax, ay), (bx, by) = spiral_place(a), spiral_place(b)
    return (ax - bx) ** 2 + (ay - by) ** 2


def spiral_places(n: Any) -> npt.NDArray[np.int64]:
    """Return the places of an array of numbers below 2^64: shape (...) gives (..., 2), int64.

    Raises ValueError for 0, which has no place.

    >>> spiral_places([1, 2, 3, 10]).tolist()
    [[0, 0], [1, 0], [1, 1], [2, -1]]
    """
    numbers = arguments.words("n", n)
    flat = parts.contiguous(numbers).reshape(-1)
    x, y = np.empty(flat.size, dtype=np.int64), np.empty(flat.size, dtype=np.int64)
    if kernel.places(flat, x, y) >= 0:
        raise ValueError("the spiral begins with 1: 0 has no place")
    places = np.empty((flat.size, 2), dtype=np.int64)
    parts.assign(places[:, 0], x)
    parts.assign(places[:, 1], y)
    return places.reshape(*numbers.shape, 2)


def spiral_numbers(places: Any) -> npt.NDArray[np.uint64]:
    """Return the numbers at an array of places (..., 2): shape (...), uint64.

    Raises OverflowError where a number is not below 2^64.

    >>> spiral_numbers([[0, 0], [2, -1]])
    array([ 1, 10], dtype=uint64)
    """
    array = np.asarray(places)
    if array.dtype.kind not in "iu" or array.dtype == np.uint64:
        raise TypeError(f"places must be signed integers of up to 64 bits, not {array.dtype}")
    if array.ndim == 0 or array.shape[-1] != 2:
        raise ValueError(f"places must have the shape (..., 2), not {array.shape}")
    x = parts.contiguous(array[..., 0], np.int64).reshape(-1)
    y = parts.contiguous(array[..., 1], np.int64).reshape(-1)
    out = np.empty(x.size, dtype=np.uint64)
    at = kernel.numbers(x, y, out)
    if at >= 0:
        raise OverflowError(f"the number at ({x[at]}, {y[at]}) is not below 2^64")
    return out.reshape(array.shape[:-1])


def spiral_distances_squared(a: Any, b: Any) -> npt.NDArray[np.uint64]:
    """Return the squared distances of the places of two arrays of numbers, broadcast, uint64.

    Raises ValueError for 0 and OverflowError where a square is not below 2^64, which only
    numbers above 2^62 can bring about.

    >>> spiral_distances_squared([1, 2, 10], 1)
    array([0, 1, 5], dtype=uint64)
    """
    x, y = arguments.words("a", a), arguments.words("b", b)
    shape = np.broadcast_shapes(x.shape, y.shape)
    x, y = (parts.contiguous(np.broadcast_to(z, shape)).reshape(-1) for z in (x, y))
    out = np.empty(x.size, dtype=np.uint64)
    at = kernel.distances(x, y, out)
    if at >= 0 and 0 in (x[at], y[at]):
        raise ValueError("the spiral begins with 1: 0 has no place")
    if at >= 0:
        raise OverflowError(f"the squared distance of {x[at]} and {y[at]} is not below 2^64")
    return out.reshape(shape)
