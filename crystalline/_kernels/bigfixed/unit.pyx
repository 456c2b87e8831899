"""exp, log, sin and cos, atan of arguments already reduced to the unit interval.

Three ways by length, all with absolute errors in units of 2^(-64 n):

* to TABLE_LIMBS limbs, tables of the leading 16 to 24 bits of the argument, then a short series
  (Johansson, "Efficient implementation of elementary functions in the medium-precision range",
  2015);
* beyond, halving: exp(x) = exp(x/2^h)^(2^h), 1 - cos likewise by 2 v (2 - v), with h guard bits
  (2 h for cosines) and rectangular splitting (Smith 1989);
* long ones by the bit-burst: the argument is cut into pieces of doubling length and the function
  of each piece is a hypergeometric series with short terms (Brent 1976).

log and atan of long arguments are one third-order Newton step on exp, and on sin and cos, from a
third of the length.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigfixed.constants cimport constant
from crystalline._kernels.bigfixed.series cimport (
    EVEN_FACTORIAL,
    FACTORIAL,
    NATURAL,
    ODD,
    ODD_FACTORIAL,
    TERMS,
    fraction_mul,
    series_powers,
    series_powers_wanted,
    series_sum,
    series_terms,
)
from crystalline._kernels.bigfixed.splitting cimport PI, split_exp, split_sin
from crystalline._kernels.bigfixed.tables cimport (
    ATAN_TABLE,
    EXP_TABLE,
    LOG_TABLE,
    SINCOS_TABLE,
    TABLE_LIMBS,
    entry,
    log_factor,
    real_mul,
    table,
)
from crystalline._kernels.bigint.div cimport limbs_divrem
from crystalline._kernels.bigint.interrupt cimport poll
from crystalline._kernels.bigint.limbs cimport (
    NO_MEMORY,
    OK,
    limbs_add_1,
    limbs_compare,
    limbs_copy,
    limbs_normalize,
    limbs_zero,
)
from crystalline._kernels.bigint.roots cimport limbs_sqrtrem
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    typedef unsigned __int128 cl_u128;
    /* floor(a / (b + 1) 2^shift) for the leading words of a <= b; b's highest bit is that of
     * b1 b0. */
    static inline int64_t cl_ratio(uint64_t a1, uint64_t a0, uint64_t b1, uint64_t b0,
                                   int shift) {
      int k = b1 ? 64 - __builtin_clzll(b1) : 0;
      uint64_t a = (uint64_t)(((cl_u128)a1 << 64 | a0) >> k);
      uint64_t b = (uint64_t)(((cl_u128)b1 << 64 | b0) >> k);
      return (int64_t)(((cl_u128)a << shift) / ((cl_u128)b + 1));
    }
    /* floor((2^64 + a) factor / 2^shift) for results below 2^64, else 2^64 - 1 */
    static inline uint64_t cl_scaled(uint64_t a, uint64_t factor, int shift) {
      cl_u128 r = ((cl_u128)a * factor >> shift) + ((cl_u128)factor << (64 - shift));
      return r >> 64 ? ~(uint64_t)0 : (uint64_t)r;
    }
    """
    int64_t cl_ratio(uint64_t a1, uint64_t a0, uint64_t b1, uint64_t b0, int shift) noexcept nogil
    uint64_t cl_scaled(uint64_t a, uint64_t factor, int shift) noexcept nogil
    int __builtin_clzll(unsigned long long x) noexcept nogil

cdef enum:
    SMALL = TABLE_LIMBS
    POWERS = 8  # room for powers on the stack
    BURST_EXP = 3000  # limbs from which the bit-burst is faster
    BURST_SINCOS = 8000


cdef inline int64_t _leading_zeros(const uint64_t* x, int64_t n) noexcept nogil:
    """Zero bits before the first one bit of x[n]; 64 n for zero."""
    cdef int64_t size = limbs_normalize(x, n)
    if size == 0:
        return 64 * n
    return 64 * (n - size) + __builtin_clzll(x[size - 1])


cdef inline int64_t _powers(int64_t terms) noexcept nogil:
    return min(POWERS, series_powers_wanted(terms))


cdef int exp_unit(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil:
    if n <= SMALL:
        return _exp_by_table(r, x, n)
    if n < BURST_EXP:
        return _exp_by_halving(r, x, n)
    return _exp_by_burst(r, x, n)


cdef int _exp_by_table(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil:
    cdef uint64_t[SMALL * POWERS] powers
    cdef uint64_t[SMALL] rest
    cdef uint64_t[SMALL + 2] s
    cdef uint64_t[2 * SMALL + 4] t
    cdef const uint64_t* values = NULL
    cdef int64_t bits, terms, m
    cdef int status = table(&values, EXP_TABLE)
    if status:
        return status
    limbs_copy(rest, x, n)
    rest[n - 1] &= (<uint64_t>1 << 48) - 1
    bits = _leading_zeros(rest, n)
    terms = series_terms(FACTORIAL, n, bits)
    m = _powers(terms)
    series_powers(powers, rest, n, m, t)  # short products need no memory
    series_sum(s, powers, n, m, bits, terms, FACTORIAL, False, t)
    if x[n - 1] >> 48 & 255:
        real_mul(s, s, entry(values, 1, x[n - 1] >> 48 & 255, n), n, t)
    if x[n - 1] >> 56:
        real_mul(r, s, entry(values, 0, x[n - 1] >> 56, n), n, t)
    else:
        limbs_copy(r, s, n + 1)
    return OK


cdef void _shifted(uint64_t* r, int64_t rn, const uint64_t* x, int64_t n,
                   int64_t count) noexcept nogil:
    """The fraction r[rn] = x[n] 2^(-count), cut off, rn >= n."""
    cdef int64_t limbs = count // 64
    cdef int bits = count % 64
    cdef int64_t low = rn - n - limbs  # x's limb 0 comes to this place
    cdef int64_t skip = max(0, -low)
    limbs_zero(r, rn)
    if skip >= n:
        return
    if bits == 0:
        limbs_copy(r + low + skip, x + skip, n - skip)
    elif low > 0:
        r[low - 1] = exact_primitives().limbs.rshift(r + low, x, n, bits)
    else:
        exact_primitives().limbs.rshift(r + low + skip, x + skip, n - skip, bits)


cdef int64_t _halvings(int kind, int64_t n, int64_t per_bit) noexcept nogil:
    """How often to halve: a squaring each against a product less for every sqrt(terms)."""
    cdef int64_t h = 8
    while h * h * h < 64 * n * 2:
        h += 1
    while series_terms(kind, n + h // 16 + 2, per_bit * h) > TERMS:
        h += 8
    return h


cdef int _exp_by_halving(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil:
    cdef int64_t bits = _leading_zeros(x, n)
    cdef int64_t h = max(0, _halvings(FACTORIAL, n, 1) - bits)
    cdef int64_t w = n + (h + 16 + 63) // 64  # working limbs: h bits are lost in squaring
    cdef int64_t terms = series_terms(FACTORIAL, w, min(64 * w, bits + h))
    cdef int64_t m
    cdef int status
    m = series_powers_wanted(terms)
    cdef uint64_t* work = <uint64_t*>malloc((w * (m + 4) + 16) * sizeof(uint64_t))
    if work == NULL:
        return NO_MEMORY
    cdef uint64_t* s = work + w * m
    cdef uint64_t* t = s + w + 4
    _shifted(s, w, x, n, h)
    status = series_powers(work, s, w, m, t)
    if status == OK:
        status = series_sum(s, work, w, m, min(64 * w, bits + h), terms, FACTORIAL, False, t)
    while h and status == OK:
        h -= 1
        status = real_mul(s, s, s, w, t)
        if status == OK:
            status = poll()
    limbs_copy(r, s + w - n, n + 1)
    free(work)
    return status


cdef void _piece(uint64_t* a, int64_t* an, const uint64_t* x, int64_t n, int64_t low,
                 int64_t high) noexcept nogil:
    """a[an] = bits low + 1 .. high of the fraction x[n] after the point, low and high multiples
    of 32; room for (high - low) / 64 + 2 limbs.
    """
    cdef int64_t first = n - (high + 63) // 64
    cdef int64_t last = n - low // 64
    cdef int64_t size = last - first
    limbs_copy(a, x + first, size)
    if low % 64:
        a[size - 1] &= <uint64_t>0xFFFFFFFF
    if high % 64:
        exact_primitives().limbs.rshift(a, a, size, 32)
    an[0] = limbs_normalize(a, size)


cdef int _exp_by_burst(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil:
    # exp of the pieces: bits 1..32, 33..64, 65..128, ...
    cdef int64_t w = n + 1
    cdef int64_t low = 0
    cdef int64_t high = 32
    cdef int64_t an = 0
    cdef int status = OK
    cdef uint64_t* y = <uint64_t*>malloc((7 * w + 16) * sizeof(uint64_t))
    if y == NULL:
        return NO_MEMORY
    cdef uint64_t* product = y + w + 1
    cdef uint64_t* factor = product + w + 1
    cdef uint64_t* a = factor + w + 1
    cdef uint64_t* t = a + w + 2
    y[0] = 0
    limbs_copy(y + 1, x, n)
    limbs_zero(product, w)
    product[w] = 1
    while low < 64 * w and status == OK:
        high = min(high, 64 * w)
        _piece(a, &an, y, w, low, high)
        if an:
            status = split_exp(factor, w, a, an, high)
            if status == OK:
                status = real_mul(product, product, factor, w, t)
        low = high
        high *= 2
    limbs_copy(r, product + 1, n + 1)
    free(y)
    return status


cdef int log_unit(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil:
    if n <= SMALL:
        return _log_by_table(r, x, n)
    return _log_by_newton(r, x, n)


cdef int _log_by_table(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil:
    # (1 + x) c (1 + j/2^15) (1 + k/2^22) = 1 - e with e < 2^-21; c, j, k from the top limb only.
    cdef uint64_t[SMALL * POWERS] powers
    cdef uint64_t[SMALL + 1] rest
    cdef uint64_t[SMALL + 2] s
    cdef uint64_t[2 * SMALL + 4] t
    cdef const uint64_t* values = NULL
    cdef int64_t bits, terms, m
    cdef uint64_t top = x[n - 1]
    cdef uint64_t factor = log_factor(top >> 56)
    cdef uint64_t below, j, k, first
    cdef int status = table(&values, LOG_TABLE)
    if status:
        return status
    first = top >> 56
    # 2^64 e, never too large: what x has beyond its top limb adds less than 2 to the product
    below = ~cl_scaled(top, factor, 16)
    j = (below - 2 if below > 2 else 0) >> 49
    factor *= (1 << 15) + j
    below = ~cl_scaled(top, factor, 31)
    k = (below - 2 if below > 2 else 0) >> 42
    factor *= (1 << 22) + k
    rest[n] = factor + exact_primitives().limbs.mul_1(rest, x, n, factor)
    exact_primitives().limbs.rshift(rest, rest, n + 1, 53)
    # e = 1 - rest; the integer limb falls away
    bits = 0
    while bits < n and rest[bits] == 0:
        bits += 1
    if bits < n:
        rest[bits] = -rest[bits]
        bits += 1
        while bits < n:
            rest[bits] = ~rest[bits]
            bits += 1
    bits = _leading_zeros(rest, n)
    if bits < 64 * n:
        terms = series_terms(NATURAL, n, bits)
        m = _powers(terms)
        series_powers(powers, rest, n, m, t)
        series_sum(s, powers, n, m, bits, terms, NATURAL, False, t)
        fraction_mul(powers, s, rest, n, t)  # the sum is below 1.01: its integer limb is 1 or 0
        if s[n]:
            exact_primitives().limbs.add_n(powers, powers, rest, n)
    else:
        limbs_zero(powers, n)
    exact_primitives().limbs.add_n(powers, powers, entry(values, 1, j, n), n)
    exact_primitives().limbs.add_n(powers, powers, entry(values, 2, k, n), n)
    if exact_primitives().limbs.sub_n(r, entry(values, 0, first, n), powers, n):
        limbs_zero(r, n)  # log 1, a few units below zero
    return OK


cdef int _log_by_newton(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil:
    # y from a third of the length; log(1 + x) = y + 2 atanh z, z = (1 + x - E) / (1 + x + E) with
    # E = exp(y); atanh z = z to 3 * 64 * (n / 3) bits.
    cdef int64_t w = n + 1
    cdef int64_t third = w // 3 + 2
    cdef int status
    cdef bint negative
    cdef uint64_t* work = <uint64_t*>malloc((6 * w + 8) * sizeof(uint64_t))
    if work == NULL:
        return NO_MEMORY
    cdef uint64_t* y = work
    cdef uint64_t* e = y + w
    cdef uint64_t* v = e + w + 1
    cdef uint64_t* z = v + w + 1
    limbs_zero(y, w)
    status = log_unit(y + w - third, x + n - third, third)
    if status == OK:
        status = exp_unit(e, y, w)
    if status == OK:
        v[0] = 0
        limbs_copy(v + 1, x, n)
        v[w] = 1
        negative = limbs_compare(v, e, w + 1) < 0
        if negative:
            exact_primitives().limbs.sub_n(z, e, v, w + 1)
        else:
            exact_primitives().limbs.sub_n(z, v, e, w + 1)
        exact_primitives().limbs.add_n(v, v, e, w + 1)
        status = _small_ratio(z, v, w)
    if status == OK:
        # twice z
        exact_primitives().limbs.add_n(z, z, z, w)
        if negative:
            if exact_primitives().limbs.sub_n(y, y, z, w):
                limbs_zero(y, w)
        else:
            exact_primitives().limbs.add_n(y, y, z, w)
        limbs_copy(r, y + 1, n)
    free(work)
    return status


cdef int _small_ratio(uint64_t* z, const uint64_t* v, int64_t w) noexcept nogil:
    """z[w] = z[w + 1] / v[w + 1] within 4 units, for z / v < 1.

    A quotient of k limbs needs k + 2 limbs of the divisor only.
    """
    cdef int64_t zn = limbs_normalize(z, w + 1)
    cdef int64_t vn = limbs_normalize(v, w + 1)
    cdef int64_t drop = max(0, vn - (zn + w - vn + 1) - 2)
    cdef int64_t an = zn + w - drop
    cdef int64_t size = an - (vn - drop) + 1
    cdef uint64_t* work
    cdef int status
    if zn == 0 or size <= 0:
        limbs_zero(z, w + 1)
        return OK
    work = <uint64_t*>malloc((an + size + vn - drop) * sizeof(uint64_t))
    if work == NULL:
        return NO_MEMORY
    limbs_zero(work, w - drop)
    limbs_copy(work + w - drop, z, zn)
    status = limbs_divrem(work + an, work + an + size, work, an, v + drop, vn - drop)
    limbs_zero(z, w + 1)
    limbs_copy(z, work + an, min(size, w + 1))
    free(work)
    return status


cdef int sincos_unit(uint64_t* s, uint64_t* c, const uint64_t* x, int64_t n) noexcept nogil:
    if n <= SMALL:
        return _sincos_by_table(s, c, x, n)
    if n < BURST_SINCOS:
        return _sincos_by_halving(s, c, x, n)
    return _sincos_by_burst(s, c, x, n)


cdef int _turn(uint64_t* s, uint64_t* c, const uint64_t* ds, const uint64_t* dc, int64_t n,
               bint want_s, bint want_c, uint64_t* t) noexcept nogil:
    """(s, c) of an angle and (ds, dc) of another to those of their sum, what is wanted of them.

    n + 1 limbs each; t[4 n + 6].
    """
    cdef uint64_t* a = t
    cdef uint64_t* b = a + n + 1
    cdef uint64_t* u = b + n + 1
    cdef int status = OK
    if want_s:
        status = real_mul(a, s, dc, n, u)
        if status == OK:
            status = real_mul(b, c, ds, n, u)
        exact_primitives().limbs.add_n(a, a, b, n + 1)
    if want_c and status == OK:
        status = real_mul(c, c, dc, n, u)
        if status == OK:
            status = real_mul(b, s, ds, n, u)
        if exact_primitives().limbs.sub_n(c, c, b, n + 1):
            limbs_zero(c, n + 1)
    if want_s:
        limbs_copy(s, a, n + 1)
    return status


cdef int _sincos_by_table(uint64_t* s, uint64_t* c, const uint64_t* x, int64_t n) noexcept nogil:
    cdef uint64_t[SMALL * POWERS] powers
    cdef uint64_t[SMALL] rest
    cdef uint64_t[SMALL] square
    cdef uint64_t[SMALL + 2] u
    cdef uint64_t[SMALL + 2] v
    cdef uint64_t[4 * SMALL + 6] t
    cdef const uint64_t* values = NULL
    cdef int64_t bits, terms, m
    cdef int64_t i = x[n - 1] >> 56
    cdef int64_t j = x[n - 1] >> 48 & 255
    cdef int status = table(&values, SINCOS_TABLE)
    if status:
        return status
    limbs_copy(rest, x, n)
    rest[n - 1] &= (<uint64_t>1 << 48) - 1
    fraction_mul(square, rest, rest, n, t)
    bits = min(2 * _leading_zeros(rest, n), 64 * n)
    terms = series_terms(EVEN_FACTORIAL, n, bits)
    m = _powers(terms)
    series_powers(powers, square, n, m, t)
    series_sum(v, powers, n, m, bits, terms, EVEN_FACTORIAL, True, t)
    terms = series_terms(ODD_FACTORIAL, n, bits)
    series_sum(u, powers, n, m, bits, terms, ODD_FACTORIAL, True, t)
    if u[n]:  # one, when the square is below a unit
        limbs_copy(u, rest, n)
    else:
        fraction_mul(u, u, rest, n, t)
    u[n] = 0
    if j:
        _turn(u, v, entry(values, 2, j, n), entry(values, 3, j, n), n, s != NULL or i != 0,
              c != NULL or i != 0, t)
    if i:
        _turn(u, v, entry(values, 0, i, n), entry(values, 1, i, n), n, s != NULL, c != NULL, t)
    if s != NULL:
        limbs_copy(s, u, n + 1)
    if c != NULL:
        limbs_copy(c, v, n + 1)
    return OK


cdef int _sine_of(uint64_t* s, const uint64_t* v, int64_t w, uint64_t* t) noexcept nogil:
    """s[w] = sqrt(v (2 - v)) for the fraction v = 1 - cos or v = 1 - sin; t[4 w + 4]."""
    cdef uint64_t* a = t
    cdef uint64_t* u = t + w + 1
    cdef int64_t size
    cdef int status
    # a = v (2 - v) = 2 v - v^2 < 1
    limbs_copy(a, v, w)
    a[w] = 0
    status = real_mul(a, a, a, w, u)
    limbs_zero(u, w)
    limbs_copy(u + w, v, w)
    u[2 * w] = exact_primitives().limbs.add_n(u + w, u + w, u + w, w)
    exact_primitives().limbs.sub_n(u + w, u + w, a, w + 1)
    size = limbs_normalize(u, 2 * w)
    limbs_zero(s, w)
    if status == OK and size:
        status = limbs_sqrtrem(s, NULL, NULL, u, size)
    return status


cdef int _sincos_by_halving(uint64_t* s, uint64_t* c, const uint64_t* x, int64_t n) noexcept nogil:
    # v = 1 - cos x from v(x / 2^h): a halving costs two bits; the root that gives the sine loses as
    # many bits as x has leading zeros, which are fewer than the halvings that they save.
    cdef int64_t bits = _leading_zeros(x, n)
    cdef int64_t wanted = _halvings(EVEN_FACTORIAL, n, 2)
    cdef int64_t h = max(0, wanted - bits)
    cdef int64_t w = n + (2 * wanted + 16 + 63) // 64
    cdef int64_t small = min(64 * w, 2 * (bits + h))
    cdef int64_t terms = series_terms(EVEN_FACTORIAL, w, small)
    cdef int64_t m
    cdef int status
    m = series_powers_wanted(terms)
    cdef uint64_t* work = <uint64_t*>malloc((w * (m + 9) + 32) * sizeof(uint64_t))
    if work == NULL:
        return NO_MEMORY
    cdef uint64_t* y = work + w * m
    cdef uint64_t* v = y + w + 2
    cdef uint64_t* u = v + w + 2
    cdef uint64_t* t = u + w + 2
    _shifted(y, w, x, n, h)
    status = fraction_mul(u, y, y, w, t)
    if status == OK:
        status = series_powers(work, u, w, m, t)
    if status == OK:
        status = series_sum(v, work, w, m, small, terms, EVEN_FACTORIAL, True, t)
    if status == OK and h == 0:
        # short enough for both series
        if c != NULL:
            limbs_copy(c, v + w - n, n + 1)
        if s != NULL:
            terms = series_terms(ODD_FACTORIAL, w, small)
            status = series_sum(u, work, w, m, small, terms, ODD_FACTORIAL, True, t)
            if status == OK and not u[w]:
                status = fraction_mul(y, u, y, w, t)
            limbs_copy(s, y + w - n, n)
            s[n] = 0
        free(work)
        return status
    if status == OK:
        # v = 1 - cos
        limbs_zero(u, w)
        u[w] = 1
        if exact_primitives().limbs.sub_n(v, u, v, w + 1):
            limbs_zero(v, w + 1)
    while h and status == OK:
        # v = 4 v - 2 v^2
        h -= 1
        status = real_mul(u, v, v, w, t)
        if status == OK:
            status = poll()
        exact_primitives().limbs.add_n(v, v, v, w + 1)
        exact_primitives().limbs.sub_n(v, v, u, w + 1)
        exact_primitives().limbs.add_n(v, v, v, w + 1)
    if status == OK and s != NULL:
        status = _sine_of(u, v, w, t)
        limbs_copy(s, u + w - n, n)
        s[n] = 0
    if c != NULL:
        limbs_zero(u, w)
        u[w] = 1
        exact_primitives().limbs.sub_n(u, u, v, w + 1)
        limbs_copy(c, u + w - n, n + 1)
    free(work)
    return status


cdef int _sincos_by_burst(uint64_t* s, uint64_t* c, const uint64_t* x, int64_t n) noexcept nogil:
    # sines of the pieces by splitting; the cosine of a piece is sqrt(1 - s^2), s < 0.85
    cdef int64_t w = n + 1
    cdef int64_t low = 0
    cdef int64_t high = 32
    cdef int64_t an = 0
    cdef int status = OK
    cdef uint64_t* y = <uint64_t*>malloc((13 * w + 40) * sizeof(uint64_t))
    if y == NULL:
        return NO_MEMORY
    cdef uint64_t* u = y + w + 1
    cdef uint64_t* v = u + w + 1
    cdef uint64_t* ds = v + w + 1
    cdef uint64_t* dc = ds + w + 1
    cdef uint64_t* a = dc + w + 1
    cdef uint64_t* t = a + w + 2
    y[0] = 0
    limbs_copy(y + 1, x, n)
    limbs_zero(u, w + 1)
    limbs_zero(v, w)
    v[w] = 1
    while low < 64 * w and status == OK:
        high = min(high, 64 * w)
        _piece(a, &an, y, w, low, high)
        if an:
            status = split_sin(ds, w, a, an, high)
            if status == OK:
                status = _cosine_of(dc, ds, w, t)
            if status == OK:
                status = _turn(u, v, ds, dc, w, True, True, t)
        low = high
        high *= 2
    if s != NULL:
        limbs_copy(s, u + 1, n + 1)
    if c != NULL:
        limbs_copy(c, v + 1, n + 1)
    free(y)
    return status


cdef int _cosine_of(uint64_t* c, const uint64_t* s, int64_t w, uint64_t* t) noexcept nogil:
    """c[w + 1] = sqrt(1 - s[w + 1]^2); t[4 w + 4]."""
    cdef int64_t i
    cdef int status = real_mul(c, s, s, w, t)
    limbs_zero(t, w)
    for i in range(w):
        t[w + i] = ~c[i]
    if limbs_add_1(t + w, t + w, w, 1):  # 1 - 0: the square is below a unit
        limbs_zero(c, w)
        c[w] = 1
        return status
    c[w] = 0
    if status == OK:
        status = limbs_sqrtrem(c, NULL, NULL, t, 2 * w)
    return status


cdef int atan_unit(uint64_t* r, const uint64_t* a, const uint64_t* b, int64_t n) noexcept nogil:
    cdef const uint64_t* pi = NULL
    cdef int status
    if limbs_compare(a, b, n) == 0:
        status = constant(&pi, PI, n)
        if status == OK:
            exact_primitives().limbs.rshift(r, pi, n + 1, 2)
        return status
    if n <= SMALL:
        return _atan_by_table(r, a, b, n)
    cdef uint64_t* z = <uint64_t*>malloc((n + 1) * sizeof(uint64_t))
    cdef uint64_t* v = <uint64_t*>malloc((n + 1) * sizeof(uint64_t))
    if z == NULL or v == NULL:
        free(z)
        free(v)
        return NO_MEMORY
    limbs_copy(z, a, n)
    z[n] = 0
    limbs_copy(v, b, n)
    v[n] = 0
    status = _small_ratio(z, v, n)
    if status == OK:
        status = _atan_by_newton(r, z, n)
    r[n] = 0
    free(z)
    free(v)
    return status


cdef int _atan_by_table(uint64_t* r, const uint64_t* a, const uint64_t* b,
                        int64_t n) noexcept nogil:
    # a / b -> (D a - i b) / (D b + i a) for D = 2^8, 2^16, 2^24, all exact; one division at the end
    cdef uint64_t[SMALL * POWERS] powers
    cdef uint64_t[SMALL + 1] u
    cdef uint64_t[SMALL + 1] v
    cdef uint64_t[SMALL + 2] s
    cdef uint64_t[2 * SMALL + 4] t
    cdef uint64_t[2 * SMALL + 2] quotient
    cdef const uint64_t* values = NULL
    cdef int64_t bits, terms, m, i, un, vn
    cdef int level, shift
    cdef int status = table(&values, ATAN_TABLE)
    if status:
        return status
    limbs_copy(u, a, n)
    limbs_copy(v, b, n)
    u[n] = v[n] = 0
    limbs_zero(r, n + 1)
    for level in range(3):
        shift = 8 * level + 8
        i = cl_ratio(u[n], u[n - 1], v[n], v[n - 1], shift)
        limbs_copy(t, u, n + 1)
        exact_primitives().limbs.lshift(u, u, n + 1, shift)
        exact_primitives().limbs.submul_1(u, v, n + 1, i)
        exact_primitives().limbs.lshift(v, v, n + 1, shift)
        exact_primitives().limbs.addmul_1(v, t, n + 1, i)
        exact_primitives().limbs.add_n(r, r, entry(values, level, i, n), n + 1)
    # u / v < 2^-23
    limbs_zero(t, n)
    limbs_copy(t + n, u, n + 1)
    un = limbs_normalize(t, 2 * n + 1)
    vn = n + 1
    limbs_zero(u, n + 1)
    if un >= vn:
        status = limbs_divrem(quotient, s, t, un, v, vn)
        if status:
            return status
        limbs_copy(u, quotient, un - vn + 1)
    bits = _leading_zeros(u, n)
    if bits == 64 * n:
        return OK
    fraction_mul(v, u, u, n, t)
    bits = min(2 * bits, 64 * n)
    terms = series_terms(ODD, n, bits)
    m = _powers(terms)
    series_powers(powers, v, n, m, t)
    series_sum(s, powers, n, m, bits, terms, ODD, True, t)
    if not s[n]:
        fraction_mul(u, u, s, n, t)
    u[n] = 0
    exact_primitives().limbs.add_n(r, r, u, n + 1)
    return OK


cdef int _atan_by_newton(uint64_t* r, const uint64_t* x, int64_t n) noexcept nogil:
    """r[n + 1] = atan of the fraction x[n]."""
    # y from a third of the length; atan x = y + atan z, z = (x cos y - sin y) / (cos y + x sin y);
    # atan z = z to 3 * 64 * (n / 3) bits.
    cdef int64_t w = n + 1
    cdef int64_t third = w // 3 + 2
    cdef int64_t i
    cdef int status
    cdef bint negative = False
    cdef uint64_t* y = <uint64_t*>malloc((9 * w + 24) * sizeof(uint64_t))
    if y == NULL:
        return NO_MEMORY
    cdef uint64_t* s = y + w + 1
    cdef uint64_t* c = s + w + 1
    cdef uint64_t* full = c + w + 1
    cdef uint64_t* p = full + w + 1
    cdef uint64_t* z = p + w + 1
    cdef uint64_t* t = z + w + 1
    limbs_zero(y, w + 1)
    full[0] = 0
    limbs_copy(full + 1, x, n)
    full[w] = 0
    if third <= SMALL:
        # b = 1 - 2^(-64 third) instead of one
        limbs_copy(t, x + n - third, third)
        for i in range(third):
            t[third + i] = ~<uint64_t>0
        status = atan_unit(y + w - third, t, t + third, third)
    else:
        status = _atan_by_newton(y + w - third, x + n - third, third)
    if status == OK:
        status = sincos_unit(s, c, y, w)
    if status == OK:
        status = real_mul(z, full, c, w, t)
    if status == OK:
        status = real_mul(p, full, s, w, t)
    if status == OK:
        exact_primitives().limbs.add_n(c, c, p, w + 1)
        negative = limbs_compare(z, s, w + 1) < 0
        if negative:
            exact_primitives().limbs.sub_n(z, s, z, w + 1)
        else:
            exact_primitives().limbs.sub_n(z, z, s, w + 1)
        status = _small_ratio(z, c, w)
    if status == OK:
        if not negative:
            exact_primitives().limbs.add_n(y, y, z, w + 1)
        elif exact_primitives().limbs.sub_n(y, y, z, w + 1):
            limbs_zero(y, w + 1)
        limbs_copy(r, y + 1, n + 1)
    free(y)
    return status
