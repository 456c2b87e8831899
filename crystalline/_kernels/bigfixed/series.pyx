"""Power series of small arguments in fixed point, by rectangular splitting.

The terms are grouped by m: with the powers x, ..., x^m at hand, a group costs products with single
words only, and one full product leads from group to group (Paterson and Stockmeyer 1973; Smith,
"Efficient multiple-precision evaluation of elementary functions", Math. Comp. 52, 1989).  The
coefficients are words c_k over a denominator common to a chunk of terms; between chunks the sum
is multiplied by one word and divided by another (Johansson, "Efficient implementation of
elementary functions in the medium-precision range", 2015).  Terms that carry a high power of x
are computed to fewer limbs.  Argument reduction is left to `unit`.
"""
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.div cimport limbs_divrem_1
from crystalline._kernels.bigint.limbs cimport OK, limbs_copy, limbs_normalize, limbs_zero
from crystalline._kernels.bigint.mul cimport limbs_mul, limbs_sqr
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    typedef struct {
      uint64_t c[768];    /* the coefficient a_k is c[k] over its chunk's denominator */
      uint64_t up[768];   /* at the lowest k of a chunk: the sum is to be multiplied by this, */
      uint64_t down[768]; /* then divided by this; elsewhere 0 */
      int64_t bits[769];  /* floor(log2(1 / a_k)), or less */
    } cl_series;
    static cl_series cl_series_of[5];
    """
    ctypedef struct cl_series:
        uint64_t* c
        uint64_t* up
        uint64_t* down
        int64_t* bits
    cl_series* cl_series_of


def _fill():
    """Fill the tables of coefficients, once at import."""
    import math

    cdef cl_series* series
    for kind in range(KINDS):
        series = &cl_series_of[kind]
        fact = kind in (FACTORIAL, ODD_FACTORIAL, EVEN_FACTORIAL)
        # denominator of a_k over that of a_(k-1), or the denominator itself for the others
        if kind == FACTORIAL:
            denominators = [max(k, 1) for k in range(TERMS + 1)]
        elif kind == ODD_FACTORIAL:
            denominators = [max(2 * k * (2 * k + 1), 1) for k in range(TERMS + 1)]
        elif kind == EVEN_FACTORIAL:
            denominators = [max((2 * k - 1) * 2 * k, 1) for k in range(TERMS + 1)]
        elif kind == ODD:
            denominators = [2 * k + 1 for k in range(TERMS + 1)]
        else:
            denominators = [k + 1 for k in range(TERMS + 1)]
        total = 0.0
        for k in range(TERMS + 1):
            total = math.log2(denominators[k]) + (total if fact else 0.0)
            series.bits[k] = int(total)
        # Chunks from the lowest terms up, each beginning at an even k and of even length, so that
        # the partial sums at both its ends are positive in alternating series too.
        chunks = []
        low = 0
        while low < TERMS:
            high = low
            common = 1
            while high < TERMS:
                wider = common
                for d in denominators[high : high + 2]:
                    wider = wider * d if fact else math.lcm(wider, d)
                if wider >= 2**60 and high > low:
                    break
                common = wider
                high += 2
            chunks.append((low, high, common))
            low = high
        for i, (low, high, common) in enumerate(chunks):
            running = common
            for k in range(low, high):
                if fact:
                    running //= denominators[k]
                    series.c[k] = running
                else:
                    series.c[k] = common // denominators[k]
                series.up[k] = series.down[k] = 0
            if fact or i == 0:
                up, down = 1, common
            else:
                shared = math.gcd(common, chunks[i - 1][2])
                up, down = chunks[i - 1][2] // shared, common // shared
            series.up[low] = up
            series.down[low] = down


_fill()


cdef int fraction_mul(uint64_t* r, const uint64_t* a, const uint64_t* b, int64_t n,
                      uint64_t* t) noexcept nogil:
    cdef int64_t an = limbs_normalize(a, n)
    cdef int64_t bn = limbs_normalize(b, n)
    cdef int status
    if an + bn <= n:
        limbs_zero(r, n)
        return OK
    if a == b:
        status = limbs_sqr(t, a, an)
    elif an >= bn:
        status = limbs_mul(t, a, an, b, bn)
    else:
        status = limbs_mul(t, b, bn, a, an)
    if status:
        return status
    limbs_copy(r, t + n, an + bn - n)
    limbs_zero(r + an + bn - n, 2 * n - an - bn)
    return OK


cdef int64_t series_terms(int kind, int64_t n, int64_t bits) noexcept nogil:
    cdef int64_t low = 1
    cdef int64_t high = TERMS + 1
    cdef int64_t middle
    cdef const int64_t* lost = cl_series_of[kind].bits
    if TERMS * bits + lost[TERMS] < 64 * n:
        return TERMS + 1
    while low < high:
        middle = (low + high) // 2
        if middle * bits + lost[middle] >= 64 * n:
            high = middle
        else:
            low = middle + 1
    return low


cdef int64_t series_powers_wanted(int64_t terms) noexcept nogil:
    # A power costs a full product, a group one of half the length on average.
    cdef int64_t m = 2
    while m * m * 5 < terms * 4:
        m += 2
    return m


cdef int series_powers(uint64_t* powers, const uint64_t* x, int64_t n, int64_t m,
                       uint64_t* t) noexcept nogil:
    cdef int64_t j
    cdef int status
    limbs_copy(powers, x, n)
    for j in range(2, m + 1):
        status = fraction_mul(powers + (j - 1) * n, powers + (j // 2 - 1) * n,
                              powers + (j - j // 2 - 1) * n, n, t)
        if status:
            return status
    return OK


cdef int series_sum(uint64_t* s, const uint64_t* powers, int64_t n, int64_t m, int64_t bits,
                    int64_t terms, int kind, bint alternating, uint64_t* t) noexcept nogil:
    cdef const cl_series* series = &cl_series_of[kind]
    cdef const uint64_t* top = powers + (m - 1) * n
    cdef int64_t zeros = n - limbs_normalize(top, n)  # of x^m
    cdef int64_t k = terms - 1
    cdef int64_t j = k % m
    cdef int64_t group = k // m
    cdef int64_t base = group * m * bits // 64  # the sum is kept in s[base .. n]
    cdef int64_t below, an, bn, rn
    cdef int status
    if base > n - 1:
        base = n - 1
    limbs_zero(s, n + 2)
    while True:
        if j == 0:
            s[n] += series.c[k]
        elif alternating and k & 1:
            s[n] -= exact_primitives().limbs.submul_1(s + base, powers + (j - 1) * n + base,
                                                      n - base, series.c[k])
        else:
            s[n] += exact_primitives().limbs.addmul_1(s + base, powers + (j - 1) * n + base,
                                                      n - base, series.c[k])
        if series.down[k]:
            an = n - base + 1
            if series.up[k] != 1:
                s[n + 1] = exact_primitives().limbs.mul_1(s + base, s + base, an, series.up[k])
                an += 1
            if series.down[k] != 1:
                limbs_divrem_1(s + base, s + base, an, series.down[k])
        if k == 0:
            return OK
        if j == 0:
            # s[base .. n] times x^m to s[below .. n]
            group -= 1
            below = group * m * bits // 64
            if below > n - 1:
                below = n - 1
            an = limbs_normalize(s + base, n + 1 - base)
            bn = n - below - zeros
            if an == 0 or bn <= 0 or an + bn <= n - base:
                limbs_zero(s + below, n + 1 - below)
            else:
                if an >= bn:
                    status = limbs_mul(t, s + base, an, top + below, bn)
                else:
                    status = limbs_mul(t, top + below, bn, s + base, an)
                if status:
                    return status
                rn = an + bn - (n - base)
                limbs_copy(s + below, t + (n - base), rn)
                limbs_zero(s + below + rn, n + 1 - below - rn)
            base = below
            j = m
        j -= 1
        k -= 1
