"""Similarities of many pairs of tokens in one pass over the pairs.

How near their points are, what their numbers share, how few steps of derivation part them; and
how well their phases agree.  Which points, numbers and phases is the caller's to say.
"""
from libc.math cimport sqrt
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.exact_isa cimport exact_primitives
from crystalline._kernels.primes.interrupt cimport check_signals

cdef enum:
    BLOCK = 512  # pairs whose numbers and divisors stay in the first-level cache


cdef inline double _nearness(const double* x, const double* y, Py_ssize_t d) noexcept nogil:
    cdef double total = 0, gap
    cdef Py_ssize_t j
    for j in range(d):
        gap = x[j] - y[j]
        total += gap * gap
    return 1 / (1 + sqrt(total))


cdef inline double _kinship(const int64_t* parent, const int64_t* depth, int64_t a,
                            int64_t b) noexcept nogil:
    """1 / (1 + steps from a to b through their nearest common ancestor), 0 where they have none."""
    cdef int64_t steps = 0
    while a != b:
        if depth[a] == 0 and depth[b] == 0:
            return 0
        if depth[a] >= depth[b]:
            a = parent[a]
            steps += 1
        else:
            b = parent[b]
            steps += 1
    return 1 / (1 + <double>steps)


def token_similarities(const double[:, ::1] points not None, const uint64_t[::1] numbers not None,
                       const int64_t[::1] parent not None, const int64_t[::1] depth not None,
                       const int64_t[::1] a not None, const int64_t[::1] b not None,
                       double lattice, double prime, double morphology,
                       double[::1] out not None) -> None:
    """out[i] = the similarity of tokens a[i] and b[i], 1 where they are the same (out: OUT).

    lattice / (1 + |points[a] - points[b]|) + prime gcd / max of numbers + morphology / (1 + steps).
    points[n, d]; parent[n] and depth[n] are a forest, its roots at depth 0.  The indices must lie
    in [0, n) and the numbers above 0; the weights add up to 1.

    >>> import numpy as np
    >>> points, numbers = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([5, 10], np.uint64)
    >>> parent, depth, out = np.array([0, 0]), np.array([0, 1]), np.empty(2)
    >>> pair = np.array([0, 0]), np.array([1, 0])
    >>> token_similarities(points, numbers, parent, depth, *pair, 0.5, 0.25, 0.25, out)
    >>> out * 24  # 0.5 / 6 + 0.25 / 2 + 0.25 / 2
    array([ 8., 24.])
    """
    cdef Py_ssize_t n = a.shape[0], d = points.shape[1], i, done = 0, step
    cdef int64_t x, y
    cdef uint64_t left[BLOCK]
    cdef uint64_t right[BLOCK]
    cdef uint64_t divisors[BLOCK]
    cdef double value
    expect_length("numbers", numbers.shape[0], points.shape[0])
    expect_length("parent", parent.shape[0], points.shape[0])
    expect_length("depth", depth.shape[0], points.shape[0])
    expect_length("b", b.shape[0], n)
    expect_length("out", out.shape[0], n)
    with nogil:
        while done < n:
            step = min(n - done, <Py_ssize_t>BLOCK)
            for i in range(step):
                left[i] = numbers[a[done + i]]
                right[i] = numbers[b[done + i]]
            exact_primitives().primes.gcd(divisors, left, right, step)
            for i in range(step):
                x, y = a[done + i], b[done + i]
                value = lattice * _nearness(&points[x, 0], &points[y, 0], d)
                value += prime * (<double>divisors[i] / <double>max(left[i], right[i]))
                value += morphology * _kinship(&parent[0], &depth[0], x, y)
                out[done + i] = 1.0 if x == y else min(value, 1.0)
            done += step
            check_signals()


def phase_alignments(const double[:, ::1] phases not None, const int64_t[::1] a not None,
                     const int64_t[::1] b not None, double[::1] out not None) -> None:
    """out[i] = the mean cosine of the phase differences of tokens a[i] and b[i] (out: OUT).

    phases[n, 2p]: cosine and sine of p phases of a token, in pairs.  In [-1, 1], and 1 where
    a[i] = b[i].  The indices must lie in [0, n).

    >>> import numpy as np
    >>> phases, out = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]]), np.empty(3)
    >>> phase_alignments(phases, np.array([0, 1, 2]), np.array([1, 2, 2]), out); print(out)
    [ 0.6 -0.8  1. ]
    """
    cdef Py_ssize_t n = a.shape[0], width = phases.shape[1], i, j
    cdef const double* x
    cdef const double* y
    cdef double total
    expect_length("b", b.shape[0], n)
    expect_length("out", out.shape[0], n)
    with nogil:
        for i in range(n):
            x, y = &phases[a[i], 0], &phases[b[i], 0]
            total = 0
            for j in range(width):
                total += x[j] * y[j]
            total /= <double>(width // 2)
            out[i] = 1.0 if a[i] == b[i] else max(min(total, 1.0), -1.0)
            if i % BLOCK == BLOCK - 1:
                check_signals()
