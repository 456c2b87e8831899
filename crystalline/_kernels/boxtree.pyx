"""The points that may be nearest to a query: a search in a tree of boxes, in doubles with a margin.

Every point whose true distance is among the k least is among the candidates, provided that the
doubles are within the slack that the caller states; deciding between them is the caller's.  The
tree is built by the caller, too.

Why nothing is missed.  Let s be the squared distance as computed in doubles from a query to a
point, D the true distance of what the doubles stand for.  With |sqrt(s') - D| <= slack for the
exact s' of the rounded differences and a relative error below (d + 2) 2^-53 in s, the k-th least D
is at most sqrt(s_k)(1 + g) + slack, g = (d + 2) 2^-53, and a point with that D or less has
s <= (sqrt(s_k) + 2 slack)^2 (1 + 4 g + ...).  A box's bound is computed in the same order of sums
as a point's s, so rounding keeps it at or below the s of every point in the box.
"""
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.primes.interrupt cimport check_signals

cdef enum:
    MAX_STACK = 256  # a tree that halves its points is at most 63 deep

cdef double UNIT = 2.0 ** -53


cdef inline double _to_box(const double* lo, const double* hi, const double* q,
                           Py_ssize_t d) noexcept nogil:
    cdef double total = 0, gap
    cdef Py_ssize_t j
    for j in range(d):
        gap = lo[j] - q[j]
        if gap < 0:
            gap = q[j] - hi[j]
            if gap < 0:
                gap = 0
        total += gap * gap
    return total


cdef inline double _to_point(const double* x, const double* q, Py_ssize_t d) noexcept nogil:
    cdef double total = 0, gap
    cdef Py_ssize_t j
    for j in range(d):
        gap = x[j] - q[j]
        total += gap * gap
    return total


cdef inline void _insert(double* least, Py_ssize_t k, double s) noexcept nogil:
    """Put s among the k least, ascending, where it belongs there."""
    cdef Py_ssize_t i = k - 1
    if s >= least[i]:
        return
    while i > 0 and least[i - 1] > s:
        least[i] = least[i - 1]
        i -= 1
    least[i] = s


def candidates(const double[:, ::1] points not None, const int64_t[::1] cell_of not None,
               const int64_t[::1] cell_first not None, const int64_t[::1] cell_points not None,
               const double[:, ::1] lo not None, const double[:, ::1] hi not None,
               const int64_t[::1] first not None, const int64_t[::1] last not None,
               const int64_t[::1] child not None, const double[:, ::1] queries not None,
               const int64_t[::1] query_cells not None, const double[::1] slack not None,
               double[::1] least not None, int64_t[:, ::1] found not None,
               int64_t[::1] counts not None) -> None:
    """found[i, :counts[i]] = the points that may be among the k nearest of queries[i] (OUT).

    points[n, d] in the order of the tree.  Node t has the box lo[t, d] to hi[t, d] and the points
    first[t] <= p < last[t]; its children are child[t] and child[t] + 1, none where child[t] is 0,
    and node 0 is the root.  Point p belongs to the cell cell_of[p]; the points of cell c are
    cell_points[cell_first[c] : cell_first[c + 1]].  The search begins with the points of the cell
    query_cells[i], -1 for none.  least[k]: room to work in; its length is k.  Where counts[i] is
    more than found has columns, only so many were written.

    >>> import numpy as np
    >>> points, zero, one = np.array([[0.0], [1.0], [5.0]]), np.zeros(1, int), np.ones(1, int)
    >>> found, counts = np.empty((1, 3), int), np.empty(1, int)
    >>> candidates(points, np.zeros(3, int), np.array([0, 3]), np.arange(3), points[:1], points[2:],
    ...            zero, 3 * one, zero, np.array([[0.5]]), zero, np.zeros(1), np.empty(1), found,
    ...            counts)
    >>> found[0, : counts[0]]  # 0 and 1 are as near
    array([0, 1])
    """
    cdef Py_ssize_t n = points.shape[0], d = points.shape[1], m = queries.shape[0]
    cdef Py_ssize_t k = least.shape[0], room = found.shape[1], i, p, at, top
    cdef int64_t node, cell, near, far
    cdef int64_t count
    cdef int64_t stack[MAX_STACK]
    cdef double bounds[MAX_STACK]
    cdef const double* q
    cdef double s, limit, near_bound, far_bound
    expect_length("cell_of", cell_of.shape[0], n)
    expect_length("cell_points", cell_points.shape[0], n)
    expect_length("a row of queries", queries.shape[1], d)
    expect_length("query_cells", query_cells.shape[0], m)
    expect_length("slack", slack.shape[0], m)
    expect_length("counts", counts.shape[0], m)
    expect_length("found", found.shape[0], m)
    for name, size in (("hi", hi.shape[0]), ("first", first.shape[0]), ("last", last.shape[0]),
                       ("child", child.shape[0])):
        expect_length(name, size, lo.shape[0])
    if not 0 < k <= n:
        raise ValueError(f"{k} nearest of {n} points")
    with nogil:
        for i in range(m):
            q = &queries[i, 0]
            for at in range(k):
                least[at] = INFINITY
            cell = query_cells[i]
            if cell >= 0:
                for at in range(cell_first[cell], cell_first[cell + 1]):
                    _insert(&least[0], k, _to_point(&points[cell_points[at], 0], q, d))
            # The k least squared distances: nearer children first.
            stack[0], bounds[0], top = 0, 0, 1
            while top > 0:
                top -= 1
                node = stack[top]
                if bounds[top] >= least[k - 1]:
                    continue
                if child[node] == 0:
                    for p in range(first[node], last[node]):
                        if cell_of[p] != cell:
                            _insert(&least[0], k, _to_point(&points[p, 0], q, d))
                    continue
                near, far = child[node], child[node] + 1
                near_bound = _to_box(&lo[near, 0], &hi[near, 0], q, d)
                far_bound = _to_box(&lo[far, 0], &hi[far, 0], q, d)
                if far_bound < near_bound:
                    near, far = far, near
                    near_bound, far_bound = far_bound, near_bound
                stack[top], bounds[top] = far, far_bound
                stack[top + 1], bounds[top + 1] = near, near_bound
                top += 2
            # All that may be as near as the k-th.
            limit = sqrt(least[k - 1]) + 2 * slack[i]
            limit = limit * limit * (1 + <double>(8 * d + 32) * UNIT)
            count = 0
            stack[0], top = 0, 1
            while top > 0:
                top -= 1
                node = stack[top]
                if child[node] == 0:
                    for p in range(first[node], last[node]):
                        if _to_point(&points[p, 0], q, d) <= limit:
                            if count < room:
                                found[i, count] = p
                            count += 1
                    continue
                for near in range(child[node], child[node] + 2):
                    s = _to_box(&lo[near, 0], &hi[near, 0], q, d)
                    if s <= limit:
                        stack[top] = near
                        top += 1
            counts[i] = count
            if i % 64 == 63:
                check_signals()
