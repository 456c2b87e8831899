# Key derivation for counter-based random numbers, for nogil callers.
from libc.stdint cimport uint64_t

cdef uint64_t mix(uint64_t a, uint64_t b) noexcept nogil
