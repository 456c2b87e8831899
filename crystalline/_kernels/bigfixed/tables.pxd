# Function values at short arguments, for fractions of up to TABLE_LIMBS limbs.
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    TABLE_LIMBS = 13
    ENTRY = 14  # limbs of an entry: a fraction of TABLE_LIMBS limbs, cut off, and an integer limb
    ENTRIES = 260  # entries of a level
    # The tables; each is made at its first use, in under 3 ms.
    EXP_TABLE = 0  # levels exp(i / 2^8), exp(i / 2^16)
    SINCOS_TABLE = 1  # levels sin(i / 2^8), cos(i / 2^8), sin(i / 2^16), cos(i / 2^16)
    # levels -log(c_i / 2^16) with c_i = log_factor(i), log(1 + i / 2^15), log(1 + i / 2^22)
    LOG_TABLE = 2
    ATAN_TABLE = 3  # levels atan(i / 2^8), atan(i / 2^16), atan(i / 2^24)
    TABLES = 4


# Entry i of a level of a table: n limbs of fraction and one of integer; t as table() gave it.
cdef inline const uint64_t* entry(const uint64_t* t, int level, int64_t i,
                                  int64_t n) noexcept nogil:
    return t + (level * ENTRIES + i) * ENTRY + (TABLE_LIMBS - n)


cdef inline uint64_t log_factor(int64_t i) noexcept nogil:
    """16 bits that times (256 + i) / 256 stay just below 2^16, for 0 <= i < 256."""
    return <uint64_t>((1 << 24) // (257 + i))


# *t = the table, or NO_MEMORY.  Any thread, without the GIL.
cdef int table(const uint64_t** t, int which) noexcept nogil
# r[n + 1] = a[n + 1] b[n + 1] with n fraction limbs each, cut off; t[2 n + 2]; r may be a or b.
cdef int real_mul(uint64_t* r, const uint64_t* a, const uint64_t* b, int64_t n,
                  uint64_t* t) noexcept nogil
