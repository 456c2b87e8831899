"""Limb vectors as signed numbers: bit operations of two's complement, shifts, doubles, hashes.

Linear work that the exact integers need beside the four operations.  Magnitudes and signs are
separate here as everywhere; two's complement exists inside a loop only.
"""
from libc.math cimport ldexp
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.limbs cimport limbs_copy, limbs_zero
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    #define CL_HASH_BITS 61
    #define CL_HASH_MODULUS (((uint64_t)1 << CL_HASH_BITS) - 1)
    """
    const int HASH_BITS "CL_HASH_BITS"
    const uint64_t HASH_MODULUS "CL_HASH_MODULUS"
    int __builtin_clzll(unsigned long long x) noexcept nogil
    int __builtin_ctzll(unsigned long long x) noexcept nogil
    int __builtin_popcountll(unsigned long long x) noexcept nogil


cdef inline bint logic(Logic op, uint64_t* r, const uint64_t* a, int64_t an, bint a_negative,
                       const uint64_t* b, int64_t bn, bint b_negative) noexcept nogil:
    cdef bint negative
    if op == AND:
        negative = a_negative and b_negative
    elif op == OR:
        negative = a_negative or b_negative
    else:
        negative = a_negative != b_negative
    # -x is ~x + 1: masks and carries of both operands and of the result
    cdef uint64_t a_mask = 0 - <uint64_t>a_negative, a_carry = a_negative
    cdef uint64_t b_mask = 0 - <uint64_t>b_negative, b_carry = b_negative
    cdef uint64_t mask = 0 - <uint64_t>negative, carry = negative
    cdef uint64_t x, y, z
    cdef int64_t i, n = max(an, bn) + 1
    for i in range(n):
        x = ((a[i] if i < an else 0) ^ a_mask) + a_carry
        a_carry = x < a_carry
        y = ((b[i] if i < bn else 0) ^ b_mask) + b_carry
        b_carry = y < b_carry
        if op == AND:
            z = x & y
        elif op == OR:
            z = x | y
        else:
            z = x ^ y
        z = (z ^ mask) + carry
        carry = z < carry
        r[i] = z
    return negative


cdef void logic_of_magnitudes(Logic op, uint64_t* r, const uint64_t* a, int64_t an,
                              const uint64_t* b, int64_t bn) noexcept nogil:
    """The same for two nonnegative numbers, an >= bn, in loops that compilers vectorize."""
    cdef int64_t i
    if op == AND:
        for i in range(bn):
            r[i] = a[i] & b[i]
        limbs_zero(r + bn, an - bn + 1)
        return
    if op == OR:
        for i in range(bn):
            r[i] = a[i] | b[i]
    else:
        for i in range(bn):
            r[i] = a[i] ^ b[i]
    for i in range(bn, an):  # not limbs_copy: r may be a
        r[i] = a[i]
    r[an] = 0


cdef bint limbs_logic(Logic op, uint64_t* r, const uint64_t* a, int64_t an, bint a_negative,
                      const uint64_t* b, int64_t bn, bint b_negative) noexcept nogil:
    if not a_negative and not b_negative:
        if an < bn:
            logic_of_magnitudes(op, r, b, bn, a, an)
        else:
            logic_of_magnitudes(op, r, a, an, b, bn)
        return False
    if op == AND:  # a constant in each call, so that the loop has no branch on it
        return logic(AND, r, a, an, a_negative, b, bn, b_negative)
    if op == OR:
        return logic(OR, r, a, an, a_negative, b, bn, b_negative)
    return logic(XOR, r, a, an, a_negative, b, bn, b_negative)


cdef void limbs_shift_left(uint64_t* r, const uint64_t* a, int64_t n, int64_t bits) noexcept nogil:
    cdef int64_t whole = bits >> 6
    cdef int rest = bits & 63
    limbs_zero(r, whole)
    if rest and n:
        r[n + whole] = exact_primitives().limbs.lshift(r + whole, a, n, rest)
    else:
        limbs_copy(r + whole, a, n)
        r[n + whole] = 0


cdef bint limbs_shift_right(uint64_t* r, const uint64_t* a, int64_t n, int64_t bits) noexcept nogil:
    cdef int64_t i, whole = bits >> 6
    cdef int rest = bits & 63
    cdef bint lost = False
    for i in range(whole):
        if a[i]:
            lost = True
            break
    if rest:
        return exact_primitives().limbs.rshift(r, a + whole, n - whole, rest) != 0 or lost
    limbs_copy(r, a + whole, n - whole)
    return lost


cdef double limbs_to_double(const uint64_t* a, int64_t n) noexcept nogil:
    if n == 0:
        return 0.0
    if n == 1:
        return <double>a[0]
    if n > 16:
        return ldexp(1.0, 2048)
    cdef int shift = __builtin_clzll(a[n - 1])
    cdef uint64_t top = a[n - 1], below = a[n - 2]
    cdef int64_t i
    if shift:
        top = top << shift | below >> (64 - shift)
        below <<= shift
    for i in range(n - 2):
        below |= a[i]
    # The bits below the top 64 decide nothing but ties, and one bit says whether there are any.
    top |= below != 0
    return ldexp(<double>top, 64 * (n - 1) - shift)


cdef uint64_t limbs_hash(const uint64_t* a, int64_t n) noexcept nogil:
    cdef uint64_t h = 0
    cdef int64_t i = n - 1
    while i >= 0:
        # 2^64 is 8 modulo 2^61 - 1: rotate h, below 2^61, by three bits, then add the limb.
        h = (h << 3 & HASH_MODULUS) | h >> (HASH_BITS - 3)
        h += (a[i] & HASH_MODULUS) + (a[i] >> HASH_BITS)
        h = (h & HASH_MODULUS) + (h >> HASH_BITS)
        if h >= HASH_MODULUS:
            h -= HASH_MODULUS
        i -= 1
    return h


cdef int64_t limbs_popcount(const uint64_t* a, int64_t n) noexcept nogil:
    cdef int64_t i, count = 0
    for i in range(n):
        count += __builtin_popcountll(a[i])
    return count


cdef int64_t limbs_bit_length(const uint64_t* a, int64_t n) noexcept nogil:
    return 64 * n - __builtin_clzll(a[n - 1]) if n else 0


cdef int64_t limbs_trailing_zeros(const uint64_t* a, int64_t n) noexcept nogil:
    cdef int64_t i = 0
    while a[i] == 0:
        i += 1
    return 64 * i + __builtin_ctzll(a[i])


cdef uint64_t limbs_negate(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil:
    cdef int64_t i
    cdef uint64_t carry = 1
    for i in range(n):
        r[i] = ~a[i] + carry
        carry = r[i] < carry
    return carry
