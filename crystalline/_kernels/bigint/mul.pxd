# Products of limb vectors, by the algorithm that is fastest at each size.
#
# Long ones ask for Ctrl-C: beside OK and NO_MEMORY they may return INTERRUPTED, those of less than
# 2^16 limbs never do.
from libc.stdint cimport int64_t, uint64_t

# r[an + bn] = a[an] * b[bn] for an >= bn >= 1; r apart from a and b, which may be the same.
cdef int limbs_mul(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil
# r[2 n] = a[n] * a[n]; r apart from a
cdef int limbs_sqr(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil
