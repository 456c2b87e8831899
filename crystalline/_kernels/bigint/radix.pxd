# Limb vectors as digits in the bases 2 to 62, and back.
#
# A digit is one character: 0-9 then a-z (either case is read) up to base 36, 0-9 then A-Z then a-z
# above, as gmpy2 has them.  No signs, prefixes, separators or blanks.
from libc.stdint cimport int64_t, uint64_t

# What limbs_from_digits returns beside the statuses of limbs.pxd.
cdef enum:
    BAD_DIGIT = -10

# Characters that limbs_to_digits needs for a number of `bits` bits, at most two too many.
cdef int64_t digits_room(int64_t bits, int base) noexcept nogil
# Limbs that limbs_from_digits needs for `count` digits.
cdef int64_t limbs_room(int64_t count, int base) noexcept nogil
# digits[count]: a[n] in `base`, most significant first and without leading zeros; "0" for zero.
# n >= 0; 2 <= base <= 62; room for digits_room.
cdef int limbs_to_digits(char* digits, int64_t* count, const uint64_t* a, int64_t n,
                         int base) noexcept nogil
# r[rn], normalized, from digits[count]; count >= 0; room for limbs_room.  BAD_DIGIT, with the place
# of the first in *rn, when a character is none of the base's digits.
cdef int limbs_from_digits(uint64_t* r, int64_t* rn, const char* digits, int64_t count,
                           int base) noexcept nogil
