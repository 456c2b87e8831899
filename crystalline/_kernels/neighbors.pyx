"""The k most similar tokens of every token, exactly, without a look at most pairs.

The similarity of two numbers a and b is

    S(a, b) = 0.7 gcd(a, b) / max(a, b) + 0.3 / (1 + d(a, b))

with d the Euclidean distance of their places on Ulam's spiral, in float64, each operation rounded
as it is written here; more similar first, then the lower id.  Every machine and every
instruction-set level gives the same bits.

A token's number is a prime of its family times a `rest`, and the rests of all tokens share no
prime with any family's: so tokens of different families have gcd(rest, rest), which is at most
the smaller rest.  The family comes first.  Then one comparison of squared distances passes over
the tokens that are too far away to enter the list whatever their gcd (`_reach`), and only for what
is left S is computed.
"""

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.exact_isa cimport exact_primitives

cdef enum:
    BLOCK = 512  # tokens whose squared distances are computed together

GCD_SHARE, DISTANCE_SHARE = 0.7, 0.3

cdef double GCD_PART = GCD_SHARE, DISTANCE_PART = DISTANCE_SHARE

# A list of at most k tokens, the best first.
cdef struct Best:
    int64_t k, count
    int32_t* ids
    double* scores


cdef inline void _offer(Best* best, int32_t token, double score) noexcept nogil:
    cdef int64_t at = best.count
    if at == best.k:
        at -= 1
        if score < best.scores[at] or (score == best.scores[at] and token > best.ids[at]):
            return
    else:
        best.count += 1
    while at > 0 and (score > best.scores[at - 1]
                      or (score == best.scores[at - 1] and token < best.ids[at - 1])):
        best.scores[at], best.ids[at] = best.scores[at - 1], best.ids[at - 1]
        at -= 1
    best.scores[at], best.ids[at] = score, token


cdef inline uint64_t _gcd(uint64_t a, uint64_t b) noexcept nogil:
    exact_primitives().primes.gcd(&a, &a, &b, 1)
    return a


cdef double _reach(const Best* best, double gcd_most) noexcept nogil:
    # The squared distance beyond which no token enters the list when 0.7 gcd / max <= gcd_most.
    # With the last of a full list at s: 0.3 / (1 + d) < s - gcd_most.  The margins are far wider
    # than the rounding of these lines and of S itself, 2^-50 or so; a difference that has lost
    # ten bits passes over nothing.
    cdef double last, difference, d
    if best.count < best.k:
        return INFINITY
    last = best.scores[best.k - 1] * (1.0 - 1e-9)
    difference = last - gcd_most
    if not difference > 1e-3 * last:
        return INFINITY
    d = max(0.0, DISTANCE_PART / difference - 1.0)
    return d * d * (1.0 + 1e-9)


def fill(const uint64_t[::1] numbers not None, const uint64_t[::1] rests not None,
         const double[::1] x not None, const double[::1] y not None,
         const int32_t[::1] roots not None, const int32_t[::1] members not None,
         const int32_t[::1] first not None, const int32_t[::1] last not None,
         int64_t low, int64_t high, int32_t[:, ::1] ids not None,
         double[:, ::1] scores not None) -> None:
    """Write the k most similar tokens of the tokens low..high - 1, most similar first.

    numbers, rests [V] uint64: below 2^62, and the number without the family's prime; x, y [V]
    float64: the place on Ulam's spiral; roots [V] int32: equal within a family; members [V] int32:
    the tokens family by family, that of token t at first[t]..last[t] - 1: IN.  ids [V, k] int32,
    scores [V, k] float64: OUT, the rows low..high - 1 only, so that threads can share the rows;
    k from 1 to V - 1.  Raises ValueError for arrays that do not fit.

    >>> import numpy as np
    >>> numbers = np.array([5, 10, 7], np.uint64)  # places (-1, 1), (2, -1), (-1, -1)... of 2 roots
    >>> x, y = np.array([-1.0, 2.0, -1.0]), np.array([1.0, -1.0, -1.0])
    >>> ids, scores = np.empty((3, 2), np.int32), np.empty((3, 2))
    >>> fill(numbers, np.array([1, 2, 1], np.uint64), x, y, np.int32([0, 0, 2]),
    ...      np.int32([0, 1, 2]), np.int32([0, 0, 2]), np.int32([2, 2, 3]), 0, 3, ids, scores)
    >>> ids.tolist(), scores.round(3).tolist()
    ([[1, 2], [0, 2], [0, 1]], [[0.415, 0.2], [0.415, 0.145], [0.2, 0.145]])
    """
    cdef int64_t V = numbers.shape[0], k = ids.shape[1], a, i
    cdef Best best
    for name, length in (("rests", rests.shape[0]), ("x", x.shape[0]), ("y", y.shape[0]),
                         ("roots", roots.shape[0]), ("members", members.shape[0]),
                         ("first", first.shape[0]), ("last", last.shape[0]),
                         ("ids", ids.shape[0]), ("scores", scores.shape[0])):
        expect_length(name, length, V)
    expect_length("a row of scores", scores.shape[1], k)
    if not (0 <= low <= high <= V and 1 <= k < V):
        raise ValueError(f"rows {low} to {high} of {V} tokens, {k} neighbors each, make no table")
    for i in range(V):
        if not (0 <= members[i] < V and 0 <= first[i] <= last[i] <= V and numbers[i] >> 62 == 0
                and 0 < rests[i] <= numbers[i]):
            raise ValueError(f"token {i} has an impossible number or family")
    if low == high:
        return
    best.k = k
    with nogil:
        for a in range(low, high):
            best.count, best.ids, best.scores = 0, &ids[a, 0], &scores[a, 0]
            for i in range(first[a], last[a]):
                if members[i] != a:
                    _offer(&best, members[i],
                           _similarity(numbers[a], numbers[members[i]],
                                       _gcd(numbers[a], numbers[members[i]]),
                                       x[a] - x[members[i]], y[a] - y[members[i]]))
            _strangers(V, a, &numbers[0], &rests[0], &x[0], &y[0], &roots[0], &best)


cdef inline double _far(double dx, double dy) noexcept nogil:
    # 0.3 / (1 + d); differences of places are integers below 2^31, squares are summed exactly
    cdef int64_t east = <int64_t>dx, north = <int64_t>dy
    return DISTANCE_PART / (1.0 + sqrt(<double>(east * east + north * north)))


cdef inline double _similarity(uint64_t a, uint64_t b, uint64_t divisor, double dx,
                               double dy) noexcept nogil:
    return GCD_PART * (<double>divisor / <double>max(a, b)) + _far(dx, dy)


cdef void _strangers(int64_t V, int64_t a, const uint64_t* numbers, const uint64_t* rests,
                     const double* x, const double* y, const int32_t* roots,
                     Best* best) noexcept nogil:
    # Offer what is not of a's family, in the order of ids.
    cdef double squares[BLOCK]
    cdef double ax = x[a], ay = y[a], reach, dx, dy, larger, far
    cdef double gcd_most = GCD_PART * (<double>rests[a] / <double>numbers[a])
    cdef int64_t start = 0, n, j, b
    while start < V:
        n = min(V - start, <int64_t>BLOCK)
        for j in range(n):
            dx = x[start + j] - ax
            dy = y[start + j] - ay
            squares[j] = dx * dx + dy * dy
        reach = _reach(best, gcd_most)
        for j in range(n):
            if squares[j] > reach:
                continue
            b = start + j
            if roots[b] == roots[a]:
                continue
            larger = <double>max(numbers[a], numbers[b])
            far = _far(x[b] - ax, y[b] - ay)
            # Rounding keeps order, so this bound needs no margin.
            if best.count == best.k and best.scores[best.k - 1] > far + GCD_PART * (
                    <double>min(rests[a], rests[b]) / larger):
                continue
            _offer(best, <int32_t>b,
                   _similarity(numbers[a], numbers[b], _gcd(rests[a], rests[b]), x[b] - ax,
                               y[b] - ay))
        start += n
