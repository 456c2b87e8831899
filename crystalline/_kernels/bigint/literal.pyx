"""What int() accepts as the text of an integer: blanks, sign, prefix, single underscores.

ASCII only; the face has replaced the digits and blanks of other scripts.
"""
from libc.stdint cimport int64_t

from crystalline._kernels.bigint.interrupt cimport poll
from crystalline._kernels.bigint.limbs cimport OK

cdef extern from *:
    """
    /* The value of an ASCII digit or letter in bases up to 36; 99 for other characters. */
    static inline int cl_digit_value(unsigned char c) {
      unsigned decimal = c - (unsigned)'0', letter = (c | 0x20u) - (unsigned)'a';
      return decimal < 10 ? (int)decimal : letter < 26 ? (int)letter + 10 : 99;
    }
    """
    int digit_value "cl_digit_value"(unsigned char c) noexcept nogil


cdef inline bint is_blank(char c) noexcept nogil:
    return c == c' ' or c'\t' <= c <= c'\r'


cdef inline int prefix_base(char c) noexcept nogil:
    if c == c'x' or c == c'X':
        return 16
    if c == c'o' or c == c'O':
        return 8
    return 2 if c == c'b' or c == c'B' else 0


cdef enum:
    SLICE = 1 << 18  # characters between two looks at the signals


cdef int read_literal(char* digits, int64_t* count, int* base, bint* negative, const char* text,
                      int64_t n) noexcept nogil:
    cdef int64_t i = 0, out = 0, end
    cdef int named, status
    cdef bint zero_only = False, after_digit = False, other_than_zero = False
    while n > 0 and is_blank(text[n - 1]):
        n -= 1
    while i < n and is_blank(text[i]):
        i += 1
    negative[0] = i < n and text[i] == c'-'
    if i < n and (text[i] == c'-' or text[i] == c'+'):
        i += 1
    if i + 1 < n and text[i] == c'0':
        named = prefix_base(text[i + 1])
        if named and (base[0] == 0 or base[0] == named):
            base[0] = named
            i += 2
            after_digit = True  # an underscore may follow the prefix
        elif base[0] == 0:
            zero_only = True  # 010 would be octal to C, and is nothing to Python
    if base[0] == 0:
        base[0] = 10
    while i < n:
        end = min(n, i + SLICE)
        while i < end:
            if text[i] == c'_':
                if not after_digit:
                    return INVALID
                after_digit = False
            elif digit_value(text[i]) < base[0]:
                other_than_zero = other_than_zero or text[i] != c'0'
                digits[out] = text[i]
                out += 1
                after_digit = True
            else:
                return INVALID
            i += 1
        if i < n:
            status = poll()
            if status != OK:
                return status
    count[0] = out
    return OK if out > 0 and after_digit and not (zero_only and other_than_zero) else INVALID
