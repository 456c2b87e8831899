"""LLL reduction: exact integer rows, floating Gram-Schmidt, and nothing believed unproved.

After P. Q. Nguyen and D. Stehlé, "An LLL algorithm with quadratic complexity" (SIAM J. Comput.
39, 2009) and C. P. Schnorr and M. Euchner, "Lattice basis reduction" (Math. Programming 66, 1994):
floats choose the multipliers of row operations, which are carried out exactly, so the rows are a
basis of the same lattice whatever the floats do.  Whether they are reduced is proved afterwards
(`gso`); a caller goes on with quad or exactly where that fails.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY, log2, rint
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport INTERRUPTED, NO_MEMORY, OK
from crystalline._kernels.lattice.basis cimport (
    IntMatrix,
    IntRows,
    Multiplier,
    row_move,
    row_subtract,
    rows_bits,
)
from crystalline._kernels.lattice.gso cimport (
    axpy,
    cholesky_row,
    entries_of,
    gram_row,
    in_doubles,
    padded,
    quad,
    real,
    scaled,
)

cdef extern from "<math.h>" nogil:
    double frexp(double x, int* e) noexcept
    double fabs(double x) noexcept

# Floating operations in a slice: a few milliseconds; those of quad take some ten times as long.
cdef int64_t SLICE = 4000000
cdef int64_t QUAD_SLICE = 250000
# Rows of at most so many bits are not scaled: their Gram entries are within the range of double.
cdef int64_t UNSCALED_BITS = 400
# A pass with a larger multiplier is repeated with fresh floats.
cdef double SMALL = 1.0


cdef int64_t lll_size(int64_t d, int64_t n) noexcept nogil:
    cdef int64_t ld = padded(d)
    return padded(n) * ld + 2 * d * ld + 6 * ld + padded(n)


cdef int lll_begin(Lll* s, IntRows* b, IntRows* u, double delta, double eta,
                   bint deep) noexcept nogil:
    cdef double visits
    s.b, s.u = b, u
    s.n, s.ld = b.n, padded(b.d)
    s.k, s.end = 0, b.d
    s.delta, s.eta, s.deep = delta, eta, deep
    # every insertion multiplies the product of the leading Gram determinants by delta at most
    visits = (2.0 * b.d * (b.d + 1) * (rows_bits(b) + log2(b.n + 1) + 3)) / -log2(delta)
    s.visits = <int64_t>min(visits + 4.0 * b.d + 100, 4e18)
    s.work = SLICE
    s.e = <int64_t*>malloc((b.d + 1) * sizeof(int64_t))
    s.x = <Multiplier*>malloc((b.d + 1) * sizeof(Multiplier))
    if s.e == NULL or s.x == NULL:
        lll_end(s)
        return NO_MEMORY
    return OK


cdef void lll_end(Lll* s) noexcept nogil:
    free(s.e)
    free(s.x)
    s.e = NULL
    s.x = NULL


cdef void set_multiplier(Multiplier* x, double value, int64_t e) noexcept nogil:
    """x = value 2^e as a whole number: rounded to the nearest, exact where it is large."""
    cdef int exponent
    if e == 0:
        x.x = rint(value)
        x.shift = 0
        return
    value = frexp(value, &exponent)
    e += exponent
    if e <= 53:
        x.x = rint(scaled(value, e)) if e > -60 else 0.0
        x.shift = 0
    else:
        x.x = value * 9007199254740992.0  # 2^53
        x.shift = e - 53


cdef int64_t _size_reduce(Lll* s, real* mk, const real* mu) noexcept nogil:
    """Choose multipliers that size-reduce row k, into s.x; updates mu_k; -1: not finite."""
    cdef int64_t j = s.k - 1, count = 0, ek = s.e[s.k]
    cdef double m
    cdef Multiplier* x
    while j >= 0:
        m = <double>mk[j]
        if not fabs(m) <= scaled(s.eta, s.e[j] - ek):
            if not fabs(m) < 1e300:
                return -1
            x = s.x + count
            set_multiplier(x, m, ek - s.e[j])
            if x.x != 0:
                x.row = j
                count += 1
                axpy(mk, mu + j * s.ld, j, <real>scaled(x.x, x.shift + s.e[j] - ek))
                mk[j] -= <real>scaled(x.x, x.shift + s.e[j] - ek)
        j -= 1
    return count


cdef int _load(Lll* s, real* bk, int64_t k) noexcept nogil:
    s.e[k] = max(s.b.bits[k] - UNSCALED_BITS, <int64_t>0)
    entries_of(s.b, k, bk, s.e[k])


cdef int _visit(Lll* s, real* a) noexcept nogil:
    """Size-reduce row k and put it where it belongs; sets s.k to the next row."""
    cdef int64_t d = s.b.d, n = s.n, ld = s.ld, k = s.k, i, j, c, count, place, passes = 0
    cdef real* bt = a                         # bt[n][ld]: rows 0..k-1 in columns
    cdef real* mu = bt + padded(n) * ld       # mu[d][ld]
    cdef real* mut = mu + d * ld              # mut[d][ld], transposed
    cdef real* rinv = mut + d * ld            # 1 / |b*_j|^2
    cdef real* r = rinv + ld                  # |b*_j|^2
    cdef real* row = r + ld                   # <b_k, b*_j>
    cdef real* mk = row + ld                  # mu_k
    cdef real* s_k = mk + ld                  # s_k[j] = |b_k|^2 - sum over i < j of mu_ki^2 r_i
    cdef real* bk = s_k + 2 * ld
    cdef real total
    cdef double largest
    cdef int64_t most = 16 + s.b.bits[k] // 8
    while True:
        if s.work < 0 and poll() != OK:  # many passes over one row, of large entries
            return INTERRUPTED
        if s.b.bits[k] == 0:
            s.end -= 1
            row_move(s.b, k, s.end)
            if s.u != NULL:
                row_move(s.u, k, s.end)
            return OK
        _load(s, bk, k)
        gram_row(row, bt, ld, bk, n, k)
        total = 0
        for c in range(n):
            total += bk[c] * bk[c]
        cholesky_row(row, mk, mut, ld, rinv, k)
        s_k[0] = total
        for j in range(k):
            s_k[j + 1] = s_k[j] - mk[j] * row[j]
        s.work -= k * (2 * k + 3 * n) + 8 * n + 64
        count = _size_reduce(s, mk, mu)
        if count < 0:
            return IMPRECISE
        if count == 0:
            break
        largest = 0
        for i in range(count):
            s.work -= n * s.b.width[s.x[i].row] * 3
            largest = max(largest, fabs(s.x[i].x) if s.x[i].shift == 0 else INFINITY)
        if row_subtract(s.b, k, s.x, count) != OK:
            return NO_MEMORY
        if s.u != NULL and row_subtract(s.u, k, s.x, count) != OK:
            return NO_MEMORY
        passes += 1
        if passes > most:
            return IMPRECISE
        if largest > SMALL or s.e[k] or s.b.bits[k] == 0:
            continue
        # small multipliers: what is left of mu_k is as good as new, and |b_k|^2 is taken anew
        _load(s, bk, k)
        total = 0
        for c in range(n):
            total += bk[c] * bk[c]
        s_k[0] = total
        for j in range(k):
            s_k[j + 1] = s_k[j] - mk[j] * mk[j] * r[j]
        break
    place = k
    if s.deep:
        for j in range(k):
            if s.delta * r[j] > scaled(s_k[j], 2 * (s.e[k] - s.e[j])):
                place = j
                break
    else:
        while place > 0 and (s.delta * r[place - 1]
                             > scaled(s_k[place - 1], 2 * (s.e[k] - s.e[place - 1]))):
            place -= 1
    if place < k:
        row_move(s.b, k, place)
        if s.u != NULL:
            row_move(s.u, k, place)
        i = s.e[k]
        j = k
        while j > place:
            s.e[j] = s.e[j - 1]
            j -= 1
        s.e[place] = i
        s.visits -= 1
        if s.visits < 0:
            return IMPRECISE
    if not s_k[place] > 0:
        return IMPRECISE
    for c in range(n):
        bt[c * ld + place] = bk[c]
    for j in range(place):
        mu[place * ld + j] = mk[j]
        mut[j * ld + place] = mk[j]
    for j in range(place, ld):
        mu[place * ld + j] = 0
    r[place] = s_k[place]
    rinv[place] = 1 / s_k[place]
    s.k = place + 1
    return OK


cdef int lll_slice(Lll* s, real* a) noexcept nogil:
    cdef int status
    s.work = SLICE if real is double else QUAD_SLICE
    while s.k < s.end:
        if s.work < 0:
            return PAUSED
        status = _visit(s, a)
        if status != OK:
            return status
    # zero rows first
    while s.end < s.b.d:
        row_move(s.b, s.b.d - 1, 0)
        if s.u != NULL:
            row_move(s.u, s.b.d - 1, 0)
        s.end += 1
    return OK


def reduce(IntMatrix b not None, double delta, double eta, IntMatrix u=None, bint deep=False,
           str precision="double") -> bool:
    """Reduce the rows of `b` in place; zero rows, one for each dependency, come first.

    The rows of `u` undergo the same operations.  Returns whether the floats ("double" or "quad")
    sufficed to come to an end; `b` is a basis of the same lattice in any case.  That the result is
    reduced is for `gso.is_reduced` to prove.  Ctrl-C is heard every few milliseconds, and leaves
    `b` and `u` between two row operations.

    >>> from crystalline._kernels.lattice.basis import IntMatrix
    >>> b = IntMatrix([[1, 0, 331], [0, 1, 303], [0, 0, 1000]])
    >>> reduce(b, 0.99, 0.51), min(sum(x * x for x in row) for row in b.to_lists())
    (True, 58)
    """
    cdef Lll s
    cdef int status = PAUSED
    cdef bint doubles = in_doubles(precision)
    cdef int64_t size = lll_size(b.rows.d, b.rows.n), i
    if u is not None and u.rows.d != b.rows.d:
        raise ValueError(f"u has {u.rows.d} rows, b has {b.rows.d}")
    cdef void* a = malloc(size * (8 if doubles else 16))
    if a == NULL or lll_begin(&s, &b.rows, &u.rows if u is not None else NULL, delta, eta,
                              deep) != OK:
        free(a)
        raise MemoryError(f"no memory to reduce {b.rows.d} rows of {b.rows.n} entries")
    for i in range(size):
        if doubles:
            (<double*>a)[i] = 0
        else:
            (<quad*>a)[i] = 0
    try:
        while status == PAUSED:
            with nogil:
                if doubles:
                    status = lll_slice(&s, <double*>a)
                else:
                    status = lll_slice(&s, <quad*>a)
            if status == INTERRUPTED:
                check(status)
            PyErr_CheckSignals()
    finally:
        lll_end(&s)
        free(a)
    if status == NO_MEMORY:
        raise MemoryError(f"no memory for the rows of a reduction ({b.bits} bits an entry)")
    return status == OK
