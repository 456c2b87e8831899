# Primality of 64-bit integers, proven.
from libc.stdint cimport uint64_t

cdef bint is_prime_64(uint64_t n) noexcept nogil
