# Rows of large integers: the form in which every lattice kernel holds a basis.
#
# Row i has n entries of width[i] limbs each, packed one after the other, two's complement, least
# significant limb first.  Rows stand where row[i] points, so that moving one moves a pointer.
from libc.stdint cimport int64_t, uint64_t

ctypedef struct IntRows:
    int64_t d         # rows
    int64_t n         # entries a row
    int64_t capacity  # limbs that an entry may have where the rows stand now
    uint64_t* data    # d * n * capacity limbs
    uint64_t** row    # row[d]
    int64_t* width    # width[d], from 1 to capacity
    int64_t* bits     # bits[d]: every entry of row i is below 2^bits[i] in magnitude

# A multiplier x 2^shift: x a whole number of at most 53 significant bits, shift >= 0.
ctypedef struct Multiplier:
    double x
    int64_t shift
    int64_t row

cdef int rows_alloc(IntRows* m, int64_t d, int64_t n, int64_t capacity) noexcept nogil
cdef void rows_free(IntRows* m) noexcept nogil
# Room for `capacity` limbs an entry; rows keep their order.
cdef int rows_reserve(IntRows* m, int64_t capacity) noexcept nogil
# Row i packed anew with `width` limbs an entry, which must hold it and be within the capacity.
cdef int row_repack(IntRows* m, int64_t i, int64_t width) noexcept nogil
# bits[i] and width[i] as small as the entries allow
cdef int row_tighten(IntRows* m, int64_t i) noexcept nogil
# row i -= sum of x 2^shift row j over the multipliers, exactly, then tightened
cdef int row_subtract(IntRows* m, int64_t i, const Multiplier* x, int64_t count) noexcept nogil
# The same where the rows subtracted are those of another basis.
cdef int row_subtract_from(IntRows* m, int64_t i, const IntRows* other, const Multiplier* x,
                           int64_t count) noexcept nogil
# Row i moves to place j; the rows between make room.
cdef void row_move(IntRows* m, int64_t i, int64_t j) noexcept nogil
# The largest number of bits of any row.
cdef int64_t rows_bits(const IntRows* m) noexcept nogil


cdef class IntMatrix:
    cdef IntRows rows
