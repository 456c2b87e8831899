# Quotients and remainders of limb vectors, rounded toward zero.
from libc.stdint cimport int64_t, uint64_t

# q[n] = a[n] / d; returns the remainder; d > 0; q may be a
cdef uint64_t limbs_divrem_1(uint64_t* q, const uint64_t* a, int64_t n, uint64_t d) noexcept nogil
# a[n] mod d; d > 0
cdef uint64_t limbs_mod_1(const uint64_t* a, int64_t n, uint64_t d) noexcept nogil
# The same into *r, of any length, with looks at the signals; q apart from a.
cdef int limbs_divrem_long(uint64_t* q, uint64_t* r, const uint64_t* a, int64_t n,
                           uint64_t d) noexcept nogil
cdef int limbs_mod_long(uint64_t* r, const uint64_t* a, int64_t n, uint64_t d) noexcept nogil
# q[an - bn + 1] and r[bn] with a[an] = q b[bn] + r, r < b; an >= bn >= 1, b normalized;
# q and r apart from each other and from a and b.
cdef int limbs_divrem(uint64_t* q, uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                      int64_t bn) noexcept nogil
# r[bn] = a[an] mod b[bn]; an >= bn >= 1, b normalized; r may be a
cdef int limbs_rem(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil
# q[un - vn] and the limb above it, 0 or 1, in *top, with u[un] = (top B^(un - vn) + q) v[vn] + r;
# r, below v, is left in u[vn] and the limbs of u above it become unspecified.  un >= vn >= 2;
# v has its top bit set; q apart from u and v.  What limbs_divrem is made of.
cdef int limbs_divide(uint64_t* q, uint64_t* top, uint64_t* u, int64_t un, const uint64_t* v,
                      int64_t vn) noexcept nogil
# x[n] with 0 <= B^(2 n) / v - (B^n + x) <= 12 for v[n] with its top bit set; x apart from v
cdef int limbs_reciprocal(uint64_t* x, const uint64_t* v, int64_t n) noexcept nogil
# limbs_divide by means of x = limbs_reciprocal of the top `size` <= vn limbs of v, in blocks of
# `size` quotient limbs; for a divisor that is used more than once
cdef int limbs_divide_by(uint64_t* q, uint64_t* top, uint64_t* u, int64_t un, const uint64_t* v,
                         int64_t vn, const uint64_t* x, int64_t size) noexcept nogil
