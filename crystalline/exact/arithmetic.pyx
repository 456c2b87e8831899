"""Number theory on integers of any size: divisors, inverses, roots, symbols, valuations.

Arguments are ints or BigInts (anything with `__index__`), results are BigInts; the algorithms are
in `_kernels.bigint`.  Ctrl-C interrupts what takes long.
"""
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.gcd cimport limbs_gcd, limbs_gcdext, limbs_jacobi
from crystalline._kernels.bigint.interrupt cimport check
from crystalline._kernels.bigint.roots cimport (
    limbs_is_power,
    limbs_is_square,
    limbs_root,
    limbs_sqrtrem,
)
from crystalline._kernels.bigint.signed cimport limbs_popcount, limbs_trailing_zeros
from crystalline.exact.integer cimport (
    BigInt,
    as_bigint,
    bigint_finish,
    bigint_from_int64,
    bigint_new,
    limb_count,
)

cdef enum:
    UNLOCKED_LIMBS = 64  # from here on the GIL is released: these take longer than a product


cdef BigInt nonnegative(object n, str name):
    cdef BigInt x = as_bigint(n)
    if x.size < 0:
        raise ValueError(f"{name}() needs a nonnegative integer, not {x}")
    return x


cdef BigInt gcd_of(BigInt a, BigInt b):
    cdef Py_ssize_t an = limb_count(a), bn = limb_count(b)
    cdef BigInt g = bigint_new(max(an, bn))
    cdef int64_t gn
    cdef int status
    if max(an, bn) < UNLOCKED_LIMBS:
        status = limbs_gcd(g.limbs, &gn, a.limbs, an, b.limbs, bn)
    else:
        with nogil:
            status = limbs_gcd(g.limbs, &gn, a.limbs, an, b.limbs, bn)
    check(status)
    return bigint_finish(g, gn, False)


def gcd(*integers) -> BigInt:
    """Return the greatest common divisor, which is never negative; that of nothing is 0.

    >>> gcd(12, -18, 27)
    BigInt(3)
    """
    if len(integers) == 2:
        return gcd_of(as_bigint(integers[0]), as_bigint(integers[1]))
    cdef BigInt g = bigint_from_int64(0)
    for x in integers:
        g = gcd_of(g, as_bigint(x))
        PyErr_CheckSignals()
    return g


def lcm(*integers) -> BigInt:
    """Return the least common multiple, which is never negative; that of nothing is 1.

    >>> lcm(4, -6, 10)
    BigInt(60)
    """
    cdef BigInt m = bigint_from_int64(1), x
    for item in integers:
        x = as_bigint(item)
        if x.size == 0:
            m = x
        elif m.size:
            m = abs(m // gcd_of(m, x) * x)
        PyErr_CheckSignals()
    return m


def xgcd(a, b) -> tuple[BigInt, BigInt, BigInt]:
    """Return (g, s, t) with g = gcd(a, b) = s a + t b and the least |s| and |t|.

    >>> xgcd(240, -46)
    (BigInt(2), BigInt(-9), BigInt(-47))
    """
    cdef BigInt x = as_bigint(a), y = as_bigint(b)
    cdef Py_ssize_t xn = limb_count(x), yn = limb_count(y)
    cdef BigInt g = bigint_new(max(xn, yn)), s = bigint_new(yn + 1), t = bigint_new(xn + 1)
    cdef int64_t gn, sn, tn
    cdef int status
    with nogil:
        status = limbs_gcdext(g.limbs, &gn, s.limbs, &sn, t.limbs, &tn, x.limbs, xn, y.limbs, yn)
    check(status)
    return (
        bigint_finish(g, gn, False),
        bigint_finish(s, sn if sn >= 0 else -sn, (sn < 0) != (x.size < 0)),
        bigint_finish(t, tn if tn >= 0 else -tn, (tn < 0) != (y.size < 0)),
    )


def invert(a, modulus) -> BigInt:
    """Return the inverse of a modulo the modulus, with the modulus' sign, as pow(a, -1, m) does.

    Raises ValueError where there is none.

    >>> invert(3, 7)
    BigInt(5)
    """
    return pow(as_bigint(a), -1, as_bigint(modulus))


def isqrt(n) -> BigInt:
    """Return the floor of the square root of n >= 0.

    >>> isqrt(99)
    BigInt(9)
    """
    return square_root(n, "isqrt", False)[0]


def isqrt_rem(n) -> tuple[BigInt, BigInt]:
    """Return the floor s of the square root of n >= 0, and n - s s.

    >>> isqrt_rem(99)
    (BigInt(9), BigInt(18))
    """
    return square_root(n, "isqrt_rem", True)


cdef tuple square_root(object n, str name, bint with_rest):
    cdef BigInt x = nonnegative(n, name), s, r
    cdef Py_ssize_t size = x.size
    cdef int64_t rn = 0
    cdef int status
    if size == 0:
        return x, x
    s = bigint_new((size + 1) // 2)
    r = bigint_new(size if with_rest else 0)
    cdef uint64_t* rest = r.limbs if with_rest else NULL
    if size < UNLOCKED_LIMBS:
        status = limbs_sqrtrem(s.limbs, rest, &rn, x.limbs, size)
    else:
        with nogil:
            status = limbs_sqrtrem(s.limbs, rest, &rn, x.limbs, size)
    check(status)
    s = bigint_finish(s, (size + 1) // 2, False)
    return s, bigint_finish(r, rn if with_rest else 0, False)


def iroot(n, k) -> tuple[BigInt, bool]:
    """Return the floor of the k-th root of n >= 0, k >= 1, and whether it is the exact root.

    >>> iroot(1000, 3), iroot(1001, 3)
    ((BigInt(10), True), (BigInt(10), False))
    """
    cdef BigInt x = nonnegative(n, "iroot"), degree = as_bigint(k), s
    if degree.size <= 0:
        raise ValueError(f"iroot() needs a degree of 1 or more, not {degree}")
    if x.size == 0:
        return x, True
    cdef uint64_t exponent = degree.limbs[0] if degree.size == 1 else <uint64_t>-1
    cdef Py_ssize_t size = x.size
    cdef int64_t sn
    cdef bint exact
    cdef int status
    s = bigint_new(size // <Py_ssize_t>min(exponent, <uint64_t>size + 1) + 1)
    with nogil:
        status = limbs_root(s.limbs, &sn, &exact, x.limbs, size, exponent)
    check(status)
    return bigint_finish(s, sn, False), exact


def is_square(n) -> bool:
    """Whether n is the square of an integer; negative numbers are not.

    >>> is_square(144), is_square(145)
    (True, False)
    """
    cdef BigInt x = as_bigint(n)
    cdef bint yes
    cdef int status
    if x.size < 0:
        return False
    with nogil:
        status = limbs_is_square(&yes, x.limbs, x.size)
    check(status)
    return yes


def is_power(n) -> bool:
    """Whether n >= 0 is x ** k for integers x >= 0 and k >= 2; 0 and 1 are.

    >>> is_power(1728), is_power(1729)
    (True, False)
    """
    cdef BigInt x = nonnegative(n, "is_power")
    cdef bint yes
    cdef int status
    with nogil:
        status = limbs_is_power(&yes, x.limbs, x.size)
    check(status)
    return yes


def jacobi(a, n) -> int:
    """Return the Jacobi symbol (a / n), -1, 0 or 1, for odd n > 0.

    >>> jacobi(2, 7), jacobi(-1, 7), jacobi(14, 7)
    (1, -1, 0)
    """
    cdef BigInt x = as_bigint(a), y = as_bigint(n)
    cdef int symbol, status
    if y.size <= 0 or not y.limbs[0] & 1:
        raise ValueError(f"jacobi() needs an odd positive second argument, not {y}")
    with nogil:
        status = limbs_jacobi(&symbol, x.limbs, limb_count(x), y.limbs, y.size)
    check(status)
    return -symbol if x.size < 0 and y.limbs[0] & 3 == 3 else symbol


def remove(n, factor) -> tuple[BigInt, int]:
    """Return n divided by the highest power of the factor that divides it, and the exponent.

    Raises ValueError for n = 0, which every power divides, and for a factor below 2.

    >>> remove(-360, 6)
    (BigInt(-10), 2)
    """
    cdef BigInt x = as_bigint(n), f = as_bigint(factor)
    cdef int64_t count
    if x.size == 0:
        raise ValueError("every power divides 0")
    if f.size <= 0 or (f.size == 1 and f.limbs[0] == 1):
        raise ValueError(f"a factor of 2 or more is needed, not {f}")
    if f.size == 1 and f.limbs[0] == 2:
        count = limbs_trailing_zeros(x.limbs, limb_count(x))
        return x >> count, count
    # Divide by f, f^2, f^4, ... while they divide, then by the same downward.
    powers = [f]
    count = 0
    while True:
        quotient, rest = divmod(x, powers[len(powers) - 1])
        if rest:
            break
        x = quotient
        count += 1 << (len(powers) - 1)
        powers.append(powers[len(powers) - 1] ** 2)
    powers.pop()
    while powers:
        quotient, rest = divmod(x, powers.pop())
        if not rest:
            x = quotient
            count += 1 << len(powers)
    return x, count


def valuation(n, factor) -> int:
    """Return the exponent of the highest power of the factor that divides n; errors as `remove`.

    >>> valuation(96, 2)
    5
    """
    return remove(n, factor)[1]


def popcount(n) -> int:
    """Return the number of ones among the bits of n >= 0.

    >>> popcount(255)
    8
    """
    cdef BigInt x = nonnegative(n, "popcount")
    return limbs_popcount(x.limbs, x.size)
