"""exp, log, sin, cos, atan of any fixed-point number: reduction to the unit interval and back.

exp(x) = 2^k exp(x - k ln 2); log(2^k (1 + m)) = k ln 2 + log(1 + m); sin and cos by the remainder
of x modulo pi/2, however large x is; atan(y/x) = pi/2 - atan(x/y).  The constants are taken with as
many limbs more as the argument has before its point, so that the reduced argument keeps n limbs.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigfixed.constants cimport constant
from crystalline._kernels.bigfixed.splitting cimport LN2, PI
from crystalline._kernels.bigfixed.unit cimport atan_unit, exp_unit, log_unit, sincos_unit
from crystalline._kernels.bigint.div cimport limbs_divrem, limbs_divrem_1
from crystalline._kernels.bigint.interrupt cimport poll
from crystalline._kernels.bigint.limbs cimport (
    NO_MEMORY,
    OK,
    limbs_add,
    limbs_compare,
    limbs_copy,
    limbs_normalize,
    limbs_zero,
)
from crystalline._kernels.bigint.mul cimport limbs_mul
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    /* x / ln 2 and x / (pi / 2), rounded down or one less, for x = high + low / 2^64 */
    static inline int64_t cl_over_ln2(uint64_t high, uint64_t low) { /* high < 2^40 */
      uint64_t x = high << 24 | low >> 40;
      unsigned __int128 part = (unsigned __int128)x * 0x71547652B82FE177u >> 64;
      return (int64_t)((part + x) >> 24);
    }
    static inline uint64_t cl_over_half_pi(uint64_t high, uint64_t low) { /* high < 2^62 */
      const uint64_t inverse = 0xA2F9836E4E441529u;
      unsigned __int128 part = (unsigned __int128)low * inverse >> 64;
      return (uint64_t)((part + (unsigned __int128)high * inverse) >> 64);
    }
    """
    int64_t cl_over_ln2(uint64_t high, uint64_t low) noexcept nogil
    uint64_t cl_over_half_pi(uint64_t high, uint64_t low) noexcept nogil
    int __builtin_clzll(unsigned long long x) noexcept nogil


cdef inline int64_t _length(const uint64_t* a, int64_t an) noexcept nogil:
    """Bits of a[an], normalized and not zero."""
    return 64 * an - __builtin_clzll(a[an - 1])


cdef int limbs_scaled(uint64_t* r, int64_t rn, const uint64_t* a, int64_t an,
                      int64_t count) noexcept nogil:
    cdef int64_t limbs = count >> 6
    cdef int bits = count & 63
    cdef int64_t low = max(0, limbs)  # a's first limb that stays comes here
    cdef uint64_t out
    if limbs < 0:
        if -limbs > an:
            limbs_zero(r, rn)
            return OK
        a -= limbs
        an += limbs
    if low + an > rn:
        return TOO_LARGE if an else OK
    limbs_zero(r, low)
    limbs_zero(r + low + an, rn - low - an)
    if bits == 0:
        limbs_copy(r + low, a, an)
        return OK
    if an:
        out = exact_primitives().limbs.lshift(r + low, a, an, bits)
        if low + an < rn:
            r[low + an] = out
        elif out:
            return TOO_LARGE
    if limbs < 0:
        r[0] |= (a - 1)[0] >> (64 - bits)
    return OK


cdef int fixed_exp(uint64_t* r, int64_t rn, int64_t n, const uint64_t* a, int64_t an, int64_t bits,
                   bint negative) noexcept nogil:
    cdef uint64_t[2] head
    cdef const uint64_t* ln2 = NULL
    cdef uint64_t* x
    cdef uint64_t* e
    cdef int64_t k, w
    cdef int status
    limbs_zero(r, rn)
    if an == 0:
        r[n] = 1
        return OK
    if _length(a, an) - bits > 40:
        return OK if negative else TOO_LARGE
    limbs_scaled(head, 2, a, an, 64 - bits)
    k = cl_over_ln2(head[1], head[0])
    if negative:
        if k > 64 * n + 1:
            return OK
        w = max(2, n - k // 64 + 1)
    else:
        if k >= 64 * (rn - n):
            return TOO_LARGE
        w = n + max(0, k - 16 + 63) // 64
    x = <uint64_t*>malloc((2 * w + 2) * sizeof(uint64_t))
    if x == NULL:
        return NO_MEMORY
    e = x + w + 1
    status = constant(&ln2, LN2, w) if k or negative else OK
    if status == OK:
        limbs_scaled(x, w + 1, a, an, 64 * w - bits)
        if k and exact_primitives().limbs.submul_1(x, ln2, w + 1, k):
            limbs_zero(x, w + 1)  # a unit below k ln 2
        while x[w] or (negative and limbs_compare(x, ln2, w + 1) >= 0):
            if k == 0:
                status = constant(&ln2, LN2, w)
                if status:
                    break
            exact_primitives().limbs.sub_n(x, x, ln2, w + 1)
            k += 1
        if negative:
            exact_primitives().limbs.sub_n(x, ln2, x, w + 1)
            k = -k - 1
    if status == OK:
        status = exp_unit(e, x, w)
    if status == OK:
        status = limbs_scaled(r, rn, e, w + 1, k - 64 * (w - n))
    free(x)
    return status


cdef int fixed_log(uint64_t* r, bint* minus, int64_t n, const uint64_t* a, int64_t an,
                   int64_t bits) noexcept nogil:
    cdef const uint64_t* ln2 = NULL
    cdef int64_t power = _length(a, an) - 1 - bits
    cdef uint64_t scale = power if power >= 0 else -power
    cdef int64_t w = n if scale < 1 << 16 else n + 1
    cdef uint64_t* x
    cdef uint64_t* y
    cdef int status
    minus[0] = power < 0
    x = <uint64_t*>malloc((2 * w + 2) * sizeof(uint64_t))
    if x == NULL:
        return NO_MEMORY
    y = x + w + 1
    limbs_scaled(x, w + 1, a, an, 64 * w - (_length(a, an) - 1))
    if limbs_normalize(x, w) == 0:
        limbs_zero(y, w)  # a power of two, or as good as one
        status = OK
    else:
        status = log_unit(y, x, w)
    if status == OK:
        y[w] = 0
        if scale:
            status = constant(&ln2, LN2, w)
    if status == OK and scale:
        exact_primitives().limbs.mul_1(x, ln2, w + 1, scale)
        if power > 0:
            exact_primitives().limbs.add_n(y, y, x, w + 1)
        else:
            exact_primitives().limbs.sub_n(y, x, y, w + 1)
    limbs_copy(r, y + w - n, n + 1)
    free(x)
    return status


cdef int fixed_sincos(uint64_t* s, bint* s_minus, uint64_t* c, bint* c_minus, int64_t n,
                      const uint64_t* a, int64_t an, int64_t bits, bint negative) noexcept nogil:
    cdef const uint64_t* pi = NULL
    cdef uint64_t* x
    cdef uint64_t* half_pi
    cdef uint64_t* quotient
    cdef uint64_t* swap
    cdef int64_t length = _length(a, an) if an else 0
    cdef int64_t limbs = 0 if length <= bits else (length - bits) // 64 + 1  # before the point
    cdef int64_t w = n + limbs
    cdef int64_t size
    cdef uint64_t q = 0
    cdef bint turned = False
    cdef int status = OK
    if limbs > 1:
        w += 1
    x = <uint64_t*>malloc((3 * w + 3 * limbs + 8) * sizeof(uint64_t))
    if x == NULL:
        return NO_MEMORY
    half_pi = x + w + limbs + 1
    quotient = half_pi + w + 1
    limbs_scaled(x, w + limbs + 1, a, an, 64 * w - bits)
    if limbs:
        status = constant(&pi, PI, w)
        if status:
            free(x)
            return status
        exact_primitives().limbs.rshift(half_pi, pi, w + 1, 1)
        if limbs == 1 and x[w] < <uint64_t>1 << 60:
            q = cl_over_half_pi(x[w], x[w - 1])
            if q and exact_primitives().limbs.submul_1(x, half_pi, w + 1, q):
                limbs_zero(x, w + 1)  # a unit below a multiple
        else:
            size = limbs_normalize(x, w + limbs + 1)
            status = limbs_divrem(quotient, quotient + (size - w), x, size, half_pi, w + 1)
            if status:
                free(x)
                return status
            q = quotient[0]
            limbs_copy(x, quotient + (size - w), w + 1)
        while limbs_compare(x, half_pi, w + 1) >= 0:
            exact_primitives().limbs.sub_n(x, x, half_pi, w + 1)
            q += 1
        turned = x[w] != 0 or x[w - 1] > <uint64_t>0xC90FDAA22168C234u  # pi / 4
        if turned:
            exact_primitives().limbs.sub_n(x, half_pi, x, w + 1)
    if (q & 1) ^ turned:
        swap = s
        s = c
        c = swap
    status = sincos_unit(s, c, x + (w - n), n)
    free(x)
    s_minus[0] = (q & 2 != 0) ^ negative
    c_minus[0] = (q + 1) & 2 != 0
    return status


cdef int fixed_atan(uint64_t* r, int64_t n, const uint64_t* a, int64_t an,
                    int64_t bits) noexcept nogil:
    cdef uint64_t* y
    cdef uint64_t* x
    cdef int64_t length, place
    cdef int status
    if an == 0:
        limbs_zero(r, n + 1)
        return OK
    y = <uint64_t*>malloc(2 * n * sizeof(uint64_t))
    if y == NULL:
        return NO_MEMORY
    x = y + n
    length = _length(a, an)
    limbs_zero(y, 2 * n)
    if length <= bits:
        x[n - 1] = <uint64_t>1 << 63
        limbs_scaled(y, n, a, an, 64 * n - 1 - bits)
        status = atan_unit(r, y, x, n)
    else:
        limbs_scaled(x, n, a, an, 64 * n - length)
        place = 64 * n - length + bits  # of the one in 1 / x
        if place >= 0:
            y[place // 64] = <uint64_t>1 << (place % 64)
        status = atan_unit(r, y, x, n)
        if status == OK:
            status = _complement(r, n)
    free(y)
    return status


cdef int _complement(uint64_t* r, int64_t n) noexcept nogil:
    """r[n + 1] = pi / 2 - r."""
    cdef const uint64_t* pi = NULL
    cdef int status = constant(&pi, PI, n)
    if status:
        return status
    # -(2 r - pi) / 2, so that no copy of pi is halved
    exact_primitives().limbs.add_n(r, r, r, n + 1)
    exact_primitives().limbs.sub_n(r, pi, r, n + 1)
    exact_primitives().limbs.rshift(r, r, n + 1, 1)
    return OK


cdef int fixed_atan_ratio(uint64_t* r, int64_t n, const uint64_t* y, int64_t yn, const uint64_t* x,
                          int64_t xn) noexcept nogil:
    cdef int64_t length
    cdef bint steep = yn > xn or (yn == xn and limbs_compare(y, x, yn) > 0)
    cdef const uint64_t* swap
    cdef int64_t swap_n
    cdef uint64_t* u
    cdef int status
    if steep:
        swap = y
        y = x
        x = swap
        swap_n = yn
        yn = xn
        xn = swap_n
    u = <uint64_t*>malloc(2 * n * sizeof(uint64_t))
    if u == NULL:
        return NO_MEMORY
    length = 64 * n - _length(x, xn)
    limbs_scaled(u, n, y, yn, length)
    limbs_scaled(u + n, n, x, xn, length)
    status = atan_unit(r, u, u + n, n)
    if status == OK and steep:
        status = _complement(r, n)
    free(u)
    return status


cdef int erf_sum(uint64_t* r, int64_t n, const uint64_t* t, const uint64_t* y) noexcept nogil:
    cdef uint64_t* term = <uint64_t*>malloc((2 * n + 2 + n + 1) * sizeof(uint64_t))
    cdef uint64_t* product
    cdef int64_t k = 0
    cdef int64_t size = limbs_normalize(t, n)
    cdef int64_t yn = limbs_normalize(y, n + 1)
    cdef int64_t drop
    cdef int status = OK
    if term == NULL:
        return NO_MEMORY
    product = term + n + 1
    limbs_zero(r, n + 1)
    limbs_copy(r, t, n)
    limbs_copy(term, t, n)
    while size and yn and status == OK:
        k += 1
        # a short term needs the leading limbs of y only: what the others add is below a unit
        drop = max(0, min(yn - 1, n - size - 1))
        if size >= yn - drop:
            status = limbs_mul(product, term, size, y + drop, yn - drop)
        else:
            status = limbs_mul(product, y + drop, yn - drop, term, size)
        if status != OK:
            break
        size = size + yn - n
        if size <= 0:
            break
        limbs_divrem_1(term, product + n - drop, size, 2 * k + 1)
        size = limbs_normalize(term, size)
        limbs_add(r, r, n + 1, term, size)
        status = poll()
    free(term)
    return status
