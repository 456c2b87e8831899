# Power series of small arguments in fixed point, by rectangular splitting.
from libc.stdint cimport int64_t, uint64_t

# The series: a_k for k = 0, 1, 2, ...
cdef enum:
    FACTORIAL = 0  # 1 / k!           exp
    ODD_FACTORIAL = 1  # 1 / (2k + 1)!    sin, sinh
    EVEN_FACTORIAL = 2  # 1 / (2k)!        cos, cosh
    ODD = 3  # 1 / (2k + 1)     atan, atanh
    NATURAL = 4  # 1 / (k + 1)      log
    KINDS = 5
    TERMS = 768  # at most so many terms

# r[n] = floor(a[n] b[n] / 2^(64 n)), both fractions; t[2 n] scratch; r may be a or b.
cdef int fraction_mul(uint64_t* r, const uint64_t* a, const uint64_t* b, int64_t n,
                      uint64_t* t) noexcept nogil

# How many terms reach 2^(-64 n) when the argument of the series is below 2^-bits, bits >= 3;
# TERMS + 1 when too many.
cdef int64_t series_terms(int kind, int64_t n, int64_t bits) noexcept nogil

# How many powers of x are best for so many terms: even.
cdef int64_t series_powers_wanted(int64_t terms) noexcept nogil

# powers[m][n]: x[n], x^2, ..., x^m; t[2 n] scratch.  x < 2^-3; each is below the true power by less
# than two units.
cdef int series_powers(uint64_t* powers, const uint64_t* x, int64_t n, int64_t m,
                       uint64_t* t) noexcept nogil

# s[n + 2] = sum over k < terms of a_k x^k, or of a_k (-x)^k when alternating; n fraction limbs,
# s[n + 1] = 0.  powers[m][n] as above with m even, x < 2^-bits; t[2 n + 4] scratch.
# |error| < 2^8 units of 2^(-64 n): the powers' errors enter with weights a_k, which add up to less
# than 2 * 2.72; of terms/m products each loses at most two units, and what the shortened operands
# of high terms lose is below a unit each, since their weight x^k was subtracted from their length.
cdef int series_sum(uint64_t* s, const uint64_t* powers, int64_t n, int64_t m, int64_t bits,
                    int64_t terms, int kind, bint alternating, uint64_t* t) noexcept nogil
