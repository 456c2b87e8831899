# Greatest common divisors, their cofactors, inverses and Jacobi symbols of limb vectors.
from libc.stdint cimport int64_t, uint64_t

# What limbs_invert returns beside the statuses of limbs.pxd.
cdef enum:
    NO_INVERSE = -11

# g[gn] = gcd(a[an], b[bn]), normalized; an, bn >= 0 normalized; room for max(an, bn) limbs.
cdef int limbs_gcd(uint64_t* g, int64_t* gn, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil
# g[gn] = gcd(a, b) = s a + t b with the least |s| and |t|: |s| <= b / 2g and |t| <= a / 2g, as the
# cofactors of Euclid's algorithm are, except that
#   a = b gives s = 0, t = 1;  b = 0 gives s = 1, t = 0 (both 0 where a = 0 too);
#   a = 0 gives s = 0, t = 1.
# an, bn >= 0 normalized.  *sn and *tn carry the signs of s and t: |s| is s[abs(*sn)].
# Room: g [max(an, bn)], s [bn + 1], t [an + 1]; s or t may be NULL when it is not wanted.
cdef int limbs_gcdext(uint64_t* g, int64_t* gn, uint64_t* s, int64_t* sn, uint64_t* t, int64_t* tn,
                      const uint64_t* a, int64_t an, const uint64_t* b, int64_t bn) noexcept nogil
# r[mn] = 1 / a[an] mod m[mn], below m; an >= 0, m > 0 normalized; NO_INVERSE where gcd(a, m) > 1.
# Modulo 1 everything is 0.
cdef int limbs_invert(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* m,
                      int64_t mn) noexcept nogil
# *symbol = (a / b), -1, 0 or 1, for odd b; an >= 0, bn >= 1 normalized.
cdef int limbs_jacobi(int* symbol, const uint64_t* a, int64_t an, const uint64_t* b,
                      int64_t bn) noexcept nogil
