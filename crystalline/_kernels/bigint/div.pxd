# Quotients and remainders of limb vectors, rounded toward zero.
from libc.stdint cimport int64_t, uint64_t

# q[n] = a[n] / d; returns the remainder; d > 0; q may be a
cdef uint64_t limbs_divrem_1(uint64_t* q, const uint64_t* a, int64_t n, uint64_t d) noexcept nogil
# q[an - bn + 1] and r[bn] with a[an] = q b[bn] + r, r < b; an >= bn >= 1, b normalized;
# q and r apart from each other and from a and b.
cdef int limbs_divrem(uint64_t* q, uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                      int64_t bn) noexcept nogil
