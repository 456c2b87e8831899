"""Vectors of a lattice within a ball, by Schnorr-Euchner enumeration.

What is here searches; reduction of the basis and the choice of a bound belong to the callers in
`exact.lattice`.  The rows of the basis are b_0 … b_(n-1), their orthogonalization b*_i with
coefficients mu_(i,j) and squared norms r_i.  A vector sum x_i b_i at distance within the bound
from the target fulfils, for every level k,

    sum over j >= k of (x_j + sum over i > j of x_i mu_(i,j) - t_j)^2 r_j  <=  bound,

so the tree of x_(n-1), x_(n-2), … is walked depth first, each level from the middle outward.
Partial sums of the centers are kept and redone only from the highest x that changed (Gama,
Nguyen, Regev, "Lattice enumeration using extreme pruning", Eurocrypt 2010, appendix B).

**Why doubles lose nothing.**  Let u = 2^-53, mu and r within a relative error of 2 u, and X_i
bound |x_i| for every vector sought: from the inequality above X_k = sqrt(bound / r_k) + |t_k| +
sum_(i>k) X_i |mu_(i,k)| + 1.  The computed center of level j errs by at most

    e_j = (n + 4) u (sum_(i>j) X_i |mu_(i,j)| + |t_j|) + the error of t_j,

so the computed square of level j exceeds the true one by at most 2 e_j sqrt(bound r_j) +
e_j^2 r_j, and their sum by a relative (2 n + 8) u of itself besides.  `margin` adds these up
(with a factor of two for the rounding of the margin itself): a search within bound + margin
visits every vector within bound.  Vectors that pass are measured in exact integers.
"""
from libc.math cimport INFINITY, fabs, round, sqrt
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

import numpy as np

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport INTERRUPTED, OK
from crystalline._kernels.checks cimport expect_length

cdef extern from *:
    """
    #include <stdint.h>
    #include <math.h>
    /* Quadruple precision: 113 bits, correctly rounded by libgcc or in hardware. */
    typedef _Float128 cl_quad;

    /* mu[k, i] (transposed, i > k) and r[k] of a Gram matrix given as sums of two doubles, by
     * Cholesky's recurrence in quadruple precision with a running bound of the error (Higham,
     * "Accuracy and stability of numerical algorithms", section 3.3).  g[i, j], j <= i, has a
     * relative error below 2^-104.  value, m [n, n] and value_bad, m_bad [n, n] are scratch: the
     * products <b_i, b*_j>, the coefficients, and bounds of their errors.  worst is the largest
     * error of the doubles: relative of r, and of mu relative to max(|mu|, 2^-20).  Bounds are
     * sums of positive doubles, so a factor of 1 + 2^-20 covers their own rounding up to
     * dimension 2^12.  Returns 1, 0 when a squared norm is not certainly positive, or what
     * poll returned. */
    static int cl_orthogonalize(int64_t n, const double *high, const double *low, double *mu,
                                double *r, cl_quad *value, cl_quad *m, double *value_bad,
                                double *m_bad, double *worst, int (*poll)(void)) {
      const double unit = 0x1p-112, up = 1 + 0x1p-20;
      *worst = 0x1p-53;
      for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
          int status = j % 16 == 0 ? poll() : 0;
          if (status)
            return status;
          cl_quad sum = (cl_quad)high[i * n + j] + low[i * n + j];
          double bad = fabs(high[i * n + j]) * 0x1p-104;
          for (int64_t k = 0; k < j; k++) {
            cl_quad product = m[j * n + k] * value[i * n + k];
            sum -= product;
            double size = fabs((double)value[i * n + k]) + value_bad[i * n + k];
            bad += fabs((double)m[j * n + k]) * value_bad[i * n + k] + m_bad[j * n + k] * size +
                   (fabs((double)product) + fabs((double)sum)) * unit;
          }
          value[i * n + j] = sum;
          value_bad[i * n + j] = bad * up;
          if (j < i) {
            double norm = (double)value[j * n + j];
            cl_quad coefficient = sum / value[j * n + j];
            double size = fabs((double)coefficient);
            bad = (bad + size * value_bad[j * n + j]) / (norm - value_bad[j * n + j]) +
                  size * unit;
            m[i * n + j] = coefficient;
            m_bad[i * n + j] = bad * up;
            mu[j * n + i] = (double)coefficient;
            *worst = fmax(*worst, bad * up / fmax(size, 0x1p-20) + 0x1p-53);
          }
        }
        double norm = (double)value[i * n + i], bad = value_bad[i * n + i];
        if (!(norm - 2 * bad > 0))
          return 0;
        r[i] = norm;
        *worst = fmax(*worst, up * bad / (norm - bad) + 0x1p-53);
      }
      return 1;
    }
    /* The Gram matrix of rows[n, m] as sums of two doubles: exact while m is below 2^14.  Returns
     * 0, or what poll returned. */
    static inline int cl_gram(int64_t n, int64_t m, const int64_t *rows, double *high,
                              double *low, int (*poll)(void)) {
      for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
          int status = j % 64 == 0 ? poll() : 0;
          if (status)
            return status;
          __int128 sum = 0;
          for (int64_t k = 0; k < m; k++)
            sum += (__int128)rows[i * m + k] * rows[j * m + k];
          high[i * n + j] = (double)sum;
          low[i * n + j] = (double)(sum - (__int128)high[i * n + j]);
        }
      return 0;
    }

    typedef unsigned __int128 cl_u128;

    /* The squared norm of target[m] - x[n] rows[n, m] (target NULL: zero), exact while every
     * component is below 2^60 and |x| below 2^53. */
    static inline cl_u128 cl_squared(int64_t n, int64_t m, const int64_t *rows, const double *x,
                                     const int64_t *target) {
      cl_u128 norm = 0;
      for (int64_t j = 0; j < m; j++) {
        __int128 component = target ? target[j] : 0;
        for (int64_t i = 0; i < n; i++)
          component -= (__int128)(int64_t)x[i] * rows[i * m + j];
        if (component < 0)
          component = -component;
        norm += (cl_u128)component * (cl_u128)component;
      }
      return norm;
    }
    static inline int cl_less(cl_u128 a, cl_u128 b) { return a < b; }
    static inline uint64_t cl_high(cl_u128 a) { return (uint64_t)(a >> 64); }
    static inline uint64_t cl_low(cl_u128 a) { return (uint64_t)a; }
    static inline double cl_difference(cl_u128 a, cl_u128 b) {
      return a < b ? -(double)(b - a) : (double)(a - b);
    }
    static inline cl_u128 cl_wide(uint64_t low, uint64_t high) {
      return (cl_u128)high << 64 | low;
    }
    /* rest[m] -= z row[m]; 0 when a component would leave +-2^58 */
    static inline int cl_subtract(int64_t m, int64_t *rest, const int64_t *row, int64_t z) {
      for (int64_t j = 0; j < m; j++) {
        __int128 component = rest[j] - (__int128)z * row[j];
        if (component >= (__int128)1 << 58 || component <= -((__int128)1 << 58))
          return 0;
        rest[j] = (int64_t)component;
      }
      return 1;
    }
    static inline double cl_dot(int64_t m, const int64_t *a, const int64_t *b) {
      __int128 sum = 0;
      for (int64_t j = 0; j < m; j++)
        sum += (__int128)a[j] * b[j];
      return (double)sum;
    }
    """
    ctypedef struct cl_quad:
        pass
    ctypedef struct cl_u128:
        pass
    int cl_orthogonalize(int64_t n, const double* high, const double* low, double* mu, double* r,
                         cl_quad* value, cl_quad* m, double* value_bad, double* m_bad,
                         double* worst, int (*poll)() noexcept nogil) noexcept nogil
    int cl_gram(int64_t n, int64_t m, const int64_t* rows, double* high, double* low,
                int (*poll)() noexcept nogil) noexcept nogil
    cl_u128 cl_squared(int64_t n, int64_t m, const int64_t* rows, const double* x,
                       const int64_t* target) noexcept nogil
    double cl_difference(cl_u128 a, cl_u128 b) noexcept nogil
    double cl_dot(int64_t m, const int64_t* a, const int64_t* b) noexcept nogil
    cl_u128 cl_wide(uint64_t low, uint64_t high) noexcept nogil
    bint cl_subtract(int64_t m, int64_t* rest, const int64_t* row, int64_t z) noexcept nogil
    bint cl_less(cl_u128 a, cl_u128 b) noexcept nogil
    uint64_t cl_high(cl_u128 a) noexcept nogil
    uint64_t cl_low(cl_u128 a) noexcept nogil

cdef enum:
    POLL_NODES = 1 << 16  # some ms
    TOO_LARGE = -3
    MOST_TURNS = 40

cdef double UNIT = 2.0**-53
cdef double SMALL_MU = 2.0**-20
cdef double WORST = 2.0**-40
cdef double MOST = 2.0**50
cdef double LARGEST_COEFFICIENT = 2.0**58
cdef int64_t LARGEST_ENTRY = 1 << 56
TOO_FAR = (
    "the rows are too near dependence, or their norms too far apart, for enumeration: reduce the "
    "basis first"
)
LARGEST_NORM = 1 << 116  # of the squared norms that `Enumerator.shortest` measures by itself


cdef int expect_finite(double extra) except -1:
    if extra == INFINITY:
        raise ValueError(TOO_FAR)
    return 0


cdef int search_ball(Search* search, Leaf leaf, void* context) noexcept nogil:
    cdef int64_t n = search.n, k, i
    cdef int64_t stride = n + 1
    cdef double* sigma = search.work  # [n, n + 1], sigma[k, i] = t_k - sum_(j>=i) x_j mu_(j,k)
    cdef double* rho = sigma + n * stride  # [n + 1], the sum of levels k..
    cdef double* middle = rho + n + 1
    cdef double* stride_out = middle + n
    cdef double* x = search.x
    cdef int64_t* stale = search.stale  # x[stale[k]] is the highest that sigma[k] has not seen
    cdef const double* mu = search.mu
    cdef bint half = search.center == NULL
    cdef int64_t highest = 0  # the highest nonzero x, where only one of x and -x is walked
    cdef int64_t until_poll = POLL_NODES
    cdef double limit, gap
    cdef int status
    for k in range(n):
        stale[k] = n - 1
        x[k] = 0.0
        middle[k] = 0.0
        stride_out[k] = 1.0
        sigma[k * stride + n] = 0.0 if half else search.center[k]
    for k in range(n + 1):
        rho[k] = 0.0
    if half:
        # What a walk down from zero would leave behind.
        for k in range(n):
            for i in range(n):
                sigma[k * stride + i] = 0.0
            stale[k] = k
        k = 0
        x[0] = 1.0
    else:
        k = n - 1
        middle[k] = search.center[k]
        x[k] = round(middle[k])
    search.nodes = 0
    while True:
        search.nodes += 1
        until_poll -= 1
        if until_poll == 0:
            until_poll = POLL_NODES
            if poll() != OK:
                return INTERRUPTED
        gap = x[k] - middle[k]
        rho[k] = rho[k + 1] + gap * gap * search.r[k]
        limit = search.bound
        if search.pruning != NULL:
            limit *= search.pruning[k]
        if rho[k] <= limit:
            if k == 0:
                search.norm = rho[0]
                status = leaf(search, context)
                if status != OK:
                    return status
            else:
                k -= 1
                i = stale[k]
                if k > 0 and stale[k - 1] < i:
                    stale[k - 1] = i
                while i > k:
                    sigma[k * stride + i] = sigma[k * stride + i + 1] - x[i] * mu[k * n + i]
                    i -= 1
                middle[k] = sigma[k * stride + k + 1]
                x[k] = round(middle[k])
                stride_out[k] = 1.0
                continue
        else:
            k += 1
            if k == n:
                return OK
            stale[k - 1] = k
        if half and k >= highest:
            highest = k
            x[k] += 1.0
        else:
            if x[k] > middle[k]:
                x[k] -= stride_out[k]
            else:
                x[k] += stride_out[k]
            stride_out[k] += 1.0


cdef double margin(int64_t n, const double* mu, const double* r, const double* center,
                   const double* center_error, double worst, double bound,
                   double* reach) noexcept nogil:
    """What to add to `bound` so that doubles miss no vector; see the top.  reach[n] is scratch.

    Infinite where some |x_k| could leave the integers that doubles hold.
    """
    cdef double excess = (2 * n + 8) * 2 * UNIT * bound
    cdef double spread, size, wrong
    cdef int64_t k = n - 1, i
    while k >= 0:
        spread = 0.0 if center == NULL else fabs(center[k])
        wrong = (n + 4) * UNIT * spread
        if center_error != NULL:
            wrong += center_error[k]
        for i in range(k + 1, n):
            size = fabs(mu[k * n + i])
            if size < SMALL_MU:
                size = SMALL_MU
            spread += reach[i] * size
            wrong += reach[i] * size * ((n + 4) * UNIT + worst)
        reach[k] = (sqrt(bound / r[k]) + spread) * (1 + 1e-6) + 1
        if not reach[k] < MOST:
            return INFINITY
        # r[k] itself is off by a relative `worst`
        excess += 2 * wrong * sqrt(bound * r[k]) + wrong * wrong * r[k] + 2 * worst * bound / n
        k -= 1
    return 2 * excess


cdef struct Exact:  # the context of leaf_exact
    int64_t m
    const int64_t* rows    # [n, m]
    int64_t* target        # [m], or NULL
    cl_u128 best
    double* best_x         # [n]
    double margin
    # Of zero: its squared norm, and the part of it inside the lattice's span.  Differences of
    # exact norms are differences inside the span, whatever lies outside.
    cl_u128 start
    double within
    bint found


cdef int leaf_exact(Search* search, void* context) noexcept nogil:
    """Measure a vector in 128-bit integers and keep it when it is shorter than the best."""
    cdef Exact* exact = <Exact*>context
    cdef cl_u128 norm = cl_squared(search.n, exact.m, exact.rows, search.x, exact.target)
    cdef int64_t i
    if cl_less(norm, exact.best):
        exact.best = norm
        exact.found = True
        search.bound = exact.within + cl_difference(norm, exact.start) + exact.margin
        for i in range(search.n):
            exact.best_x[i] = search.x[i]
    return OK


cdef class _Visitor:
    """A Python function that judges the vectors found, and what it raised."""
    cdef object judge
    cdef object error
    cdef double margin  # what is added to the bounds that it returns

    def __init__(self, judge, double margin):
        self.judge = judge
        self.margin = margin
        self.error = None


cdef int leaf_called(Search* search, void* context) noexcept nogil:
    """Hand a vector to the `judge` of the _Visitor in `context`."""
    cdef int64_t i
    with gil:
        visitor = <_Visitor>context
        try:
            bound = visitor.judge([<int64_t>search.x[i] for i in range(search.n)])
            if bound is not None:
                search.bound = <double>bound + visitor.margin
        except BaseException as error:
            visitor.error = error
            return INTERRUPTED
    return OK


cdef int leaf_rounded(Search* search, void* context) noexcept nogil:
    """Keep the shortest by its norm in doubles; `context` is the best x[n]."""
    cdef double* best = <double*>context
    cdef int64_t i
    search.bound = search.norm * (1 - 1e-9)
    for i in range(search.n):
        best[i] = search.x[i]
    return OK


cdef int allocate(Search* search, int64_t n) except -1:
    """Give a search of dimension n its x, stale and work; `release` takes them back."""
    search.n = n
    search.x = <double*>malloc((n + n * (n + 1) + 3 * n + 1) * sizeof(double))
    search.stale = <int64_t*>malloc(n * sizeof(int64_t))
    if search.x == NULL or search.stale == NULL:
        release(search)
        raise MemoryError(f"no memory to enumerate in dimension {n}")
    search.work = search.x + n
    search.center = NULL
    search.pruning = NULL
    return 0


cdef void release(Search* search) noexcept:
    free(search.x)
    free(search.stale)


def gram(const int64_t[:, ::1] rows):
    """Return the Gram matrix of rows[n, m] as (high, low), for `Enumerator`; exact to 2^-104.

    Raises OverflowError when an entry is 2^56 or more.

    >>> import numpy as np
    >>> high, low = gram(np.array([[3, 1], [1, 4]]))
    >>> high[1].tolist(), low[1].tolist()
    ([7.0, 17.0], [0.0, 0.0])
    """
    cdef int64_t n = rows.shape[0], m = rows.shape[1], i, j
    cdef int status
    cdef double[:, ::1] high = np.zeros((n, n))
    cdef double[:, ::1] low = np.zeros((n, n))
    for i in range(n):
        for j in range(m):
            if not -LARGEST_ENTRY < rows[i, j] < LARGEST_ENTRY:
                raise OverflowError(f"entry {rows[i, j]} of row {i} is not below 2^56")
    if n and m:
        with nogil:
            status = cl_gram(n, m, &rows[0, 0], &high[0, 0], &low[0, 0], poll)
        check(status)
    return high.base, low.base


def shortest_rounded(const double[:, ::1] mu, const double[::1] r, double bound,
                     const double[::1] pruning=None):
    """Return (x, squared norm, nodes) of a short vector within `bound`, or None.

    mu[n, n] is transposed: mu[k, i], i > k, belongs to row i on column k; r[n] are the squared
    norms.  Norms are taken in doubles: this serves block reduction, whose result is checked by
    the exact reduction that follows.  With `pruning`[n], shares of the bound that levels k.. may
    use, vectors may be missed.
    """
    cdef Search search
    cdef int64_t n = r.shape[0], i
    if n == 0 or mu.shape[0] != n or mu.shape[1] != n or (
        pruning is not None and pruning.shape[0] != n
    ):
        raise ValueError(f"mu is {mu.shape[0]} x {mu.shape[1]} and r has {n} elements")
    allocate(&search, n)
    cdef double[::1] best = np.zeros(n)
    cdef int status
    search.mu = &mu[0, 0]
    search.r = &r[0]
    search.bound = bound
    if pruning is not None:
        search.pruning = &pruning[0]
    try:
        with nogil:
            status = search_ball(&search, leaf_rounded, &best[0])
        check(status)
        x = [<int64_t>best[i] for i in range(n)]
        return (x, search.bound / (1 - 1e-9), search.nodes) if any(x) else None
    finally:
        release(&search)


cdef class Enumerator:
    """Shortest and closest vectors in a lattice whose reduced basis is given.

    `high`, `low` [n, n]: the Gram matrix as sums of two doubles (their lower triangles are read).
    `rows` [n, m]: the basis, where its entries fit int64; without it vectors are measured by a
    Python function.  Raises ValueError when the squared norms of the orthogonalized rows are not
    certainly positive, and when the error of mu or r could exceed 2^-40.
    """
    cdef readonly int64_t n
    cdef readonly double worst
    cdef readonly object mu
    cdef readonly object r
    cdef readonly int64_t nodes
    cdef double[:, ::1] _mu
    cdef double[::1] _r
    cdef const int64_t[:, ::1] _rows

    def __init__(self, const double[:, ::1] high, const double[:, ::1] low,
                 const int64_t[:, ::1] rows=None):
        cdef int64_t n = high.shape[0]
        cdef int status
        if n == 0 or high.shape[1] != n or low.shape[0] != n or low.shape[1] != n or (
            rows is not None and rows.shape[0] != n
        ):
            raise ValueError(f"the Gram matrix is {n} x {high.shape[1]}; it needs to be square")
        self.n = n
        self.mu = np.zeros((n, n))
        self.r = np.zeros(n)
        self._mu = self.mu
        self._r = self.r
        self._rows = rows
        cdef cl_quad* value = <cl_quad*>malloc(n * n * (2 * sizeof(cl_quad) + 2 * sizeof(double)))
        if value == NULL:
            raise MemoryError(f"no memory to orthogonalize in dimension {n}")
        cdef double* bad = <double*>(value + 2 * n * n)
        with nogil:
            status = cl_orthogonalize(n, &high[0, 0], &low[0, 0], &self._mu[0, 0], &self._r[0],
                                      value, value + n * n, bad, bad + n * n, &self.worst, poll)
        free(value)
        check(status)
        if not status or self.worst > WORST:
            raise ValueError(TOO_FAR)

    def shortest(self, bound, judge=None, const double[::1] pruning=None):
        """Return (x, squared norm) of the shortest nonzero vector below `bound`, or None.

        bound: int, squared, exclusive; with `judge`, a float in the units of the Gram matrix, and
        `judge(x)` is called for each vector, measures it, and returns the new bound or None
        (margins are added here); then nothing is returned.  `pruning` as in `shortest_rounded`;
        without it no vector is missed.
        """
        cdef Search search
        cdef Exact exact
        cdef _Visitor visitor
        cdef int64_t n = self.n, i
        cdef int status
        cdef double[::1] best = np.zeros(n)
        cdef double[::1] reach = np.zeros(n)
        cdef double extra = margin(n, &self._mu[0, 0], &self._r[0], NULL, NULL, self.worst,
                                   bound, &reach[0])
        expect_finite(extra)
        allocate(&search, n)
        search.mu = &self._mu[0, 0]
        search.r = &self._r[0]
        search.bound = <double>bound + extra
        if pruning is not None:
            search.pruning = &pruning[0]
        try:
            if judge is not None:
                visitor = _Visitor(judge, extra)
                with nogil:
                    status = search_ball(&search, leaf_called, <void*>visitor)
                if visitor.error is not None:
                    raise visitor.error
                check(status)
                return None
            if self._rows is None or bound >= LARGEST_NORM:
                raise ValueError("without rows in int64 a judge has to measure the vectors")
            exact.m = self._rows.shape[1]
            exact.rows = &self._rows[0, 0]
            exact.target = NULL
            exact.best = cl_wide(bound & 0xFFFFFFFFFFFFFFFF, bound >> 64)
            exact.best_x = &best[0]
            exact.margin = extra
            exact.start = cl_wide(0, 0)
            exact.within = 0.0
            exact.found = False
            with nogil:
                status = search_ball(&search, leaf_exact, &exact)
            check(status)
            if not exact.found:
                return None
            norm = (<object>cl_high(exact.best) << 64) + cl_low(exact.best)
            return [<int64_t>best[i] for i in range(n)], norm
        finally:
            self.nodes = search.nodes
            release(&search)

    def project(self, double[::1] products):
        """Turn products[n] into the target's coefficients on the orthogonalized rows, in place.

        products[n] INOUT: the target's inner products with the rows, rounded once.  Returns bounds
        of the errors, for `closest_called`.
        """
        expect_length("products", products.shape[0], self.n)
        cdef double[::1] error = np.zeros(self.n)
        cdef double[::1] sums = np.zeros(self.n)
        project(self.n, &self._mu[0, 0], &self._r[0], self.worst, &products[0], &error[0],
                &sums[0])
        return error.base

    def closest_called(self, const double[::1] center, const double[::1] error, double bound,
                       judge, const double[::1] pruning=None):
        """Call `judge(x)` for every vector within `bound` of the target, as in `shortest`.

        center, error [n]: the target's coefficients on the orthogonalized rows, and bounds of
        their errors.
        """
        cdef Search search
        cdef _Visitor visitor
        cdef int64_t n = self.n
        cdef int status
        expect_length("center", center.shape[0], n)
        expect_length("error", error.shape[0], n)
        cdef double[::1] reach = np.zeros(n)
        cdef double extra = margin(n, &self._mu[0, 0], &self._r[0], &center[0], &error[0],
                                   self.worst, bound, &reach[0])
        expect_finite(extra)
        visitor = _Visitor(judge, extra)
        allocate(&search, n)
        search.mu = &self._mu[0, 0]
        search.r = &self._r[0]
        search.center = &center[0]
        search.bound = bound + extra
        if pruning is not None:
            search.pruning = &pruning[0]
        try:
            with nogil:
                status = search_ball(&search, leaf_called, <void*>visitor)
            if visitor.error is not None:
                raise visitor.error
            check(status)
        finally:
            self.nodes = search.nodes
            release(&search)

    def closest(self, const int64_t[:, ::1] targets, int64_t[:, ::1] coefficients,
                uint64_t[:, ::1] distances, const double[::1] pruning=None):
        """coefficients[N, n] OUT of the lattice vectors closest to targets[N, m].

        distances[N, 2] OUT: squared, exact, the low 64 bits first.  Of several closest vectors
        the first found is kept, the same on every machine.  Raises OverflowError where a target
        leaves the range of the 128-bit path (components or coefficients of 2^58).
        """
        cdef int64_t n = self.n, N = targets.shape[0], m, i
        cdef int status = OK
        cdef Search search
        cdef Exact exact
        if self._rows is None:
            raise ValueError("closest needs rows in int64")
        m = self._rows.shape[1]
        expect_length("a target", targets.shape[1], m)
        expect_length("coefficients", coefficients.shape[0], N)
        expect_length("a row of coefficients", coefficients.shape[1], n)
        expect_length("distances", distances.shape[0], N)
        expect_length("a row of distances", distances.shape[1], 2)
        if N == 0:
            return
        cdef double[::1] scratch = np.zeros(5 * n)
        cdef int64_t[::1] rest = np.zeros(m, dtype=np.int64)
        allocate(&search, n)
        search.mu = &self._mu[0, 0]
        search.r = &self._r[0]
        if pruning is not None:
            search.pruning = &pruning[0]
        exact.m = m
        exact.rows = &self._rows[0, 0]
        exact.target = &rest[0]
        exact.best_x = &scratch[0]
        cdef double* center = &scratch[n]
        cdef const int64_t* target = &targets[0, 0]
        cdef int64_t* x = &coefficients[0, 0]
        cdef uint64_t* distance = &distances[0, 0]
        self.nodes = 0
        try:
            with nogil:
                for i in range(N):
                    status = nearest(&search, &exact, self.worst, target + i * m, exact.target,
                                     x + i * n, center)
                    if status != OK:
                        break
                    distance[2 * i] = cl_low(exact.best)
                    distance[2 * i + 1] = cl_high(exact.best)
                    self.nodes += search.nodes
                    status = poll()  # a search of few nodes does not ask
                    if status != OK:
                        break
            if status == TOO_LARGE:
                raise OverflowError(f"target {i} leaves the range of 128-bit arithmetic")
            check(status)
        finally:
            release(&search)


cdef void project(int64_t n, const double* mu, const double* r, double worst, double* center,
                  double* error, double* sums) noexcept nogil:
    """From inner products with the rows to coefficients on the orthogonalized rows, in place.

    center[n] INOUT, each within a relative 2^-53 going in; error[n] OUT: bounds of the errors of
    what comes out; sums[n] is scratch: <target, b*_j>, by forward substitution.
    """
    cdef int64_t j, k
    cdef double total, wrong, size
    for j in range(n):
        total = center[j]
        wrong = UNIT * fabs(total)
        for k in range(j):
            size = fabs(mu[k * n + j])
            total -= mu[k * n + j] * sums[k]
            if size < SMALL_MU:
                size = SMALL_MU
            wrong += size * (error[k] + (worst + 3 * UNIT) * fabs(sums[k])) + UNIT * fabs(total)
        sums[j] = total
        error[j] = wrong
    for j in range(n):
        center[j] = sums[j] / r[j]
        # a factor of two covers the rounding of the bound itself
        error[j] = 2 * (error[j] / r[j] + (worst + 2 * UNIT) * fabs(center[j]))


cdef int nearest(Search* search, Exact* exact, double worst, const int64_t* target, int64_t* rest,
                 int64_t* coefficients, double* scratch) noexcept nogil:
    """One target of `Enumerator.closest`; scratch[4 n]: center, its error, sums, reach."""
    cdef int64_t n = search.n, m = exact.m, j, k, _turn
    cdef const double* mu = search.mu
    cdef double* center = scratch
    cdef double* error = center + n
    cdef double* sums = error + n
    cdef double* reach = sums + n
    cdef double wrong, z, within, extra
    cdef bint moved
    for j in range(m):
        rest[j] = target[j]
        if not fabs(<double>target[j]) < LARGEST_COEFFICIENT:
            return TOO_LARGE
    for j in range(n):
        coefficients[j] = 0
    for _turn in range(MOST_TURNS):
        for j in range(n):
            center[j] = cl_dot(m, rest, exact.rows + j * m)
        project(n, mu, search.r, worst, center, error, sums)
        for j in range(n):
            reach[j] = center[j]
        # Babai's nearest plane, to bring the target next to zero
        moved = False
        j = n - 1
        while j >= 0:
            # 3/4, since a half would be carried to and fro
            z = round(reach[j]) if fabs(reach[j]) > 0.75 else 0.0
            if not fabs(z) < LARGEST_COEFFICIENT:
                return TOO_LARGE
            if z != 0.0:
                moved = True
                coefficients[j] += <int64_t>z
                if not cl_subtract(m, rest, exact.rows + j * m, <int64_t>z):
                    return TOO_LARGE
                for k in range(j):
                    reach[k] -= z * mu[k * n + j]
            j -= 1
        if not moved:
            break
    else:
        return TOO_LARGE
    within = 0.0
    wrong = 0.0
    for j in range(n):
        within += center[j] * center[j] * search.r[j]
        wrong += (2 * fabs(center[j]) + error[j]) * error[j] * search.r[j]
    for j in range(n):
        search.x[j] = 0.0
        exact.best_x[j] = 0.0
    exact.best = cl_squared(n, m, exact.rows, search.x, rest)
    exact.start = exact.best
    exact.within = within + wrong
    search.center = center
    search.bound = exact.within
    extra = margin(n, mu, search.r, center, error, worst, search.bound, reach)
    if extra == INFINITY:
        return TOO_LARGE
    # with the rounding of sums and of differences of norms
    exact.margin = extra + (4 * n + 8) * UNIT * exact.within
    exact.found = False
    search.bound += exact.margin
    cdef int status = search_ball(search, leaf_exact, exact)
    for j in range(n):
        coefficients[j] += <int64_t>exact.best_x[j]
    return status
