"""Function values at short arguments, for fractions of up to TABLE_LIMBS limbs.

The tables behind the argument reduction of `unit` (Johansson, "Efficient implementation of
elementary functions in the medium-precision range", 2015): a table is made in exact arithmetic
with a limb to spare at its first use, and published by one atomic store.  Neighboring entries
differ by a factor, a rotation, or an atanh or atan of a small fraction.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free

from crystalline._kernels.bigfixed.series cimport (
    EVEN_FACTORIAL,
    FACTORIAL,
    ODD_FACTORIAL,
    series_powers,
    series_sum,
    series_terms,
)
from crystalline._kernels.bigint.div cimport limbs_divrem_1
from crystalline._kernels.bigint.limbs cimport (
    NO_MEMORY,
    OK,
    limbs_copy,
    limbs_normalize,
    limbs_zero,
)
from crystalline._kernels.bigint.mul cimport limbs_mul, limbs_sqr
from crystalline._kernels.exact_isa cimport exact_primitives

cdef extern from *:
    """
    static uint64_t *cl_tables[4];
    static inline uint64_t *cl_table_load(int which) {
      return __atomic_load_n(&cl_tables[which], __ATOMIC_ACQUIRE);
    }
    static inline int cl_table_publish(int which, uint64_t *fresh) {
      uint64_t *none = 0;
      return __atomic_compare_exchange_n(&cl_tables[which], &none, fresh, 0, __ATOMIC_RELEASE,
                                         __ATOMIC_RELAXED);
    }
    """
    uint64_t* cl_table_load(int which) noexcept nogil
    int cl_table_publish(int which, uint64_t* fresh) noexcept nogil

cdef enum:
    N = ENTRY  # fraction limbs while a table is made: one more than is kept
    M = 4  # powers in the series


cdef int real_mul(uint64_t* r, const uint64_t* a, const uint64_t* b, int64_t n,
                  uint64_t* t) noexcept nogil:
    # Integer limbs are often zero.
    cdef int64_t an = n + (a[n] != 0)
    cdef int64_t bn = n + (b[n] != 0)
    cdef int status
    if a == b:
        status = limbs_sqr(t, a, an)
    elif an >= bn:
        status = limbs_mul(t, a, an, b, bn)
    else:
        status = limbs_mul(t, b, bn, a, an)
    limbs_copy(r, t + n, min(n + 1, an + bn - n))
    if an + bn == 2 * n:
        r[n] = 0
    return status


cdef inline void _store(uint64_t* t, int level, int64_t i, const uint64_t* value) noexcept nogil:
    limbs_copy(t + (level * ENTRIES + i) * ENTRY, value + N - TABLE_LIMBS, ENTRY)


cdef int _power_of_two_series(uint64_t* s, int64_t bits, int kind,
                              bint alternating) noexcept nogil:
    """s[N + 2] = the series at 2^-bits."""
    cdef uint64_t[N] x
    cdef uint64_t[M * N] powers
    cdef uint64_t[2 * N + 4] t
    limbs_zero(x, N)
    x[N - 1 - (bits - 1) // 64] = <uint64_t>1 << (63 - (bits - 1) % 64)
    cdef int status = series_powers(powers, x, N, M, t)
    if status:
        return status
    return series_sum(s, powers, N, M, bits - 1, series_terms(kind, N, bits - 1), kind,
                      alternating, t)


cdef int _make_exp(uint64_t* table) noexcept nogil:
    cdef uint64_t[N + 2] step
    cdef uint64_t[N + 1] value
    cdef uint64_t[2 * N + 2] t
    cdef int level
    cdef int64_t i
    cdef int status = _power_of_two_series(step, 16, FACTORIAL, False)
    if status:
        return status
    for level in range(1, -1, -1):
        limbs_zero(value, N)
        value[N] = 1
        for i in range(256):
            _store(table, level, i, value)
            status = real_mul(value, value, step, N, t)
            if status:
                return status
        limbs_copy(step, value, N + 1)
    return OK


cdef int _rotate(uint64_t* s, uint64_t* c, const uint64_t* ds, const uint64_t* dc) noexcept nogil:
    """(s, c) turned by the angle whose sine and cosine are ds and dc; N + 1 limbs each."""
    cdef uint64_t[N + 1] a
    cdef uint64_t[N + 1] b
    cdef uint64_t[N + 1] e
    cdef uint64_t[2 * N + 2] t
    cdef int status = real_mul(a, s, dc, N, t)
    if status == OK:
        status = real_mul(b, c, ds, N, t)
    if status == OK:
        status = real_mul(e, s, ds, N, t)
    if status == OK:
        status = real_mul(c, c, dc, N, t)
    exact_primitives().limbs.add_n(s, a, b, N + 1)
    exact_primitives().limbs.sub_n(c, c, e, N + 1)
    return status


cdef int _make_sincos(uint64_t* table) noexcept nogil:
    cdef uint64_t[N + 2] ds
    cdef uint64_t[N + 2] dc
    cdef uint64_t[N + 1] s
    cdef uint64_t[N + 1] c
    cdef int level
    cdef int64_t i
    cdef int status = _power_of_two_series(ds, 32, ODD_FACTORIAL, True)
    if status == OK:
        status = _power_of_two_series(dc, 32, EVEN_FACTORIAL, True)
    if status:
        return status
    exact_primitives().limbs.rshift(ds, ds, N + 1, 16)
    for level in range(2, -1, -2):
        limbs_zero(s, N + 1)
        limbs_zero(c, N)
        c[N] = 1
        for i in range(256):
            _store(table, level, i, s)
            _store(table, level + 1, i, c)
            status = _rotate(s, c, ds, dc)
            if status:
                return status
        limbs_copy(ds, s, N + 1)
        limbs_copy(dc, c, N + 1)
    return OK


cdef void _times(uint64_t* power, int64_t* n, uint64_t u, uint64_t v) noexcept nogil:
    """power[n] *= u / v < 1; its limbs above are zero."""
    cdef uint64_t carry = exact_primitives().limbs.mul_1(power, power, n[0], u)
    if carry:
        power[n[0]] = carry
        n[0] += 1
    limbs_divrem_1(power, power, n[0], v)


cdef void _add_arc(uint64_t* r, uint64_t u, uint64_t v, bint hyperbolic) noexcept nogil:
    """r[N + 1] += atan(u / v), or 2 atanh(u / v) when hyperbolic, for u / v < 1/3, v < 2^63."""
    cdef uint64_t[N + 1] power
    cdef uint64_t[N + 1] term
    cdef uint64_t k = 1
    cdef bint short_ = v < <uint64_t>1 << 32
    cdef int64_t n = N + 1
    limbs_zero(power, N)
    power[N] = 2 * u if hyperbolic else u
    limbs_divrem_1(power, power, n, v)
    while n:
        limbs_zero(term, N + 1)
        limbs_divrem_1(term, power, n, k)
        if hyperbolic or k & 2 == 0:
            exact_primitives().limbs.add_n(r, r, term, N + 1)
        else:
            exact_primitives().limbs.sub_n(r, r, term, N + 1)
        if short_:
            _times(power, &n, u * u, v * v)
        else:
            _times(power, &n, u, v)
            _times(power, &n, u, v)
        n = limbs_normalize(power, n)
        k += 2


cdef void _make_log(uint64_t* table) noexcept nogil:
    cdef uint64_t[N + 1] value
    cdef uint64_t before, after
    cdef int64_t i
    limbs_zero(value, N + 1)
    before = 1 << 16
    for i in range(256):
        after = log_factor(i)
        _add_arc(value, before - after, before + after, True)
        _store(table, 0, i, value)
        before = after
    limbs_zero(value, N + 1)
    for i in range(256):
        _store(table, 1, i, value)
        _add_arc(value, 1, (1 << 16) + 2 * i + 1, True)
    limbs_zero(value, N + 1)
    for i in range(256):
        _store(table, 2, i, value)
        _add_arc(value, 1, (1 << 23) + 2 * i + 1, True)


cdef void _make_atan(uint64_t* table) noexcept nogil:
    cdef uint64_t[N + 1] value
    cdef uint64_t scale
    cdef int64_t i
    cdef int level
    for level in range(3):
        scale = <uint64_t>1 << (8 * level + 8)
        limbs_zero(value, N + 1)
        for i in range(ENTRIES):
            _store(table, level, i, value)
            _add_arc(value, scale, scale * scale + i * (i + 1), False)


cdef int table(const uint64_t** t, int which) noexcept nogil:
    cdef uint64_t* fresh = cl_table_load(which)
    cdef int status = OK
    if fresh != NULL:
        t[0] = fresh
        return OK
    fresh = <uint64_t*>calloc(4 * ENTRIES * ENTRY, sizeof(uint64_t))
    if fresh == NULL:
        return NO_MEMORY
    if which == EXP_TABLE:
        status = _make_exp(fresh)
    elif which == SINCOS_TABLE:
        status = _make_sincos(fresh)
    elif which == LOG_TABLE:
        _make_log(fresh)
    else:
        _make_atan(fresh)
    if status or not cl_table_publish(which, fresh):  # another thread may have been faster
        free(fresh)
    t[0] = cl_table_load(which)
    return status
