# BigFixed for other modules: its layout, how to make one, and how values are rounded.
from libc.stdint cimport int64_t, uint64_t

from crystalline.exact.integer cimport BigInt

cdef enum Rounding:
    NEAREST  # ties to even
    DOWN  # toward zero
    UP  # away from zero
    FLOOR
    CEILING

cdef extern from *:
    """
    #define CL_MAX_PREC_BITS ((int64_t)1 << 40)
    """
    const int64_t MAX_PREC_BITS "CL_MAX_PREC_BITS"

cdef class BigFixed:
    # The value is mantissa 2^(-prec_bits).  Not to be changed once it has been returned.
    cdef readonly BigInt mantissa
    cdef readonly int64_t prec_bits


cdef BigFixed bigfixed_new(BigInt mantissa, int64_t prec_bits)
# The mode of that name; ValueError for another.
cdef Rounding rounding_mode(object name) except *
# A number of fraction bits; TypeError, ValueError (negative) or OverflowError with its value.
cdef int64_t prec_bits_of(object prec_bits) except -1
# BigFixed, int, BigInt, or float of equal value; None for others; ValueError or OverflowError for
# nan and infinities.
cdef BigFixed exact_bigfixed(object x)
# a[n] 2^(-count) as an integer, with the sign given; sticky tells that the true magnitude is above
# a[n] by less than one.
cdef BigInt round_limbs(const uint64_t* a, int64_t n, bint negative, int64_t count, bint sticky,
                        Rounding rounding)
# x 2^(-count) as an integer
cdef BigInt round_shift(BigInt x, int64_t count, Rounding rounding)
# a / b as an integer; b is not zero
cdef BigInt round_quotient(BigInt a, BigInt b, Rounding rounding)
# x at another precision
cdef BigFixed bigfixed_at(BigFixed x, int64_t prec_bits, Rounding rounding)
