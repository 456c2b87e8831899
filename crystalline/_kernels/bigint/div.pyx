"""Quotients and remainders of limb vectors (Knuth, TAOCP 2, algorithm 4.3.1 D)."""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.limbs cimport NO_MEMORY, OK, limbs_copy
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    typedef unsigned __int128 cl_u128;
    /* The quotient of high:low by d, for high < d. */
    static inline uint64_t cl_divide(uint64_t high, uint64_t low, uint64_t d,
                                     uint64_t *remainder) {
      cl_u128 a = (cl_u128)high << 64 | low;
      *remainder = (uint64_t)(a % d);
      return (uint64_t)(a / d);
    }
    /* The quotient digit of algorithm D: u2 u1 u0 by v1 v0, v1 normalized, u2 <= v1. */
    static inline uint64_t cl_digit(uint64_t u2, uint64_t u1, uint64_t u0, uint64_t v1,
                                    uint64_t v0) {
      cl_u128 u = (cl_u128)u2 << 64 | u1, digit, rest;
      if (u2 >= v1) {
        digit = ~(uint64_t)0;
        rest = u - digit * v1;
      } else {
        digit = u / v1;
        rest = u % v1;
      }
      while (!(rest >> 64) && digit * v0 > (rest << 64 | u0)) {
        digit--;
        rest += v1;
      }
      return (uint64_t)digit;
    }
    """
    uint64_t cl_divide(uint64_t high, uint64_t low, uint64_t d, uint64_t* remainder) noexcept nogil
    uint64_t cl_digit(uint64_t u2, uint64_t u1, uint64_t u0, uint64_t v1,
                      uint64_t v0) noexcept nogil
    int __builtin_clzll(unsigned long long x) noexcept nogil


cdef uint64_t limbs_divrem_1(uint64_t* q, const uint64_t* a, int64_t n, uint64_t d) noexcept nogil:
    cdef uint64_t remainder = 0
    cdef int64_t i = n - 1
    while i >= 0:
        q[i] = cl_divide(remainder, a[i], d, &remainder)
        i -= 1
    return remainder


cdef int limbs_divrem(uint64_t* q, uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                      int64_t bn) noexcept nogil:
    if bn == 1:
        r[0] = limbs_divrem_1(q, a, an, b[0])
        return OK
    cdef int shift = __builtin_clzll(b[bn - 1])
    cdef uint64_t* u = <uint64_t*>malloc((an + 1 + bn) * sizeof(uint64_t))
    if u == NULL:
        return NO_MEMORY
    cdef uint64_t* v = u + an + 1
    if shift:
        u[an] = exact_primitives().limbs.lshift(u, a, an, shift)
        exact_primitives().limbs.lshift(v, b, bn, shift)
    else:
        limbs_copy(u, a, an)
        u[an] = 0
        limbs_copy(v, b, bn)
    cdef int64_t j = an - bn
    cdef uint64_t digit, borrow
    while j >= 0:
        digit = cl_digit(u[j + bn], u[j + bn - 1], u[j + bn - 2], v[bn - 1], v[bn - 2])
        borrow = exact_primitives().limbs.submul_1(u + j, v, bn, digit)
        if u[j + bn] < borrow:
            digit -= 1
            exact_primitives().limbs.add_n(u + j, u + j, v, bn)
        q[j] = digit
        j -= 1
    if shift:
        exact_primitives().limbs.rshift(r, u, bn, shift)
    else:
        limbs_copy(r, u, bn)
    free(u)
    return OK
