"""Greatest common divisors and what follows from them, over arrays of 64-bit integers.

The binary algorithm in vectors is a primitive (primitives/primes_gcd.h); here are the batches,
the products with their overflow, and the matrix forms, a block of rows at a time.
"""
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.exact_isa cimport exact_primitives
from crystalline._kernels.primes.interrupt cimport check_signals

cdef extern from *:
    bint __builtin_mul_overflow(uint64_t a, uint64_t b, uint64_t* product) noexcept nogil

cdef enum:
    CHUNK = 1 << 16  # pairs between two looks at the signals
    BLOCK = 512  # pairs whose gcd stays in the first-level cache


cdef inline void _gcd(uint64_t* out, const uint64_t* a, const uint64_t* b, int64_t n,
                      bint scalar) noexcept nogil:
    if scalar:
        exact_primitives().primes.gcd_1(out, a, b[0], n)
    else:
        exact_primitives().primes.gcd(out, a, b, n)


def gcd(const uint64_t[::1] a not None, const uint64_t[::1] b not None,
        uint64_t[::1] out not None) -> None:
    """out[i] = gcd(a[i], b[i]), or gcd(a[i], b[0]) where b has one element (out: OUT).

    gcd(x, 0) is x.

    >>> import numpy as np
    >>> out = np.empty(3, np.uint64)
    >>> gcd(np.array([12, 0, 7], np.uint64), np.array([18, 5, 21], np.uint64), out); print(out)
    [6 5 7]
    """
    cdef int64_t n = a.shape[0], done = 0, step
    cdef bint scalar = b.shape[0] == 1
    if not scalar:
        expect_length("b", b.shape[0], n)
    expect_length("out", out.shape[0], n)
    with nogil:
        while done < n:
            step = min(n - done, <int64_t>CHUNK)
            _gcd(&out[done], &a[done], &b[0] if scalar else &b[done], step, scalar)
            done += step
            if done < n:
                check_signals()


def lcm(const uint64_t[::1] a not None, const uint64_t[::1] b not None,
        uint64_t[::1] out not None) -> int:
    """out[i] = lcm(a[i], b[i]), b as in `gcd`; returns the first i whose lcm is 2^64 or more.

    Returns -1 when every lcm fits; otherwise `out` is right up to the i that is returned.
    lcm(x, 0) is 0.

    >>> import numpy as np
    >>> out = np.empty(2, np.uint64)
    >>> lcm(np.array([4, 0], np.uint64), np.array([6, 5], np.uint64), out); print(out)
    -1
    [12  0]
    """
    cdef int64_t n = a.shape[0], done = 0, step, i, overflow = -1
    cdef bint scalar = b.shape[0] == 1
    cdef uint64_t divisor, other
    cdef uint64_t divisors[BLOCK]
    if not scalar:
        expect_length("b", b.shape[0], n)
    expect_length("out", out.shape[0], n)
    with nogil:
        while done < n and overflow < 0:
            step = min(n - done, <int64_t>BLOCK)
            _gcd(divisors, &a[done], &b[0] if scalar else &b[done], step, scalar)
            for i in range(done, done + step):
                divisor = divisors[i - done]
                other = b[0] if scalar else b[i]
                if divisor == 0:
                    out[i] = 0
                elif __builtin_mul_overflow(a[i] // divisor, other, &out[i]):
                    overflow = i
                    break
            done += step
            if done % CHUNK == 0:
                check_signals()
    return overflow


def coprime(const uint64_t[::1] a not None, const uint64_t[::1] b not None,
            unsigned char[::1] out not None) -> None:
    """out[i] = 1 where gcd(a[i], b[i]) is 1, otherwise 0; b as in `gcd`.

    >>> import numpy as np
    >>> out = np.empty(2, np.uint8)
    >>> coprime(np.array([4, 9], np.uint64), np.array([6], np.uint64), out); print(out)
    [0 0]
    """
    cdef int64_t n = a.shape[0], done = 0, step, i
    cdef bint scalar = b.shape[0] == 1
    cdef uint64_t divisors[BLOCK]
    if not scalar:
        expect_length("b", b.shape[0], n)
    expect_length("out", out.shape[0], n)
    with nogil:
        while done < n:
            step = min(n - done, <int64_t>BLOCK)
            _gcd(divisors, &a[done], &b[0] if scalar else &b[done], step, scalar)
            for i in range(step):
                out[done + i] = divisors[i] == 1
            done += step
            if done % CHUNK == 0:
                check_signals()


def gcd_matrix(const uint64_t[::1] a not None, const uint64_t[::1] b not None,
               uint64_t[:, ::1] out not None) -> None:
    """out[i, j] = gcd(a[i], b[j]) (out[n, m]: OUT).

    >>> import numpy as np
    >>> out = np.empty((2, 3), np.uint64)
    >>> gcd_matrix(np.array([6, 10], np.uint64), np.array([4, 15, 7], np.uint64), out); print(out)
    [[2 3 1]
     [2 5 1]]
    """
    cdef int64_t n = a.shape[0], m = b.shape[0], i, done, step, since = 0
    expect_length("out", out.shape[0], n)
    expect_length("a row of out", out.shape[1], m)
    with nogil:
        for i in range(n):
            done = 0
            while done < m:
                step = min(m - done, <int64_t>CHUNK)
                exact_primitives().primes.gcd_1(&out[i, done], &b[done], a[i], step)
                done += step
                since += step
                if since >= CHUNK:
                    since = 0
                    check_signals()


cdef inline double _ratio(uint64_t divisor, uint64_t a, uint64_t b) noexcept nogil:
    cdef uint64_t larger = max(a, b)
    return <double>divisor / <double>larger if larger else 1.0


def similarity(const uint64_t[::1] a not None, const uint64_t[::1] b not None,
               double[::1] out not None) -> None:
    """out[i] = gcd(a[i], b[i]) / max(a[i], b[i]); b as in `gcd`; 1 where both are 0.

    Correctly rounded where both numbers are below 2^53, within 2 ulp otherwise.

    >>> import numpy as np
    >>> out = np.empty(2)
    >>> similarity(np.array([6, 7], np.uint64), np.array([4, 7], np.uint64), out); print(out)
    [0.33333333 1.        ]
    """
    cdef int64_t n = a.shape[0], done = 0, step, i
    cdef bint scalar = b.shape[0] == 1
    cdef uint64_t divisors[BLOCK]
    if not scalar:
        expect_length("b", b.shape[0], n)
    expect_length("out", out.shape[0], n)
    with nogil:
        while done < n:
            step = min(n - done, <int64_t>BLOCK)
            _gcd(divisors, &a[done], &b[0] if scalar else &b[done], step, scalar)
            for i in range(step):
                out[done + i] = _ratio(divisors[i], a[done + i], b[0] if scalar else b[done + i])
            done += step
            if done % CHUNK == 0:
                check_signals()


def similarity_matrix(const uint64_t[::1] a not None, const uint64_t[::1] b not None,
                      double[:, ::1] out not None) -> None:
    """out[i, j] = gcd(a[i], b[j]) / max(a[i], b[j]), as in `similarity` (out[n, m]: OUT).

    >>> import numpy as np
    >>> out = np.empty((1, 2))
    >>> similarity_matrix(np.array([6], np.uint64), np.array([4, 6], np.uint64), out); print(out)
    [[0.33333333 1.        ]]
    """
    cdef int64_t n = a.shape[0], m = b.shape[0], i, j, done, step, since = 0
    cdef uint64_t divisors[BLOCK]
    expect_length("out", out.shape[0], n)
    expect_length("a row of out", out.shape[1], m)
    with nogil:
        for i in range(n):
            done = 0
            while done < m:
                step = min(m - done, <int64_t>BLOCK)
                exact_primitives().primes.gcd_1(divisors, &b[done], a[i], step)
                for j in range(step):
                    out[i, done + j] = _ratio(divisors[j], a[i], b[done + j])
                done += step
                since += step
                if since >= CHUNK:
                    since = 0
                    check_signals()
