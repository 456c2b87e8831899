"""Powers modulo a limb vector: sliding windows over Montgomery's multiplication.

Montgomery, "Modular multiplication without trial division", Math. Comp. 44 (1985).  Small moduli
are reduced limb by limb, large ones by two products with an n-limb inverse.  An even modulus is
split into its odd part and a power of two, whose results the Chinese remainder theorem joins.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.div cimport limbs_rem
from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (NO_MEMORY, OK, limbs_add_1, limbs_compare,
                                                limbs_copy, limbs_normalize, limbs_zero)
from crystalline._kernels.bigint.mul cimport limbs_mul, limbs_sqr
from crystalline._kernels.bigint.tuning cimport thresholds
from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.exact_isa cimport CL_MONTGOMERY_SMALL, exact_primitives

cdef extern from *:
    int __builtin_clzll(unsigned long long x) noexcept nogil
    int __builtin_ctzll(unsigned long long x) noexcept nogil


# Inverses modulo powers of B


cdef uint64_t limb_inverse(uint64_t a) noexcept nogil:
    cdef uint64_t x = 3 * a ^ 2  # five bits
    x *= 2 - a * x
    x *= 2 - a * x
    x *= 2 - a * x
    return x * (2 - a * x)


cdef int limbs_inverse_low(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil:
    # Newton's iteration from the low end: x (2 - a x) has twice as many limbs right as x.
    cdef uint64_t* product = <uint64_t*>malloc(4 * n * sizeof(uint64_t))
    if product == NULL:
        return NO_MEMORY
    cdef uint64_t* step = product + 2 * n
    cdef int64_t known, wanted, i
    cdef int halvings = 0
    cdef int status = OK
    while ((n - 1) >> halvings) + 1 > 1:
        halvings += 1
    r[0] = limb_inverse(a[0])
    known = 1
    while known < n and status == OK:
        halvings -= 1
        wanted = ((n - 1) >> halvings) + 1  # 2 known or one less
        # a x = 1 + e B^known, so the limbs to be added are -e x
        status = limbs_mul(product, a, wanted, r, known)
        if status == OK:
            status = limbs_mul(step, r, known, product + known, wanted - known)
        for i in range(wanted - known):
            r[known + i] = ~step[i]
        limbs_add_1(r + known, r + known, wanted - known, 1)
        known = wanted
    free(product)
    return status


# Montgomery's representation


cdef int montgomery_init(Montgomery* m, const uint64_t* mod, int64_t n) noexcept nogil:
    cdef bint by_products = n >= thresholds().redc_products
    cdef uint64_t* u = <uint64_t*>malloc((2 * n + 1) * sizeof(uint64_t))
    m.n = n
    m.mod = <uint64_t*>malloc((4 if by_products else 3) * n * sizeof(uint64_t))
    if m.mod == NULL or u == NULL:
        free(u)
        free(m.mod)
        m.mod = NULL
        return NO_MEMORY
    m.one = m.mod + n
    m.square = m.one + n
    m.inverses = NULL
    limbs_copy(m.mod, mod, n)
    m.inverse = -limb_inverse(mod[0])
    cdef int status = OK
    cdef int64_t i
    if by_products:
        m.inverses = m.square + n
        status = limbs_inverse_low(m.inverses, mod, n)
    if status == OK:
        limbs_zero(u, 2 * n)
        u[2 * n] = 1
        status = limbs_rem(m.square, u, 2 * n + 1, mod, n)
    if status == OK:
        for i in range(n):
            u[i] = m.square[i]
            u[n + i] = 0
        status = _redc(m.one, u, m)
    free(u)
    if status != OK:
        montgomery_free(m)
    return status


cdef void montgomery_free(Montgomery* m) noexcept nogil:
    free(m.mod)
    m.mod = NULL


cdef int64_t montgomery_scratch(const Montgomery* m) noexcept nogil:
    return 2 * m.n


cdef int _redc_by_products(uint64_t* r, uint64_t* u, const Montgomery* m) noexcept nogil:
    cdef int64_t n = m.n
    cdef uint64_t* q = <uint64_t*>malloc(4 * n * sizeof(uint64_t))
    if q == NULL:
        return NO_MEMORY
    cdef uint64_t* product = q + 2 * n
    cdef uint64_t borrow
    # u - q m is divisible by B^n for q = u / m mod B^n: the low halves cancel
    cdef int status = limbs_mul(q, u, n, m.inverses, n)
    if status == OK:
        status = limbs_mul(product, q, n, m.mod, n)
    if status == OK:
        borrow = exact_primitives().limbs.sub_n(r, u + n, product + n, n)
        if borrow:
            exact_primitives().limbs.add_n(r, r, m.mod, n)
    free(q)
    return status


cdef int _redc(uint64_t* r, uint64_t* u, const Montgomery* m) noexcept nogil:
    """r[n] = u[2 n] / B^n mod m, below m, for u < m B^n; u is destroyed."""
    if m.inverses != NULL:
        return _redc_by_products(r, u, m)
    exact_primitives().division.redc(r, u, m.mod, m.n, m.inverse)
    return OK


cdef int montgomery_mul(uint64_t* r, const uint64_t* a, const uint64_t* b, const Montgomery* m,
                        uint64_t* scratch) noexcept nogil:
    if m.n <= CL_MONTGOMERY_SMALL and m.inverses == NULL:
        exact_primitives().division.montgomery_small(r, a, b, m.mod, m.n, m.inverse)
        return OK
    cdef int status = limbs_mul(scratch, a, m.n, b, m.n)
    return _redc(r, scratch, m) if status == OK else status


cdef int montgomery_sqr(uint64_t* r, const uint64_t* a, const Montgomery* m,
                        uint64_t* scratch) noexcept nogil:
    if m.n <= CL_MONTGOMERY_SMALL and m.inverses == NULL:
        exact_primitives().division.montgomery_small(r, a, a, m.mod, m.n, m.inverse)
        return OK
    cdef int status = limbs_sqr(scratch, a, m.n)
    return _redc(r, scratch, m) if status == OK else status


cdef int montgomery_to(uint64_t* r, const uint64_t* a, const Montgomery* m,
                       uint64_t* scratch) noexcept nogil:
    return montgomery_mul(r, a, m.square, m, scratch)


cdef int montgomery_from(uint64_t* r, const uint64_t* a, const Montgomery* m,
                         uint64_t* scratch) noexcept nogil:
    limbs_copy(scratch, a, m.n)
    limbs_zero(scratch + m.n, m.n)
    return _redc(r, scratch, m)


# Windows


cdef inline int _bit(const uint64_t* exp, int64_t i) noexcept nogil:
    return (exp[i >> 6] >> (i & 63)) & 1


cdef int _window(int64_t bits) noexcept nogil:
    """Bits of a window: 2^(w - 1) products of the table against one in w + 1 bits."""
    cdef int w = 1
    while w < 10 and bits > (w * (w + 1)) << w:
        w += 1
    return w


cdef int montgomery_pow(uint64_t* r, const uint64_t* a, const uint64_t* exp, int64_t en,
                        const Montgomery* m) noexcept nogil:
    cdef int64_t n = m.n
    en = limbs_normalize(exp, en)
    if en == 0:
        limbs_copy(r, m.one, n)
        return OK
    cdef int64_t bit = 64 * en - 1 - __builtin_clzll(exp[en - 1])
    cdef int w = _window(bit + 1)
    cdef int64_t odd_powers = 1 << (w - 1)
    cdef uint64_t* scratch = <uint64_t*>malloc((2 * n + (odd_powers + 1) * n) * sizeof(uint64_t))
    if scratch == NULL:
        return NO_MEMORY
    cdef uint64_t* power = scratch + 2 * n  # a, a^3, a^5, ...
    cdef uint64_t* x = power + odd_powers * n
    cdef int64_t i, low
    cdef uint64_t window
    cdef bint started = False
    cdef int status = OK
    limbs_copy(power, a, n)
    if w > 1:
        status = montgomery_sqr(x, a, m, scratch)
        i = 1
        while i < odd_powers and status == OK:
            status = montgomery_mul(power + i * n, power + (i - 1) * n, x, m, scratch)
            if status == OK:
                status = poll()
            i += 1
    while bit >= 0 and status == OK:
        if not _bit(exp, bit):
            status = montgomery_sqr(x, x, m, scratch)
            bit -= 1
        else:
            low = max(bit - w + 1, 0)
            while not _bit(exp, low):
                low += 1
            window = 0
            i = bit
            while i >= low:
                window = 2 * window + _bit(exp, i)
                if started and status == OK:
                    status = montgomery_sqr(x, x, m, scratch)
                i -= 1
            if not started:
                limbs_copy(x, power + (window >> 1) * n, n)
                started = True
            elif status == OK:
                status = montgomery_mul(x, x, power + (window >> 1) * n, m, scratch)
            bit = low - 1
        if status == OK:
            status = poll()
    if status == OK:
        limbs_copy(r, x, n)
    free(scratch)
    return status


# Odd, even and other moduli


cdef int _residue(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* m,
                  int64_t n) noexcept nogil:
    """r[n] = a[an] mod m[n]."""
    an = limbs_normalize(a, an)
    if an > n or (an == n and limbs_compare(a, m, n) >= 0):
        return limbs_rem(r, a, an, m, n)
    limbs_copy(r, a, an)
    limbs_zero(r + an, n - an)
    return OK


cdef int _pow_odd(uint64_t* r, const uint64_t* base, int64_t bn, const uint64_t* exp, int64_t en,
                  const uint64_t* mod, int64_t n) noexcept nogil:
    cdef Montgomery m
    cdef int status = montgomery_init(&m, mod, n)
    if status != OK:
        return status
    cdef uint64_t* x = <uint64_t*>malloc(3 * n * sizeof(uint64_t))
    if x == NULL:
        montgomery_free(&m)
        return NO_MEMORY
    status = _residue(x, base, bn, m.mod, n)
    if status == OK:
        status = montgomery_to(x, x, &m, x + n)
    if status == OK:
        status = montgomery_pow(x, x, exp, en, &m)
    if status == OK:
        status = montgomery_from(r, x, &m, x + n)
    free(x)
    montgomery_free(&m)
    return status


cdef int _pow_low(uint64_t* r, const uint64_t* base, int64_t bn, const uint64_t* exp, int64_t en,
                  int64_t n) noexcept nogil:
    """r[n] = base ** exp mod B^n; exp > 0."""
    cdef uint64_t* a = <uint64_t*>malloc(3 * n * sizeof(uint64_t))
    if a == NULL:
        return NO_MEMORY
    cdef uint64_t* product = a + n
    cdef int64_t bit = 64 * en - 1 - __builtin_clzll(exp[en - 1])
    cdef int status = OK
    bn = min(bn, n)
    limbs_copy(a, base, bn)
    limbs_zero(a + bn, n - bn)
    limbs_copy(r, a, n)
    while bit > 0 and status == OK:
        bit -= 1
        status = limbs_sqr(product, r, n)
        limbs_copy(r, product, n)
        if _bit(exp, bit) and status == OK:
            status = limbs_mul(product, r, n, a, n)
            limbs_copy(r, product, n)
        if status == OK:
            status = poll()
        if bit & 15 == 0 and limbs_normalize(r, n) == 0:
            break  # an even base soon gives nothing but zeros
    free(a)
    return status


cdef int _join(uint64_t* r, const uint64_t* high, const uint64_t* odd, int64_t on, int64_t pn,
               uint64_t mask, uint64_t* low) noexcept nogil:
    """r[on + pn] = the number that is high[on] mod odd[on] and low[pn] mod 2^k; low is destroyed.

    2^k is B^pn with `mask` the bits of its top limb that count.
    """
    cdef uint64_t* inverse = <uint64_t*>malloc(4 * pn * sizeof(uint64_t))
    if inverse == NULL:
        return NO_MEMORY
    cdef uint64_t* padded = inverse + pn
    cdef uint64_t* product = inverse + 2 * pn
    cdef int64_t both = min(on, pn)
    cdef int64_t i
    cdef uint64_t borrow
    # high + odd * ((low - high) / odd mod 2^k)
    limbs_copy(padded, odd, both)
    limbs_zero(padded + both, pn - both)
    cdef int status = limbs_inverse_low(inverse, padded, pn)
    if status == OK:
        borrow = exact_primitives().limbs.sub_n(low, low, high, both)
        for i in range(both, pn):
            if not borrow:
                break
            borrow = low[i] == 0
            low[i] -= 1
        status = limbs_mul(product, low, pn, inverse, pn)
    if status == OK:
        product[pn - 1] &= mask
        if on >= pn:
            status = limbs_mul(r, odd, on, product, pn)
        else:
            status = limbs_mul(r, product, pn, odd, on)
    if status == OK:
        limbs_add_1(r + on, r + on, pn, exact_primitives().limbs.add_n(r, r, high, on))
    free(inverse)
    return status


cdef int _pow_even(uint64_t* r, const uint64_t* base, int64_t bn, const uint64_t* exp, int64_t en,
                   const uint64_t* mod, int64_t mn) noexcept nogil:
    """r[mn] = base ** exp mod mod, even; exp > 0."""
    cdef int64_t zeros = 0
    while mod[zeros] == 0:
        zeros += 1
    cdef int shift = __builtin_ctzll(mod[zeros])
    cdef int64_t on = mn - zeros
    cdef int64_t pn = zeros + (shift > 0)
    cdef uint64_t mask = (<uint64_t>1 << shift) - 1 if shift else <uint64_t>-1
    cdef uint64_t* odd = <uint64_t*>malloc((3 * on + 2 * pn) * sizeof(uint64_t))
    if odd == NULL:
        return NO_MEMORY
    cdef uint64_t* high = odd + on
    cdef uint64_t* low = high + on
    cdef uint64_t* joined = low + pn  # on + pn
    if shift:
        exact_primitives().limbs.rshift(odd, mod + zeros, on, shift)
    else:
        limbs_copy(odd, mod + zeros, on)
    on = limbs_normalize(odd, on)
    cdef int status = _pow_low(low, base, bn, exp, en, pn)
    if status == OK:
        low[pn - 1] &= mask
        if on == 1 and odd[0] == 1:
            limbs_copy(joined, low, pn)
            limbs_zero(joined + pn, 1)
        else:
            status = _pow_odd(high, base, bn, exp, en, odd, on)
            if status == OK:
                status = _join(joined, high, odd, on, pn, mask, low)
    if status == OK:
        limbs_zero(r, mn)
        limbs_copy(r, joined, min(mn, on + pn))
    free(odd)
    return status


cdef int limbs_powmod(uint64_t* r, const uint64_t* base, int64_t bn, const uint64_t* exp,
                      int64_t en, const uint64_t* mod, int64_t mn) noexcept nogil:
    bn = limbs_normalize(base, bn)
    en = limbs_normalize(exp, en)
    if en == 0 or (mn == 1 and mod[0] == 1):
        r[0] = not (mn == 1 and mod[0] == 1)
        limbs_zero(r + 1, mn - 1)
        return OK
    if mod[0] & 1:
        return _pow_odd(r, base, bn, exp, en, mod, mn)
    return _pow_even(r, base, bn, exp, en, mod, mn)


# The door of the tests


def powmod(uint64_t[::1] r not None, const uint64_t[::1] base not None,
           const uint64_t[::1] exp not None, const uint64_t[::1] mod not None) -> None:
    """r = pow(base, exp, mod) on limb vectors, least significant first.

    r [mn]: OUT; base [bn], exp [en], mod [mn]: IN; the top limb of mod is not 0.

    >>> import numpy as np
    >>> r = np.empty(1, np.uint64)
    >>> powmod(r, np.uint64([3]), np.uint64([0, 1]), np.uint64([1000])); print(r)
    [721]
    """
    cdef Py_ssize_t bn = base.shape[0], en = exp.shape[0], mn = mod.shape[0]
    if mn == 0 or mod[mn - 1] == 0:
        raise ValueError(f"the modulus's {mn} limbs are not normalized")
    expect_length("r", r.shape[0], mn)
    cdef int status
    with nogil:
        status = limbs_powmod(&r[0], &base[0], bn, &exp[0], en, &mod[0], mn)
    check(status)
