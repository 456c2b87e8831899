"""Aligned memory for kernels: arrays that start on a cache line."""

import numpy as np


def aligned_empty(shape, dtype=np.float32, Py_ssize_t alignment=64):
    """Return an uninitialized C-ordered array whose data starts at a multiple of `alignment` bytes.

    >>> aligned_empty((3, 5)).ctypes.data % 64
    0
    """
    dtype = np.dtype(dtype)
    cdef Py_ssize_t size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + alignment, dtype=np.uint8)
    cdef Py_ssize_t start = -<Py_ssize_t>raw.ctypes.data % alignment
    if start < 0:
        start += alignment
    return raw[start : start + size].view(dtype).reshape(shape)
