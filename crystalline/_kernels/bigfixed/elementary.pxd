# exp, log, sin, cos, atan of any fixed-point number, with n limbs of fraction in the result.
#
# The argument is a magnitude a[an] 2^(-bits), an normalized (zero has an = 0), any bits >= 0, with
# its sign apart.  A result is a magnitude in units of 2^(-64 n) with its sign apart.
#
# **Every result is within 2^FIXED_ERROR_BITS units of 2^(-64 n).**  So n = (k + 64) / 64 limbs or
# more leave k fraction bits at least 64 - FIXED_ERROR_BITS bits clear of the error; one that
# rounds to k bits asks again with a larger n while the FIXED_ERROR_BITS cannot decide (Ziv).
# Exact results (exp 0, log 1, sin 0, cos 0, atan 0) are exact.
#
# All return OK, NO_MEMORY, INTERRUPTED or TOO_LARGE; they run with or without the GIL and hold no
# state but the tables and constants.
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    FIXED_ERROR_BITS = 28
    TOO_LARGE = -3  # the result does not fit what the caller has room for

# r[rn] = exp(x), rn > n: TOO_LARGE when it needs more than rn limbs.
cdef int fixed_exp(uint64_t* r, int64_t rn, int64_t n, const uint64_t* a, int64_t an, int64_t bits,
                   bint negative) noexcept nogil
# r[n + 1] = |log(x)|, x > 0, and its sign.
cdef int fixed_log(uint64_t* r, bint* minus, int64_t n, const uint64_t* a, int64_t an,
                   int64_t bits) noexcept nogil
# s[n + 1] = |sin(x)|, c[n + 1] = |cos(x)| and their signs; s or c may be NULL.
cdef int fixed_sincos(uint64_t* s, bint* s_minus, uint64_t* c, bint* c_minus, int64_t n,
                      const uint64_t* a, int64_t an, int64_t bits, bint negative) noexcept nogil
# r[n + 1] = atan(|x|); the sign is x's.
cdef int fixed_atan(uint64_t* r, int64_t n, const uint64_t* a, int64_t an,
                    int64_t bits) noexcept nogil
# r[n + 1] = atan(y / x) in 0 .. pi/2 for magnitudes y[yn], x[xn] in one unit, not both zero.
cdef int fixed_atan_ratio(uint64_t* r, int64_t n, const uint64_t* y, int64_t yn, const uint64_t* x,
                          int64_t xn) noexcept nogil

# r[rn] = floor(a[an] 2^count), for any count; TOO_LARGE when it does not fit.
cdef int limbs_scaled(uint64_t* r, int64_t rn, const uint64_t* a, int64_t an,
                      int64_t count) noexcept nogil
# r[n + 1] = the sum over k of t_k, t_0 = t[n] and t_k = t_(k-1) y[n + 1] / (2 k + 1): the series
# of erf.  The sum has to stay below 1.  Each term loses at most 2 units, times the growth since.
cdef int erf_sum(uint64_t* r, int64_t n, const uint64_t* t, const uint64_t* y) noexcept nogil
