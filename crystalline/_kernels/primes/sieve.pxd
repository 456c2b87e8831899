# A segmented sieve of Eratosthenes over any interval below 2^64, eight residues modulo 30 a byte.
#
# sieve_open, then sieve_next until it returns 0; after each 1, bits[size] holds the sieve bytes
# from number 30 * first on (the byte map is in primitives/primes_table.h).  2, 3 and 5 have no
# bits.  sieve_close frees, also after an error.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "primes_cross.h":
    ctypedef struct SievePrime:
        uint32_t q
        uint32_t at

cdef struct Sieve:
    uint8_t* bits
    uint64_t first
    int64_t size
    uint64_t low, high  # numbers, both included
    uint64_t next_byte, last_byte
    int64_t capacity  # bytes of bits
    uint32_t* base  # the primes that are stepped from segment to segment, beyond the pre-sieved
    int64_t base_count, base_used
    SievePrime* small[8]  # by residue modulo 30: primes that often meet a first-level cache
    SievePrime* medium[8]
    int64_t small_count[8]
    int64_t medium_count[8]
    SievePrime* storage
    uint64_t root  # of high
    bint tests  # whether survivors are tested one by one instead of sieved by larger primes

cdef int sieve_open(Sieve* s, uint64_t low, uint64_t high, int64_t capacity=*) except -1 nogil
cdef int sieve_next(Sieve* s) except -1 nogil
cdef void sieve_close(Sieve* s) noexcept nogil
