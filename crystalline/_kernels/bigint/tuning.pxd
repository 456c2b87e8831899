# The thresholds in force: which algorithm is taken at which size.
from libc.stdint cimport int64_t

cdef extern from "tuning.h":
    ctypedef struct Thresholds:  # members in the order of tuning.h
        int64_t vector
        int64_t karatsuba
        int64_t toom3
        int64_t ntt
        int64_t ntt_long
        int64_t sqr_vector
        int64_t sqr_karatsuba
        int64_t sqr_toom3
        int64_t sqr_ntt
        int64_t div_recursive
        int64_t div_newton
        int64_t hgcd
        int64_t gcd_hgcd
        int64_t to_digits
        int64_t from_digits
        int64_t to_digits_reciprocal
        int64_t redc_products

# Those of the level in use, or what a test has forced; never NULL, and one address for the life
# of the process, so a module may keep it.
cdef const Thresholds* thresholds() noexcept nogil
