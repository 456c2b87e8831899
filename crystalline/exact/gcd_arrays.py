"""Greatest common divisors over arrays of 64-bit integers, and what follows from them.

Every function takes integers from 0 to 2^64 - 1 (arrays of any shape or single numbers,
broadcast against each other like NumPy's own), releases the GIL, and gives the same bits at
every instruction-set level.  gcd(x, 0) is x.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline._kernels.primes import gcd as kernel
from crystalline.exact import _arguments as arguments
from crystalline.exact import _parts as parts

Words = npt.NDArray[np.uint64]


def _pair(a: Any, b: Any) -> tuple[Words, Words, tuple[int, ...]]:
    """Return both operands flat, the second of one element where it is a scalar, and the shape."""
    x, y = arguments.words("a", a), arguments.words("b", b)
    if x.size == 1 and y.size != 1 and x.ndim <= y.ndim:
        x, y = y, x  # all of these functions are symmetric
    if y.size == 1 and y.ndim <= x.ndim:
        return parts.contiguous(x).reshape(-1), y.reshape(-1).copy(), x.shape
    shape = np.broadcast_shapes(x.shape, y.shape)
    flat = [parts.contiguous(np.broadcast_to(z, shape)).reshape(-1) for z in (x, y)]
    return flat[0], flat[1], shape


def gcd_array(a: Any, b: Any) -> Words:
    """Return gcd(a, b) elementwise as uint64.

    >>> gcd_array([12, 35, 0], [18, 49, 5])
    array([6, 7, 5], dtype=uint64)
    >>> gcd_array([12, 35, 0], 10)
    array([ 2,  5, 10], dtype=uint64)
    """
    x, y, shape = _pair(a, b)
    out = np.empty(x.size, dtype=np.uint64)
    kernel.gcd(x, y, out)
    return out.reshape(shape)


def lcm_array(a: Any, b: Any) -> Words:
    """Return the least common multiple of a and b elementwise as uint64; lcm(x, 0) is 0.

    Raises OverflowError when one is 2^64 or more, with the pair in the message.

    >>> lcm_array([4, 6, 0], 10)
    array([20, 30,  0], dtype=uint64)
    """
    x, y, shape = _pair(a, b)
    out = np.empty(x.size, dtype=np.uint64)
    at = kernel.lcm(x, y, out)
    if at >= 0:
        other = y[0] if y.size == 1 else y[at]
        raise OverflowError(f"the lcm of {x[at]} and {other} is not below 2^64")
    return out.reshape(shape)


def coprime_array(a: Any, b: Any) -> npt.NDArray[np.bool_]:
    """Return elementwise whether gcd(a, b) is 1.

    >>> coprime_array([1, 2, 3, 4], 6)
    array([ True, False, False, False])
    """
    x, y, shape = _pair(a, b)
    out = np.empty(x.size, dtype=np.uint8)
    kernel.coprime(x, y, out)
    return out.view(np.bool_).reshape(shape)


def gcd_similarity(a: Any, b: Any) -> npt.NDArray[np.float64]:
    """Return gcd(a, b) / max(a, b) elementwise: 1 for equal numbers, 1 / max for coprime ones.

    Correctly rounded where both are below 2^53, within 2 ulp otherwise; 1 where both are 0.

    >>> gcd_similarity([6, 10, 7], 10)
    array([0.2, 1. , 0.1])
    """
    x, y, shape = _pair(a, b)
    out = np.empty(x.size, dtype=np.float64)
    kernel.similarity(x, y, out)
    return out.reshape(shape)


def _rows_and_columns(a: Any, b: Any, size: int) -> tuple[Words, Words]:
    vectors = []
    for name, value in (("a", a), ("b", b)):
        vector = arguments.words(name, value)
        if vector.ndim != 1:
            raise ValueError(f"{name} must have one dimension, not {vector.ndim}")
        vectors.append(parts.contiguous(vector))
    shape = (vectors[0].size, vectors[1].size)
    arguments.room(f"a matrix of {shape[0]} x {shape[1]}", shape[0] * shape[1] * size)
    return vectors[0], vectors[1]


def gcd_matrix(a: Any, b: Any) -> Words:
    """Return gcd(a[i], b[j]) for all i and j: (n,) and (m,) give (n, m), uint64.

    >>> gcd_matrix([6, 10], [4, 15, 7])
    array([[2, 3, 1],
           [2, 5, 1]], dtype=uint64)
    """
    x, y = _rows_and_columns(a, b, 8)
    out = np.empty((x.size, y.size), dtype=np.uint64)
    kernel.gcd_matrix(x, y, out)
    return out


def gcd_similarity_matrix(a: Any, b: Any) -> npt.NDArray[np.float64]:
    """Return gcd(a[i], b[j]) / max(a[i], b[j]) for all i and j: (n,) and (m,) give (n, m).

    Rounded as in `gcd_similarity`.

    >>> gcd_similarity_matrix([6, 10], [4, 10])
    array([[0.33333333, 0.2       ],
           [0.2       , 1.        ]])
    """
    x, y = _rows_and_columns(a, b, 8)
    out = np.empty((x.size, y.size), dtype=np.float64)
    kernel.similarity_matrix(x, y, out)
    return out
