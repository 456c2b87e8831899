"""Aligned memory for kernels: arrays that start on a cache line, and what it costs to move them."""

import numpy as np

from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport (
    CL_CHANGE, CL_COPY, CL_READ, CL_WRITE, CL_WRITE_PAST, Traffic, primitives,
)

cdef dict _KINDS = {
    "read": CL_READ, "write": CL_WRITE, "write past the cache": CL_WRITE_PAST, "copy": CL_COPY,
    "change": CL_CHANGE,
}
TRAFFIC = tuple(_KINDS)  # what `move` does


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


def move(str traffic, const float[::1] a not None, float[::1] b not None,
         int64_t rounds=1) -> None:
    """Read a [n], write or change b [n], or copy a to b, `rounds` times: for measuring bandwidth.

    `traffic` is one of `TRAFFIC`.  n is a multiple of 64, a and b start on cache lines; what is
    written is 0, what is changed is inverted bit by bit.

    >>> a, b = aligned_empty(64), aligned_empty(64)
    >>> a[:] = 3
    >>> move("copy", a, b); b[:2].tolist()
    [3.0, 3.0]
    """
    cdef Py_ssize_t n = a.shape[0]
    if b.shape[0] != n or n == 0 or n % 64:
        raise ValueError(f"a and b have {n} and {b.shape[0]} floats, expected a multiple of 64")
    if <size_t>&a[0] % 64 or <size_t>&b[0] % 64:
        raise ValueError("a and b must start on cache lines")
    if traffic not in _KINDS:
        raise ValueError(f"traffic is {traffic!r}, expected one of {', '.join(TRAFFIC)}")
    cdef Traffic kind = _KINDS[traffic]
    with nogil:
        primitives().move_floats(kind, n, rounds, &a[0], &b[0])
