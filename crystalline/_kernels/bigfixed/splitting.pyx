"""Sums of hypergeometric series by binary splitting, and the constants made of them.

A series totalk a(k) p(1)...p(k) / (q(1)...q(k)) with small integers a, p, q is summed as one
fraction T/Q of integers, halves first, so that nearly all work is in few large products
(Brent 1976; Haible and Papanikolaou, "Fast multiprecision evaluation of series of rational
numbers", 1998).  Pi is the Chudnovskys' series, ln 2 and ln 10 are sums of atanh(1/q) (Machin
like), e is the series of exp, and exp and sin of short arguments serve the bit-burst in `unit`.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigint.div cimport limbs_divrem, limbs_divrem_1
from crystalline._kernels.bigint.interrupt cimport poll
from crystalline._kernels.bigint.limbs cimport (
    NO_MEMORY,
    OK,
    limbs_add,
    limbs_copy,
    limbs_normalize,
    limbs_sub,
    limbs_zero,
)
from crystalline._kernels.bigint.mul cimport limbs_mul, limbs_sqr
from crystalline._kernels.bigint.roots cimport limbs_sqrtrem
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    typedef struct { uint64_t *limbs; int64_t n; } cl_natural; /* n limbs, normalized */
    typedef unsigned __int128 cl_u128;
    static inline void cl_words(uint64_t *r, cl_u128 value) {
      r[0] = (uint64_t)value;
      r[1] = (uint64_t)(value >> 64);
    }
    static inline cl_u128 cl_product(uint64_t a, uint64_t b) { return (cl_u128)a * b; }
    static inline cl_u128 cl_product3(uint64_t a, uint64_t b, uint64_t c) {
      return (cl_u128)a * b * c;
    }
    """
    ctypedef struct Natural "cl_natural":
        uint64_t* limbs
        int64_t n
    ctypedef unsigned long long u128 "cl_u128"
    void cl_words(uint64_t* r, u128 value) noexcept nogil
    u128 cl_product(uint64_t a, uint64_t b) noexcept nogil
    u128 cl_product3(uint64_t a, uint64_t b, uint64_t c) noexcept nogil
    int __builtin_clzll(unsigned long long x) noexcept nogil

cdef enum:
    CHUDNOVSKY = 0
    ATANH = 1  # of 1 / base
    EXP = 2  # of base / 2^shift
    SIN = 3  # of sqrt(base) / 2^(shift / 2)

# What is summed.  p(k) and q(k) are without sign; when alternating, every p(k) is negative.
# q(k) lacks its factor 2^shift.
ctypedef struct Terms:
    int kind
    bint alternating
    uint64_t base  # ATANH: the square of the argument's reciprocal
    Natural argument  # EXP, SIN
    int64_t shift


cdef inline void _discard(Natural* x) noexcept nogil:
    free(x.limbs)
    x.limbs = NULL
    x.n = 0


cdef inline int _make(Natural* x, int64_t room) noexcept nogil:
    x.limbs = <uint64_t*>malloc((room if room > 0 else 1) * sizeof(uint64_t))
    x.n = 0
    return OK if x.limbs != NULL else NO_MEMORY


cdef int _of_words(Natural* x, u128 value) noexcept nogil:
    if _make(x, 2):
        return NO_MEMORY
    cl_words(x.limbs, value)
    x.n = limbs_normalize(x.limbs, 2)
    return OK


cdef int _mul(Natural* r, const Natural* a, const Natural* b) noexcept nogil:
    """r = a b, into new limbs."""
    cdef int status
    if _make(r, a.n + b.n):
        return NO_MEMORY
    if a.n == 0 or b.n == 0:
        return OK
    if a.n + b.n > 2000:
        status = poll()
        if status:
            return status
    if a.n >= b.n:
        status = limbs_mul(r.limbs, a.limbs, a.n, b.limbs, b.n)
    else:
        status = limbs_mul(r.limbs, b.limbs, b.n, a.limbs, a.n)
    r.n = limbs_normalize(r.limbs, a.n + b.n)
    return status


cdef int _shift_left(Natural* x, int64_t count) noexcept nogil:
    """x <<= count."""
    cdef int64_t limbs = count // 64
    cdef int bits = count % 64
    cdef Natural r
    if x.n == 0 or count == 0:
        return OK
    if _make(&r, x.n + limbs + 1):
        return NO_MEMORY
    limbs_zero(r.limbs, limbs)
    if bits:
        r.limbs[x.n + limbs] = exact_primitives().limbs.lshift(r.limbs + limbs, x.limbs, x.n, bits)
    else:
        limbs_copy(r.limbs + limbs, x.limbs, x.n)
        r.limbs[x.n + limbs] = 0
    r.n = limbs_normalize(r.limbs, x.n + limbs + 1)
    free(x.limbs)
    x[0] = r
    return OK


cdef int _add(Natural* r, const Natural* a, const Natural* b, bint subtract) noexcept nogil:
    """r = a + b or a - b >= 0, into new limbs."""
    cdef const Natural* large = a
    cdef const Natural* small = b
    if not subtract and a.n < b.n:
        large = b
        small = a
    if _make(r, large.n + 1):
        return NO_MEMORY
    if subtract:
        limbs_sub(r.limbs, large.limbs, large.n, small.limbs, small.n)
        r.limbs[large.n] = 0
    else:
        r.limbs[large.n] = limbs_add(r.limbs, large.limbs, large.n, small.limbs, small.n)
    r.n = limbs_normalize(r.limbs, large.n + 1)
    return OK


cdef int _leaf(Natural* p, Natural* q, Natural* t, const Terms* terms, int64_t k) noexcept nogil:
    cdef Natural a
    cdef int status
    if terms.kind == CHUDNOVSKY:
        # (6k - 5)(2k - 1)(6k - 1) and k^3 640320^3 / 24
        status = _of_words(p, cl_product3(6 * k - 5, 2 * k - 1, 6 * k - 1))
        if status == OK:
            status = _cube(q, k)
        if status == OK:
            status = _of_words(&a, cl_product3(545140134, k, 1) + 13591409)
            if status == OK:
                status = _mul(t, &a, p)
            _discard(&a)
        return status
    if terms.kind == ATANH:
        status = _of_words(p, 2 * k - 1)
        if status == OK:
            status = _of_words(q, cl_product(2 * k + 1, terms.base))
    else:
        if _make(p, terms.argument.n):
            return NO_MEMORY
        limbs_copy(p.limbs, terms.argument.limbs, terms.argument.n)
        p.n = terms.argument.n
        status = _of_words(q, k if terms.kind == EXP else cl_product(2 * k, 2 * k + 1))
    if status == OK:
        if _make(t, p.n):
            return NO_MEMORY
        limbs_copy(t.limbs, p.limbs, p.n)
        t.n = p.n
    return status


cdef int _cube(Natural* q, int64_t k) noexcept nogil:
    cdef Natural a
    cdef Natural b
    cdef int status = _of_words(&a, cl_product3(k, k, k))
    b.limbs = NULL
    if status == OK:
        status = _of_words(&b, 10939058860032000)
    if status == OK:
        status = _mul(q, &a, &b)
    _discard(&a)
    _discard(&b)
    return status


cdef int _split(Natural* p, Natural* q, Natural* t, const Terms* terms, int64_t low, int64_t high,
                bint with_p) noexcept nogil:
    """P, Q and T of the terms low <= k < high; P only when it is wanted.

    On failure what was made is left in p, q, t for the caller to free.
    """
    cdef Natural pieces[8]  # P, Q, T of the left half, then of the right, then two products
    cdef int64_t middle, i
    cdef int status
    if high - low == 1:
        return _leaf(p, q, t, terms, low)
    for i in range(8):
        pieces[i].limbs = NULL
        pieces[i].n = 0
    middle = low + (high - low) // 2
    status = _split(&pieces[0], &pieces[1], &pieces[2], terms, low, middle, True)
    if status == OK:
        status = _split(&pieces[3], &pieces[4], &pieces[5], terms, middle, high, with_p)
    # T = T_left Q_right + (sign) P_left T_right
    if status == OK:
        status = _mul(&pieces[6], &pieces[2], &pieces[4])
    if status == OK:
        status = _shift_left(&pieces[6], terms.shift * (high - middle))
    _discard(&pieces[2])
    if status == OK:
        status = _mul(&pieces[7], &pieces[0], &pieces[5])
    _discard(&pieces[5])
    if status == OK:
        status = _add(t, &pieces[6], &pieces[7], terms.alternating and (middle - low) & 1)
    _discard(&pieces[6])
    _discard(&pieces[7])
    if status == OK:
        status = _mul(q, &pieces[1], &pieces[4])
    if status == OK and with_p:
        status = _mul(p, &pieces[0], &pieces[3])
    for i in range(8):
        free(pieces[i].limbs)
    return status


cdef int _floor_divide(uint64_t* r, int64_t rn, const uint64_t* a, int64_t an, const uint64_t* b,
                       int64_t bn) noexcept nogil:
    """r[rn] = floor(a / b), which fits."""
    cdef int64_t size = an - bn + 1
    limbs_zero(r, rn)
    if size <= 0:
        return OK
    cdef uint64_t* work = <uint64_t*>malloc((size + bn) * sizeof(uint64_t))
    if work == NULL:
        return NO_MEMORY
    cdef int status = limbs_divrem(work, work + size, a, an, b, bn)
    limbs_copy(r, work, min(size, rn))
    free(work)
    return status


cdef int _quotient(uint64_t* r, int64_t n, const Natural* t, const Natural* q) noexcept nogil:
    """r[n + 1] = floor(t 2^(64 n) / q), for t / q < 2^64; two units below at most."""
    # Limbs of q beyond n + 3 change the quotient by less than a unit.
    cdef int64_t drop = max(0, min(q.n - (n + 3), t.n - 1))
    cdef int64_t tn = t.n - drop
    cdef uint64_t* a
    cdef int status
    if t.n == 0:
        limbs_zero(r, n + 1)
        return OK
    a = <uint64_t*>malloc((tn + n) * sizeof(uint64_t))
    if a == NULL:
        return NO_MEMORY
    limbs_zero(a, n)
    limbs_copy(a + n, t.limbs + drop, tn)
    status = _floor_divide(r, n + 1, a, tn + n, q.limbs + drop, q.n - drop)
    free(a)
    return status


cdef int _sum(uint64_t* r, int64_t n, const Terms* terms, int64_t count) noexcept nogil:
    """r[n + 1] = | sum of the terms 1 <= k <= count |, rounded down, within two units."""
    cdef Natural p, q, t
    p.limbs = q.limbs = t.limbs = NULL
    cdef int status = _split(&p, &q, &t, terms, 1, count + 1, False)
    if status == OK:
        status = _shift_left(&q, terms.shift * count)
    if status == OK:
        status = _quotient(r, n, &t, &q)
    free(p.limbs)
    free(q.limbs)
    free(t.limbs)
    return status


cdef int64_t _factorial_terms(int64_t n, int64_t bits, int64_t step) noexcept nogil:
    """How many terms until x^k / (step k)! < 2^(-64 n), x < 2^(-bits)."""
    cdef int64_t k = 0
    cdef int64_t j
    cdef int64_t reached = 0
    while reached <= 64 * n:
        k += 1
        reached += bits
        for j in range(step):
            reached += 63 - __builtin_clzll(step * k - j)
    return k


cdef int split_exp(uint64_t* r, int64_t n, const uint64_t* a, int64_t an,
                   int64_t bits) noexcept nogil:
    cdef Terms terms
    terms.kind = EXP
    terms.alternating = False
    terms.argument.limbs = <uint64_t*>a
    terms.argument.n = an
    terms.shift = bits
    cdef int64_t size = 64 * an - __builtin_clzll(a[an - 1])
    cdef int status = _sum(r, n, &terms, _factorial_terms(n, bits - size, 1))
    r[n] += 1
    return status


cdef int split_sin(uint64_t* r, int64_t n, const uint64_t* a, int64_t an,
                   int64_t bits) noexcept nogil:
    # x - x (x^2/6 - ...), the bracket by splitting
    cdef Terms terms
    cdef Natural square
    cdef int64_t size = 64 * an - __builtin_clzll(a[an - 1])
    cdef int status
    if _make(&square, 2 * an):
        return NO_MEMORY
    status = limbs_sqr(square.limbs, a, an)
    square.n = limbs_normalize(square.limbs, 2 * an)
    terms.kind = SIN
    terms.alternating = True
    terms.argument = square
    terms.shift = 2 * bits
    if status == OK:
        status = _sum(r, n, &terms, _factorial_terms(n, 2 * (bits - size), 2))
    free(square.limbs)
    if status:
        return status
    # x as a fraction of n limbs; r = x - x r
    cdef uint64_t* work = <uint64_t*>malloc(3 * n * sizeof(uint64_t))
    if work == NULL:
        return NO_MEMORY
    limbs_zero(work, n)
    fraction_of(work, n, a, an, bits)
    status = limbs_mul(work + n, work, n, r, n)
    if status == OK:
        exact_primitives().limbs.sub_n(r, work, work + 2 * n, n)
        r[n] = 0
    free(work)
    return status


cdef void fraction_of(uint64_t* r, int64_t n, const uint64_t* a, int64_t an,
                      int64_t bits) noexcept nogil:
    """r[n] = floor(a 2^(64 n - bits)), for a[an] < 2^bits."""
    cdef int64_t shift = 64 * n - bits
    cdef int64_t limbs
    cdef int count
    cdef int64_t i
    cdef uint64_t low, high
    limbs_zero(r, n)
    # limb i of r takes bits 64 i - shift and up of a
    for i in range(n):
        limbs = (64 * i - shift) >> 6
        count = (64 * i - shift) & 63
        low = a[limbs] if 0 <= limbs < an else 0
        high = a[limbs + 1] if 0 <= limbs + 1 < an else 0
        r[i] = low >> count | (high << (64 - count) if count else 0)


cdef int _atanh_sum(uint64_t* r, int64_t n, const uint64_t* weights, const uint64_t* bases,
                    const int* signs, int64_t count) noexcept nogil:
    """r[n + 1] = sum of signs_i weights_i atanh(1 / bases_i), the first positive and largest."""
    cdef Terms terms
    cdef int64_t i
    cdef int status
    cdef uint64_t* s = <uint64_t*>malloc((n + 1) * sizeof(uint64_t))
    if s == NULL:
        return NO_MEMORY
    terms.kind = ATANH
    terms.alternating = False
    terms.shift = 0
    limbs_zero(r, n + 1)
    for i in range(count):
        terms.base = bases[i] * bases[i]
        status = _sum(s, n, &terms, 64 * n // (63 - __builtin_clzll(terms.base)) + 1)
        if status:
            free(s)
            return status
        s[n] += 1
        limbs_divrem_1(s, s, n + 1, bases[i])
        if signs[i] > 0:
            exact_primitives().limbs.addmul_1(r, s, n + 1, weights[i])
        else:
            exact_primitives().limbs.submul_1(r, s, n + 1, weights[i])
    free(s)
    return OK


cdef int _pi(uint64_t* r, int64_t n) noexcept nogil:
    """Pi = 426880 sqrt(10005) Q / (13591409 Q + T); r[n + 1]."""
    cdef Terms terms
    cdef Natural p, q, t, root, numerator, total, constant
    cdef int64_t count = 64 * n // 47 + 2  # 47.11 bits a term
    cdef int status
    terms.kind = CHUDNOVSKY
    terms.alternating = True
    terms.shift = 0
    p.limbs = q.limbs = t.limbs = root.limbs = numerator.limbs = total.limbs = constant.limbs = NULL
    status = _split(&p, &q, &t, &terms, 1, count + 1, False)
    if status == OK:
        status = _of_words(&constant, 13591409)
    if status == OK:
        status = _mul(&root, &q, &constant)
    if status == OK:
        status = _add(&total, &root, &t, True)  # the first term dominates and is negative
    _discard(&t)
    _discard(&root)
    _discard(&constant)
    if status == OK:
        status = _root_of_10005(&root, n)
    # The leading n + 2 limbs of Q and of the sum are enough.
    cdef int64_t drop = max(0, min(q.n, total.n) - (n + 2))
    if status == OK:
        status = _of_words(&constant, 426880)
    if status == OK:
        q.n -= drop
        total.n -= drop
        q.limbs += drop  # freed below from where it began
        status = _mul(&t, &q, &constant)
        q.limbs -= drop
    if status == OK:
        status = _mul(&numerator, &t, &root)
    if status == OK:
        status = _floor_divide(r, n + 1, numerator.limbs, numerator.n, total.limbs + drop, total.n)
    free(p.limbs)
    free(q.limbs)
    free(t.limbs)
    free(root.limbs)
    free(numerator.limbs)
    free(total.limbs)
    free(constant.limbs)
    return status


cdef int _root_of_10005(Natural* root, int64_t n) noexcept nogil:
    """floor(sqrt(10005) 2^(64 n))."""
    cdef uint64_t* a = <uint64_t*>malloc((2 * n + 1) * sizeof(uint64_t))
    cdef int status
    if a == NULL or _make(root, n + 1):
        free(a)
        return NO_MEMORY
    limbs_zero(a, 2 * n)
    a[2 * n] = 10005
    status = limbs_sqrtrem(root.limbs, NULL, NULL, a, 2 * n + 1)
    root.n = n + 1
    free(a)
    return status


cdef int constant_digits(uint64_t* r, int which, int64_t n) noexcept nogil:
    cdef uint64_t one = 1
    cdef uint64_t[3] weights
    cdef uint64_t[3] bases
    cdef int[3] signs
    if which == PI:
        return _pi(r, n)
    if which == E:
        return split_exp(r, n, &one, 1, 0)
    signs[0] = signs[1] = signs[2] = 1
    if which == LN2:
        # 18 atanh(1/26) - 2 atanh(1/4801) + 8 atanh(1/8749)
        weights[0], weights[1], weights[2] = 18, 2, 8
        bases[0], bases[1], bases[2] = 26, 4801, 8749
        signs[1] = -1
    else:
        # 46 atanh(1/31) + 34 atanh(1/49) + 20 atanh(1/161)
        weights[0], weights[1], weights[2] = 46, 34, 20
        bases[0], bases[1], bases[2] = 31, 49, 161
    return _atanh_sum(r, n, weights, bases, signs, 3)
