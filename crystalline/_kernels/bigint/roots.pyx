"""Integer roots of limb vectors, rounded toward zero, and what is a perfect power.

Square roots by Zimmermann's recursion ("Karatsuba Square Root", INRIA RR-3805, 1999): a root of
the upper half, a division, a square.  Other roots by Newton's iteration from above, each from the
root of a shorter number.
"""
from libc.math cimport exp2, log2
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.div cimport (
    limbs_divide, limbs_divrem, limbs_divrem_1, limbs_mod_1, limbs_mod_long,
)
from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (NO_MEMORY, OK, limbs_add, limbs_add_1,
                                                limbs_compare, limbs_copy, limbs_lshift_long,
                                                limbs_normalize,
                                                limbs_sub_1, limbs_zero)
from crystalline._kernels.bigint.mul cimport limbs_mul, limbs_sqr
from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    #include <math.h>
    /* Squares are told from most other numbers modulo these, whose product is 152125131763605. */
    static const uint64_t cl_filter_primes[12] = {3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41};
    /* The root of high:low, high >= 2^62, and what is left, whose bit 64 is returned. */
    static uint64_t cl_sqrt_2(uint64_t *low, uint64_t high, uint64_t *root) {
      unsigned __int128 a = (unsigned __int128)high << 64 | *low, rest;
      double guess = sqrt((double)high) * 4294967296.0;
      uint64_t s = guess >= 18446744073709551615.0 ? ~(uint64_t)0 : (uint64_t)guess;
      unsigned __int128 next = (s + a / s) >> 1; /* at most one off now */
      s = next >> 64 ? ~(uint64_t)0 : (uint64_t)next;
      while ((unsigned __int128)s * s > a) s--;
      rest = a - (unsigned __int128)s * s;
      while (rest > 2 * (unsigned __int128)s) {
        rest -= 2 * (unsigned __int128)s + 1;
        s++;
      }
      *root = s;
      *low = (uint64_t)rest;
      return (uint64_t)(rest >> 64);
    }
    """
    uint64_t cl_sqrt_2(uint64_t* low, uint64_t high, uint64_t* root) noexcept nogil
    const uint64_t cl_filter_primes[12]
    int __builtin_clzll(unsigned long long x) noexcept nogil
    int __builtin_ctzll(unsigned long long x) noexcept nogil


# Square roots


cdef int _sqrt(uint64_t* s, uint64_t* a, int64_t m, int64_t* carry,
               uint64_t* square) noexcept nogil:
    """s[m] = floor(sqrt(a[2 m])), the top limb of a at least 2^62; a - s s is left in a[m] and
    *carry, 0 or 1, above it.  square [m + 1] is scratch."""
    cdef int64_t low = m >> 1
    cdef int64_t high = m - low
    cdef int64_t rest
    cdef uint64_t top, above, root_carry
    cdef int status
    if m == 1:
        carry[0] = cl_sqrt_2(a, a[1], s)
        return OK
    status = _sqrt(s + low, a + 2 * low, high, &rest, square)
    if status == OK:
        status = poll()
    if status != OK:
        return status
    # q, u = divmod(r' B^low + the limbs below, 2 s'), by way of the quotient by s'
    if rest:
        exact_primitives().limbs.sub_n(a + 2 * low, a + 2 * low, s + low, high)
    if high == 1:
        a[low] = limbs_divrem_1(square, a + low, 2, s[low])
        s[0] = square[0]
        top = square[1]
    else:
        status = limbs_divide(s, &top, a + low, m, s + low, high)
        if status != OK:
            return status
    top += rest
    rest = 0
    if s[0] & 1:
        rest = exact_primitives().limbs.add_n(a + low, a + low, s + low, high)
    above = top >> 1  # 1 where q = B^low
    if low:
        exact_primitives().limbs.rshift(s, s, low, 1)
        s[low - 1] |= (top & 1) << 63
    # r = u B^low + the lowest limbs - q q
    if above:
        limbs_zero(square, 2 * low)
        rest -= limbs_sub_1(a + 2 * low, a + 2 * low, m - 2 * low, 1) if m > 2 * low else 1
    else:
        status = limbs_sqr(square, s, low)
        if status != OK:
            return status
        top = exact_primitives().limbs.sub_n(a, a, square, 2 * low)
        rest -= limbs_sub_1(a + 2 * low, a + 2 * low, m - 2 * low, top)
    root_carry = limbs_add_1(s + low, s + low, high, above)
    if rest < 0:  # r += 2 s - 1, s -= 1
        rest += exact_primitives().limbs.addmul_1(a, s, m, 2) + 2 * root_carry
        rest -= limbs_sub_1(a, a, m, 1)
        limbs_sub_1(s, s, m, 1)
    carry[0] = rest
    return OK


cdef int limbs_sqrtrem(uint64_t* s, uint64_t* r, int64_t* rn, const uint64_t* a,
                       int64_t n) noexcept nogil:
    cdef int64_t m = (n + 1) >> 1
    cdef int64_t pad = n & 1
    cdef int shift = __builtin_clzll(a[n - 1]) & 62  # an even number of bits, and a limb for odd n
    cdef uint64_t* u = <uint64_t*>malloc((2 * m + m + 1) * sizeof(uint64_t))
    if u == NULL:
        return NO_MEMORY
    cdef int64_t carry
    cdef int half = (shift + 64 * pad) >> 1
    cdef int status
    cdef uint64_t out  # nothing
    u[0] = 0
    status = limbs_lshift_long(&out, u + pad, a, n, shift)
    if status == OK:
        status = _sqrt(s, u, m, &carry, u + 2 * m)
    if status == OK and half:
        exact_primitives().limbs.rshift(s, s, m, half)
    if status == OK and r != NULL:
        if half:
            status = limbs_sqr(u, s, m)
            exact_primitives().limbs.sub_n(r, a, u, n)
        else:
            limbs_copy(r, u, m)
            limbs_zero(r + m, n - m)
            if carry:
                r[m] = 1
        rn[0] = limbs_normalize(r, n)
    free(u)
    return status


# Other roots


cdef int _power(uint64_t* r, int64_t* rn, const uint64_t* x, int64_t xn, uint64_t k,
                uint64_t* scratch) noexcept nogil:
    """r[rn] = x[xn] ** k, normalized, k >= 1; room and scratch for two limbs more."""
    cdef int bit = 63 - __builtin_clzll(k)
    cdef int64_t n = xn
    cdef int status = OK
    limbs_copy(r, x, xn)
    while bit > 0 and status == OK:
        bit -= 1
        status = poll()
        if status == OK:
            status = limbs_sqr(scratch, r, n)
        n = limbs_normalize(scratch, 2 * n)
        limbs_copy(r, scratch, n)
        if status == OK and k >> bit & 1:
            status = limbs_mul(scratch, r, n, x, xn)
            n = limbs_normalize(scratch, n + xn)
            limbs_copy(r, scratch, n)
    rn[0] = n
    return status


cdef int _compare_power(int* sign, const uint64_t* x, int64_t xn, uint64_t k, const uint64_t* a,
                        int64_t n) noexcept nogil:
    """*sign = the sign of x[xn] ** k - a[n]."""
    cdef int64_t bits = 64 * xn - __builtin_clzll(x[xn - 1])
    cdef int64_t room = bits * <int64_t>k // 64 + 3
    cdef uint64_t* p = <uint64_t*>malloc(2 * room * sizeof(uint64_t))
    if p == NULL:
        return NO_MEMORY
    cdef int64_t pn
    cdef int status = _power(p, &pn, x, xn, k, p + room)
    if status == OK:
        sign[0] = limbs_compare(p, a, n) if pn == n else (1 if pn > n else -1)
    free(p)
    return status


cdef int _short_root(uint64_t* s, const uint64_t* a, int64_t n, int64_t bits,
                     uint64_t k) noexcept nogil:
    """s[1] = floor(a ** (1 / k)) where it is below 2^32: from a logarithm, then made sure."""
    cdef double lead = <double>a[n - 1]
    cdef double root
    cdef int sign
    cdef int status
    if n > 1:
        lead += <double>a[n - 2] / 18446744073709551616.0
    # the logarithm is 2^-50 of itself off, so the root less than 2^-50 * 32 * 2^32
    root = exp2((log2(lead) + 64.0 * (n - 1)) / <double>k)
    s[0] = <uint64_t>(root + 0.5)
    if root - <double>s[0] > 0.01 or <double>s[0] - root > 0.01:
        s[0] = <uint64_t>root
        return OK
    status = _compare_power(&sign, s, 1, k, a, n)
    if status == OK and sign > 0:
        s[0] -= 1
    return status


cdef int _newton_root(uint64_t* s, int64_t* sn, const uint64_t* a, int64_t n,
                      uint64_t k) noexcept nogil:
    """s[sn] = floor(a[n] ** (1 / k)), a > 0, k >= 3; room for two limbs more than s needs."""
    cdef int64_t bits = 64 * n - __builtin_clzll(a[n - 1])
    cdef int64_t root_bits = (bits - 1) // <int64_t>k + 1
    cdef int64_t t, down, un, pn, qn, xn
    cdef uint64_t* u
    cdef uint64_t* p
    cdef uint64_t* q
    cdef int status
    if root_bits <= 32:
        sn[0] = 1
        return _short_root(s, a, n, bits, k)
    # (the root of a / 2^(k t), plus 1) 2^t is above the root by a part of 2^-(root_bits - t), and
    # a step of Newton's squares that and multiplies it by k / 2
    t = max((root_bits - (64 - __builtin_clzll(k))) // 2 - 1, 1)
    down = <int64_t>k * t
    xn = root_bits // 64 + 3
    un = n + xn + 2
    u = <uint64_t*>malloc(3 * un * sizeof(uint64_t))
    if u == NULL:
        return NO_MEMORY
    p = u + un
    q = p + un
    pn = n - (down >> 6)
    if down & 63:
        exact_primitives().limbs.rshift(u, a + (down >> 6), pn, down & 63)
    else:
        limbs_copy(u, a + (down >> 6), pn)
    status = _newton_root(s, sn, u, limbs_normalize(u, pn), k)
    if status == OK:
        s[sn[0]] = limbs_add_1(s, s, sn[0], 1)
        sn[0] += 1
        pn = sn[0]
        limbs_copy(u, s, pn)
        limbs_zero(s, t >> 6)
        limbs_copy(s + (t >> 6), u, pn)
        pn += t >> 6
        if t & 63:
            s[pn] = exact_primitives().limbs.lshift(s + (t >> 6), s + (t >> 6), pn - (t >> 6),
                                                    t & 63)
            pn += 1
        sn[0] = limbs_normalize(s, pn)
    while status == OK:
        # x = ((k - 1) x + a / x^(k - 1)) / k, until it does not fall any more
        status = _power(p, &pn, s, sn[0], k - 1, q)
        if status != OK:
            break
        qn = 0
        if n >= pn:
            status = limbs_divrem(q, u, a, n, p, pn)
            if status != OK:
                break
            qn = limbs_normalize(q, n - pn + 1)
        u[sn[0]] = exact_primitives().limbs.mul_1(u, s, sn[0], k - 1)
        xn = sn[0] + 1
        if qn > xn:
            break  # not below x
        u[xn] = limbs_add(u, u, xn, q, qn)
        limbs_divrem_1(u, u, xn + 1, k)
        xn = limbs_normalize(u, xn + 1)
        if xn > sn[0] or (xn == sn[0] and limbs_compare(u, s, xn) >= 0):
            break
        limbs_copy(s, u, xn)
        sn[0] = xn
    free(u)
    return status


cdef int limbs_root(uint64_t* s, int64_t* sn, bint* exact, const uint64_t* a, int64_t n,
                    uint64_t k) noexcept nogil:
    cdef int64_t m, rn
    cdef int sign
    cdef int status
    cdef uint64_t* x
    exact[0] = True
    sn[0] = n
    if n == 0:
        return OK
    if k == 1:
        limbs_copy(s, a, n)
        return OK
    if k >= <uint64_t>(64 * n):
        s[0] = 1
        sn[0] = 1
        exact[0] = n == 1 and a[0] == 1
        return OK
    if k == 2:
        x = <uint64_t*>malloc(n * sizeof(uint64_t))
        if x == NULL:
            return NO_MEMORY
        status = limbs_sqrtrem(s, x, &rn, a, n)
        sn[0] = (n + 1) >> 1
        exact[0] = rn == 0
        free(x)
        return status
    m = (64 * n) // <int64_t>k // 64 + 6
    x = <uint64_t*>malloc(m * sizeof(uint64_t))
    if x == NULL:
        return NO_MEMORY
    status = _newton_root(x, sn, a, n, k)
    if status == OK:
        limbs_copy(s, x, sn[0])
        exact[0] = _low_power(s[0], k) == a[0]
        if exact[0]:
            status = _compare_power(&sign, s, sn[0], k, a, n)
            exact[0] = sign == 0
    free(x)
    return status


cdef uint64_t _low_power(uint64_t x, uint64_t k) noexcept nogil:
    """x ** k modulo B."""
    cdef uint64_t r = 1
    while k:
        if k & 1:
            r *= x
        x *= x
        k >>= 1
    return r


# Perfect powers


cdef bint _is_residue(uint64_t x, uint64_t p) noexcept nogil:
    """Whether x is a square modulo the odd prime p."""
    return _mod_power(x % p, (p - 1) >> 1, p) <= 1


cdef uint64_t _mod_power(uint64_t x, uint64_t k, uint64_t p) noexcept nogil:
    """x ** k modulo p < 2^32."""
    cdef uint64_t r = 1
    while k:
        if k & 1:
            r = r * x % p
        x = x * x % p
        k >>= 1
    return r


cdef int limbs_is_square(bint* yes, const uint64_t* a, int64_t n) noexcept nogil:
    cdef int64_t rn, i
    cdef uint64_t rest
    cdef uint64_t* s
    cdef int status
    yes[0] = n == 0
    if n == 0 or not (<uint64_t>0x0202021202030213 >> (a[0] & 63)) & 1:  # squares modulo 64
        return OK
    status = limbs_mod_long(&rest, a, n, 152125131763605)  # their product
    if status != OK:
        return status
    for i in range(12):
        if not _is_residue(rest, cl_filter_primes[i]):
            return OK
    s = <uint64_t*>malloc(2 * n * sizeof(uint64_t))
    if s == NULL:
        return NO_MEMORY
    status = limbs_sqrtrem(s, s + n, &rn, a, n)
    yes[0] = rn == 0
    free(s)
    return status


cdef bint _is_prime(uint64_t x) noexcept nogil:
    cdef uint64_t d = 3
    if x & 1 == 0 or x < 3:
        return x == 2
    while d * d <= x:
        if x % d == 0:
            return False
        d += 2
    return True


cdef int _may_be_power(bint* may, const uint64_t* a, int64_t n, uint64_t k) noexcept nogil:
    """*may = False where a is no k-th power modulo one of three primes 2 c k + 1."""
    cdef uint64_t p = 1, rest
    cdef int found = 0, status
    may[0] = True
    while found < 3 and p < <uint64_t>1 << 31:
        p += 2 * k
        if not _is_prime(p):
            continue
        found += 1
        status = limbs_mod_long(&rest, a, n, p)
        if status != OK:
            return status
        if rest and _mod_power(rest, (p - 1) // k, p) != 1:
            may[0] = False
            return OK
    return OK


cdef int limbs_is_power(bint* yes, const uint64_t* a, int64_t n) noexcept nogil:
    """A k-th power for a prime k; k divides how often any prime divides a, and where none below
    1,000 does, the root is above 1,000."""
    cdef int64_t bits, sn, divides = 0, most
    cdef uint64_t p = 2, k, rest
    cdef uint64_t* s
    cdef bint exact = False, may = False
    cdef int status = OK
    yes[0] = True
    if n == 0 or (n == 1 and a[0] == 1):
        return OK
    bits = 64 * n - __builtin_clzll(a[n - 1])
    while p < 1000 and divides == 0:
        if _is_prime(p):
            status = limbs_mod_long(&rest, a, n, p)
            if status == OK and rest == 0:
                status = _multiplicity(&divides, a, n, p)
            if status == OK:
                status = poll()
            if status != OK:
                return status
        p += 1
    most = divides if divides else bits // 9
    s = <uint64_t*>malloc((n + 2) * sizeof(uint64_t))
    if s == NULL:
        return NO_MEMORY
    k = 2
    while k <= <uint64_t>most and status == OK and not exact:
        if (divides == 0 or divides % <int64_t>k == 0) and _is_prime(k):
            status = poll()
            if status == OK and k == 2:
                status = limbs_is_square(&exact, a, n)
            elif status == OK:
                status = _may_be_power(&may, a, n, k)
                if status == OK and may:
                    status = limbs_root(s, &sn, &exact, a, n, k)
        k += 1
    free(s)
    yes[0] = exact
    return status


cdef int _multiplicity(int64_t* times, const uint64_t* a, int64_t n, uint64_t p) noexcept nogil:
    """*times = how often p divides a[n] > 0."""
    cdef uint64_t* x
    cdef int status = OK
    cdef int64_t zeros = 0
    times[0] = 0
    if p == 2:
        while a[zeros] == 0:
            zeros += 1
        times[0] = 64 * zeros + __builtin_ctzll(a[zeros])
        return OK
    x = <uint64_t*>malloc(n * sizeof(uint64_t))
    if x == NULL:
        return NO_MEMORY
    limbs_copy(x, a, n)
    while status == OK and limbs_mod_1(x, n, p) == 0:
        limbs_divrem_1(x, x, n, p)
        n = limbs_normalize(x, n)
        times[0] += 1
        status = poll()
    free(x)
    return status


# The doors of the tests


def sqrtrem(uint64_t[::1] s not None, uint64_t[::1] r not None,
            const uint64_t[::1] a not None) -> int:
    """Fill s = isqrt(a) and r = a - s * s; return how many limbs r takes.

    s [(n + 1) / 2], r [n]: OUT; a [n > 0]: IN, least significant first, without leading zeros.

    >>> import numpy as np
    >>> s, r = np.empty(1, np.uint64), np.empty(1, np.uint64)
    >>> sqrtrem(s, r, np.uint64([30])), s, r
    (1, array([5], dtype=uint64), array([5], dtype=uint64))
    """
    cdef int64_t n = _normalized(a), rn
    if n == 0:
        raise ValueError("a has no limbs")
    expect_length("s", s.shape[0], (n + 1) // 2)
    expect_length("r", r.shape[0], n)
    cdef int status
    with nogil:
        status = limbs_sqrtrem(&s[0], &r[0], &rn, &a[0], n)
    check(status)
    return rn


def root(uint64_t[::1] s not None, const uint64_t[::1] a not None,
         uint64_t k) -> tuple[int, bool]:
    """Fill s with floor(a ** (1 / k)); return how many limbs it takes and whether it is exact.

    s [n / k + 1]: OUT; a [n]: IN, least significant first, without leading zeros; k > 0.

    >>> import numpy as np
    >>> s = np.empty(1, np.uint64); root(s, np.uint64([30]), 3), s
    ((1, False), array([3], dtype=uint64))
    """
    cdef int64_t n = _normalized(a), sn
    cdef bint exact
    if k == 0:
        raise ValueError("the 0th root")
    expect_length("s", s.shape[0], <int64_t>(<uint64_t>n // k) + 1)
    cdef int status
    with nogil:
        status = limbs_root(&s[0], &sn, &exact, &a[0], n, k)
    check(status)
    return sn, exact


def is_square(const uint64_t[::1] a not None) -> bool:
    """Return whether limbs without leading zeros are a square.

    >>> import numpy as np
    >>> is_square(np.uint64([0, 0, 4])), is_square(np.uint64([0, 4]))
    (True, True)
    """
    cdef int64_t n = _normalized(a)
    cdef bint yes
    cdef int status
    with nogil:
        status = limbs_is_square(&yes, &a[0], n)
    check(status)
    return yes


def is_power(const uint64_t[::1] a not None) -> bool:
    """Return whether limbs without leading zeros are a power with an exponent above 1.

    >>> import numpy as np
    >>> is_power(np.uint64([27])), is_power(np.uint64([0, 12]))
    (True, False)
    """
    cdef int64_t n = _normalized(a)
    cdef bint yes
    cdef int status
    with nogil:
        status = limbs_is_power(&yes, &a[0], n)
    check(status)
    return yes


cdef int64_t _normalized(const uint64_t[::1] a) except -1:
    cdef int64_t n = a.shape[0]
    if n and a[n - 1] == 0:
        raise ValueError(f"a's {n} limbs are not normalized")
    return n
