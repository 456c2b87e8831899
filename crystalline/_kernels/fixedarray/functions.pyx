"""exp, log, sin, cos and atan of arrays of fixed-width fixed-point numbers, rounded correctly.

Elements and what is returned are as in `arithmetic`.  Where the CPU has 52-bit multiply-adds and
elements have 2 to 8 limbs, eight are computed at a time with bits to spare
(primitives/fixedarray_functions.h); all others, and those whose rounding these bits leave
undecided, are computed one by one, with twice as many bits until the rounding is decided (Ziv).
That ends: but for exp 0, log 1, sin 0, cos 0 and atan 0, which come out exact, the value at a
rational argument is transcendental (Lindemann), and so never a tie.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigfixed.constants cimport LN2, PI, constant
from crystalline._kernels.bigfixed.elementary cimport (
    FIXED_ERROR_BITS,
    TOO_LARGE,
    fixed_atan,
    fixed_exp,
    fixed_log,
    fixed_sincos,
)
from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (
    NO_MEMORY,
    OK,
    limbs_add_1,
    limbs_normalize,
    limbs_zero,
)
from crystalline._kernels.exact_isa cimport CL_FA_DIGITS, FixedArrayConstants, exact_primitives
from crystalline._kernels.fixedarray.elements cimport (
    CL_FA_LIMBS,
    expect_elements,
    magnitude_of,
    negate_if,
)

cdef extern from "fixedarray_table.h":
    enum:
        CL_FA_EXP
        CL_FA_LOG
        CL_FA_SIN
        CL_FA_COS
        CL_FA_ATAN

cdef enum:
    BLOCK = 1024  # elements between looks at signals
    DOES_NOT_FIT = 1
    TABLE_LIMBS = 12  # 768 bits: the digits' 676, and FIXED_ERROR_BITS

cdef FixedArrayConstants _constants
cdef bint _prepared = False


cdef void _cut(uint64_t* digits, const uint64_t* r, int64_t up) noexcept nogil:
    """digits = r[TABLE_LIMBS + 1] 2^-up, cut off."""
    cdef int64_t j, at, w
    cdef int o
    for j in range(CL_FA_DIGITS):
        at = 64 * TABLE_LIMBS + up - 52 * (CL_FA_DIGITS - j)
        w, o = at // 64, <int>(at % 64)
        digits[j] = r[w] >> o
        if o and w < TABLE_LIMBS:
            digits[j] |= r[w + 1] << (64 - o)
        digits[j] &= (<uint64_t>1 << 52) - 1


cdef void _divide(uint64_t* r, uint64_t whole, const uint64_t* a, uint64_t d) noexcept nogil:
    """r = (whole + a) / d for digits a, cut off; whole < d < 2^11."""
    cdef uint64_t rest = whole
    cdef int64_t j = CL_FA_DIGITS - 1
    while j >= 0:
        rest = rest << 52 | a[j]
        r[j] = rest // d
        rest = rest % d
        j -= 1


cdef int _prepare() noexcept nogil:
    """Fill the tables, once.  Each word is written in one go, so whoever does it again, by a
    signal's handler in the middle, writes the same."""
    global _prepared
    cdef uint64_t r[TABLE_LIMBS + 1]
    cdef uint64_t s[TABLE_LIMBS + 1]
    cdef uint64_t zero[CL_FA_DIGITS]
    cdef uint64_t quotient[CL_FA_DIGITS]
    cdef const uint64_t* value
    cdef bint minus, other
    cdef uint64_t a
    cdef int64_t i, k
    cdef int status = constant(&value, LN2, TABLE_LIMBS)
    if status != OK:
        return status
    _cut(_constants.ln2, value, 0)
    status = constant(&value, PI, TABLE_LIMBS)
    if status != OK:
        return status
    _cut(_constants.quarter_pi, value, 2)
    limbs_zero(zero, CL_FA_DIGITS)
    for i in range(48):
        _divide(_constants.inverses[i], 1, zero, i + 2)
        _divide(_constants.inverse_odds[i], 1, zero, 2 * i + 3)
    _divide(quotient, 1, zero, 2)
    for i in range(96):  # quotient = 1 / (i + 2)!
        for k in range(CL_FA_DIGITS):
            if i < 48:
                _constants.inverse_factorials[i][k] = quotient[k]
            if i % 2:
                _constants.inverse_odd_factorials[i // 2][k] = quotient[k]
            else:
                _constants.inverse_even_factorials[i // 2][k] = quotient[k]
        _divide(quotient, 0, quotient, i + 3)
    for i in range(260):
        a = i
        if i < 256:
            status = fixed_exp(r, TABLE_LIMBS + 1, TABLE_LIMBS, &a, i != 0, 8, False)
            if status != OK:
                return status
            _cut(_constants.exp_high[i], r, 2)
            status = fixed_exp(r, TABLE_LIMBS + 1, TABLE_LIMBS, &a, i != 0, 16, False)
            if status != OK:
                return status
            r[TABLE_LIMBS] = 0  # less 1
            _cut(_constants.exp_low[i], r, 0)
            status = fixed_sincos(r, &minus, s, &other, TABLE_LIMBS, &a, i != 0, 8, False)
            if status != OK:
                return status
            _cut(_constants.sincos[2 * i], r, 1)
            _cut(_constants.sincos[2 * i + 1], s, 1)
        status = fixed_atan(r, TABLE_LIMBS, &a, i != 0, 8)
        if status != OK:
            return status
        _cut(_constants.atan[i], r, 0)
        a = (1 << 16) + i
        status = fixed_log(r, &minus, TABLE_LIMBS, &a, 1, 16)
        if status != OK:
            return status
        _cut(_constants.log_low[i], r, 0)
        if i < 256:
            a = (1 << 24) // (257 + i)
            status = fixed_log(r, &minus, TABLE_LIMBS, &a, 1, 15)
            if status != OK:
                return status
            _cut(_constants.log_high[i], r, 0)
    _prepared = True
    return OK


cdef int _one(int which, uint64_t* r, const uint64_t* a, int64_t L, int64_t F) noexcept nogil:
    """r[L] = the function of a[L]; OK, DOES_NOT_FIT, NO_MEMORY or INTERRUPTED."""
    cdef uint64_t x[CL_FA_LIMBS]
    cdef bint negative = a[L - 1] >> 63, decided = False
    cdef int64_t an, n = F // 64 + 2
    cdef int status
    magnitude_of(x, a, L)
    an = limbs_normalize(x, L)
    while True:
        status = _attempt(which, r, x, an, negative, L, F, n, &decided)
        if status != OK or decided:
            return status
        n *= 2


cdef int _attempt(int which, uint64_t* r, const uint64_t* x, int64_t an, bint negative, int64_t L,
                  int64_t F, int64_t n, bint* decided) noexcept nogil:
    """The same with n limbs of fraction, which may leave the rounding undecided."""
    cdef int64_t size = n + 1, extra = 64 * n - F, w, i, top
    cdef int status, o
    cdef bint minus = False, other
    cdef uint64_t rest
    decided[0] = True
    if which == CL_FA_EXP:
        size = n + (64 * L - F) // 64 + 2
    cdef uint64_t* y = <uint64_t*>malloc((size + 1) * sizeof(uint64_t))
    if y == NULL:
        return NO_MEMORY
    if which == CL_FA_EXP:
        status = fixed_exp(y, size, n, x, an, F, negative)
    elif which == CL_FA_LOG:
        status = fixed_log(y, &minus, n, x, an, F)
    elif which == CL_FA_SIN:
        status = fixed_sincos(y, &minus, NULL, &other, n, x, an, F, negative)
    elif which == CL_FA_COS:
        status = fixed_sincos(NULL, &other, y, &minus, n, x, an, F, negative)
    else:
        status = fixed_atan(y, n, x, an, F)
        minus = negative
    if status != OK:
        free(y)
        return DOES_NOT_FIT if status == TOO_LARGE else status
    # With half a unit and the error bound added, the bits below the unit stay below twice the
    # bound if and only if some number within the bound is rounded otherwise.
    y[size] = limbs_add_1(y, y, size, <uint64_t>1 << FIXED_ERROR_BITS)
    w = (extra - 1) // 64
    y[size] += limbs_add_1(y + w, y + w, size - w, <uint64_t>1 << ((extra - 1) % 64))
    w, o = extra // 64, <int>(extra % 64)
    rest = y[0] >> (FIXED_ERROR_BITS + 1)  # extra > 64
    for i in range(1, w):
        rest |= y[i]
    if o:
        rest |= y[w] << (64 - o)
    if rest == 0:
        decided[0] = False
        free(y)
        return OK
    top = size + 1 - w  # limbs of the result
    for i in range(L):
        r[i] = 0
    for i in range(top):
        rest = y[w + i] >> o
        if o and w + i < size:
            rest |= y[w + i + 1] << (64 - o)
        if i < L:
            r[i] = rest
        elif rest:
            status = DOES_NOT_FIT
    free(y)
    if status == OK and not negate_if(r, L, minus):
        status = DOES_NOT_FIT
    return status


cdef int64_t _evaluate(int which, uint64_t[:, ::1] out, const uint64_t[:, ::1] a,
                       int frac_bits) except -1:
    cdef int64_t n = out.shape[0], L = out.shape[1], start = 0, count, done, i = 0
    cdef uint8_t undecided[BLOCK]
    cdef int status = OK
    expect_elements(L, frac_bits)
    if a.shape[0] != n or a.shape[1] != L:
        raise ValueError(f"a is [{a.shape[0]}, {a.shape[1]}], expected [{n}, {L}]")
    if not _prepared:
        check(_prepare())
    with nogil:
        while start < n and status == OK:
            count = min(BLOCK, n - start)
            done = exact_primitives().fixedarray.function(
                which, &out[start, 0], &a[start, 0], count, <int>L, frac_bits, &_constants,
                undecided)
            for i in range(start, start + count):
                if i - start >= done or undecided[i - start]:
                    status = _one(which, &out[i, 0], &a[i, 0], L, frac_bits)
                    if status == OK:
                        status = poll()
                    if status != OK:
                        break
            else:
                status = poll()
                start += count
    if status == DOES_NOT_FIT:
        return i
    check(status)
    return n


def exp(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None, int frac_bits) -> int:
    """out = exp(a).

    a [n, L]: IN; out [n, L]: OUT, may be a; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a = np.array([[0, 1]], "u8")
    >>> exp(a, a, 64), (a[0, 1] + a[0, 0] / 2.0**64).round(12)
    (1, np.float64(2.718281828459))
    """
    return _evaluate(CL_FA_EXP, out, a, frac_bits)


def log(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None, int frac_bits) -> int:
    """out = log(a), the natural logarithm; a > 0, which is left to the caller.

    a [n, L]: IN; out [n, L]: OUT, may be a; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a = np.array([[0, 2]], "u8")
    >>> log(a, a, 64), (a[0, 0] / 2.0**64).round(12)
    (1, np.float64(0.69314718056))
    """
    return _evaluate(CL_FA_LOG, out, a, frac_bits)


def sin(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None, int frac_bits) -> int:
    """out = sin(a), a in radians of any size.

    a [n, L]: IN; out [n, L]: OUT, may be a; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a = np.array([[0, 1]], "u8")
    >>> sin(a, a, 64), (a[0, 0] / 2.0**64).round(12)
    (1, np.float64(0.841470984808))
    """
    return _evaluate(CL_FA_SIN, out, a, frac_bits)


def cos(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None, int frac_bits) -> int:
    """out = cos(a), a in radians of any size.

    a [n, L]: IN; out [n, L]: OUT, may be a; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a = np.array([[0, 1]], "u8")
    >>> cos(a, a, 64), (a[0, 0] / 2.0**64).round(12)
    (1, np.float64(0.540302305868))
    """
    return _evaluate(CL_FA_COS, out, a, frac_bits)


def atan(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None, int frac_bits) -> int:
    """out = atan(a), in radians.

    a [n, L]: IN; out [n, L]: OUT, may be a; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a = np.array([[0, 1]], "u8")
    >>> atan(a, a, 64), (a[0, 0] / 2.0**64).round(12)
    (1, np.float64(0.785398163397))
    """
    return _evaluate(CL_FA_ATAN, out, a, frac_bits)
