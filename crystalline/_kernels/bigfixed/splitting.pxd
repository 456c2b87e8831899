# Sums of hypergeometric series by binary splitting, and the constants made of them.
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    PI = 0
    LN2 = 1
    E = 2
    LN10 = 3
    CONSTANTS = 4

# r[n + 1] = the constant, within 16 units of 2^(-64 n).
cdef int constant_digits(uint64_t* r, int which, int64_t n) noexcept nogil

# r[n + 1] = exp(x), x = a 2^(-bits) < 2^(-bits / 2) with a[an] > 0; within 4 units of 2^(-64 n).
cdef int split_exp(uint64_t* r, int64_t n, const uint64_t* a, int64_t an,
                   int64_t bits) noexcept nogil
# r[n + 1] = sin(x), likewise.
cdef int split_sin(uint64_t* r, int64_t n, const uint64_t* a, int64_t an,
                   int64_t bits) noexcept nogil

# r[n] = floor(a 2^(64 n - bits)), for a[an] < 2^bits.
cdef void fraction_of(uint64_t* r, int64_t n, const uint64_t* a, int64_t an,
                      int64_t bits) noexcept nogil
