"""Products of limb vectors: schoolbook, Karatsuba, Toom-3, or a transform, by size.

    limbs      algorithm                                             source
    few        schoolbook, by rows of limbs                          `primitives/limbs.h`
    more       schoolbook, 52-bit digits eight at a time (IFMA)      `primitives/limbs_ifma.h`
    hundreds   Karatsuba, on |a0 - a1| |b0 - b1|                     TAOCP 2, 4.3.3
    hundreds   Toom-3 at 0, 1, -1, 2, infinity                       Bodrato, WAIFI 2007
    thousands  number-theoretic transforms                           `bigint/ntt.pyx`

Where each begins is in `primitives/tuning.h`.  Factors of unequal length: the shorter one decides;
the longer one is cut into pieces of its length when it is twice as long.  A square is the product
of a vector and itself, same address and length, and stays one through every recursion.  Scratch
is one block, on the stack when it is small, so that nothing below the door can fail.  Longer
factors than LONG, beside one too short for a transform, are cut at the door, where Ctrl-C is heard.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport free, malloc

import numpy as np

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (
    NO_MEMORY, OK, limbs_add, limbs_add_1, limbs_compare, limbs_copy, limbs_normalize, limbs_sub_1,
    limbs_zero,
)
from crystalline._kernels.bigint.ntt cimport ntt_mul, ntt_sqr
from crystalline._kernels.bigint.tuning cimport Thresholds, thresholds
from crystalline._kernels.exact_isa cimport CL_VECTOR_LIMBS, LimbPrimitives, exact_primitives

cdef extern from *:
    """
    /* r[n] = a[n] / 3 where 3 divides a: the quotient is -a (B^n - 1) / 3 modulo B^n, summed by
     * limbs; r may be a. */
    static void cl_third(uint64_t *r, const uint64_t *a, int64_t n) {
      uint64_t state = 0;
      for (int64_t i = 0; i < n; i++) {
        unsigned __int128 product = (unsigned __int128)a[i] * 0x5555555555555555u;
        uint64_t low = (uint64_t)product, borrow = state < low;
        state -= low;
        r[i] = state;
        state -= (uint64_t)(product >> 64) + borrow;
      }
    }
    enum { CL_STACK_LIMBS = 2048 };
    """
    void cl_third(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil
    enum:
        CL_STACK_LIMBS

cdef const LimbPrimitives* P = &exact_primitives().limbs
cdef const Thresholds* T = thresholds()

cdef enum:
    LONG = 1 << 17  # limbs: with the longest factor that has no transform, some milliseconds
    KARATSUBA_AT_LEAST = 2
    TOOM3_AT_LEAST = 11  # 4 ceil(an / 3) + 4 limbs of evaluations find room in the product


cdef int limbs_mul(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil:
    if a == b and an == bn:
        return limbs_sqr(r, a, an)
    if bn < T.vector and bn < T.karatsuba and bn < T.ntt and an <= LONG:
        P.mul_basecase(r, a, an, b, bn)
        return OK
    return large(r, a, an, b, bn)


cdef int limbs_sqr(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil:
    if n < T.sqr_vector and n < T.sqr_karatsuba and n < T.sqr_ntt:
        P.sqr_basecase(r, a, n)
        return OK
    return large(r, a, n, a, n)


cdef int large(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
               int64_t bn) noexcept nogil:
    cdef uint64_t[CL_STACK_LIMBS] stack
    cdef uint64_t* heap
    cdef bint square = a == b and an == bn
    if an > INT64_MAX // 64:
        return NO_MEMORY
    if square and an >= T.sqr_ntt:
        return ntt_sqr(r, a, an)
    if not square and (bn >= T.ntt or bn >= T.ntt_long and (an >> 1) + (bn >> 1) >= T.ntt):
        return ntt_mul(r, a, an, b, bn)
    if an > LONG and an >= 2 * bn:
        return by_slices(r, a, an, b, bn)
    if is_basecase(bn, square):
        basecase(r, a, an, b, bn)
        return OK
    cdef int64_t size = scratch_size(an, bn)
    if size <= CL_STACK_LIMBS:
        product(r, a, an, b, bn, stack)
        return OK
    heap = <uint64_t*>malloc(size * sizeof(uint64_t))
    if heap == NULL:
        return NO_MEMORY
    product(r, a, an, b, bn, heap)
    free(heap)
    return OK


cdef int by_slices(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil:
    """The product by slices of a, with a look at the signals after each."""
    cdef int64_t slice_ = max(<int64_t>LONG, bn), done = 0, size
    cdef int status = OK
    cdef uint64_t* kept = <uint64_t*>malloc(bn * sizeof(uint64_t))
    if kept == NULL:
        return NO_MEMORY
    while done < an and status == OK:
        size = min(slice_, an - done)
        limbs_copy(kept, r + done, bn if done else 0)
        if size >= bn:
            status = limbs_mul(r + done, a + done, size, b, bn)
        else:
            status = limbs_mul(r + done, b, bn, a + done, size)
        if done:
            add_at(r + done, size + bn, kept, bn)
        done += size
        if status == OK and done < an:
            status = poll()
    free(kept)
    return status


cdef int64_t scratch_size(int64_t an, int64_t bn) noexcept nogil:
    """Limbs of scratch that `product` needs: 3 n and 16 a level, n the longest operand in it.

    Toom-3 takes 6 (n / 3 + 5 / 3) and what n / 3 + 5 / 3 needs, Karatsuba n + 1 and what
    (n + 1) / 2 needs; pieces are as long as b and need b's length besides.
    """
    cdef int64_t n = an, size = 1024
    if 2 * bn <= an + 1:
        n = bn
        size += bn
    return size + 3 * n


cdef inline bint is_basecase(int64_t n, bint square) noexcept nogil:
    if square:
        return n < T.sqr_karatsuba or n < KARATSUBA_AT_LEAST
    return n < T.karatsuba or n < KARATSUBA_AT_LEAST


cdef void basecase(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil:
    """Schoolbook in limbs or in digits; a is cut evenly where the digits' kernel ends."""
    cdef uint64_t[CL_VECTOR_LIMBS] kept
    cdef int64_t done, piece, pieces
    if a == b and an == bn:
        if an < T.sqr_vector or an > CL_VECTOR_LIMBS:
            P.sqr_basecase(r, a, an)
        else:
            P.sqr_vector(r, a, an)
        return
    if bn < T.vector or bn > CL_VECTOR_LIMBS:
        P.mul_basecase(r, a, an, b, bn)
        return
    pieces = (an + CL_VECTOR_LIMBS - 1) // CL_VECTOR_LIMBS
    piece = (an + pieces - 1) // pieces
    P.mul_vector(r, a, piece, b, bn)
    done = piece
    while done < an:
        piece = min(piece, an - done)
        limbs_copy(kept, r + done, bn)
        P.mul_vector(r + done, a + done, piece, b, bn)
        add_at(r + done, piece + bn, kept, bn)
        done += piece


cdef void add_at(uint64_t* r, int64_t rn, const uint64_t* a, int64_t an) noexcept nogil:
    """r[rn] += a[an], where the sum fits and leading zeros of a may lie beyond r."""
    an = limbs_normalize(a, an)
    cdef uint64_t carry = P.add_n(r, r, a, an) if an else 0
    if carry:
        limbs_add_1(r + an, r + an, rn - an, carry)


cdef void product(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b, int64_t bn,
                  uint64_t* scratch) noexcept nogil:
    """r[an + bn] = a[an] b[bn], an >= bn >= 1, by what is below the transforms."""
    cdef bint square = a == b and an == bn
    if is_basecase(bn, square):
        basecase(r, a, an, b, bn)
    elif 2 * bn <= an + 1:
        by_pieces(r, a, an, b, bn, scratch)
    elif (bn >= (T.sqr_toom3 if square else T.toom3) and bn >= TOOM3_AT_LEAST
            and bn > 2 * ((an + 2) // 3)):
        toom3(r, a, an, b, bn, scratch)
    else:
        karatsuba(r, a, an, b, bn, scratch)


cdef void by_pieces(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b, int64_t bn,
                    uint64_t* scratch) noexcept nogil:
    """The product by pieces of a as long as b; scratch: bn and what a piece needs."""
    cdef int64_t done = bn, piece
    product(r, a, bn, b, bn, scratch + bn)
    while done < an:
        piece = min(bn, an - done)
        limbs_copy(scratch, r + done, bn)
        if piece == bn:
            product(r + done, a + done, bn, b, bn, scratch + bn)
        else:
            product(r + done, b, bn, a + done, piece, scratch + bn)
        add_at(r + done, piece + bn, scratch, bn)
        done += piece


cdef bint difference(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                     int64_t bn) noexcept nogil:
    """r[an] = |a[an] - b[bn]|, an >= bn; whether a < b."""
    cdef int64_t top = limbs_normalize(a + bn, an - bn)
    if top == 0 and limbs_compare(a, b, bn) < 0:
        P.sub_n(r, b, a, bn)
        limbs_zero(r + bn, an - bn)
        return True
    cdef uint64_t borrow = P.sub_n(r, a, b, bn)
    limbs_sub_1(r + bn, a + bn, an - bn, borrow)
    return False


cdef void karatsuba(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b, int64_t bn,
                    uint64_t* scratch) noexcept nogil:
    """a b for an >= bn > h = ceil(an / 2), by low + high - (a0 - a1) (b0 - b1).

    scratch: 2 h and what h needs.
    """
    cdef int64_t h = (an + 1) // 2, high = an + bn - 2 * h
    cdef uint64_t* middle = scratch
    cdef uint64_t* rest = scratch + 2 * h
    cdef uint64_t* low = r
    cdef bint negative
    cdef int64_t carry
    if a == b and an == bn:
        difference(r, a, h, a + h, an - h)
        product(middle, r, h, r, h, rest)
        product(r, a, h, a, h, rest)
        product(r + 2 * h, a + h, an - h, a + h, an - h, rest)
        negative = False
    else:
        negative = difference(r, a, h, a + h, an - h)
        negative ^= difference(r + h, b, h, b + h, bn - h)
        product(middle, r, h, r + h, h, rest)
        product(r, a, h, b, h, rest)
        product(r + 2 * h, a + h, an - h, b + h, bn - h, rest)
    if negative:
        carry = P.add_n(middle, middle, low, 2 * h)
    else:
        carry = -<int64_t>P.sub_n(middle, low, middle, 2 * h)
    carry += limbs_add(middle, middle, 2 * h, r + 2 * h, high)
    carry += P.add_n(r + h, r + h, middle, 2 * h)  # 3 h <= an + bn
    limbs_add_1(r + 3 * h, r + 3 * h, an + bn - 3 * h, carry)


cdef bint evaluate(uint64_t* one, uint64_t* minus, const uint64_t* a, int64_t n,
                   int64_t k) noexcept nogil:
    """one[k + 1] = a(1), minus[k + 1] = |a(-1)| of a = a0 + a1 x + a2 x^2, k limbs each but a2.

    Returns whether a(-1) < 0.
    """
    one[k] = limbs_add(one, a, k, a + 2 * k, n - 2 * k)
    cdef bint negative = one[k] == 0 and limbs_compare(one, a + k, k) < 0
    if negative:
        P.sub_n(minus, a + k, one, k)
        minus[k] = 0
    else:
        minus[k] = one[k] - P.sub_n(minus, one, a + k, k)
    one[k] += P.add_n(one, one, a + k, k)
    return negative


cdef void evaluate_at_2(uint64_t* two, const uint64_t* a, int64_t n, int64_t k) noexcept nogil:
    """two[k + 1] = a0 + 2 (a1 + 2 a2)."""
    cdef int64_t top = n - 2 * k
    cdef uint64_t carry = P.lshift(two, a + 2 * k, top, 1)
    if top < k:
        two[top] = carry
        limbs_zero(two + top + 1, k - top)
    else:
        two[k] = carry
    two[k] += P.add_n(two, two, a + k, k)
    P.lshift(two, two, k + 1, 1)
    two[k] += P.add_n(two, two, a, k)


cdef void toom3(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b, int64_t bn,
                uint64_t* scratch) noexcept nogil:
    """a b for an >= bn > 2 k, k = ceil(an / 3), from the values at 0, 1, -1, 2 and infinity.

    scratch: 6 (k + 1) and what k + 1 needs.
    """
    cdef int64_t k = (an + 2) // 3, m = k + 1, w = 2 * m, high = an + bn - 4 * k
    cdef uint64_t* one = scratch
    cdef uint64_t* minus = scratch + w
    cdef uint64_t* two = scratch + 2 * w
    cdef uint64_t* rest = scratch + 3 * w
    cdef uint64_t* infinity = r + 4 * k
    cdef uint64_t borrow
    cdef bint negative
    # The evaluations lie in r until the outer products take it.
    if a == b and an == bn:
        evaluate(r, r + m, a, an, k)
        product(one, r, m, r, m, rest)
        product(minus, r + m, m, r + m, m, rest)
        evaluate_at_2(r, a, an, k)
        product(two, r, m, r, m, rest)
        product(r, a, k, a, k, rest)
        product(infinity, a + 2 * k, an - 2 * k, a + 2 * k, an - 2 * k, rest)
        negative = False
    else:
        negative = evaluate(r, r + m, a, an, k)
        negative ^= evaluate(r + 2 * m, r + 3 * m, b, bn, k)
        product(one, r, m, r + 2 * m, m, rest)
        product(minus, r + m, m, r + 3 * m, m, rest)
        evaluate_at_2(r, a, an, k)
        evaluate_at_2(r + m, b, bn, k)
        product(two, r, m, r + m, m, rest)
        product(r, a, k, b, k, rest)
        product(infinity, a + 2 * k, an - 2 * k, b + 2 * k, bn - 2 * k, rest)
    # Every value below is a sum of products of parts, so none is negative.
    if negative:
        P.add_n(two, two, minus, w)
        P.add_n(minus, one, minus, w)
    else:
        P.sub_n(two, two, minus, w)
        P.sub_n(minus, one, minus, w)
    cl_third(two, two, w)  # c1 + c2 + 3 c3 + 5 c4
    P.rshift(minus, minus, w, 1)  # c1 + c3
    borrow = P.sub_n(one, one, r, 2 * k)
    limbs_sub_1(one + 2 * k, one + 2 * k, 2, borrow)  # c1 + c2 + c3 + c4
    P.sub_n(two, two, one, w)
    P.rshift(two, two, w, 1)  # c3 + 2 c4
    P.sub_n(one, one, minus, w)
    borrow = P.sub_n(one, one, infinity, high)
    limbs_sub_1(one + high, one + high, w - high, borrow)  # c2
    borrow = P.submul_1(two, infinity, high, 2)
    limbs_sub_1(two + high, two + high, w - high, borrow)  # c3
    P.sub_n(minus, minus, two, w)  # c1
    limbs_copy(r + 2 * k, one, 2 * k)
    add_at(r + 4 * k, high, one + 2 * k, 2)
    add_at(r + k, an + bn - k, minus, w)
    add_at(r + 3 * k, an + bn - 3 * k, two, w)


def multiply(const uint64_t[::1] a, const uint64_t[::1] b, int64_t times=1):
    """Return the product of two limb vectors, len(a) + len(b) limbs, as a new array.

    The door for tests and measurements; leading zero limbs are allowed.  With `times` the work
    is done as often, so that small products can be timed through it.

    >>> multiply(np.array([3, 1], np.uint64), np.array([5], np.uint64)).tolist()
    [15, 5, 0]
    """
    cdef int64_t an = a.shape[0], bn = b.shape[0]
    if times < 1:
        raise ValueError(f"a product {times} times")
    if an == 0 or bn == 0:
        return np.zeros(an + bn, np.uint64)
    result = np.empty(an + bn, np.uint64)
    cdef uint64_t[::1] r = result
    cdef int status = OK
    cdef int64_t _
    with nogil:
        for _ in range(times):
            if an >= bn:
                status = limbs_mul(&r[0], &a[0], an, &b[0], bn)
            else:
                status = limbs_mul(&r[0], &b[0], bn, &a[0], an)
            if status != OK:
                break
    if status == NO_MEMORY:
        raise MemoryError(f"no memory for a product of {an} and {bn} limbs")
    check(status)
    return result


def square(const uint64_t[::1] a):
    """Return the square of a limb vector, 2 len(a) limbs, as a new array.

    >>> square(np.array([0, 3], np.uint64)).tolist()
    [0, 0, 9, 0]
    """
    return multiply(a, a)
