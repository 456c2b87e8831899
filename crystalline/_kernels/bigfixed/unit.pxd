# exp, log, sin and cos, atan of arguments already reduced to the unit interval.
#
# A fraction a[n] means a 2^(-64 n); with an integer limb it has n + 1.  Outputs are apart from
# inputs.  |error| < 2^UNIT_ERROR_BITS units of 2^(-64 n) everywhere; n >= 1.
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    UNIT_ERROR_BITS = 12

# r[n + 1] = exp(x), 0 <= x < 1
cdef int exp_unit(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil
# r[n] = log(1 + x), 0 <= x < 1; zero for x = 0
cdef int log_unit(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil
# s[n + 1] = sin(x), c[n + 1] = cos(x), 0 <= x < 1; either may be NULL
cdef int sincos_unit(uint64_t* s, uint64_t* c, const uint64_t* x, int64_t n) noexcept nogil
# r[n + 1] = atan(a / b), 0 <= a <= b, b's top bit set; a[n], b[n] are exact or within 2 units
cdef int atan_unit(uint64_t* r, const uint64_t* a, const uint64_t* b, int64_t n) noexcept nogil
