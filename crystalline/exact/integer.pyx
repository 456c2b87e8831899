"""BigInt: integers of any size as immutable values over 64-bit limbs.

Operators, comparisons, conversions and formats are those of Python's int, and so are the
exceptions; an int may stand on either side of every operator.  The arithmetic itself is in
`_kernels.bigint`, format specifications are in `exact.format`, number theory (gcd, roots,
Jacobi, ...) is in `exact.arithmetic`.

A value is one block of memory, the object followed by its limbs; `bigint_object.h` allocates it.
"""
cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.complex cimport PyComplex_Check
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.object cimport Py_EQ, Py_GT, Py_LE, Py_LT, Py_NE, PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.math cimport fabs, frexp, isfinite, isinf, isnan, ldexp, trunc
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

import numbers
import operator
import unicodedata

from crystalline._kernels.bigint.div cimport limbs_divrem, limbs_divrem_1, limbs_divrem_long
from crystalline._kernels.bigint.gcd cimport NO_INVERSE, limbs_invert
from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (
    OK,
    limbs_add,
    limbs_add_1,
    limbs_add_long,
    limbs_compare,
    limbs_copy,
    limbs_lshift_long,
    limbs_normalize,
    limbs_sub,
    limbs_zero_long,
)
from crystalline._kernels.bigint.literal cimport INVALID, read_literal
from crystalline._kernels.bigint.mul cimport limbs_mul, limbs_sqr
from crystalline._kernels.bigint.powmod cimport limbs_powmod
from crystalline._kernels.bigint.radix cimport (
    digits_room,
    limbs_from_digits,
    limbs_room,
    limbs_to_digits,
)
from crystalline._kernels.bigint.signed cimport (
    AND,
    OR,
    XOR,
    Logic,
    limbs_bit_length,
    limbs_hash,
    limbs_logic,
    limbs_negate,
    limbs_popcount,
    limbs_shift_left,
    limbs_shift_right,
    limbs_to_double,
    limbs_trailing_zeros,
)
from crystalline._kernels.headroom cimport check_headroom

from crystalline.exact.format import format_integer

cdef extern from "pylong.h":
    int64_t cl_pylong_room(object x) except -1
    int64_t cl_pylong_read(uint64_t* r, object x, int* negative) except -1
    object cl_pylong_new(const uint64_t* a, int64_t n, int negative)

cdef extern from "bigint_object.h":
    enum:
        SMALL "CL_SMALL"
    ctypedef struct PyTypeObject:
        pass
    object cl_bigint_take(PyTypeObject* type, Py_ssize_t n)
    int cl_bigint_install(
        PyTypeObject* type,
        object (*construct)(PyTypeObject*, PyObject*, PyObject*),
        object (*call)(PyObject*, PyObject**, size_t, PyObject*),
        object (*power)(object, object, object),
    ) except -1

cdef extern from *:
    """
    #define CL_MAX_LIMBS ((int64_t)1 << 56) /* 2^62 bits: counts of bits stay within 64 */
    /* r[2] = a * b */
    static inline void cl_mul_1x1(uint64_t *r, uint64_t a, uint64_t b) {
      unsigned __int128 product = (unsigned __int128)a * b;
      r[0] = (uint64_t)product;
      r[1] = (uint64_t)(product >> 64);
    }
    /* to[n] = from[n] in reverse order */
    static inline void cl_reverse(char *to, const char *from, Py_ssize_t n) {
      for (Py_ssize_t i = 0; i < n; i++) to[i] = from[n - 1 - i];
    }
    /* r[an + 1] = a[an] + b[bn], an >= bn, for sizes at which a call costs as much as the sum */
    static inline void cl_add_short(uint64_t *r, const uint64_t *a, Py_ssize_t an,
                                    const uint64_t *b, Py_ssize_t bn) {
      uint64_t carry = 0;
      Py_ssize_t i = 0;
      for (; i < bn; i++) {
        unsigned __int128 sum = (unsigned __int128)a[i] + b[i] + carry;
        r[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
      }
      for (; i < an; i++) {
        r[i] = a[i] + carry;
        carry = r[i] < carry;
      }
      r[an] = carry;
    }
    """
    const int64_t MAX_LIMBS "CL_MAX_LIMBS"
    void cl_add_short(uint64_t* r, const uint64_t* a, Py_ssize_t an, const uint64_t* b,
                      Py_ssize_t bn) noexcept nogil
    void cl_reverse(char* to, const char* source, Py_ssize_t n) noexcept nogil
    void cl_mul_1x1(uint64_t* r, uint64_t a, uint64_t b) noexcept nogil
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf)

cdef enum:
    SHORT = 8
    STACK_DIGITS = 512
    UNLOCKED_LIMBS = 1024  # from here on the GIL is released: it costs less than 1 % of the work
    SLICE_LIMBS = 1 << 20  # of linear work between two looks at the signals
    SLICE_CHARACTERS = 1 << 14  # of text, where Python handles each

# Allocation


cdef BigInt bigint_new(Py_ssize_t n):
    if n > SMALL:
        if n > MAX_LIMBS:
            raise MemoryError(f"an integer of {n} limbs has more bits than can be counted")
        check_headroom(8 * n)
    return <BigInt>cl_bigint_take(<PyTypeObject*>BigInt, n)


cdef BigInt bigint_finish(BigInt x, Py_ssize_t n, bint negative):
    cdef Py_ssize_t room = x.size
    cdef BigInt smaller
    n = limbs_normalize(x.limbs, n)
    if room > SMALL and (n <= SMALL or n < room >> 1):  # do not hold what is not used
        smaller = bigint_new(n)
        limbs_copy(smaller.limbs, x.limbs, n)
        x = smaller
    x.size = -n if negative else n
    return x


cdef BigInt bigint_from_limbs(const uint64_t* limbs, Py_ssize_t n, bint negative):
    n = limbs_normalize(limbs, n)
    cdef BigInt x = bigint_new(n)
    limbs_copy(x.limbs, limbs, n)
    x.size = -n if negative else n
    return x


cdef BigInt bigint_from_int64(int64_t value):
    cdef BigInt x = bigint_new(1)
    x.limbs[0] = 0 - <uint64_t>value if value < 0 else <uint64_t>value
    x.size = (value > 0) - (value < 0)
    return x


cdef BigInt bigint_from_int(object value):
    cdef BigInt x = bigint_new(cl_pylong_room(value))
    cdef int negative
    cdef Py_ssize_t n = cl_pylong_read(x.limbs, value, &negative)
    return bigint_finish(x, n, negative)


cdef BigInt bigint_from_double(double value):
    cdef int exponent
    cdef double fraction = frexp(fabs(value), &exponent)
    if exponent <= 0:
        return bigint_from_int64(0)
    cdef uint64_t mantissa = <uint64_t>ldexp(fraction, 53)
    if exponent <= 53:
        return bigint_from_int64(<int64_t>value)
    cdef BigInt x = bigint_new(1 + (exponent - 53) // 64 + 1)
    limbs_shift_left(x.limbs, &mantissa, 1, exponent - 53)
    return bigint_finish(x, x.size, value < 0)


cdef BigInt as_bigint(object x):
    if type(x) is BigInt:
        return <BigInt>x
    if PyLong_Check(x):
        return bigint_from_int(x)
    return bigint_from_int(operator.index(x))


cdef object bigint_to_int(BigInt x):
    return cl_pylong_new(x.limbs, limb_count(x), x.size < 0)


cdef inline BigInt operand(object x):
    """BigInt or int as a BigInt, None for anything else."""
    if type(x) is BigInt:
        return <BigInt>x
    if PyLong_Check(x):
        return bigint_from_int(x)
    return None


cdef object brief(BigInt x):
    """The number for a message: in full as long as a reader would read it."""
    if limb_count(x) <= 4:
        return f"{bigint_to_int(x)}"
    return f"an integer of {limbs_bit_length(x.limbs, limb_count(x))} bits"


cdef object mixed(object operation, object left, object right):
    """What int does beside a float or a complex number; strangers may answer themselves."""
    if PyFloat_Check(right) or PyComplex_Check(right):
        return operation(float(left), right)
    if PyFloat_Check(left) or PyComplex_Check(left):
        return operation(left, float(right))
    return NotImplemented


# Addition and multiplication


cdef BigInt signed_copy(BigInt a, bint negative):
    return bigint_from_limbs(a.limbs, limb_count(a), negative)


cdef BigInt add(BigInt a, BigInt b, bint subtract):
    """a + b or a - b."""
    cdef Py_ssize_t an = limb_count(a), bn = limb_count(b)
    cdef bint a_negative = a.size < 0, b_negative = (b.size < 0) != subtract
    cdef BigInt r
    cdef int order
    cdef uint64_t borrow
    if an < bn:
        a, b = b, a
        an, bn = bn, an
        a_negative, b_negative = b_negative, a_negative
    if bn == 0:
        return a if a_negative == (a.size < 0) else signed_copy(a, a_negative)
    cdef int status
    if a_negative == b_negative:
        r = bigint_new(an + 1)
        if an <= SHORT:
            cl_add_short(r.limbs, a.limbs, an, b.limbs, bn)
        elif an > SLICE_LIMBS:
            with nogil:
                status = limbs_add_long(r.limbs + an, r.limbs, a.limbs, an, b.limbs, bn, False)
            check(status)
        else:
            r.limbs[an] = limbs_add(r.limbs, a.limbs, an, b.limbs, bn)
        return bigint_finish(r, an + 1, a_negative)
    r = bigint_new(an)
    if an == bn:
        order = limbs_compare(a.limbs, b.limbs, an)
        if order == 0:
            r.size = 0
            return bigint_from_int64(0)
        if order < 0:
            a, b = b, a
            a_negative = b_negative
    if an > SLICE_LIMBS:
        with nogil:
            status = limbs_add_long(&borrow, r.limbs, a.limbs, an, b.limbs, bn, True)
        check(status)
    else:
        limbs_sub(r.limbs, a.limbs, an, b.limbs, bn)
    return bigint_finish(r, an, a_negative)


cdef BigInt multiply(BigInt a, BigInt b):
    cdef Py_ssize_t an = limb_count(a), bn = limb_count(b)
    cdef bint negative = (a.size < 0) != (b.size < 0)
    cdef int status = 0
    if an < bn:
        a, b = b, a
        an, bn = bn, an
    if bn == 0:
        return bigint_from_int64(0)
    cdef BigInt r = bigint_new(an + bn)
    cdef uint64_t* out = r.limbs
    cdef const uint64_t* x = a.limbs
    cdef const uint64_t* y = b.limbs
    if an == 1:
        cl_mul_1x1(out, x[0], y[0])
    elif an + bn < UNLOCKED_LIMBS:
        status = limbs_sqr(out, x, an) if x == y else limbs_mul(out, x, an, y, bn)
    else:
        with nogil:
            status = limbs_sqr(out, x, an) if x == y else limbs_mul(out, x, an, y, bn)
    check(status)
    return bigint_finish(r, an + bn, negative)


# Division

cdef enum:
    QUOTIENT = 0
    REMAINDER = 1
    BOTH = 2


cdef object floor_divide(BigInt a, BigInt b, int what):
    cdef Py_ssize_t an = limb_count(a), bn = limb_count(b)
    cdef bint differ = (a.size < 0) != (b.size < 0)
    cdef BigInt q, r
    cdef int status = 0
    if bn == 0:
        raise ZeroDivisionError(f"integer division or modulo by zero: {brief(a)} by 0")
    if an < bn:
        if an == 0 or not differ:
            q, r = bigint_from_int64(0), a
        else:
            q, r = bigint_from_int64(-1), add(a, b, False)
    else:
        q, r = bigint_new(an - bn + 2), bigint_new(bn)
        q.limbs[an - bn + 1] = 0
        if bn == 1 and an < UNLOCKED_LIMBS:
            r.limbs[0] = limbs_divrem_1(q.limbs, a.limbs, an, b.limbs[0])
        elif bn == 1:
            with nogil:
                status = limbs_divrem_long(q.limbs, r.limbs, a.limbs, an, b.limbs[0])
        elif an < UNLOCKED_LIMBS:
            status = limbs_divrem(q.limbs, r.limbs, a.limbs, an, b.limbs, bn)
        else:
            with nogil:
                status = limbs_divrem(q.limbs, r.limbs, a.limbs, an, b.limbs, bn)
        check(status)
        if differ and limbs_normalize(r.limbs, bn):
            limbs_add_1(q.limbs, q.limbs, an - bn + 2, 1)
            limbs_sub(r.limbs, b.limbs, bn, r.limbs, bn)
        q = bigint_finish(q, an - bn + 2, differ)
        r = bigint_finish(r, bn, b.size < 0)
    if what == QUOTIENT:
        return q
    return r if what == REMAINDER else (q, r)


cdef double true_divide(BigInt a, BigInt b) except? -1.0:
    """The double nearest to a / b, ties to even."""
    cdef int64_t a_bits = limbs_bit_length(a.limbs, limb_count(a))
    cdef int64_t b_bits = limbs_bit_length(b.limbs, limb_count(b))
    cdef int64_t shift, extra
    cdef BigInt scaled, q, r, divisor
    cdef uint64_t bits, half
    cdef bint inexact = False
    cdef double result
    if b_bits == 0:
        raise ZeroDivisionError(f"division by zero: {brief(a)} / 0")
    cdef bint negative = (a.size < 0) != (b.size < 0)
    if a_bits == 0:
        return -0.0 if negative else 0.0
    if a_bits <= 53 and b_bits <= 53:
        result = <double>a.limbs[0] / <double>b.limbs[0]
        return -result if negative else result
    if a_bits - b_bits > 1024:
        raise OverflowError(f"integer division result too large for a float: "
                            f"{brief(a)} / {brief(b)}")
    if a_bits - b_bits < -1075:
        return -0.0 if negative else 0.0
    # 55 or 56 bits of the quotient, fewer where the result is subnormal, and whether more follow
    shift = max(a_bits - b_bits, -1021) - 55
    divisor = signed_copy(b, False)
    if shift <= 0:
        scaled = shifted_left(signed_copy(a, False), -shift)
    else:
        scaled = bigint_new(limb_count(a) - shift // 64)
        inexact = limbs_shift_right(scaled.limbs, a.limbs, limb_count(a), shift)
        scaled = bigint_finish(scaled, scaled.size, False)
    q, r = floor_divide(scaled, divisor, BOTH)
    bits = q.limbs[0] if q.size else 0
    inexact = inexact or r.size != 0
    extra = max(limbs_bit_length(q.limbs, q.size), -1021 - shift) - 53
    half = <uint64_t>1 << (extra - 1)
    bits |= inexact
    if bits & half and bits & (3 * half - 1):
        bits += half
    bits &= ~(2 * half - 1)
    result = ldexp(<double>bits, <int>shift)
    if isinf(result):
        raise OverflowError(f"integer division result too large for a float: "
                            f"{brief(a)} / {brief(b)}")
    return -result if negative else result


# Shifts and bits


cdef BigInt room_for_shift(BigInt a, int64_t bits):
    """What a << bits is written to; apart, since a try costs as much as a short shift."""
    try:
        return bigint_new(limb_count(a) + (bits >> 6) + 1)
    except MemoryError as error:
        raise MemoryError(f"{brief(a)} << {bits}: {error}") from None


cdef BigInt shifted_left(BigInt a, int64_t bits):
    cdef Py_ssize_t n = limb_count(a)
    if n == 0:
        return a
    cdef BigInt r = room_for_shift(a, bits) if bits > 1 << 28 else bigint_new(n + (bits >> 6) + 1)
    cdef int64_t whole = bits >> 6
    cdef int status
    if n + whole < UNLOCKED_LIMBS:
        limbs_shift_left(r.limbs, a.limbs, n, bits)
    else:
        with nogil:
            status = limbs_zero_long(r.limbs, whole)
            if status == OK:
                status = limbs_lshift_long(r.limbs + n + whole, r.limbs + whole, a.limbs, n,
                                           bits & 63)
        check(status)
    return bigint_finish(r, n + (bits >> 6) + 1, a.size < 0)


cdef BigInt shifted_right(BigInt a, int64_t bits):
    """The floor of a / 2^bits."""
    cdef Py_ssize_t n = limb_count(a), rn = n - (bits >> 6)
    if rn <= 0:
        return bigint_from_int64(-1 if a.size < 0 else 0)
    cdef BigInt r = bigint_new(rn + 1)
    cdef bint lost
    r.limbs[rn] = 0
    if n < UNLOCKED_LIMBS:
        lost = limbs_shift_right(r.limbs, a.limbs, n, bits)
    else:
        with nogil:
            lost = limbs_shift_right(r.limbs, a.limbs, n, bits)
    if lost and a.size < 0:
        limbs_add_1(r.limbs, r.limbs, rn + 1, 1)
    return bigint_finish(r, rn + 1, a.size < 0)


cdef object shift(BigInt a, object by, bint right):
    cdef int overflow
    cdef int64_t small
    if PyLong_Check(by):
        small = PyLong_AsLongLongAndOverflow(by, &overflow)
        if not overflow and 0 <= small < MAX_LIMBS:
            return shifted_right(a, small) if right else shifted_left(a, small)
    cdef BigInt count = operand(by)
    if count is None:
        return NotImplemented
    cdef uint64_t bits
    if count.size < 0:
        raise ValueError(f"negative shift count: {brief(count)}")
    if count.size > 1 or (count.size == 1 and count.limbs[0] >> 62):
        if right:
            return bigint_from_int64(-1 if a.size < 0 else 0)
        if a.size == 0:
            return a
        raise OverflowError(f"too many digits in integer: {brief(a)} << {brief(count)}")
    bits = count.limbs[0] if count.size else 0
    return shifted_right(a, bits) if right else shifted_left(a, bits)


cdef BigInt bitwise(Logic op, BigInt a, BigInt b):
    cdef Py_ssize_t an = limb_count(a), bn = limb_count(b)
    cdef Py_ssize_t n = max(an, bn) + 1
    cdef BigInt r = bigint_new(n)
    cdef bint negative
    if n < UNLOCKED_LIMBS:
        negative = limbs_logic(op, r.limbs, a.limbs, an, a.size < 0, b.limbs, bn, b.size < 0)
    else:
        with nogil:
            negative = limbs_logic(op, r.limbs, a.limbs, an, a.size < 0, b.limbs, bn, b.size < 0)
    return bigint_finish(r, n, negative)


# Powers


cdef BigInt power_of(BigInt base, BigInt exponent):
    """base ** exponent for exponent >= 0."""
    cdef BigInt result = bigint_from_int64(1)
    cdef int64_t bit, e, zeros
    if exponent.size == 0:
        return result
    if base.size == 0:
        return base
    if limb_count(base) == 1 and base.limbs[0] == 1:
        return base if base.size > 0 and exponent.limbs[0] & 1 else (
            bigint_from_int64(-1 if base.size < 0 and exponent.limbs[0] & 1 else 1)
        )
    cdef double bits = <double>limbs_bit_length(base.limbs, limb_count(base))
    if exponent.size > 1 or (bits - 1) * <double>exponent.limbs[0] > 64.0 * MAX_LIMBS:
        raise MemoryError(f"{brief(base)} ** {brief(exponent)} has more bits than can be counted")
    e = exponent.limbs[0]
    zeros = limbs_trailing_zeros(base.limbs, limb_count(base))
    try:
        check_headroom(<int64_t>((bits - 1) * e / 8))
    except MemoryError as error:
        raise MemoryError(f"{brief(base)} ** {e}: {error}") from None
    if zeros:  # powers of two are shifts
        base = shifted_right(base, zeros)
    if limb_count(base) != 1 or base.limbs[0] != 1:
        bit = limbs_bit_length(exponent.limbs, 1) - 2
        result = base
        while bit >= 0:
            result = multiply(result, result)
            if e >> bit & 1:
                result = multiply(result, base)
            if limb_count(result) > UNLOCKED_LIMBS:
                PyErr_CheckSignals()
            bit -= 1
    elif base.size < 0 and e & 1:
        result = base
    return shifted_left(result, zeros * e) if zeros else result


cdef BigInt power_mod(BigInt base, BigInt exponent, BigInt modulus):
    cdef Py_ssize_t bn = limb_count(base), en = limb_count(exponent), mn = limb_count(modulus)
    if mn == 0:
        raise ValueError(f"pow() 3rd argument cannot be 0: {brief(base)} ** {brief(exponent)}")
    cdef BigInt r = bigint_new(mn)
    cdef const uint64_t* x = base.limbs
    cdef int status = OK
    cdef bint flip = base.size < 0 and en and exponent.limbs[0] & 1
    with nogil:
        if exponent.size < 0:
            status = limbs_invert(r.limbs, x, bn, modulus.limbs, mn)
            x = r.limbs
            bn = limbs_normalize(x, mn)
        if status == OK:
            status = limbs_powmod(r.limbs, x, bn, exponent.limbs, en, modulus.limbs, mn)
    if status == NO_INVERSE:
        raise ValueError(f"base is not invertible for the given modulus: "
                         f"{brief(base)} modulo {brief(modulus)}")
    check(status)
    # The residue has the sign of the modulus, as that of % has.
    if flip != (modulus.size < 0) and limbs_normalize(r.limbs, mn):
        limbs_sub(r.limbs, modulus.limbs, mn, r.limbs, mn)
    return bigint_finish(r, mn, modulus.size < 0)


cdef object power(object base, object exponent, object modulus):
    """The power slot: any of the three may be ours."""
    cdef BigInt b = operand(base), e = operand(exponent), m
    if b is None or e is None:
        return NotImplemented if modulus is not None else mixed(operator.pow, base, exponent)
    if modulus is not None:
        m = operand(modulus)
        return NotImplemented if m is None else power_mod(b, e, m)
    if e.size < 0:
        if b.size == 0:
            raise ZeroDivisionError(f"0.0 cannot be raised to a negative power: 0 ** {brief(e)}")
        return operator.pow(float(b), float(e))  # Python's power: C's has no complex results
    return power_of(b, e)


# Comparison and conversion


cdef double to_double(BigInt a) except? -1.0:
    cdef double value = limbs_to_double(a.limbs, limb_count(a))
    if isinf(value):
        raise OverflowError(f"int too large to convert to float: {brief(a)}")
    return -value if a.size < 0 else value


cdef int compare(BigInt a, BigInt b) noexcept:
    if a.size != b.size:
        return -1 if a.size < b.size else 1
    cdef int order = limbs_compare(a.limbs, b.limbs, limb_count(a))
    return -order if a.size < 0 else order


cdef int compare_double(BigInt a, double b):
    """The order of a and b exactly; b is not NaN."""
    cdef int order
    if isinf(b):
        return -1 if b > 0 else 1
    order = compare(a, bigint_from_double(b))
    if order == 0:
        return (b < trunc(b)) - (b > trunc(b))
    return order


cdef inline bint holds(int order, int op) noexcept:
    if op == Py_LT:
        return order < 0
    if op == Py_LE:
        return order <= 0
    if op == Py_EQ:
        return order == 0
    if op == Py_NE:
        return order != 0
    if op == Py_GT:
        return order > 0
    return order >= 0


cdef BigInt round_to(BigInt a, BigInt digits):
    """a rounded to a multiple of 10^-digits, digits < 0; ties to even."""
    cdef BigInt unit, q, r
    if limb_count(digits) > 1 or digits.limbs[0] > 20 * <uint64_t>limb_count(a) + 1:
        return bigint_from_int64(0)  # 10^-digits is beyond 2 |a|
    unit = power_of(bigint_from_int64(10), signed_copy(digits, False))
    q, r = floor_divide(a, unit, BOTH)
    cdef int order = compare(shifted_left(r, 1), unit)
    if order > 0 or (order == 0 and q.size and q.limbs[0] & 1):
        r = add(r, unit, True)
    return add(a, r, True)


# Construction


cdef str to_ascii(str text):
    """Text with the decimal digits and blanks of every script replaced by those of ASCII."""
    cdef Py_ssize_t at
    parts = []
    for at in range(0, len(text), SLICE_CHARACTERS):
        parts.append("".join([
            c if c < "\x80" else " " if c.isspace() else str(unicodedata.decimal(c, "?"))
            for c in text[at : at + SLICE_CHARACTERS]
        ]))
        PyErr_CheckSignals()
    return "".join(parts)


cdef BigInt parse(object text, int base):
    """The number that text, str or bytes, denotes to int()."""
    cdef object kept = text  # what owns the characters
    cdef const char* characters
    cdef Py_ssize_t length
    if isinstance(text, str):
        if not text.isascii():
            kept = to_ascii(text)
        characters = PyUnicode_AsUTF8AndSize(kept, &length)
    else:
        kept = bytes(text)
        characters, length = PyBytes_AS_STRING(kept), PyBytes_GET_SIZE(kept)
    cdef char stack[STACK_DIGITS]
    cdef char* digits = stack
    cdef bytes buffer
    if length > STACK_DIGITS:
        buffer = PyBytes_FromStringAndSize(NULL, length)
        digits = PyBytes_AS_STRING(buffer)
    cdef int64_t count, n
    cdef int status, in_base = base
    cdef bint negative
    if length <= STACK_DIGITS:
        status = read_literal(digits, &count, &in_base, &negative, characters, length)
    else:
        with nogil:
            status = read_literal(digits, &count, &in_base, &negative, characters, length)
    check(status)
    if status == INVALID:
        raise ValueError(f"invalid literal for BigInt() with base {base}: {repr(text)[:200]}")
    cdef BigInt x = bigint_new(limbs_room(count, in_base))
    if count < UNLOCKED_LIMBS:
        status = limbs_from_digits(x.limbs, &n, digits, count, in_base)
    else:
        with nogil:
            status = limbs_from_digits(x.limbs, &n, digits, count, in_base)
    check(status)
    return bigint_finish(x, n, negative)


cdef str to_digits(BigInt a, int base):
    cdef Py_ssize_t n = limb_count(a)
    cdef int64_t room = digits_room(limbs_bit_length(a.limbs, n), base) + 1, count
    cdef char stack[STACK_DIGITS]
    cdef char* digits = stack
    cdef bytes buffer
    cdef int status
    if room > STACK_DIGITS:
        check_headroom(2 * room)
        buffer = PyBytes_FromStringAndSize(NULL, room)
        digits = PyBytes_AS_STRING(buffer)
    digits[0] = b"-"
    cdef char* magnitude = digits + (a.size < 0)
    if n < UNLOCKED_LIMBS:
        status = limbs_to_digits(magnitude, &count, a.limbs, n, base)
    else:
        with nogil:
            status = limbs_to_digits(magnitude, &count, a.limbs, n, base)
    check(status)
    return PyUnicode_DecodeASCII(digits, count + (a.size < 0), NULL)


cdef bint is_little(object byteorder) except -1:
    if byteorder not in ("little", "big"):
        raise ValueError(f"byteorder must be either 'little' or 'big', not {byteorder!r}")
    return byteorder == "little"


cdef bytes write_bytes(BigInt a, Py_ssize_t length, bint little, bint signed):
    cdef Py_ssize_t n = limb_count(a)
    cdef int64_t bits = limbs_bit_length(a.limbs, n)
    if a.size < 0 and not signed:
        raise OverflowError(f"can't convert negative int to unsigned: {brief(a)}")
    # -2^(8 length - 1) has as many bits as the sign allows and one more
    if signed and bits and not (
        a.size < 0 and limbs_trailing_zeros(a.limbs, n) == bits - 1
    ):
        bits += 1
    if bits > 8 * length:
        raise OverflowError(f"int too big to convert: {brief(a)} in {length} bytes")
    check_headroom(length)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, length)
    cdef char* to = PyBytes_AS_STRING(out)
    cdef Py_ssize_t size = min(length, 8 * n)
    cdef BigInt magnitude = a
    if a.size < 0:
        magnitude = bigint_new(n)
        limbs_negate(magnitude.limbs, a.limbs, n)
    fill_bytes(to + (size if little else 0), 0xff if a.size < 0 else 0, length - size)
    copy_bytes(to + (0 if little else length - size), <const char*>magnitude.limbs, size, little)
    return out


cdef int fill_bytes(char* to, int value, Py_ssize_t n) except -1:
    cdef Py_ssize_t done = 0, size
    cdef int status = OK
    if n <= 8 * SLICE_LIMBS:
        memset(to, value, n)
        return 0
    with nogil:
        while done < n and status == OK:
            size = min(n - done, <Py_ssize_t>(8 * SLICE_LIMBS))
            memset(to + done, value, size)
            done += size
            if done < n:
                status = poll()
    check(status)
    return 0


cdef int copy_bytes(char* to, const char* source, Py_ssize_t n, bint forward) except -1:
    """to[n] = source[n], in reverse order where not `forward`."""
    cdef Py_ssize_t done = 0, size
    cdef int status = OK
    if n <= 8 * SLICE_LIMBS and forward:
        memcpy(to, source, n)
        return 0
    with nogil:
        while done < n and status == OK:
            size = min(n - done, <Py_ssize_t>(8 * SLICE_LIMBS))
            if forward:
                memcpy(to + done, source + done, size)
            else:
                cl_reverse(to + done, source + n - done - size, size)
            done += size
            if done < n:
                status = poll()
    check(status)
    return 0


cdef BigInt read_bytes(bytes data, bint little, bint signed):
    cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
    cdef const unsigned char* source = <const unsigned char*>PyBytes_AS_STRING(data)
    cdef Py_ssize_t n = (length + 7) // 8
    cdef bint negative = signed and length and source[length - 1 if little else 0] >> 7
    cdef BigInt x = bigint_new(n)
    if n:
        x.limbs[n - 1] = 0 - <uint64_t>negative
    copy_bytes(<char*>x.limbs, <const char*>source, length, little)
    if negative:
        limbs_negate(x.limbs, x.limbs, n)
    return bigint_finish(x, n, negative)


cdef BigInt construct_one(object x):
    if type(x) is BigInt:
        return <BigInt>x
    if PyLong_Check(x):
        return bigint_from_int(x)
    if PyFloat_Check(x):
        if isfinite(PyFloat_AS_DOUBLE(x)):
            return bigint_from_double(PyFloat_AS_DOUBLE(x))
        if isnan(PyFloat_AS_DOUBLE(x)):
            raise ValueError(f"cannot convert float NaN to integer: {x}")
        raise OverflowError(f"cannot convert float infinity to integer: {x}")
    if isinstance(x, (str, bytes, bytearray, memoryview)):
        return parse(x, 10)
    try:
        return bigint_from_int(int(x))
    except TypeError as error:
        if str(error).startswith("int() argument must be"):
            raise TypeError(f"BigInt{str(error)[3:]}") from None
        raise


cdef object construct_any(tuple arguments, dict named):
    if not arguments and not named:
        return bigint_from_int64(0)
    if len(arguments) == 1 and not named:
        return construct_one(arguments[0])
    if named.keys() - {"base"}:
        unknown = min(named.keys() - {"base"})
        raise TypeError(f"{unknown!r} is an invalid keyword argument for BigInt()")
    if not arguments:
        raise TypeError("BigInt() missing string argument")
    if len(arguments) + len(named) > 2:
        raise TypeError(f"BigInt() takes at most 2 arguments ({len(arguments) + len(named)} given)")
    base = operator.index(arguments[1] if len(arguments) == 2 else named["base"])
    if not isinstance(arguments[0], (str, bytes, bytearray)):
        raise TypeError(f"BigInt() can't convert non-string with explicit base: {arguments[0]!r}")
    if base != 0 and not 2 <= base <= 36:
        raise ValueError(f"BigInt() base must be >= 2 and <= 36, or 0, not {base}")
    return parse(arguments[0], base)


cdef object construct(PyTypeObject* type, PyObject* arguments, PyObject* named):
    return construct_any(<tuple>arguments, {} if named == NULL else <dict>named)


cdef object construct_call(PyObject* type, PyObject** arguments, size_t flags, PyObject* names):
    cdef Py_ssize_t i, n = PyVectorcall_NARGS(flags)
    if n == 1 and names == NULL:
        return construct_one(<object>arguments[0])
    positional = tuple([<object>arguments[i] for i in range(n)])
    named = {}
    if names != NULL:
        for i, name in enumerate(<tuple>names):
            named[name] = <object>arguments[n + i]
    return construct_any(positional, named)


@cython.final
@cython.internal
cdef class LimbView:
    """The limbs of a number as a buffer: a number itself is none, or arrays would take it apart."""

    cdef BigInt owner
    cdef Py_ssize_t shape
    cdef Py_ssize_t stride

    def __init__(self, BigInt owner not None):
        self.owner = owner
        self.shape = limb_count(owner)
        self.stride = sizeof(uint64_t)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("the limbs of a number are read-only")
        buffer.buf = self.owner.limbs
        buffer.obj = self
        buffer.len = self.shape * self.stride
        buffer.itemsize = self.stride
        buffer.readonly = 1
        buffer.ndim = 1
        buffer.format = NULL
        if flags & PyBUF_FORMAT:
            buffer.format = "Q"
        buffer.shape = &self.shape if flags & PyBUF_ND else NULL
        buffer.strides = &self.stride if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL


@cython.final
cdef class BigInt:
    """An integer of any size: BigInt(value=0) or BigInt(text, base=10), as int reads them.

    >>> BigInt(2) ** 100 // 3
    BigInt(422550200076076467165567735125)
    """

    def __add__(self, other):
        if type(other) is BigInt:
            return add(self, <BigInt>other, False)
        if PyLong_Check(other):
            return add(self, bigint_from_int(other), False)
        return mixed(operator.add, self, other)

    def __radd__(self, other):
        if PyLong_Check(other):
            return add(bigint_from_int(other), self, False)
        return mixed(operator.add, other, self)

    def __sub__(self, other):
        if type(other) is BigInt:
            return add(self, <BigInt>other, True)
        if PyLong_Check(other):
            return add(self, bigint_from_int(other), True)
        return mixed(operator.sub, self, other)

    def __rsub__(self, other):
        if PyLong_Check(other):
            return add(bigint_from_int(other), self, True)
        return mixed(operator.sub, other, self)

    def __mul__(self, other):
        if type(other) is BigInt:
            return multiply(self, <BigInt>other)
        if PyLong_Check(other):
            return multiply(self, bigint_from_int(other))
        if PyFloat_Check(other) or PyComplex_Check(other):
            return mixed(operator.mul, self, other)
        return NotImplemented

    def __rmul__(self, other):
        if PyLong_Check(other):
            return multiply(bigint_from_int(other), self)
        return mixed(operator.mul, other, self)

    def __floordiv__(self, other):
        if type(other) is BigInt:
            return floor_divide(self, <BigInt>other, QUOTIENT)
        if PyLong_Check(other):
            return floor_divide(self, bigint_from_int(other), QUOTIENT)
        return mixed(operator.floordiv, self, other)

    def __rfloordiv__(self, other):
        if PyLong_Check(other):
            return floor_divide(bigint_from_int(other), self, QUOTIENT)
        return mixed(operator.floordiv, other, self)

    def __mod__(self, other):
        if type(other) is BigInt:
            return floor_divide(self, <BigInt>other, REMAINDER)
        if PyLong_Check(other):
            return floor_divide(self, bigint_from_int(other), REMAINDER)
        return mixed(operator.mod, self, other)

    def __rmod__(self, other):
        if PyLong_Check(other):
            return floor_divide(bigint_from_int(other), self, REMAINDER)
        return mixed(operator.mod, other, self)

    def __divmod__(self, other):
        if type(other) is BigInt:
            return floor_divide(self, <BigInt>other, BOTH)
        if PyLong_Check(other):
            return floor_divide(self, bigint_from_int(other), BOTH)
        return mixed(divmod, self, other)

    def __rdivmod__(self, other):
        if PyLong_Check(other):
            return floor_divide(bigint_from_int(other), self, BOTH)
        return mixed(divmod, other, self)

    def __truediv__(self, other):
        if type(other) is BigInt:
            return true_divide(self, <BigInt>other)
        if PyLong_Check(other):
            return true_divide(self, bigint_from_int(other))
        return mixed(operator.truediv, self, other)

    def __rtruediv__(self, other):
        if PyLong_Check(other):
            return true_divide(bigint_from_int(other), self)
        return mixed(operator.truediv, other, self)

    def __lshift__(self, other):
        return shift(self, other, False)

    def __rlshift__(self, other):
        cdef BigInt b = operand(other)
        return NotImplemented if b is None else shift(b, self, False)

    def __rshift__(self, other):
        return shift(self, other, True)

    def __rrshift__(self, other):
        cdef BigInt b = operand(other)
        return NotImplemented if b is None else shift(b, self, True)

    def __and__(self, other):
        cdef BigInt b = operand(other)
        return NotImplemented if b is None else bitwise(AND, self, b)

    def __rand__(self, other):
        cdef BigInt b = operand(other)
        return NotImplemented if b is None else bitwise(AND, b, self)

    def __or__(self, other):
        cdef BigInt b = operand(other)
        return NotImplemented if b is None else bitwise(OR, self, b)

    def __ror__(self, other):
        cdef BigInt b = operand(other)
        return NotImplemented if b is None else bitwise(OR, b, self)

    def __xor__(self, other):
        cdef BigInt b = operand(other)
        return NotImplemented if b is None else bitwise(XOR, self, b)

    def __rxor__(self, other):
        cdef BigInt b = operand(other)
        return NotImplemented if b is None else bitwise(XOR, b, self)

    def __pow__(self, other, modulus):
        return power(self, other, modulus)

    def __rpow__(self, other, modulus):
        return power(other, self, modulus)

    def __neg__(self):
        return signed_copy(self, self.size > 0)

    def __pos__(self):
        return self

    def __abs__(self):
        return signed_copy(self, False) if self.size < 0 else self

    def __invert__(self):
        return add(bigint_from_int64(-1), self, True)

    def __bool__(self):
        return self.size != 0

    def __hash__(self):
        cdef int64_t h = limbs_hash(self.limbs, limb_count(self))
        if self.size < 0:
            h = -h
        return -2 if h == -1 else h

    def __richcmp__(self, other, int op):
        cdef double value
        if type(other) is BigInt:
            return holds(compare(self, <BigInt>other), op)
        if PyLong_Check(other):
            return holds(compare(self, bigint_from_int(other)), op)
        if PyFloat_Check(other):
            value = PyFloat_AS_DOUBLE(other)
            return op == Py_NE if isnan(value) else holds(compare_double(self, value), op)
        if PyComplex_Check(other) and (op == Py_EQ or op == Py_NE):
            return (other.imag == 0 and self == other.real) == (op == Py_EQ)
        return NotImplemented

    def __int__(self):
        return bigint_to_int(self)

    def __index__(self):
        return bigint_to_int(self)

    def __float__(self):
        return to_double(self)

    def __complex__(self):
        return complex(to_double(self))

    def __trunc__(self):
        return self

    def __floor__(self):
        return self

    def __ceil__(self):
        return self

    def __round__(self, ndigits=None):
        if ndigits is None:
            return self
        cdef BigInt digits = as_bigint(ndigits)
        return self if digits.size >= 0 else round_to(self, digits)

    def __repr__(self):
        return f"BigInt({self})"

    def __str__(self):
        return to_digits(self, 10)

    def __format__(self, spec):
        return format_integer(self, spec) if spec else to_digits(self, 10)

    def __reduce__(self):
        return BigInt, (bigint_to_int(self),)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __sizeof__(self):
        return 8 * limb_count(self) + sizeof(PyObject) + 2 * sizeof(int64_t)

    def bit_length(self):
        """Return the number of bits of the magnitude.

        >>> BigInt(-37).bit_length()
        6
        """
        return limbs_bit_length(self.limbs, limb_count(self))

    def bit_count(self):
        """Return the number of ones in the magnitude's binary digits.

        >>> BigInt(-7).bit_count()
        3
        """
        return limbs_popcount(self.limbs, limb_count(self))

    def digits(self, base=10):
        """Return the number's digits in a base from 2 to 36, in lower case, without a prefix.

        >>> BigInt(-255).digits(16)
        '-ff'
        """
        if not 2 <= base <= 36:
            raise ValueError(f"base must be >= 2 and <= 36, not {base}")
        return to_digits(self, base)

    def to_bytes(self, length=1, byteorder="big", *, object signed=False):
        """Return the number in so many bytes, negative ones in two's complement.

        Raises OverflowError where it does not fit, or is negative and not `signed`.

        >>> BigInt(-2).to_bytes(2, "little", signed=True)
        b'\\xfe\\xff'
        """
        cdef Py_ssize_t size = operator.index(length)
        cdef bint little = is_little(byteorder)
        if size < 0:
            raise ValueError(f"length argument must be non-negative, not {size}")
        return write_bytes(self, size, little, bool(signed))

    @staticmethod
    def from_bytes(data, byteorder="big", *, object signed=False):
        """Return the number that bytes, or an iterable of them, stand for.

        >>> BigInt.from_bytes(b"\\x01\\x00")
        BigInt(256)
        """
        cdef bint little = is_little(byteorder)
        if type(data) is not bytes:
            if isinstance(data, str) or hasattr(data, "__index__"):
                raise TypeError(f"cannot convert {type(data).__name__!r} object to bytes: {data!r}")
            data = bytes(data)
        return read_bytes(data, little, bool(signed))

    def view_limbs(self):
        """Return the magnitude's 64-bit limbs, least significant first, without a copy.

        The view is read-only and keeps the number alive; `numpy.asarray` takes it as it is.

        >>> BigInt(2**64 + 5).view_limbs().tolist()
        [5, 1]
        """
        return memoryview(LimbView(self))

    def conjugate(self):
        """Return the number itself, its complex conjugate."""
        return self

    def is_integer(self):
        """Return True: every integer is one."""
        return True

    def as_integer_ratio(self):
        """Return the number and one, the ratio in lowest terms that equals it.

        >>> BigInt(-12).as_integer_ratio()
        (BigInt(-12), BigInt(1))
        """
        return self, bigint_from_int64(1)

    @property
    def real(self):
        """The number itself."""
        return self

    @property
    def imag(self):
        """Zero."""
        return bigint_from_int64(0)

    @property
    def numerator(self):
        """The number itself."""
        return self

    @property
    def denominator(self):
        """One."""
        return bigint_from_int64(1)


cl_bigint_install(<PyTypeObject*>BigInt, construct, construct_call, power)
numbers.Integral.register(BigInt)
