# Key derivation for counter-based random numbers, for compiled callers.
from libc.stdint cimport uint32_t, uint64_t

cdef uint64_t mix(uint64_t a, uint64_t b) noexcept nogil
# A dropout probability in units of 2^-32, as primitives take it; ValueError outside [0, 1).
cdef uint32_t drop_threshold(double probability) except? 0
