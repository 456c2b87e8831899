# What int() accepts as the text of an integer, reduced to bare digits.
from libc.stdint cimport int64_t

cdef enum:
    INVALID = -10

# digits[count]: the digits of text[n] alone, without blanks, sign, prefix and underscores; room for
# n.  *base, 0 or 2 to 36, becomes the base in which they stand.  Returns OK, INVALID where
# int() would call the text invalid, or INTERRUPTED.
cdef int read_literal(char* digits, int64_t* count, int* base, bint* negative, const char* text,
                      int64_t n) noexcept nogil
