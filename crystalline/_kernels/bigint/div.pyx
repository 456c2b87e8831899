"""Quotients and remainders of limb vectors, by the algorithm that is fastest at each size.

Schoolbook over a reciprocal of the two top limbs (primitives/division.h); the recursion of
Burnikel and Ziegler ("Fast recursive division", MPI-I-98-1-022, 1998); above that the quotient
block by block by a reciprocal from Newton's iteration (Brent and Zimmermann, "Modern Computer
Arithmetic", 3.4), every block corrected until it is exact.  B = 2^64.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (NO_MEMORY, OK, limbs_add_1, limbs_compare,
                                                limbs_copy, limbs_lshift_long, limbs_sub_1)
from crystalline._kernels.bigint.mul cimport limbs_mul
from crystalline._kernels.bigint.tuning cimport thresholds
from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t cl_multiply_add(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
      return (uint64_t)(((unsigned __int128)a * b + c) % d); /* a, b, c < d */
    }
    /* B^n mod d */
    static uint64_t cl_limbs_residue(int64_t n, uint64_t d) {
      uint64_t power = (uint64_t)(((unsigned __int128)1 << 64) % d), r = 1 % d;
      for (; n; n >>= 1, power = cl_multiply_add(power, power, 0, d))
        if (n & 1) r = cl_multiply_add(r, power, 0, d);
      return r;
    }
    """
    uint64_t cl_multiply_add(uint64_t a, uint64_t b, uint64_t c, uint64_t d) noexcept nogil
    uint64_t cl_limbs_residue(int64_t n, uint64_t d) noexcept nogil
    int __builtin_clzll(unsigned long long x) noexcept nogil

cdef enum:
    SMALL = 128  # limbs that are had on the stack
    SLICE = 1 << 18  # limbs, or products of them, between two looks at the signals


cdef uint64_t limbs_divrem_1(uint64_t* q, const uint64_t* a, int64_t n, uint64_t d) noexcept nogil:
    return exact_primitives().division.divrem_1(q, a, n, d)


cdef int limbs_divrem_long(uint64_t* q, uint64_t* r, const uint64_t* a, int64_t n,
                           uint64_t d) noexcept nogil:
    # By slices from the top, each with the remainder before it as its highest limb: that lies
    # where the lowest limb of the quotient before is, which comes back afterwards.
    cdef int64_t at = n, size
    cdef uint64_t kept
    cdef int status
    r[0] = 0
    while at > 0:
        size = min(at, <int64_t>SLICE)
        at -= size
        if at + size == n:
            r[0] = limbs_divrem_1(q + at, a + at, size, d)
        else:
            kept = q[at + size]
            limbs_copy(q + at, a + at, size)
            q[at + size] = r[0]
            r[0] = limbs_divrem_1(q + at, q + at, size + 1, d)
            q[at + size] = kept
        if at:
            status = poll()
            if status != OK:
                return status
    return OK


cdef uint64_t limbs_mod_1(const uint64_t* a, int64_t n, uint64_t d) noexcept nogil:
    return exact_primitives().division.mod_1(a, n, d)


cdef int limbs_mod_long(uint64_t* r, const uint64_t* a, int64_t n, uint64_t d) noexcept nogil:
    # Horner's rule over slices, by the residue of B^SLICE.
    cdef int64_t at = (n - 1) // SLICE * SLICE if n else 0
    cdef uint64_t step = 0
    cdef int status
    r[0] = limbs_mod_1(a + at, n - at, d)
    if at:
        step = cl_limbs_residue(SLICE, d)
    while at > 0:
        status = poll()
        if status != OK:
            return status
        at -= SLICE
        r[0] = cl_multiply_add(r[0], step, limbs_mod_1(a + at, SLICE, d), d)
    return OK


cdef int _schoolbook(uint64_t* q, uint64_t* top, uint64_t* u, int64_t un, const uint64_t* v,
                     int64_t vn, uint64_t reciprocal) noexcept nogil:
    """limbs_divide, a slice of the quotient between two looks at the signals."""
    cdef int64_t at = un - vn, most, size
    cdef int status
    if at <= SLICE and vn <= SLICE and at * vn <= SLICE:
        top[0] = exact_primitives().division.div_basecase(q, u, un, v, vn, reciprocal)
        return OK
    most = SLICE // vn + 1
    size = (at - 1) % most + 1
    at -= size
    top[0] = exact_primitives().division.div_basecase(q + at, u + at, vn + size, v, vn, reciprocal)
    while at > 0:
        status = poll()
        if status != OK:
            return status
        at -= most
        # below v after the first slice: nothing above the quotient's limbs
        exact_primitives().division.div_basecase(q + at, u + at, vn + most, v, vn, reciprocal)
    return OK


cdef int _mul(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
              int64_t bn) noexcept nogil:
    """r[an + bn] = a[an] * b[bn] in either order of sizes, above 0."""
    if an >= bn:
        return limbs_mul(r, a, an, b, bn)
    return limbs_mul(r, b, bn, a, an)


# Burnikel and Ziegler


cdef int _recursive(uint64_t* q, uint64_t* top, uint64_t* u, const uint64_t* v, int64_t n,
                    uint64_t reciprocal, uint64_t* scratch) noexcept nogil:
    """limbs_divide of u[2 n] by v[n]; scratch [n]."""
    if n < 4 or n < thresholds().div_recursive:
        top[0] = exact_primitives().division.div_basecase(q, u, 2 * n, v, n, reciprocal)
        return OK
    cdef int64_t low = n >> 1
    cdef int64_t high = n - low
    cdef uint64_t borrow, below
    cdef int status = _recursive(q + low, top, u + 2 * low, v + low, high, reciprocal, scratch)
    if status == OK:
        status = poll()
    if status == OK:
        status = limbs_mul(scratch, q + low, high, v, low)
    if status != OK:
        return status
    borrow = exact_primitives().limbs.sub_n(u + low, u + low, scratch, n)
    if top[0]:
        borrow += exact_primitives().limbs.sub_n(u + n, u + n, v, low)
    while borrow:
        top[0] -= limbs_sub_1(q + low, q + low, high, 1)
        borrow -= exact_primitives().limbs.add_n(u + low, u + low, v, n)
    status = _recursive(q, &below, u + high, v + high, low, reciprocal, scratch)
    if status == OK:
        status = limbs_mul(scratch, v, high, q, low)
    if status != OK:
        return status
    borrow = exact_primitives().limbs.sub_n(u, u, scratch, n)
    if below:
        borrow += exact_primitives().limbs.sub_n(u + low, u + low, v, high)
    while borrow:  # the limb above the low quotient is taken back with it
        limbs_sub_1(q, q, low, 1)
        borrow -= exact_primitives().limbs.add_n(u, u, v, n)
    return OK


cdef int _block(uint64_t* q, uint64_t* top, uint64_t* u, int64_t qn, const uint64_t* v,
                int64_t vn, uint64_t reciprocal, uint64_t* scratch) noexcept nogil:
    """limbs_divide of u[vn + qn] by v[vn], qn <= vn; scratch [vn]."""
    cdef int64_t rest = vn - qn
    cdef uint64_t borrow
    if qn < 4 or qn < thresholds().div_recursive:
        return _schoolbook(q, top, u, vn + qn, v, vn, reciprocal)
    cdef int status = _recursive(q, top, u + rest, v + rest, qn, reciprocal, scratch)
    if status != OK or rest == 0:
        return status
    status = _mul(scratch, q, qn, v, rest)
    if status != OK:
        return status
    borrow = exact_primitives().limbs.sub_n(u, u, scratch, vn)
    if top[0]:
        borrow += exact_primitives().limbs.sub_n(u + qn, u + qn, v, rest)
    while borrow:
        top[0] -= limbs_sub_1(q, q, qn, 1)
        borrow -= exact_primitives().limbs.add_n(u, u, v, vn)
    return OK


cdef int _divide_recursively(uint64_t* q, uint64_t* top, uint64_t* u, int64_t un,
                             const uint64_t* v, int64_t vn, uint64_t reciprocal) noexcept nogil:
    """limbs_divide in blocks of vn quotient limbs, the topmost shorter."""
    cdef uint64_t* scratch = <uint64_t*>malloc(vn * sizeof(uint64_t))
    if scratch == NULL:
        return NO_MEMORY
    cdef int64_t at = un - vn
    cdef int64_t size = at % vn
    cdef uint64_t above
    cdef int status
    if size == 0:
        size = vn
    at -= size
    status = _block(q + at, top, u + at, size, v, vn, reciprocal, scratch)
    while status == OK and at > 0:
        at -= vn
        status = _block(q + at, &above, u + at, vn, v, vn, reciprocal, scratch)
        if status == OK:
            status = poll()
    free(scratch)
    return status


# Newton


cdef int _reciprocal_start(uint64_t* x, const uint64_t* v, int64_t n) noexcept nogil:
    """limbs_reciprocal by division: floor((B^(2 n) - 1) / v) - B^n - 4."""
    cdef uint64_t* u = <uint64_t*>malloc(2 * n * sizeof(uint64_t))
    if u == NULL:
        return NO_MEMORY
    cdef int64_t i
    cdef uint64_t top
    for i in range(n):
        u[i] = <uint64_t>-1
        u[n + i] = ~v[i]
    cdef int status = limbs_divide(x, &top, u, 2 * n, v, n)
    free(u)
    if status == OK and limbs_sub_1(x, x, n, 4):
        for i in range(n):
            x[i] = 0
    return status


cdef int limbs_reciprocal(uint64_t* x, const uint64_t* v, int64_t n) noexcept nogil:
    # X = B^n + x is at most B^(2 n) / (v + 1), being lowered by 4 > B^(2 n) / v (v + 1): so it is
    # also below the reciprocal of every longer number whose top limbs v is, and e stays positive.
    if n < thresholds().div_newton or n < 8:
        return _reciprocal_start(x, v, n)
    cdef int64_t h = (n >> 1) + 2
    cdef uint64_t* xh = <uint64_t*>malloc((n + 4 * h + 2) * sizeof(uint64_t))
    if xh == NULL:
        return NO_MEMORY
    cdef uint64_t* e = xh + h  # n + h
    cdef uint64_t* step = e + n + h  # 2 h + 2
    cdef int64_t i
    cdef int status = limbs_reciprocal(xh, v + n - h, h)
    if status == OK:
        status = poll()
    if status == OK:
        status = limbs_mul(e, v, n, xh, h)
    if status == OK:
        # e = B^(n + h) - v X_h, less 1; below 8 B^n
        exact_primitives().limbs.add_n(e + h, e + h, v, n)
        for i in range(n - h, n + 1):
            e[i] = ~e[i]
        # X = X_h B^(n - h) + X_h e / B^(2 h), with the top h + 1 limbs of e
        status = limbs_mul(step, e + n - h, h + 1, xh, h)
    if status == OK:
        step[2 * h + 1] = exact_primitives().limbs.add_n(step + h, step + h, e + n - h, h + 1)
        limbs_copy(x + n - h, xh, h)
        limbs_copy(x, step + 3 * h - n, n - h)
        limbs_add_1(x + n - h, x + n - h, h, step[2 * h])
        if limbs_sub_1(x, x, n, 4):
            for i in range(n):
                x[i] = 0
    free(xh)
    return status


cdef int limbs_divide_by(uint64_t* q, uint64_t* top, uint64_t* u, int64_t un, const uint64_t* v,
                         int64_t vn, const uint64_t* x, int64_t size) noexcept nogil:
    cdef uint64_t* product = <uint64_t*>malloc((vn + size) * sizeof(uint64_t))
    if product == NULL:
        return NO_MEMORY
    cdef uint64_t* w
    cdef int64_t at = un - vn
    cdef int64_t n = at % size
    cdef int status = OK
    top[0] = limbs_compare(u + at, v, vn) >= 0
    if top[0]:
        exact_primitives().limbs.sub_n(u + at, u + at, v, vn)
    if n == 0:
        n = size
    while at > 0:
        # w[vn + n] = r B^n + the next n limbs, r < v; the digits from r's top n limbs and x are
        # never too large and at most 12 too small
        at -= n
        w = u + at
        status = limbs_mul(product, w + vn, n, x + size - n, n)
        if status != OK:
            break
        exact_primitives().limbs.add_n(q + at, product + n, w + vn, n)
        status = limbs_mul(product, v, vn, q + at, n)
        if status != OK:
            break
        exact_primitives().limbs.sub_n(w, w, product, vn + 1)
        while w[vn] or limbs_compare(w, v, vn) >= 0:
            w[vn] -= exact_primitives().limbs.sub_n(w, w, v, vn)
            limbs_add_1(q + at, q + at, n, 1)
        n = size
        status = poll()
        if status != OK:
            break
    free(product)
    return status


cdef int _divide_by_reciprocal(uint64_t* q, uint64_t* top, uint64_t* u, int64_t un,
                               const uint64_t* v, int64_t vn, int64_t size) noexcept nogil:
    cdef uint64_t* x = <uint64_t*>malloc(size * sizeof(uint64_t))
    if x == NULL:
        return NO_MEMORY
    cdef int status = limbs_reciprocal(x, v + vn - size, size)
    if status == OK:
        status = limbs_divide_by(q, top, u, un, v, vn, x, size)
    free(x)
    return status


# The doors of the kernels


cdef int limbs_divide(uint64_t* q, uint64_t* top, uint64_t* u, int64_t un, const uint64_t* v,
                      int64_t vn) noexcept nogil:
    cdef int64_t qn = un - vn
    cdef int64_t shorter = min(qn, vn)
    cdef uint64_t reciprocal = exact_primitives().division.reciprocal_2(v[vn - 1], v[vn - 2])
    cdef int64_t size
    if shorter < 4 or shorter < thresholds().div_recursive:
        return _schoolbook(q, top, u, un, v, vn, reciprocal)
    if shorter < thresholds().div_newton:
        return _divide_recursively(q, top, u, un, v, vn, reciprocal)
    if qn > vn:
        size = (qn - 1) // ((qn - 1) // vn + 1) + 1  # equal blocks, none longer than v
    elif 3 * qn > vn:
        size = (qn - 1) // 2 + 1
    else:
        size = qn
    return _divide_by_reciprocal(q, top, u, un, v, vn, size)


cdef int limbs_divrem(uint64_t* q, uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                      int64_t bn) noexcept nogil:
    if bn == 1:
        return limbs_divrem_long(q, r, a, an, b[0])
    # The numerator gains a limb, so that the quotient's top limb comes out below.
    cdef int shift = __builtin_clzll(b[bn - 1])
    cdef uint64_t[SMALL] local
    cdef uint64_t* u = local
    if an + 1 + bn > SMALL:
        u = <uint64_t*>malloc((an + 1 + bn) * sizeof(uint64_t))
        if u == NULL:
            return NO_MEMORY
    cdef uint64_t* v = u + an + 1
    cdef uint64_t top
    cdef int status = OK
    if an > SLICE:
        status = limbs_lshift_long(u + an, u, a, an, shift)
        if status == OK:
            status = limbs_lshift_long(&top, v, b, bn, shift)
    elif shift:
        u[an] = exact_primitives().limbs.lshift(u, a, an, shift)
        exact_primitives().limbs.lshift(v, b, bn, shift)
    else:
        u[an] = 0
        limbs_copy(u, a, an)
        limbs_copy(v, b, bn)
    if status == OK and u[an] == 0 and u[an - 1] < v[bn - 1]:
        q[an - bn] = 0  # known to be zero: a block less
        status = limbs_divide(q, &top, u, an, v, bn)
    elif status == OK:
        status = limbs_divide(q, &top, u, an + 1, v, bn)
    if status == OK and shift:
        exact_primitives().limbs.rshift(r, u, bn, shift)
    elif status == OK:
        limbs_copy(r, u, bn)
    if u != local:
        free(u)
    return status


cdef int limbs_rem(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil:
    if bn == 1:
        return limbs_mod_long(r, a, an, b[0])
    cdef uint64_t[SMALL] local
    cdef uint64_t* q = local
    if an - bn + 1 > SMALL:
        q = <uint64_t*>malloc((an - bn + 1) * sizeof(uint64_t))
        if q == NULL:
            return NO_MEMORY
    cdef int status = limbs_divrem(q, r, a, an, b, bn)
    if q != local:
        free(q)
    return status


# The door of the tests


def divrem(uint64_t[::1] q not None, uint64_t[::1] r not None, const uint64_t[::1] a not None,
           const uint64_t[::1] b not None) -> None:
    """q, r = divmod(a, b) on limb vectors, least significant first.

    q [an - bn + 1], r [bn]: OUT; a [an], b [bn]: IN; an >= bn >= 1 and the top limb of b is not 0.

    >>> import numpy as np
    >>> q, r = np.empty(2, np.uint64), np.empty(1, np.uint64)
    >>> divrem(q, r, np.uint64([7, 1]), np.uint64([10])); print(q, r)
    [1844674407370955162          0] [3]
    """
    cdef Py_ssize_t an = a.shape[0], bn = b.shape[0]
    _expect_divisor(an, b)
    expect_length("q", q.shape[0], an - bn + 1)
    expect_length("r", r.shape[0], bn)
    cdef int status
    with nogil:
        status = limbs_divrem(&q[0], &r[0], &a[0], an, &b[0], bn)
    check(status)


def rem(uint64_t[::1] r not None, const uint64_t[::1] a not None,
        const uint64_t[::1] b not None) -> None:
    """r = a % b on limb vectors, least significant first.

    r [bn]: OUT, may be `a`; a [an], b [bn]: IN; an >= bn >= 1 and the top limb of b is not 0.

    >>> import numpy as np
    >>> r = np.empty(1, np.uint64); rem(r, np.uint64([7, 1]), np.uint64([10])); print(r)
    [3]
    """
    cdef Py_ssize_t an = a.shape[0], bn = b.shape[0]
    _expect_divisor(an, b)
    expect_length("r", r.shape[0], bn)
    cdef int status
    with nogil:
        status = limbs_rem(&r[0], &a[0], an, &b[0], bn)
    check(status)


cdef int _expect_divisor(Py_ssize_t an, const uint64_t[::1] b) except -1:
    cdef Py_ssize_t bn = b.shape[0]
    if bn == 0 or b[bn - 1] == 0:
        raise ValueError(f"the divisor's {bn} limbs are not normalized")
    if an < bn:
        raise ValueError(f"the dividend's {an} limbs are fewer than the divisor's {bn}")
    return 0
