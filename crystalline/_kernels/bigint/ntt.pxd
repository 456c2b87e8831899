# Products of long limb vectors by number-theoretic transforms; from some hundred limbs up.
#
# NO_MEMORY also stands for sizes beyond 2^33 coefficients of 128 bits, 10^12 bits in all.
from libc.stdint cimport int64_t, uint64_t

# r[an + bn] = a[an] * b[bn] for an >= bn >= 1; r apart from a and b
cdef int ntt_mul(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                 int64_t bn) noexcept nogil
# r[2 n] = a[n] * a[n], n >= 1; r apart from a
cdef int ntt_sqr(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil
