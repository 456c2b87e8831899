# Integer roots of limb vectors, rounded toward zero, and what is a perfect power.
from libc.stdint cimport int64_t, uint64_t

# s[(n + 1) / 2] = floor(sqrt(a[n])) and r[rn] = a - s s, normalized, n / 2 + 1 limbs at most;
# n >= 1, a normalized; r [n] (its upper half is scratch) may be NULL when only s is wanted.
cdef int limbs_sqrtrem(uint64_t* s, uint64_t* r, int64_t* rn, const uint64_t* a,
                       int64_t n) noexcept nogil
# s[sn] = floor(a[n] ** (1 / k)), normalized; *exact tells whether s ** k = a; n >= 0 normalized,
# k >= 1; room for n / k + 1 limbs.
cdef int limbs_root(uint64_t* s, int64_t* sn, bint* exact, const uint64_t* a, int64_t n,
                    uint64_t k) noexcept nogil
# *yes = a[n] is a square; n >= 0 normalized
cdef int limbs_is_square(bint* yes, const uint64_t* a, int64_t n) noexcept nogil
# *yes = a[n] is x ** k for some x and some k >= 2 (0 and 1 are); n >= 0 normalized
cdef int limbs_is_power(bint* yes, const uint64_t* a, int64_t n) noexcept nogil
