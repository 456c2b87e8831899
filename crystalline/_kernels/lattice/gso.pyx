"""Floating Gram-Schmidt of integer rows, with a proved bound of its error.

The Cholesky factor of the Gram matrix is computed in floating arithmetic, and its error is bounded
afterwards, whatever happened on the way (after G. Villard, "Certification of the QR factor R and
of lattice basis reducedness", ISSAC 2007): for any triangular V near the inverse of the computed
R, the matrix E = (V^T B)(V^T B)^T - I has a rigorous bound, and a small E means that the true
factor is (I + P) R with a small P.  Where double does not prove it, quad (113 bits) may; where quad
does not, the caller computes exactly.
"""

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport INTERRUPTED, OK
from crystalline._kernels.lattice.basis cimport IntMatrix, IntRows

PRECISIONS = ("double", "quad")

cdef enum:
    POLL_ROWS = 32  # row operations between two looks at the signals


cdef double _unit(real* tag) noexcept nogil:
    """The unit roundoff."""
    if real is double:
        return 1.1102230246251565e-16  # 2^-53
    else:
        return 9.62964972193618e-35  # 2^-113, rounded up


cdef real _root(real x) noexcept nogil:
    cdef real y
    if real is double:
        return sqrt(x)
    else:
        y = <quad>sqrt(<double>x)
        if not y > 0:
            return y
        y = (y + x / y) / 2
        return (y + x / y) / 2


cdef int64_t gso_size(int64_t m, int64_t n) noexcept nogil:
    cdef int64_t ld = padded(m), wide = padded(n)
    # mu, r; mut, V^T, L; the vectors in rows and in columns; W in columns; five rows
    return m * ld + ld + 3 * ld * ld + 2 * ld * wide + wide * ld + 8 * ld + 4 * wide


cdef double gso_factor(const IntRows* b, int64_t first, real* a) noexcept nogil:
    cdef int64_t m = b.d - first, n = b.n, ld = padded(m), wide = padded(n), i, j, k, c
    cdef real* mu = a                        # mu[m][ld]
    cdef real* r = mu + m * ld               # r[ld]
    cdef real* mut = r + ld                  # mut[ld][ld]
    cdef real* vt = mut + ld * ld            # V^T, rows of a lower triangle
    cdef real* low = vt + ld * ld            # R^T, the same
    cdef real* vectors = low + ld * ld       # [ld][wide]
    cdef real* bt = vectors + ld * wide      # [wide][ld]
    cdef real* wt = bt + wide * ld           # W in columns: [wide][ld]
    cdef real* rinv = wt + wide * ld
    cdef real* row = rinv + ld
    cdef real* norm = row + ld
    cdef real* epsilon = norm + ld
    cdef real* root = epsilon + ld
    cdef real* spare = root + ld
    cdef real* w = spare + ld
    cdef real unit = _unit(a), x, total, slack, norm_low
    cdef double phi_e, phi_delta
    for i in range(gso_size(m, n)):
        a[i] = 0
    # The factor itself, row by row
    for k in range(m):
        if poll() != OK:
            return INTERRUPTED
        entries_of(b, first + k, vectors + k * wide, b.bits[first + k])
        gram_row(row, bt, ld, vectors + k * wide, n, k)
        total = 0
        for c in range(n):
            x = vectors[k * wide + c]
            bt[c * ld + k] = x
            total += x * x
        norm[k] = _root(total)
        cholesky_row(row, mu + k * ld, mut, ld, rinv, k)
        for j in range(k):
            total -= mu[k * ld + j] * row[j]
        if not total > 0:
            return INFINITY
        for j in range(k, ld):
            mu[k * ld + j] = 0
        r[k] = total
        rinv[k] = 1 / total
        root[k] = _root(total)
        for j in range(k):
            mut[j * ld + k] = mu[k * ld + j]
            low[k * ld + j] = mu[k * ld + j] * root[j]
        low[k * ld + k] = root[k]
    # V^T = R^-T: forward substitution over the unit triangle, then division by the roots
    for k in range(m):
        vt[k * ld + k] = 1
        for j in range(k):
            if j % POLL_ROWS == 0 and poll() != OK:
                return INTERRUPTED
            axpy(vt + k * ld, vt + j * ld, j + 1, mu[k * ld + j])
    for k in range(m):
        x = 1 / root[k]
        for j in range(k + 1):
            vt[k * ld + j] *= x
    # E = W W^T - I for W = V^T B, and D = V^T R^T - I, with bounds of what rounding adds
    phi_e = 0
    phi_delta = 0
    for k in range(m):
        for c in range(n):
            w[c] = 0
        for j in range(ld):
            spare[j] = 0
        total = 0
        slack = 0
        for j in range(k + 1):
            if j % POLL_ROWS == 0 and poll() != OK:
                return INTERRUPTED
            x = vt[k * ld + j]
            axpy(w, vectors + j * wide, n, -x)
            axpy(spare, low + j * ld, j + 1, -x)
            norm_low = 0
            for i in range(j + 1):
                norm_low += low[j * ld + i] * low[j * ld + i]
            total += (x if x > 0 else -x) * norm[j]
            slack += (x if x > 0 else -x) * _root(norm_low)
        epsilon[k] = (2 * m + 16) * unit * total
        slack = (2 * m + 16) * unit * slack
        total = 0
        spare[k] -= 1
        for j in range(k + 1):
            total += spare[j] * spare[j]
        total = _root(total) + slack
        phi_delta += <double>(total * total)
        # row k of W W^T against rows 0..k; root[k] becomes the norm of row k of W
        gram_row(row, wt, ld, w, n, k)
        total = 0
        for c in range(n):
            wt[c * ld + k] = w[c]
            total += w[c] * w[c]
        row[k] = total - 1
        norm_low = _root(total) * 1.000001
        root[k] = norm_low
        for j in range(k + 1):
            x = row[j] if row[j] > 0 else -row[j]
            x += (2 * n + 4) * unit * norm_low * root[j]
            x += epsilon[k] * root[j] + epsilon[j] * norm_low + epsilon[j] * epsilon[k] + unit
            phi_e += <double>(x * x) * (1.0 if j == k else 2.0)
    phi_e = sqrt(phi_e) * 1.000001
    phi_delta = sqrt(phi_delta) * 1.000001
    if not (phi_e <= 0.1 and phi_delta <= 0.1):
        return INFINITY
    return (phi_e + phi_delta) / (1 - phi_delta) * 1.000001


cdef bint gso_proves(const IntRows* b, int64_t first, const real* a, double phi, double delta,
                     double eta) noexcept nogil:
    cdef int64_t m = b.d - first, ld = padded(m), i, j
    cdef const real* low = a + m * ld + ld + 2 * ld * ld
    cdef const real* row
    cdef real tail, x, lower, upper
    cdef real grow = 1 + 1e-12, f = phi
    if not phi <= 0.1:
        return False
    for j in range(m):
        row = low + j * ld
        tail = 0
        i = j
        while i >= 0:
            tail += row[i] * row[i]
            if i < j:
                x = row[i] if row[i] > 0 else -row[i]
                # |mu_ji| = |R_ij| / R_ii, both within what phi allows
                upper = (x + f * _root(tail)) * grow
                lower = eta * (1 - f) * low[i * ld + i]
                if not upper <= scaled(lower, b.bits[first + i] - b.bits[first + j]):
                    return False
            if i == j - 1:
                lower = (1 - f) * (1 - f) * tail
                upper = delta * (1 + f) * (1 + f) * low[i * ld + i] * low[i * ld + i] * grow
                if not scaled(upper, 2 * (b.bits[first + i] - b.bits[first + j])) <= lower:
                    return False
            i -= 1
    return True


cdef int _reduced(bint* result, const IntRows* b, int64_t first, real* a, double delta,
                  double eta) noexcept nogil:
    cdef double phi = gso_factor(b, first, a)
    if phi < 0:
        return INTERRUPTED
    result[0] = gso_proves(b, first, a, phi, delta, eta)
    return OK


cdef bint in_doubles(str precision) except -1:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be 'double' or 'quad', not {precision!r}")
    return precision == "double"


def zero_rows(IntMatrix b not None) -> int:
    """Return how many rows at the head of the matrix are zero.

    >>> from crystalline._kernels.lattice.basis import IntMatrix
    >>> zero_rows(IntMatrix([[0, 0], [0, 0], [1, 0]]))
    2
    """
    cdef int64_t i = 0
    while i < b.rows.d and b.rows.bits[i] == 0:
        i += 1
    return i


def is_reduced(IntMatrix b not None, double delta, double eta, str precision="double") -> bool:
    """Return whether the rows after the leading zero rows are proved LLL-reduced.

    Size-reduced: |mu_ij| <= `eta`; Lovász: `delta` r_i <= r_(i+1) + mu_(i+1,i)^2 r_i.  True is a
    proof; False says only that this precision ("double" or "quad") does not prove it.

    >>> from crystalline._kernels.lattice.basis import IntMatrix
    >>> is_reduced(IntMatrix([[1, 0], [0, 2]]), 0.99, 0.51)
    True
    >>> is_reduced(IntMatrix([[1, 0], [1, 2]]), 0.99, 0.51)
    False
    """
    cdef int64_t first = zero_rows(b), size = gso_size(b.rows.d - first, b.rows.n)
    cdef bint result = False, doubles = in_doubles(precision)
    cdef int status
    cdef void* a = malloc(size * (8 if doubles else 16))
    if a == NULL:
        raise MemoryError(f"no memory for {size} floating numbers")
    with nogil:
        if doubles:
            status = _reduced(&result, &b.rows, first, <double*>a, delta, eta)
        else:
            status = _reduced(&result, &b.rows, first, <quad*>a, delta, eta)
    free(a)
    check(status)
    return result


def gram_schmidt(IntMatrix b not None, str precision="double") -> tuple:
    """Return (mu, r, exponents, phi) of rows that are linearly independent, as lists.

    With e = exponents: mu_ij = mu[i][j] 2^(e_i - e_j) and |b*_i|^2 = r[i] 2^(2 e_i), as floats.
    `phi` is a proved bound: the true triangular factor is (I + P) times the one computed, P
    upper triangular of Frobenius norm at most phi; infinity where `precision` proves nothing.
    Computed in `precision` and given in double, so r is off by at most 2 phi + phi^2 relatively,
    beside the rounding to double.

    >>> from crystalline._kernels.lattice.basis import IntMatrix
    >>> mu, r, e, phi = gram_schmidt(IntMatrix([[2, 0], [1, 1]]))
    >>> mu[1][0] * 2.0 ** (e[1] - e[0]), r[1] * 4.0 ** e[1], phi < 1e-13
    (0.5, 1.0, True)
    """
    cdef int64_t m = b.rows.d, n = b.rows.n, ld = padded(m), i, j
    cdef bint doubles = in_doubles(precision)
    cdef void* a = malloc(gso_size(m, n) * (8 if doubles else 16))
    cdef double phi
    if a == NULL:
        raise MemoryError(f"no memory for {gso_size(m, n)} floating numbers")
    cdef double* d = <double*>a
    cdef quad* q = <quad*>a
    with nogil:
        if doubles:
            phi = gso_factor(&b.rows, 0, d)
        else:
            phi = gso_factor(&b.rows, 0, q)
    try:
        if phi < 0:
            check(INTERRUPTED)
        mu, r = [], []
        for i in range(m):
            mu.append([d[i * ld + j] if doubles else <double>q[i * ld + j] for j in range(i)])
            r.append(d[m * ld + i] if doubles else <double>q[m * ld + i])
        return mu, r, [b.rows.bits[i] for i in range(m)], phi
    finally:
        free(a)
