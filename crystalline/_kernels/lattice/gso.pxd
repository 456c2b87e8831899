# Floating Gram-Schmidt data of packed rows, in double or in 113-bit quad: rows and whole bases.
#
# Vector j is scaled by 2^-e_j, so nothing overflows however large its entries are: mu'_kj =
# mu_kj 2^(e_j - e_k), r'_j = |b*_j|^2 2^(-2 e_j).  Floating matrices are padded to ld columns.
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.exact_isa cimport exact_primitives
from crystalline._kernels.lattice.basis cimport IntRows

cdef extern from "lattice_real.h" nogil:
    # Declared as the type of the next rank, so that Cython tells the two apart and never narrows.
    ctypedef long double quad "cl_quad"
    double cl_ldexp(double x, int64_t e) noexcept
    quad cl_quad_ldexp(quad x, int64_t e) noexcept
    double cl_entry_double(const uint64_t* a, int64_t w, int64_t e) noexcept
    quad cl_entry_quad(const uint64_t* a, int64_t w, int64_t e) noexcept

ctypedef fused real:
    double
    quad


cdef inline int64_t padded(int64_t k) noexcept nogil:
    return (k + 7) & -8


cdef inline void entries_of(const IntRows* b, int64_t i, real* out, int64_t e) noexcept nogil:
    """out[n] = row i 2^-e, each entry rounded."""
    cdef int64_t c, w = b.width[i]
    cdef const uint64_t* row = <const uint64_t*>b.row[i]
    for c in range(b.n):
        if real is double:
            out[c] = cl_entry_double(row + c * w, w, e)
        else:
            out[c] = cl_entry_quad(row + c * w, w, e)


cdef inline void gram_row(real* g, const real* bt, int64_t ld, const real* b, int64_t n,
                          int64_t k) noexcept nogil:
    """g[k] = inner products of b[n] with the k columns of bt[n][ld]."""
    cdef int64_t c, j
    if real is double:
        exact_primitives().lattice.gram_row(g, bt, ld, b, n, k)
    else:
        for j in range(k):
            g[j] = 0
        for c in range(n):
            for j in range(k):
                g[j] += bt[c * ld + j] * b[c]


cdef inline void cholesky_row(real* r, real* mu, const real* mut, int64_t ld, const real* rinv,
                              int64_t k) noexcept nogil:
    """From r_kj = <b_k, b_j> to r_kj = <b_k, b*_j>, mu_kj = r_kj / r_jj; mut[j][i] = mu_ij."""
    cdef int64_t i, j
    if real is double:
        exact_primitives().lattice.cholesky_row(r, mu, mut, ld, rinv, k)
    else:
        for j in range(k):
            mu[j] = r[j] * rinv[j]
            for i in range(j + 1, k):
                r[i] -= mut[j * ld + i] * r[j]


cdef inline void axpy(real* y, const real* a, int64_t k, real x) noexcept nogil:
    """y[k] -= x a[k]; both padded."""
    cdef int64_t j
    if real is double:
        exact_primitives().lattice.axpy(y, a, k, x)
    else:
        for j in range(k):
            y[j] -= x * a[j]


cdef inline real scaled(real x, int64_t e) noexcept nogil:
    """x 2^e."""
    if e == 0:
        return x
    if real is double:
        return cl_ldexp(x, e)
    else:
        return cl_quad_ldexp(x, e)


# Gram-Schmidt of rows first..d-1, each scaled by 2^-bits of its row, into `a`, which has
# gso_size elements: mu'[m][ld] at `a`, r'[m] behind it, for m = d - first rows, ld = padded(m).
# Returns a proved bound phi of the relative error: the true triangular factor is (I + P) times
# the one computed, with ||P||_F <= phi; or infinity where nothing is proved; or INTERRUPTED.
cdef double gso_factor(const IntRows* b, int64_t first, real* a) noexcept nogil
cdef int64_t gso_size(int64_t m, int64_t n) noexcept nogil
# Whether the data of gso_factor prove rows first..d-1 reduced: |mu_ij| <= eta, Lovasz with delta.
cdef bint gso_proves(const IntRows* b, int64_t first, const real* a, double phi, double delta,
                     double eta) noexcept nogil
# Whether `precision` is "double", not "quad"; ValueError for anything else.
cdef bint in_doubles(str precision) except -1
