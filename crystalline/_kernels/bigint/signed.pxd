# Limb vectors as signed numbers: bit operations of two's complement, shifts, doubles, hashes.
from libc.stdint cimport int64_t, uint64_t

cdef enum Logic:
    AND = 0
    OR = 1
    XOR = 2

# r[max(an, bn) + 1] = a op b as two's complement of unlimited width; r may be a or b; returns
# whether the result is negative, r its magnitude.
cdef bint limbs_logic(Logic op, uint64_t* r, const uint64_t* a, int64_t an, bint a_negative,
                      const uint64_t* b, int64_t bn, bint b_negative) noexcept nogil
# r[n + bits / 64 + 1] = a[n] << bits; r apart from a
cdef void limbs_shift_left(uint64_t* r, const uint64_t* a, int64_t n, int64_t bits) noexcept nogil
# r[n - bits / 64] = a[n] >> bits for bits < 64 n; returns whether a bit that was set fell out;
# r apart from a
cdef bint limbs_shift_right(uint64_t* r, const uint64_t* a, int64_t n, int64_t bits) noexcept nogil
# The double nearest to a[n], normalized, ties to even; infinity where it is too large
cdef double limbs_to_double(const uint64_t* a, int64_t n) noexcept nogil
# a[n] modulo 2^61 - 1, which is what Python hashes numbers by
cdef uint64_t limbs_hash(const uint64_t* a, int64_t n) noexcept nogil
cdef int64_t limbs_popcount(const uint64_t* a, int64_t n) noexcept nogil
# Bits of a[n], normalized; zeros at the low end of a[n] > 0
cdef int64_t limbs_bit_length(const uint64_t* a, int64_t n) noexcept nogil
cdef int64_t limbs_trailing_zeros(const uint64_t* a, int64_t n) noexcept nogil
# r[n], two's complement of the negative of a[n]; r may be a; returns 1 for a = 0
cdef uint64_t limbs_negate(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil
