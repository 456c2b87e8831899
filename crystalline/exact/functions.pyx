"""Constants, roots, and elementary functions of BigFixed, at any precision.

Each takes `prec_bits`, the fraction bits of its result; without it the argument's own are used.
Every result is within one unit of 2**-prec_bits of the true value (roots and constants are
correctly rounded, the others within 0.51 units, except where a function says otherwise), and a
value that 2**-prec_bits divides comes out exactly.  Arguments are BigFixed, int, BigInt or float,
each for exactly the number that it is.

The kernels (`_kernels.bigfixed.elementary`) give exp, log, sin, cos and atan with n 64-bit limbs
of fraction and an error below 2**28 units of 2**(-64 n); with 64 n >= prec_bits + 40 that
leaves 0.5 + 2**-12 units after rounding to nearest ("0.51" below).  The other functions
combine these with `wp` bits, more than prec_bits; their docstrings carry the few lines of proof.
"""
from libc.stdint cimport int64_t, uint64_t

from crystalline.exact import _arguments as arguments

from crystalline._kernels.bigfixed.constants cimport constant
from crystalline._kernels.bigfixed.elementary cimport (
    FIXED_ERROR_BITS,
    TOO_LARGE,
    erf_sum,
    fixed_atan,
    fixed_atan_ratio,
    fixed_exp,
    fixed_log,
    fixed_sincos,
    limbs_scaled,
)
from crystalline._kernels.bigfixed.splitting cimport E, LN2, LN10, PI
from crystalline._kernels.bigint.interrupt cimport check
from crystalline._kernels.bigint.roots cimport limbs_root
from crystalline._kernels.headroom cimport check_headroom
from crystalline.exact.fixed cimport (
    FLOOR,
    NEAREST,
    BigFixed,
    Rounding,
    bigfixed_at,
    bigfixed_new,
    exact_bigfixed,
    prec_bits_of,
    round_limbs,
    round_quotient,
    rounding_mode,
)
from crystalline.exact.integer cimport (
    BigInt,
    bigint_from_int64,
    bigint_new,
)

cdef extern from *:
    """
    #define CL_MAX_RESULT_BITS ((int64_t)1 << 36)
    """
    const int64_t MAX_RESULT_BITS "CL_MAX_RESULT_BITS"

cdef enum:
    DECISIVE = 42  # the log2 of a log2 beyond all results, and all precisions
    UNLOCKED_LIMBS = 24  # from here on the GIL is released: it costs less than 1 % of the work

cdef BigInt _ZERO = bigint_from_int64(0)
cdef BigInt _ONE = bigint_from_int64(1)

# Arguments and results


cdef BigFixed _number(object x, str name):
    cdef BigFixed value = exact_bigfixed(x)
    if value is None:
        raise TypeError(f"{name} takes BigFixed, int, BigInt and float, not {type(x).__name__}")
    return value


cdef int64_t _precision(object prec_bits, object x, str name) except -1:
    if prec_bits is not None:
        return prec_bits_of(prec_bits)
    if type(x) is not BigFixed:
        raise TypeError(f"{name} needs prec_bits for an argument of type {type(x).__name__}")
    return (<BigFixed>x).prec_bits


cdef str _shown(BigFixed x):
    """The value for a message, however long it is."""
    if x.prec_bits > 400 or abs(x.mantissa.size) > 8:
        return f"a BigFixed of {x.prec_bits} fraction bits"
    return str(x)


cdef int64_t _limbs(int64_t prec_bits) except -1:
    """Limbs of fraction that leave errors below 2^-12 units of 2^-prec_bits."""
    cdef int64_t n = (prec_bits + FIXED_ERROR_BITS + 12 + 63) // 64
    check_headroom(160 * n)  # twenty numbers of working space
    return n


cdef int64_t _magnitude(BigFixed x) except? -1:
    """The k with 2^(k-1) <= |x| < 2^k; about -2^62 for zero."""
    if x.mantissa.size == 0:
        return -(<int64_t>1 << 62)
    return x.mantissa.bit_length() - x.prec_bits


cdef int _refuse(object name, BigFixed x) except -1:
    raise OverflowError(f"{name} of {_shown(x)} has more than 2**36 bits")


# The kernels, rounded to nearest


cdef BigFixed _exp(BigFixed x, int64_t prec_bits):
    cdef int64_t before = 1  # limbs before the point
    cdef int64_t n = _limbs(prec_bits)
    cdef int64_t whole
    cdef BigInt a = x.mantissa
    cdef int64_t an = abs(a.size)
    cdef BigInt r
    cdef int status
    if a.size > 0:
        whole = _magnitude(x)
        if whole > 36:
            _refuse("exp", x)
        whole = int(x) if whole > 5 else 31  # or less
        if whole > 47000000000:  # 2^36 ln 2
            _refuse("exp", x)
        before = (whole + 1) * 1443 // 64000 + 1  # log2 e = 1.4427
        check_headroom(160 * (n + before))
    r = bigint_new(n + before)
    if n + before < UNLOCKED_LIMBS:
        status = fixed_exp(r.limbs, n + before, n, a.limbs, an, x.prec_bits, a.size < 0)
    else:
        with nogil:
            status = fixed_exp(r.limbs, n + before, n, a.limbs, an, x.prec_bits, a.size < 0)
    if status == TOO_LARGE:
        _refuse("exp", x)
    check(status)
    return bigfixed_new(
        round_limbs(r.limbs, n + before, False, 64 * n - prec_bits, False, NEAREST), prec_bits
    )


cdef BigFixed _log(BigFixed x, int64_t prec_bits):
    cdef int64_t n = _limbs(prec_bits)
    cdef BigInt a = x.mantissa
    cdef BigInt r
    cdef bint minus = False
    cdef int status
    if a.size <= 0:
        raise ValueError(f"the logarithm of {_shown(x)}, which is not positive")
    r = bigint_new(n + 1)
    if n < UNLOCKED_LIMBS:
        status = fixed_log(r.limbs, &minus, n, a.limbs, a.size, x.prec_bits)
    else:
        with nogil:
            status = fixed_log(r.limbs, &minus, n, a.limbs, a.size, x.prec_bits)
    check(status)
    return bigfixed_new(
        round_limbs(r.limbs, n + 1, minus, 64 * n - prec_bits, False, NEAREST), prec_bits
    )


cdef tuple _sin_and_cos(BigFixed x, int64_t prec_bits, bint want_sin, bint want_cos):
    cdef int64_t n = _limbs(prec_bits)
    cdef BigInt a = x.mantissa
    cdef int64_t an = abs(a.size)
    cdef BigInt s = bigint_new(n + 1)
    cdef BigInt c = bigint_new(n + 1)
    cdef uint64_t* s_limbs = s.limbs if want_sin else NULL
    cdef uint64_t* c_limbs = c.limbs if want_cos else NULL
    cdef bint s_minus = False
    cdef bint c_minus = False
    cdef int status
    check_headroom(60 * an)
    if n + an < UNLOCKED_LIMBS:
        status = fixed_sincos(s_limbs, &s_minus, c_limbs, &c_minus, n, a.limbs, an, x.prec_bits,
                              a.size < 0)
    else:
        with nogil:
            status = fixed_sincos(s_limbs, &s_minus, c_limbs, &c_minus, n, a.limbs, an,
                                  x.prec_bits, a.size < 0)
    check(status)
    return (
        bigfixed_new(round_limbs(s_limbs, n + 1, s_minus, 64 * n - prec_bits, False, NEAREST),
                     prec_bits) if want_sin else None,
        bigfixed_new(round_limbs(c_limbs, n + 1, c_minus, 64 * n - prec_bits, False, NEAREST),
                     prec_bits) if want_cos else None,
    )


cdef BigFixed _atan(BigFixed x, int64_t prec_bits):
    cdef int64_t n = _limbs(prec_bits)
    cdef BigInt a = x.mantissa
    cdef int64_t an = abs(a.size)
    cdef BigInt r = bigint_new(n + 1)
    cdef int status
    if n < UNLOCKED_LIMBS:
        status = fixed_atan(r.limbs, n, a.limbs, an, x.prec_bits)
    else:
        with nogil:
            status = fixed_atan(r.limbs, n, a.limbs, an, x.prec_bits)
    check(status)
    return bigfixed_new(
        round_limbs(r.limbs, n + 1, x.mantissa.size < 0, 64 * n - prec_bits, False, NEAREST),
        prec_bits,
    )


cdef BigFixed _atan_ratio(BigFixed y, BigFixed x, int64_t prec_bits):
    """atan(|y / x|) in 0 .. pi/2, not both zero."""
    cdef int64_t n = _limbs(prec_bits)
    cdef BigInt r = bigint_new(n + 1)
    cdef BigInt u = y.mantissa << max(0, x.prec_bits - y.prec_bits)
    cdef BigInt v = x.mantissa << max(0, y.prec_bits - x.prec_bits)
    cdef int64_t un = abs(u.size)
    cdef int64_t vn = abs(v.size)
    cdef int status
    with nogil:
        status = fixed_atan_ratio(r.limbs, n, u.limbs, un, v.limbs, vn)
    check(status)
    return bigfixed_new(
        round_limbs(r.limbs, n + 1, False, 64 * n - prec_bits, False, NEAREST), prec_bits
    )


cdef BigFixed _constant(int which, int64_t prec_bits):
    cdef const uint64_t* limbs = NULL
    cdef int64_t n = _limbs(prec_bits)
    cdef int status
    with nogil:
        status = constant(&limbs, which, n)
    check(status)
    return bigfixed_new(
        round_limbs(limbs, n + 1, False, 64 * n - prec_bits, True, NEAREST), prec_bits
    )


cdef BigFixed _root(BigFixed x, int64_t k, int64_t prec_bits, Rounding rounding):
    """|x|^(1/k) with the sign of x, correctly rounded."""
    # floor of the k-th root of |x| 2^(k (p + 1)), so with one bit more than is wanted
    cdef bint negative = x.mantissa.size < 0
    cdef BigInt a = abs(x.mantissa)
    cdef BigInt r
    cdef bint sticky = False
    cdef bint exact = False
    cdef int64_t rn = 0
    cdef int status
    wanted = k * (prec_bits + 1) - x.prec_bits
    if wanted >= 0:
        a = a << wanted
    else:
        sticky = a & ((_ONE << -wanted) - _ONE) != 0
        a = a >> -wanted
    check_headroom(40 * a.size)
    r = bigint_new(a.size // k + 2)
    with nogil:
        status = limbs_root(r.limbs, &rn, &exact, a.limbs, a.size, k)
    check(status)
    return bigfixed_new(
        round_limbs(r.limbs, rn, negative, 1, sticky or not exact, rounding), prec_bits
    )


# Constants


def pi(prec_bits):
    """Return pi, the multiple of 2**-prec_bits nearest to it.

    The Chudnovskys' series by binary splitting; digits once computed are kept, so that pi of
    the same or a lower precision costs a copy.  The kept digits are cut off at more than 40 bits
    beyond prec_bits, so the rounding is the right one unless 12 further bits were all alike, when
    it is off by at most 2**-12 units.

    >>> print(f"{pi(256):.60f}")
    3.141592653589793238462643383279502884197169399375105820974945
    """
    return _constant(PI, prec_bits_of(prec_bits))


def e(prec_bits):
    """Return e = exp(1), as `pi` is returned; its series is 1/k!.

    >>> e(64)
    BigFixed('2.71828182845904523537', prec_bits=64)
    """
    return _constant(E, prec_bits_of(prec_bits))


def ln2(prec_bits):
    """Return the natural logarithm of 2, as `pi` is returned.

    18 atanh(1/26) - 2 atanh(1/4801) + 8 atanh(1/8749), by binary splitting.

    >>> ln2(64)
    BigFixed('0.69314718055994530943', prec_bits=64)
    """
    return _constant(LN2, prec_bits_of(prec_bits))


def phi(prec_bits):
    """Return the golden ratio (1 + sqrt(5)) / 2, correctly rounded.

    >>> phi(64)
    BigFixed('1.61803398874989484821', prec_bits=64)
    """
    cdef int64_t bits = prec_bits_of(prec_bits)
    # sqrt(5/4) + 1/2; at 0 bits 1/2 is no multiple of 1
    cdef BigFixed root = _root(bigfixed_new(bigint_from_int64(5), 2), 2, bits + 1, FLOOR)
    # irrational: the rounding of a floor needs no more than that it is one
    cdef BigInt floor_ = root.mantissa + (_ONE << bits)
    return bigfixed_new(round_limbs(floor_.limbs, floor_.size, False, 1, True, NEAREST), bits)


# Roots


def sqrt(x, prec_bits=None, rounding="nearest"):
    """Return the square root of x, correctly rounded.

    An integer root of the mantissa with one bit more than the result and the remainder decides.
    Raises ValueError for x < 0.

    >>> from crystalline.exact import BigFixed
    >>> sqrt(2, 64), sqrt(BigFixed(2.25))
    (BigFixed('1.41421356237309504882', prec_bits=64), BigFixed('1.5', prec_bits=2))
    """
    return root(x, 2, prec_bits, rounding)


def cbrt(x, prec_bits=None, rounding="nearest"):
    """Return the real cube root of x, correctly rounded.

    >>> cbrt(-27, 8)
    BigFixed('-3.0', prec_bits=8)
    """
    return root(x, 3, prec_bits, rounding)


def root(x, k, prec_bits=None, rounding="nearest"):
    """Return the real k-th root of x, correctly rounded, for k >= 1.

    An integer root of x 2**(k (prec_bits + 1)): memory for k times the bits of the result is
    needed.  Raises ValueError for k < 1, and for x < 0 when k is even.

    >>> root(2, 12, 64)
    BigFixed('1.05946309435929526458', prec_bits=64)
    """
    cdef BigFixed value = _number(x, "root")
    cdef int64_t bits = _precision(prec_bits, x, "root")
    cdef Rounding mode = rounding_mode(rounding)
    if not hasattr(k, "__index__"):
        raise TypeError(f"roots have integer degrees, not {type(k).__name__}")
    degree = k.__index__()
    if degree < 1:
        raise ValueError(f"the degree of a root is at least 1, got {arguments.short(degree)}")
    if value.mantissa.size < 0 and degree % 2 == 0:
        raise ValueError(f"an even root of {_shown(value)}, which is negative")
    if degree * (bits + 1) + abs(value.mantissa.bit_length()) > MAX_RESULT_BITS:
        raise MemoryError(
            f"a root of degree {arguments.short(degree)} to {bits} bits needs 2**36 bits and more"
        )
    return _root(value, degree, bits, mode)


# Exponentials and logarithms


def exp(x, prec_bits=None):
    """Return e**x within 0.51 units of 2**-prec_bits.

    x = k ln 2 + f with 0 <= f < 1, ln 2 to k bits more than the result; exp(f) to k bits more
    from tables of the leading 16 bits and a Taylor series, beyond 13 limbs by halving f, beyond
    that by binary splitting of its bits; see the module for the errors.  Where e**x is below half a
    unit the result is 0.  Raises OverflowError where it has more than 2**36 bits.

    >>> from crystalline.exact import BigFixed
    >>> exp(1, 64), exp(BigFixed(-1000, 64))
    (BigFixed('2.71828182845904523537', prec_bits=64), BigFixed('0.0', prec_bits=64))
    """
    return _exp(_number(x, "exp"), _precision(prec_bits, x, "exp"))


def expm1(x, prec_bits=None):
    """Return e**x - 1 within 0.51 units of 2**-prec_bits: exp(x), from which 1 is taken exactly.

    >>> from crystalline.exact import BigFixed
    >>> expm1(BigFixed(2.0**-40, 64))
    BigFixed('0.0000000000009094947', prec_bits=64)
    """
    return exp(x, prec_bits) - 1


def log(x, prec_bits=None):
    """Return the natural logarithm of x within 0.51 units of 2**-prec_bits.

    x = 2**k (1 + m), 0 <= m < 1; log(1 + m) from tables of 22 leading bits and a series, beyond 13
    limbs by a third-order Newton step on exp; k ln 2 is added with a limb more.  Raises ValueError
    for x <= 0.

    >>> log(10, 64), log(1, 64)
    (BigFixed('2.30258509299404568404', prec_bits=64), BigFixed('0.0', prec_bits=64))
    """
    return _log(_number(x, "log"), _precision(prec_bits, x, "log"))


def log1p(x, prec_bits=None):
    """Return log(1 + x) within 0.51 units of 2**-prec_bits; 1 + x is exact.

    >>> from crystalline.exact import BigFixed
    >>> log1p(BigFixed(2.0**-40, 64))
    BigFixed('0.0000000000009094947', prec_bits=64)
    """
    cdef int64_t bits = _precision(prec_bits, x, "log1p")
    return _log(_number(x, "log1p") + 1, bits)


cdef BigFixed _log_to_base(BigFixed x, int which, int64_t prec_bits):
    # With L = log x and B = log of the base, both within 0.51 u at wp bits, u = 2^-wp, the quotient
    # is within (0.51 + 0.51 |L / B|) u / B + 0.5 u < (2 + |L / B|) u; |L / B| < 2^size.
    cdef object size = abs(_magnitude(x)) + 1
    cdef int64_t wp = prec_bits + 10 + (size.bit_length() if x.mantissa.size else 0)
    cdef BigInt numerator = _log(x, wp).mantissa
    return bigfixed_at(
        bigfixed_new(round_quotient(numerator << wp, _constant(which, wp).mantissa, NEAREST), wp),
        prec_bits, NEAREST,
    )


def log2(x, prec_bits=None):
    """Return the logarithm of x to base 2 within 0.51 units of 2**-prec_bits.

    Exact for powers of 2.  log(x) / ln 2 with the bits of |log2 x| and ten more; see `log` for the
    errors of both.  Raises ValueError for x <= 0.

    >>> from crystalline.exact import BigFixed
    >>> log2(BigFixed(1024, 64)), log2(3, 64)
    (BigFixed('10.0', prec_bits=64), BigFixed('1.58496250072115618147', prec_bits=64))
    """
    return _log_to_base(_number(x, "log2"), LN2, _precision(prec_bits, x, "log2"))


def log10(x, prec_bits=None):
    """Return the logarithm of x to base 10 within 0.51 units of 2**-prec_bits.

    Exact for powers of 10.  As `log2`, with ln 10.  Raises ValueError for x <= 0.

    >>> log10(1000, 64), log10(2, 64)
    (BigFixed('3.0', prec_bits=64), BigFixed('0.3010299956639811952', prec_bits=64))
    """
    return _log_to_base(_number(x, "log10"), LN10, _precision(prec_bits, x, "log10"))


def power(x, y, prec_bits=None):
    """Return x**y within 0.52 units of 2**-prec_bits (default: the larger precision of x and y).

    An integer y whose exact power has at most 4,096 bits more than four times the result's: the
    exact power, or its reciprocal, correctly rounded.  Otherwise exp(y log|x|) with wp = prec_bits
    + k + 8 bits, where 2**k bounds the result, and log|x| with as many more as y has before its
    point: the exponent is within 2**-(wp - 2), so the result within 2**(k + 2 - wp) < 2**-6 units
    and one rounding.  0**0 is 1, and exponents may be of any size where the result is not.  Raises
    ZeroDivisionError for 0**negative, ValueError for negative**fraction, OverflowError where the
    result has more than 2**36 bits.

    >>> from crystalline.exact import BigFixed
    >>> power(2, 0.5, 64), BigFixed(1.5, 8) ** -2
    (BigFixed('1.41421356237309504882', prec_bits=64), BigFixed('0.4453125', prec_bits=8))
    """
    cdef BigFixed base = _number(x, "power")
    cdef BigFixed exponent
    cdef int64_t bits, wp, k, before, nearness
    cdef bint whole
    cdef BigFixed size, result
    if prec_bits is not None:
        bits = prec_bits_of(prec_bits)
    elif type(x) is BigFixed or type(y) is BigFixed:
        bits = max((<BigFixed>x).prec_bits if type(x) is BigFixed else 0,
                   (<BigFixed>y).prec_bits if type(y) is BigFixed else 0)
    else:
        raise TypeError("power needs prec_bits when neither argument is a BigFixed")
    exponent = _number(y, "power")
    whole = exponent.is_integer()
    if exponent.mantissa.size == 0:
        return bigfixed_new(_ONE << bits, bits)
    if base.mantissa.size == 0:
        if exponent.mantissa.size < 0:
            raise ZeroDivisionError(f"0 to the power {_shown(exponent)}")
        return bigfixed_new(_ZERO, bits)
    if base.mantissa.size < 0 and not whole:
        raise ValueError(f"{_shown(base)} to the power {_shown(exponent)} is not real")
    if abs(base) == 1:
        minus = base.mantissa.size < 0 and int(exponent) & 1
        return bigfixed_new((-_ONE if minus else _ONE) << bits, bits)
    # |log2 |x|| is at least 2^nearness, |y| at least 2^(before - 1): enough where they are decisive
    before = _magnitude(exponent)
    nearness = min(<int64_t>0, _magnitude(abs(base) - 1) - 1)
    if nearness + before - 1 > DECISIVE:
        if (abs(base) > 1) == (exponent.mantissa.size > 0):
            _refuse(f"power {_shown(exponent)}", base)
        return bigfixed_new(_ZERO, bits)
    # k: log2 of the result, rounded up with a unit to spare
    wp = 8 + max(<int64_t>0, before)
    size = _log_to_base(abs(base), LN2, wp)
    estimate = (size.mantissa * exponent.mantissa >> (wp + exponent.prec_bits)) + 2
    if estimate > MAX_RESULT_BITS:
        _refuse(f"power {_shown(exponent)}", base)
    if estimate < -bits - 2:
        return bigfixed_new(_ZERO, bits)
    k = max(0, int(estimate))
    if whole:
        count = abs(int(exponent))
        exact_bits = base.mantissa.bit_length() * count
        if exact_bits <= 4096 + 4 * (bits + k):
            return _whole_power(base, count, exponent.mantissa.size < 0, bits)
    wp = bits + k + 8
    before = max(<int64_t>0, before)
    result = _exp(
        bigfixed_at(_exact_product(exponent, _log(abs(base), wp + before + 2)), wp + 2, NEAREST),
        bits,
    )
    if base.mantissa.size < 0 and int(exponent) % 2:
        return -result
    return result


cdef BigFixed _exact_product(BigFixed x, BigFixed y):
    return bigfixed_new(x.mantissa * y.mantissa, x.prec_bits + y.prec_bits)


cdef BigFixed _whole_power(BigFixed x, object count, bint reciprocal, int64_t prec_bits):
    """x**count or its reciprocal, count > 0, correctly rounded from the exact power."""
    cdef BigInt mantissa = x.mantissa ** count
    cdef int64_t bits = x.prec_bits * count
    if reciprocal:
        mantissa = round_quotient(_ONE << (bits + prec_bits), mantissa, NEAREST)
        return bigfixed_new(mantissa, prec_bits)
    return bigfixed_at(bigfixed_new(mantissa, bits), prec_bits, NEAREST)


# Trigonometric functions


def sin(x, prec_bits=None):
    """Return sin(x) within 0.51 units of 2**-prec_bits, x in radians and of any size.

    x is reduced modulo pi/2 with as many more bits of pi as x has before its point, then by tables
    of 16 leading bits, beyond 13 limbs by halving, beyond that by binary splitting of its bits.

    >>> print(sin(1, 64), sin(10**100, 64))
    0.84147098480789650666 -0.37237612366127668826
    """
    return _sin_and_cos(_number(x, "sin"), _precision(prec_bits, x, "sin"), True, False)[0]


def cos(x, prec_bits=None):
    """Return cos(x) within 0.51 units of 2**-prec_bits, x in radians; see `sin`.

    >>> cos(1, 64)
    BigFixed('0.54030230586813971741', prec_bits=64)
    """
    return _sin_and_cos(_number(x, "cos"), _precision(prec_bits, x, "cos"), False, True)[1]


def sincos(x, prec_bits=None):
    """Return (sin(x), cos(x)), for little more than the price of one; see `sin`.

    >>> sincos(0, 8)
    (BigFixed('0.0', prec_bits=8), BigFixed('1.0', prec_bits=8))
    """
    return _sin_and_cos(_number(x, "sincos"), _precision(prec_bits, x, "sincos"), True, True)


def tan(x, prec_bits=None):
    """Return tan(x) within 0.51 units of 2**-prec_bits, x in radians.

    sin / cos at wp bits: both within 0.51 u, u = 2**-wp, and |cos| >= 2**-z, so that the quotient
    is within 2 u 2**(2 z) + u/2; wp = prec_bits + 2 z + 12, found by a second evaluation where x is
    near a pole.  x, a multiple of a power of two, is never on one.

    >>> from crystalline.exact import BigFixed
    >>> print(tan(1, 64), tan(BigFixed("1.5707963267948966", 64)))
    1.55740772465490223052 52030474237062801.29105135080219704709
    """
    cdef BigFixed value = _number(x, "tan")
    cdef int64_t bits = _precision(prec_bits, x, "tan")
    cdef int64_t wp = bits + 32
    cdef int64_t needed
    cdef BigFixed s, c
    cdef BigInt ratio
    while True:
        s, c = _sin_and_cos(value, wp, True, True)
        # 2^-z <= |c|; one more bit, since c is rounded
        needed = 2 * wp if c.mantissa.size == 0 else bits + 12 + 2 * max(0, 2 - _magnitude(c))
        if needed <= wp:
            ratio = round_quotient(s.mantissa << wp, c.mantissa, NEAREST)
            return bigfixed_at(bigfixed_new(ratio, wp), bits, NEAREST)
        wp = needed


def asin(x, prec_bits=None):
    """Return the angle in -pi/2 .. pi/2 whose sine is x, within 0.52 units of 2**-prec_bits.

    atan2(x, sqrt(1 - x**2)), where 1 - x**2 is exact and the root within 2**-7 units: the angle
    changes by no more than that.  Raises ValueError for |x| > 1.

    >>> asin(0.5, 64)
    BigFixed('0.52359877559829887307', prec_bits=64)
    """
    cdef BigFixed value = _number(x, "asin")
    cdef int64_t bits = _precision(prec_bits, x, "asin")
    return _atan2(value, _other_leg(value, bits + 6, "asin"), bits)


def acos(x, prec_bits=None):
    """Return the angle in 0 .. pi whose cosine is x, within 0.52 units of 2**-prec_bits.

    atan2(sqrt(1 - x**2), x); see `asin`.  Raises ValueError for |x| > 1.

    >>> acos(-1, 64)
    BigFixed('3.14159265358979323846', prec_bits=64)
    """
    cdef BigFixed value = _number(x, "acos")
    cdef int64_t bits = _precision(prec_bits, x, "acos")
    return _atan2(_other_leg(value, bits + 6, "acos"), value, bits)


cdef BigFixed _other_leg(BigFixed x, int64_t prec_bits, str name):
    """sqrt(1 - x^2), correctly rounded."""
    cdef BigFixed square = _exact_product(x, x)
    cdef BigInt rest = (_ONE << square.prec_bits) - square.mantissa
    if rest.size < 0:
        raise ValueError(f"{name} of {_shown(x)}, which is not in -1 .. 1")
    return _root(bigfixed_new(rest, square.prec_bits), 2, prec_bits, NEAREST)


def atan(x, prec_bits=None):
    """Return the angle in -pi/2 .. pi/2 whose tangent is x, within 0.51 units of 2**-prec_bits.

    pi/2 - atan(1/x) for |x| > 1; then tables of 24 leading bits and one division, beyond 13 limbs a
    third-order Newton step on sin and cos.

    >>> atan(1, 64)
    BigFixed('0.78539816339744830963', prec_bits=64)
    """
    return _atan(_number(x, "atan"), _precision(prec_bits, x, "atan"))


cdef BigFixed _atan2(BigFixed y, BigFixed x, int64_t prec_bits):
    cdef BigFixed angle
    cdef int64_t wp = prec_bits + 12
    if y.mantissa.size == 0 and x.mantissa.size == 0:
        return bigfixed_new(_ZERO, prec_bits)
    # one rounding at the end: pi and the angle with 12 bits more are 2^-11 units off
    angle = _atan_ratio(y, x, wp)
    if x.mantissa.size < 0:
        angle = bigfixed_new(_constant(PI, wp).mantissa - angle.mantissa, wp)
    if y.mantissa.size < 0:
        angle = -angle
    return bigfixed_at(angle, prec_bits, NEAREST)


def atan2(y, x, prec_bits=None):
    """Return the angle in -pi .. pi of the point (x, y), within 0.51 units of 2**-prec_bits.

    As `atan` of the ratio, which is never formed, and pi less that for x < 0; 0 at the origin.
    prec_bits defaults to the larger precision of the two.

    >>> atan2(1, -1, 64)
    BigFixed('2.35619449019234492883', prec_bits=64)
    """
    cdef int64_t bits
    if prec_bits is not None:
        bits = prec_bits_of(prec_bits)
    elif type(x) is BigFixed or type(y) is BigFixed:
        bits = max((<BigFixed>x).prec_bits if type(x) is BigFixed else 0,
                   (<BigFixed>y).prec_bits if type(y) is BigFixed else 0)
    else:
        raise TypeError("atan2 needs prec_bits when neither argument is a BigFixed")
    return _atan2(_number(y, "atan2"), _number(x, "atan2"), bits)


# Hyperbolic functions and erf


cdef BigFixed _hyperbolic(BigFixed x, int64_t prec_bits, bint plus):
    """(e^|x| + e^-|x|) / 2 or (e^|x| - e^-|x|) / 2."""
    # E = e^|x| >= 1 is within 0.51 u at wp = prec_bits + 8 bits, 1 / E within 1.01 u, half their
    # sum within u: 2^-8 units, then one rounding.
    cdef int64_t wp = prec_bits + 8
    cdef BigInt large = _exp(abs(x), wp).mantissa
    cdef BigInt small = round_quotient(_ONE << (2 * wp), large, NEAREST)
    return bigfixed_at(
        bigfixed_new(large + small if plus else large - small, wp + 1), prec_bits, NEAREST
    )


def sinh(x, prec_bits=None):
    """Return the hyperbolic sine of x within 0.51 units of 2**-prec_bits.

    (E - 1/E) / 2 with E = exp|x| to 8 bits more: off by 2**-8 units before the rounding.  Raises
    OverflowError as `exp` does.

    >>> sinh(1, 64)
    BigFixed('1.17520119364380145688', prec_bits=64)
    """
    cdef BigFixed value = _number(x, "sinh")
    cdef BigFixed result = _hyperbolic(value, _precision(prec_bits, x, "sinh"), False)
    return -result if value.mantissa.size < 0 else result


def cosh(x, prec_bits=None):
    """Return the hyperbolic cosine of x within 0.51 units of 2**-prec_bits; see `sinh`.

    >>> cosh(1, 64)
    BigFixed('1.54308063481524377849', prec_bits=64)
    """
    return _hyperbolic(_number(x, "cosh"), _precision(prec_bits, x, "cosh"), True)


def tanh(x, prec_bits=None):
    """Return the hyperbolic tangent of x within 0.51 units of 2**-prec_bits.

    (1 - t) / (1 + t) with t = exp(-2|x|) <= 1 to 8 bits more: t is within 0.51 u, u = 2**-8 units,
    the quotient within 1.6 u.

    >>> tanh(1, 64), tanh(-10**9, 64)
    (BigFixed('0.76159415595576488811', prec_bits=64), BigFixed('-1.0', prec_bits=64))
    """
    cdef BigFixed value = _number(x, "tanh")
    cdef int64_t bits = _precision(prec_bits, x, "tanh")
    cdef int64_t wp = bits + 8
    cdef BigInt t = _exp(abs(value) * -2, wp).mantissa
    cdef BigInt one = _ONE << wp
    cdef BigFixed result = bigfixed_at(
        bigfixed_new(round_quotient((one - t) << wp, one + t, NEAREST), wp), bits, NEAREST
    )
    return -result if value.mantissa.size < 0 else result


def erf(x, prec_bits=None):
    """Return the error function of x within 0.51 units of 2**-prec_bits.

    2/sqrt(pi) exp(-x**2) times the sum over k of 2**k x**(2k+1) / (1 3 5 ... (2k+1)), whose terms
    are positive (Abramowitz and Stegun 7.1.6).  The first term, known to u = 2**-wp, and the 2 u
    lost with each later one grow by less than exp(x**2); wp = prec_bits + 1.45 x**2 + 64 covers
    that and 2**30 terms.  Where x**2 > (prec_bits + 3) ln 2, 1 - |erf| is below
    2**-(prec_bits + 3), and the result is 1 or -1.

    >>> erf(0.5, 64), erf(-100, 64)
    (BigFixed('0.52049987781304653771', prec_bits=64), BigFixed('-1.0', prec_bits=64))
    """
    cdef BigFixed value = _number(x, "erf")
    cdef int64_t bits = _precision(prec_bits, x, "erf")
    cdef BigFixed square, first
    cdef BigInt y, t, r
    cdef int64_t n, wp
    cdef int status
    if value.mantissa.size == 0:
        return bigfixed_new(_ZERO, bits)
    # x^2 log2 e > prec_bits + 3
    square = _exact_product(value, value)
    if _magnitude(value) > 24 or square > (bits + 3) * 0.694:
        result = bigfixed_new(_ONE << bits, bits)
        return -result if value.mantissa.size < 0 else result
    n = (bits + int(square) * 145 // 100 + 66 + 63) // 64
    check_headroom(160 * n)
    wp = 64 * n
    # 2 / sqrt(pi) exp(-x^2) x
    first = _exact_product(_exp(-square, wp + 8), abs(value))
    y = _root(_constant(PI, wp + 8), 2, wp + 8, NEAREST).mantissa
    t = _padded(
        round_quotient(first.mantissa << (wp + 1), y << value.prec_bits, NEAREST), n
    )
    y = _padded(bigfixed_at(square << 1, wp, FLOOR).mantissa, n + 1)
    r = bigint_new(n + 1)
    with nogil:
        status = erf_sum(r.limbs, n, t.limbs, y.limbs)
    check(status)
    return bigfixed_new(
        round_limbs(r.limbs, n + 1, value.mantissa.size < 0, wp - bits, False, NEAREST), bits
    )


cdef BigInt _padded(BigInt x, int64_t n):
    """A copy of x >= 0 as n limbs, not normalized."""
    cdef BigInt r = bigint_new(n)
    limbs_scaled(r.limbs, n, x.limbs, x.size, 0)
    return r
