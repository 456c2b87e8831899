"""BigFixed: fixed-point numbers of any precision as immutable values.

A value is an integer mantissa times 2^-prec_bits; the precision is carried by the value, and there
is no precision anywhere else.  Sums, differences, remainders and comparisons are exact; products,
quotients and conversions are rounded to the nearest multiple of 2^-prec_bits, ties to even, unless
another rounding is asked for.  The integers underneath are `exact.integer`; roots, exponentials,
logarithms and the trigonometric functions are in `exact.functions`.
"""
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_Check
from cpython.long cimport PyLong_Check
from cpython.object cimport Py_EQ, Py_GT, Py_LE, Py_LT, Py_NE
from libc.stdint cimport int64_t, uint64_t

import decimal
import math
import numbers
import re
from fractions import Fraction

from crystalline.exact import _arguments as arguments

from crystalline._kernels.bigfixed.elementary cimport limbs_scaled
from crystalline._kernels.bigint.limbs cimport limbs_add_1, limbs_normalize
from crystalline._kernels.bigint.signed cimport limbs_trailing_zeros
from crystalline.exact.integer cimport (
    BigInt,
    as_bigint,
    bigint_finish,
    bigint_new,
    bigint_to_int,
)

cdef extern from *:
    """
    /* hash(m 2^-p) from hash(m): multiplication by 2^(-p) modulo 2^61 - 1 turns 61 bits. */
    static inline uint64_t cl_turned(uint64_t h, int64_t p) {
      int turn = (int)((61 - p % 61) % 61);
      const uint64_t modulus = ((uint64_t)1 << 61) - 1;
      if (!turn) return h;
      return (h << turn & modulus) | h >> (61 - turn);
    }
    """
    uint64_t cl_turned(uint64_t h, int64_t p)

cdef BigInt _TEN = as_bigint(10)
cdef BigInt _ONE = as_bigint(1)

_ROUNDINGS = {
    "nearest": NEAREST,
    "down": DOWN,
    "up": UP,
    "floor": FLOOR,
    "ceiling": CEILING,
}
_DIGITS = re.compile(r"[0-9_]*")
_EXPONENT = re.compile(r"(?:[eE]([+-]?[0-9]+))?")


cdef Rounding rounding_mode(object name) except *:
    found = _ROUNDINGS.get(name)
    if found is None:
        raise ValueError(
            f"rounding is one of nearest, down, up, floor and ceiling, not {name!r}"
        )
    return <Rounding><int>found


cdef int64_t prec_bits_of(object prec_bits) except -1:
    if not hasattr(prec_bits, "__index__"):
        raise TypeError(f"prec_bits is an integer, not {type(prec_bits).__name__}")
    value = int(prec_bits.__index__())
    if value < 0:
        raise ValueError(f"prec_bits is not negative, got {arguments.short(value)}")
    if value > MAX_PREC_BITS:
        raise OverflowError(f"prec_bits is at most 2**40, got {arguments.short(value)}")
    return value


# Making and rounding


cdef BigFixed bigfixed_new(BigInt mantissa, int64_t prec_bits):
    cdef BigFixed x = BigFixed.__new__(BigFixed)
    x.mantissa = mantissa
    x.prec_bits = prec_bits
    return x


cdef BigInt round_limbs(const uint64_t* a, int64_t n, bint negative, int64_t count, bint sticky,
                        Rounding rounding):
    cdef BigInt x
    cdef int64_t limbs, size, i
    cdef bint half = False
    cdef bint rest = sticky
    cdef bint carry
    n = limbs_normalize(a, n)
    if count <= 0:
        size = n + (-count) // 64 + 1 if n else 0
    else:
        limbs = (count - 1) >> 6  # where the half bit is
        i = 0
        while i < limbs and i < n and not rest:
            rest = a[i] != 0
            i += 1
        if limbs < n:
            half = a[limbs] >> ((count - 1) & 63) & 1
            if a[limbs] & ((<uint64_t>1 << ((count - 1) & 63)) - 1):
                rest = True
        size = max(0, n - (count >> 6))
    x = bigint_new(size + 1)
    x.limbs[size] = 0
    limbs_scaled(x.limbs, size, a, n, -count)
    if rounding == NEAREST:
        carry = half and (rest or (size > 0 and x.limbs[0] & 1))
    elif rounding == DOWN:
        carry = False
    elif rounding == UP:
        carry = half or rest
    elif rounding == FLOOR:
        carry = negative and (half or rest)
    else:
        carry = not negative and (half or rest)
    if carry:
        limbs_add_1(x.limbs, x.limbs, size + 1, 1)
    return bigint_finish(x, size + 1, negative)


cdef BigInt round_shift(BigInt x, int64_t count, Rounding rounding):
    if count == 0:
        return x
    return round_limbs(x.limbs, abs(x.size), x.size < 0, count, False, rounding)


cdef BigInt round_quotient(BigInt a, BigInt b, Rounding rounding):
    cdef bint negative = (a.size < 0) != (b.size < 0)
    cdef bint up
    cdef BigInt q, r, size
    size = abs(b)
    q, r = divmod(abs(a), size)
    if r.size == 0 or rounding == DOWN:
        up = False
    elif rounding == NEAREST:
        doubled = r + r
        up = doubled > size or (doubled == size and q.size and q.limbs[0] & 1)
    elif rounding == UP:
        up = True
    else:
        up = negative == (rounding == FLOOR)
    if up:
        q = q + _ONE
    return -q if negative else q


cdef BigFixed bigfixed_at(BigFixed x, int64_t prec_bits, Rounding rounding):
    if prec_bits == x.prec_bits:
        return x
    return bigfixed_new(round_shift(x.mantissa, x.prec_bits - prec_bits, rounding), prec_bits)


cdef BigFixed _of_ratio(object numerator, object denominator, int64_t prec_bits,
                        Rounding rounding):
    return bigfixed_new(
        round_quotient(as_bigint(numerator) << prec_bits, as_bigint(denominator), rounding),
        prec_bits,
    )


cdef BigFixed exact_bigfixed(object x):
    if type(x) is BigFixed:
        return x
    if PyLong_Check(x) or type(x) is BigInt:
        return bigfixed_new(as_bigint(x), 0)
    if PyFloat_Check(x):
        numerator, denominator = x.as_integer_ratio()
        return bigfixed_new(as_bigint(numerator), denominator.bit_length() - 1)
    return None


cdef tuple _ratio_of(object x):
    """Numerator and denominator of an exact number that is no BigFixed; None for strangers."""
    if PyLong_Check(x) or type(x) is BigInt:
        return x, 1
    if PyFloat_Check(x) or isinstance(x, decimal.Decimal):
        return x.as_integer_ratio()
    if isinstance(x, numbers.Rational):
        return x.numerator, x.denominator
    return None


cdef Py_ssize_t _end_of_digits(str text, Py_ssize_t at) except -1:
    """Where digits and underscores end, looked for in slices, so that Ctrl-C is heard."""
    cdef Py_ssize_t end = at
    while end == at and at < len(text):
        at = min(len(text), at + (1 << 20))
        end = _DIGITS.match(text, end, at).end()
        PyErr_CheckSignals()
    return end


cdef tuple _parts_of_decimal(str text):
    """(whether negative, digits before the point, digits after it, exponent); None: no decimal."""
    cdef Py_ssize_t start = text[:1] in ("+", "-"), end = _end_of_digits(text, start)
    whole, fraction = text[start:end], ""
    if text[end : end + 1] == ".":
        start = end + 1
        end = _end_of_digits(text, start)
        fraction = text[start:end]
    exponent = _EXPONENT.fullmatch(text, end)
    if exponent is None or not (whole or fraction):
        return None
    for digits in (whole, fraction):
        if "_" in digits and (digits.startswith("_") or digits.endswith("_") or "__" in digits):
            return None
    return (text[:1] == "-", whole.replace("_", ""), fraction.replace("_", ""),
            _exponent(exponent[1] or "0"))


cdef BigFixed _of_string(str text, object prec_bits, Rounding rounding):
    parts = _parts_of_decimal(text.strip())
    if parts is None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise ValueError(f"not a decimal number: {shown!r}")
    negative, whole, fraction, exponent = parts
    if prec_bits is None:
        raise TypeError("prec_bits is needed to read a decimal string")
    cdef int64_t bits = prec_bits_of(prec_bits)
    exponent -= len(fraction)
    if negative:
        rounding = _mirrored(rounding)
    digits = BigInt((whole + fraction).lstrip("0") or "0")
    cdef BigInt mantissa
    if digits == 0:
        mantissa = as_bigint(0)
    elif exponent >= 0:
        mantissa = (digits * _TEN**exponent) << bits
    elif -exponent > len(whole + fraction) + bits // 3 + 2:
        # below a quarter of a unit, so that 10^-exponent need not be formed
        mantissa = round_shift(_ONE, 2, rounding)
    else:
        mantissa = round_quotient(digits << bits, _TEN**-exponent, rounding)
    return bigfixed_new(-mantissa if negative else mantissa, bits)


cdef object _exponent(str text):
    """An exponent, or where that has many digits, one that means the same: too large, or tiny."""
    magnitude = text.lstrip("+-").lstrip("0")
    value = int(magnitude or "0") if len(magnitude) <= 30 else 10**30
    return -value if text[0] == "-" else value


cdef Rounding _mirrored(Rounding rounding):
    """The rounding of |x| that is the given one of x < 0."""
    if rounding == FLOOR:
        return CEILING
    return FLOOR if rounding == CEILING else rounding


cdef class BigFixed:
    """A fixed-point number: an integer mantissa times 2**-prec_bits, exactly that.

    BigFixed(value, prec_bits=None, rounding="nearest"): the multiple of 2**-prec_bits nearest to
    the value (ties to even), or next to it as `rounding` says: "down" toward zero, "up" away from
    zero, "floor", "ceiling".  The value is an int, BigInt, float, Fraction, Decimal, BigFixed, or a
    decimal string such as "-1.25e-3".  Without prec_bits the value is taken exactly: an int has
    0 fraction bits, a float as many as it needs (at most 1,074), a BigFixed its own; a string and
    what is no multiple of a power of two have to be given prec_bits.

    Operators take BigFixed, int, BigInt, float and Fraction, each for exactly what it is.  The
    precision of a result is the larger of the two BigFixed's (a number of another type adds none).
    +, -, <<, unary operators, abs and comparisons with BigFixed and integers are exact; *, /, >>
    and what meets a float or Fraction are rounded once, to nearest, ties to even: the error is at
    most half a unit of 2**-prec_bits.  For ** see `functions.power`.  // rounds its quotient down,
    x % y has the sign of y, and both are exact (there a float adds the bits that it needs).  Hash
    and equality are those of the number, whatever its type and precision.

    Raises TypeError for other types, ValueError for nan, malformed strings and negative
    prec_bits, OverflowError for infinities and prec_bits above 2**40, ZeroDivisionError.

    >>> x = BigFixed("0.1", 64)
    >>> x
    BigFixed('0.10000000000000000002', prec_bits=64)
    >>> x * 3, x == 0.1
    (BigFixed('0.30000000000000000007', prec_bits=64), False)
    >>> float(x) == 0.1, x.mantissa
    (True, BigInt(1844674407370955162))
    """

    def __init__(self, value=0, prec_bits=None, rounding="nearest"):
        cdef Rounding mode = rounding_mode(rounding)
        cdef BigFixed x
        if isinstance(value, str):
            x = _of_string(value, prec_bits, mode)
        else:
            x = exact_bigfixed(value)
            if x is None:
                ratio = _ratio_of(value)
                if ratio is None:
                    raise TypeError(
                        "BigFixed takes an int, BigInt, float, Fraction, Decimal, BigFixed or "
                        f"decimal string, not {type(value).__name__}"
                    )
                numerator, denominator = ratio
                if prec_bits is None:
                    if denominator & (denominator - 1):
                        raise TypeError(f"prec_bits is needed: {value!r} has no exact binary form")
                    prec_bits = denominator.bit_length() - 1
                x = _of_ratio(numerator, denominator, prec_bits_of(prec_bits), mode)
            elif prec_bits is not None:
                x = bigfixed_at(x, prec_bits_of(prec_bits), mode)
        self.mantissa = x.mantissa
        self.prec_bits = x.prec_bits

    @staticmethod
    def from_mantissa(mantissa, prec_bits):
        """Return mantissa * 2**-prec_bits.

        >>> BigFixed.from_mantissa(-3, 2)
        BigFixed('-0.75', prec_bits=2)
        """
        return bigfixed_new(as_bigint(mantissa), prec_bits_of(prec_bits))

    def with_precision(self, prec_bits, rounding="nearest"):
        """Return the number at another precision, rounded when that has fewer bits.

        >>> BigFixed(0.875).with_precision(2), BigFixed(0.875).with_precision(2, "down")
        (BigFixed('1.0', prec_bits=2), BigFixed('0.75', prec_bits=2))
        """
        return bigfixed_at(self, prec_bits_of(prec_bits), rounding_mode(rounding))

    # Operators

    def __add__(self, other):
        cdef BigFixed a = self
        cdef BigFixed b
        if type(other) is BigFixed:
            b = other
            if a.prec_bits == b.prec_bits:
                return bigfixed_new(a.mantissa + b.mantissa, a.prec_bits)
            if a.prec_bits > b.prec_bits:
                return bigfixed_new(
                    a.mantissa + (b.mantissa << (a.prec_bits - b.prec_bits)), a.prec_bits
                )
            return bigfixed_new(
                (a.mantissa << (b.prec_bits - a.prec_bits)) + b.mantissa, b.prec_bits
            )
        if PyLong_Check(other) or type(other) is BigInt:
            return bigfixed_new(a.mantissa + (as_bigint(other) << a.prec_bits), a.prec_bits)
        ratio = _ratio_of(other)
        if ratio is None:
            return NotImplemented
        numerator, denominator = ratio
        return _of_ratio(a.mantissa * denominator + (as_bigint(numerator) << a.prec_bits),
                         as_bigint(denominator) << a.prec_bits, a.prec_bits, NEAREST)

    def __radd__(self, other):
        return self.__add__(other)

    def __sub__(self, other):
        cdef BigFixed a = self
        cdef BigFixed b
        if type(other) is BigFixed:
            b = other
            if a.prec_bits == b.prec_bits:
                return bigfixed_new(a.mantissa - b.mantissa, a.prec_bits)
        elif _ratio_of(other) is None:
            return NotImplemented
        return self.__add__(-other)

    def __rsub__(self, other):
        return (-self).__add__(other)

    def __mul__(self, other):
        cdef BigFixed a = self
        cdef BigFixed b
        if type(other) is BigFixed:
            b = other
            return bigfixed_new(
                round_shift(a.mantissa * b.mantissa, min(a.prec_bits, b.prec_bits), NEAREST),
                max(a.prec_bits, b.prec_bits),
            )
        ratio = _ratio_of(other)
        if ratio is None:
            return NotImplemented
        numerator, denominator = ratio
        if denominator == 1:
            return bigfixed_new(a.mantissa * as_bigint(numerator), a.prec_bits)
        return bigfixed_new(
            round_quotient(a.mantissa * as_bigint(numerator), as_bigint(denominator), NEAREST),
            a.prec_bits,
        )

    def __rmul__(self, other):
        return self.__mul__(other)

    def __truediv__(self, other):
        cdef BigFixed a = self
        if type(other) is BigFixed:
            return _divided(a, other, max(a.prec_bits, (<BigFixed>other).prec_bits), NEAREST)
        ratio = _ratio_of(other)
        if ratio is None:
            return NotImplemented
        numerator, denominator = ratio
        if numerator == 0:
            raise ZeroDivisionError(f"{_shown(self)} / 0")
        return bigfixed_new(
            round_quotient(a.mantissa * as_bigint(denominator), as_bigint(numerator), NEAREST),
            a.prec_bits,
        )

    def __rtruediv__(self, other):
        cdef BigFixed a = self
        ratio = _ratio_of(other)
        if ratio is None:
            return NotImplemented
        numerator, denominator = ratio
        if a.mantissa.size == 0:
            raise ZeroDivisionError(f"{other!r} / BigFixed zero")
        return bigfixed_new(
            round_quotient(
                as_bigint(numerator) << (2 * a.prec_bits), a.mantissa * as_bigint(denominator),
                NEAREST,
            ),
            a.prec_bits,
        )

    def __divmod__(self, other):
        cdef BigFixed b = _operand(other)
        return NotImplemented if b is None else _floor_divmod(self, b)

    def __rdivmod__(self, other):
        cdef BigFixed b = _operand(other)
        return NotImplemented if b is None else _floor_divmod(b, self)

    def __floordiv__(self, other):
        cdef BigFixed b = _operand(other)
        return NotImplemented if b is None else _floor_divmod(self, b)[0]

    def __rfloordiv__(self, other):
        cdef BigFixed b = _operand(other)
        return NotImplemented if b is None else _floor_divmod(b, self)[0]

    def __mod__(self, other):
        cdef BigFixed b = _operand(other)
        return NotImplemented if b is None else _floor_divmod(self, b)[1]

    def __rmod__(self, other):
        cdef BigFixed b = _operand(other)
        return NotImplemented if b is None else _floor_divmod(b, self)[1]

    def __pow__(self, exponent, modulus):
        if modulus is not None:
            raise TypeError("pow() with a modulus takes integers only, not BigFixed")
        if _ratio_of(exponent) is None and type(exponent) is not BigFixed:
            return NotImplemented
        from crystalline.exact.functions import power  # it stands above this module

        return power(self, exponent)

    def __rpow__(self, base, modulus):
        if modulus is not None:
            raise TypeError("pow() with a modulus takes integers only, not BigFixed")
        if _ratio_of(base) is None:
            return NotImplemented
        from crystalline.exact.functions import power  # it stands above this module

        return power(base, self)

    def __lshift__(self, count):
        return _shifted(self, count, 1)

    def __rshift__(self, count):
        return _shifted(self, count, -1)

    def __neg__(self):
        return bigfixed_new(-self.mantissa, self.prec_bits)

    def __pos__(self):
        return self

    def __abs__(self):
        return bigfixed_new(-self.mantissa, self.prec_bits) if self.mantissa.size < 0 else self

    def __bool__(self):
        return self.mantissa.size != 0

    def __hash__(self):
        cdef int64_t h = cl_turned(hash(abs(self.mantissa)), self.prec_bits)
        if self.mantissa.size < 0:
            h = -h
        return -2 if h == -1 else h

    def __richcmp__(self, other, int op):
        cdef BigFixed a = self
        cdef BigFixed b
        if type(other) is BigFixed:
            b = other
            if a.prec_bits == b.prec_bits:
                return _compared(a.mantissa, b.mantissa, op)
            return _compared(a.mantissa << max(0, b.prec_bits - a.prec_bits),
                             b.mantissa << max(0, a.prec_bits - b.prec_bits), op)
        if PyFloat_Check(other) or isinstance(other, decimal.Decimal):
            if not math.isfinite(other):
                return _compared(0.0, float(other), op)
        ratio = _ratio_of(other)
        if ratio is None:
            return NotImplemented
        numerator, denominator = ratio
        return _compared(a.mantissa * denominator, as_bigint(numerator) << a.prec_bits, op)

    # Conversions

    def __float__(self):
        """The nearest float, ties to even; OverflowError beyond its range."""
        return bigint_to_int(self.mantissa) / (<object>1 << self.prec_bits)

    def __complex__(self):
        return complex(float(self))

    def __int__(self):
        return bigint_to_int(round_shift(self.mantissa, self.prec_bits, DOWN))

    def __trunc__(self):
        return round_shift(self.mantissa, self.prec_bits, DOWN)

    def __floor__(self):
        return round_shift(self.mantissa, self.prec_bits, FLOOR)

    def __ceil__(self):
        return round_shift(self.mantissa, self.prec_bits, CEILING)

    def __round__(self, ndigits=None):
        if ndigits is None:
            return round_shift(self.mantissa, self.prec_bits, NEAREST)
        cdef BigInt scale
        cdef BigInt digits
        if ndigits >= self.prec_bits * 30103 // 100000 + 2:
            return self  # 10^-ndigits is less than a unit
        if ndigits < 0 and -ndigits > self.mantissa.bit_length() - self.prec_bits + 1:
            return bigfixed_new(as_bigint(0), self.prec_bits)  # less than half of 10^-ndigits
        scale = _TEN ** abs(ndigits)
        if ndigits >= 0:
            digits = round_shift(self.mantissa * scale, self.prec_bits, NEAREST)
            return _of_ratio(digits, scale, self.prec_bits, NEAREST)
        digits = round_quotient(self.mantissa, scale << self.prec_bits, NEAREST)
        return bigfixed_new((digits * scale) << self.prec_bits, self.prec_bits)

    def as_integer_ratio(self):
        """Return numerator and denominator in lowest terms.

        >>> BigFixed(0.75, 10).as_integer_ratio()
        (BigInt(3), BigInt(4))
        """
        cdef int64_t twos = _common_twos(self)
        return self.mantissa >> twos, _ONE << (self.prec_bits - twos)

    def as_fraction(self):
        """Return the number as a Fraction of Python ints.

        >>> BigFixed(0.75, 10).as_fraction()
        Fraction(3, 4)
        """
        cdef int64_t twos = _common_twos(self)
        fraction = Fraction()
        # In lowest terms already: Fraction would look for a divisor, in quadratic time, deaf to
        # Ctrl-C.
        fraction._numerator = bigint_to_int(self.mantissa >> twos)
        fraction._denominator = <object>1 << (self.prec_bits - twos)
        return fraction

    def is_integer(self):
        """Return whether the number is an integer."""
        return self == round_shift(self.mantissa, self.prec_bits, DOWN)

    def to_decimal(self, digits, rounding="nearest"):
        """Return the number as a decimal string with `digits` digits after the point.

        The digits are correctly rounded: to nearest, ties to even, or as `rounding` says.

        >>> BigFixed(0.3125).to_decimal(3), BigFixed(0.3125).to_decimal(3, "floor")
        ('0.312', '0.312')
        >>> BigFixed(-2).to_decimal(0)
        '-2'
        """
        cdef int64_t count = prec_bits_of(digits)
        cdef Rounding mode = rounding_mode(rounding)
        cdef BigInt scaled = round_shift(self.mantissa * _TEN**count, self.prec_bits, mode)
        text = str(abs(scaled))
        sign = "-" if self.mantissa.size < 0 else ""
        if count == 0:
            return sign + text
        text = text.rjust(count + 1, "0")
        return f"{sign}{text[:-count]}.{text[-count:]}"

    def __str__(self):
        """The number to 20 digits, or to as many as tell it from its neighbors."""
        # 10^-digits < 2^-prec_bits, so that the nearest multiple of 2^-prec_bits is this number
        text = self.to_decimal(max(self.prec_bits * 30103 // 100000 + 1, min(self.prec_bits, 20)))
        whole, _, fraction = text.partition(".")
        return f"{whole}.{fraction.rstrip('0') or '0'}"

    def __repr__(self):
        return f"BigFixed('{self}', prec_bits={self.prec_bits})"

    def __format__(self, spec):
        """As format() of the Decimal of the same value: correctly rounded, ties to even."""
        if not spec:
            return str(self)
        digits = str(self.mantissa * as_bigint(5) ** self.prec_bits)
        places = self.prec_bits  # of decimals; those that are zero are left out
        kept = digits.rstrip("0") or "0"
        dropped = min(len(digits) - len(kept), places)
        kept = digits[: len(digits) - dropped]
        return format(decimal.Decimal(f"{kept}E-{places - dropped}"), spec)

    def __reduce__(self):
        return BigFixed.from_mantissa, (self.mantissa, self.prec_bits)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


# Parts of the operators


cdef int64_t _common_twos(BigFixed x):
    """How many factors of two the mantissa and 2^prec_bits share."""
    if x.mantissa.size == 0:
        return x.prec_bits
    return min(x.prec_bits, limbs_trailing_zeros(x.mantissa.limbs, abs(x.mantissa.size)))


cdef str _shown(BigFixed x):
    """The value for a message, however long it is."""
    if x.prec_bits > 400 or x.mantissa.size > 8 or x.mantissa.size < -8:
        return f"a BigFixed of {x.prec_bits} fraction bits"
    return str(x)


cdef object _compared(object a, object b, int op):
    if op == Py_LT:
        return a < b
    if op == Py_LE:
        return a <= b
    if op == Py_EQ:
        return a == b
    if op == Py_NE:
        return a != b
    if op == Py_GT:
        return a > b
    return a >= b


cdef BigFixed _operand(object x):
    """An operand of // and %: what is exact in binary; None for others."""
    return None if isinstance(x, str) else exact_bigfixed(x)


cdef BigFixed _divided(BigFixed a, BigFixed b, int64_t prec_bits, Rounding rounding):
    if b.mantissa.size == 0:
        raise ZeroDivisionError(f"{_shown(a)} / 0")
    cdef int64_t shift = prec_bits + b.prec_bits - a.prec_bits
    if shift >= 0:
        return bigfixed_new(round_quotient(a.mantissa << shift, b.mantissa, rounding), prec_bits)
    return bigfixed_new(round_quotient(a.mantissa, b.mantissa << -shift, rounding), prec_bits)


cdef tuple _floor_divmod(BigFixed a, BigFixed b):
    if b.mantissa.size == 0:
        raise ZeroDivisionError(f"{_shown(a)} // 0")
    cdef int64_t prec_bits = max(a.prec_bits, b.prec_bits)
    quotient, remainder = divmod(a.mantissa << (prec_bits - a.prec_bits),
                                 b.mantissa << (prec_bits - b.prec_bits))
    return bigfixed_new(quotient << prec_bits, prec_bits), bigfixed_new(remainder, prec_bits)


cdef BigFixed _shifted(BigFixed x, object count, int sign):
    if not hasattr(count, "__index__"):
        raise TypeError(f"shifts are by integers, not {type(count).__name__}")
    count = count.__index__()
    if count < 0:
        raise ValueError(f"negative shift count {arguments.short(count)}")
    if sign > 0:
        return bigfixed_new(x.mantissa << count, x.prec_bits)
    # beyond this everything has gone
    return bigfixed_new(
        round_shift(x.mantissa, min(count, 64 * abs(x.mantissa.size) + 64), NEAREST), x.prec_bits
    )


# Arithmetic with rounding and precision of one's own choice


cdef BigFixed _argument(object x, str name):
    cdef BigFixed value = exact_bigfixed(x)
    if value is None:
        raise TypeError(
            f"{name} takes BigFixed, int, BigInt and float, not {type(x).__name__}"
        )
    return value


def add(x, y, prec_bits=None, rounding="nearest"):
    """Return x + y, correctly rounded to prec_bits (default: the larger precision, exact).

    >>> add(BigFixed(0.75), BigFixed(0.5), 1, rounding="floor")
    BigFixed('1.0', prec_bits=1)
    """
    return _rounded_sum(_argument(x, "add"), _argument(y, "add"), prec_bits, rounding)


def sub(x, y, prec_bits=None, rounding="nearest"):
    """Return x - y, correctly rounded to prec_bits (default: the larger precision, exact).

    >>> sub(BigFixed(0.75), BigFixed(0.5), 1, rounding="up")
    BigFixed('0.5', prec_bits=1)
    """
    return _rounded_sum(_argument(x, "sub"), -_argument(y, "sub"), prec_bits, rounding)


cdef BigFixed _rounded_sum(BigFixed x, BigFixed y, object prec_bits, object rounding):
    cdef Rounding mode = rounding_mode(rounding)
    cdef BigFixed total = x + y
    return total if prec_bits is None else bigfixed_at(total, prec_bits_of(prec_bits), mode)


def mul(x, y, prec_bits=None, rounding="nearest"):
    """Return x * y, correctly rounded to prec_bits (default: the larger precision).

    >>> mul(BigFixed("0.1", 64), BigFixed("0.1", 64), 8, rounding="ceiling")
    BigFixed('0.01171875', prec_bits=8)
    """
    cdef BigFixed a = _argument(x, "mul")
    cdef BigFixed b = _argument(y, "mul")
    cdef Rounding mode = rounding_mode(rounding)
    cdef int64_t bits = max(a.prec_bits, b.prec_bits)
    if prec_bits is not None:
        bits = prec_bits_of(prec_bits)
    return bigfixed_new(
        round_shift(a.mantissa * b.mantissa, a.prec_bits + b.prec_bits - bits, mode), bits
    )


def div(x, y, prec_bits=None, rounding="nearest"):
    """Return x / y, correctly rounded to prec_bits (default: the larger precision).

    >>> div(1, 3, 64, rounding="down")
    BigFixed('0.33333333333333333332', prec_bits=64)
    """
    cdef BigFixed a = _argument(x, "div")
    cdef BigFixed b = _argument(y, "div")
    cdef Rounding mode = rounding_mode(rounding)
    cdef int64_t bits = max(a.prec_bits, b.prec_bits)
    if prec_bits is not None:
        bits = prec_bits_of(prec_bits)
    return _divided(a, b, bits, mode)
