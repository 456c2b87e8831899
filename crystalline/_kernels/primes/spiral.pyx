"""Ulam's spiral over arrays: number to place, place to number, squared distances; all exact.

Number 1 lies at the origin, 2 one step east of it, and the spiral turns counterclockwise.  Ring
k > 0 holds (2k - 1)^2 + 1 .. (2k + 1)^2, from (k, 1 - k) up the right side, along the top, down
the left side, and along the bottom to (k, -k).
"""
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.primes.interrupt cimport check_signals

cdef extern from "primes_modular.h":
    uint64_t cl_root_64(uint64_t n) noexcept nogil

cdef extern from *:
    bint __builtin_add_overflow(uint64_t a, uint64_t b, uint64_t* sum_) noexcept nogil

cdef enum:
    CHUNK = 1 << 16  # numbers between two looks at the signals

cdef int64_t FARTHEST = 2147483648  # the ring that 2^64 lies in


cdef inline void _place(uint64_t n, int64_t* x, int64_t* y) noexcept nogil:
    cdef int64_t k = <int64_t>((cl_root_64(n - 1) + 1) >> 1), along
    if k == 0:
        x[0] = y[0] = 0
        return
    along = <int64_t>(n - 1 - <uint64_t>(2 * k - 1) * <uint64_t>(2 * k - 1))
    if along < 2 * k:
        x[0], y[0] = k, along - k + 1
    elif along < 4 * k:
        x[0], y[0] = 3 * k - 1 - along, k
    elif along < 6 * k:
        x[0], y[0] = -k, 5 * k - 1 - along
    else:
        x[0], y[0] = along - 7 * k + 1, -k


cdef inline bint _number(int64_t x, int64_t y, uint64_t* n) noexcept nogil:
    """The number at (x, y); False when it is not below 2^64."""
    cdef int64_t k, along
    if x < -FARTHEST or x > FARTHEST or y < -FARTHEST or y > FARTHEST:
        return False
    k = max(max(x, -x), max(y, -y))
    if k == 0:
        n[0] = 1
        return True
    if y == -k:
        along = x + 7 * k - 1
    elif x == k:
        along = y + k - 1
    elif y == k:
        along = 3 * k - 1 - x
    else:
        along = 5 * k - 1 - y
    return not __builtin_add_overflow(<uint64_t>(2 * k - 1) * <uint64_t>(2 * k - 1),
                                      <uint64_t>(along + 1), n)


def places(const uint64_t[::1] n not None, int64_t[::1] x not None,
           int64_t[::1] y not None) -> int:
    """(x[i], y[i]) = the place of number n[i] (n: IN; x, y: OUT).

    Returns -1, or the first i with n[i] = 0, which has no place.

    >>> import numpy as np
    >>> x, y = np.empty(9, np.int64), np.empty(9, np.int64)
    >>> places(np.arange(1, 10, dtype=np.uint64), x, y); print(x); print(y)
    -1
    [ 0  1  1  0 -1 -1 -1  0  1]
    [ 0  0  1  1  1  0 -1 -1 -1]
    """
    cdef int64_t i, size = n.shape[0], bad = -1
    expect_length("x", x.shape[0], size)
    expect_length("y", y.shape[0], size)
    with nogil:
        for i in range(size):
            if n[i] == 0:
                bad = i
                break
            _place(n[i], &x[i], &y[i])
            if i % CHUNK == CHUNK - 1:
                check_signals()
    return bad


def numbers(const int64_t[::1] x not None, const int64_t[::1] y not None,
            uint64_t[::1] n not None) -> int:
    """n[i] = the number at (x[i], y[i]) (x, y: IN; n: OUT).

    Returns -1, or the first i whose number is not below 2^64.

    >>> import numpy as np
    >>> n = np.empty(2, np.uint64)
    >>> numbers(np.array([0, 2]), np.array([0, -1]), n); print(n)
    -1
    [ 1 10]
    """
    cdef int64_t i, size = x.shape[0], bad = -1
    expect_length("y", y.shape[0], size)
    expect_length("n", n.shape[0], size)
    with nogil:
        for i in range(size):
            if not _number(x[i], y[i], &n[i]):
                bad = i
                break
            if i % CHUNK == CHUNK - 1:
                check_signals()
    return bad


def distances(const uint64_t[::1] a not None, const uint64_t[::1] b not None,
              uint64_t[::1] out not None) -> int:
    """out[i] = the squared distance of the places of a[i] and b[i] (out: OUT).

    Returns -1, or the first i where a number is 0 or the square is not below 2^64.

    >>> import numpy as np
    >>> out = np.empty(1, np.uint64)
    >>> distances(np.array([1], np.uint64), np.array([10], np.uint64), out); print(out)
    -1
    [5]
    """
    cdef int64_t i, size = a.shape[0], bad = -1, ax, ay, bx, by
    cdef uint64_t dx, dy
    expect_length("b", b.shape[0], size)
    expect_length("out", out.shape[0], size)
    with nogil:
        for i in range(size):
            if a[i] == 0 or b[i] == 0:
                bad = i
                break
            _place(a[i], &ax, &ay)
            _place(b[i], &bx, &by)
            dx = <uint64_t>(max(ax, bx) - min(ax, bx))
            dy = <uint64_t>(max(ay, by) - min(ay, by))
            if (dx >> 32 or dy >> 32
                    or __builtin_add_overflow(dx * dx, dy * dy, &out[i])):
                bad = i
                break
            if i % CHUNK == CHUNK - 1:
                check_signals()
    return bad
