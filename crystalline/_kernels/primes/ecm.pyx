"""One curve of the elliptic curve method modulo an odd number of up to 2,048 bits.

Which curves are tried, and what their results share with the number, is left to
`crystalline.exact.factoring`.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from crystalline._kernels.primes.interrupt cimport check_signals

cdef extern from "primes_modular.h":
    uint64_t cl_inverse_64(uint64_t n) noexcept nogil

cdef extern from "primes_wide.h":
    int CL_WIDE_LIMBS
    ctypedef struct EcmWideModulus:
        int k
        uint64_t negative_inverse
        uint64_t* n
    ctypedef struct Point "ecm_wide_Point":
        uint64_t* x
        uint64_t* z
    ctypedef uint64_t Element "ecm_wide_Element"[32]
    ctypedef struct Second "ecm_wide_Second":
        uint64_t* acc
        Point* babies
        Element* products
        int units
    void first_stage "ecm_wide_first_stage"(Point* p, const uint64_t* s, const uint64_t* factors,
                                            int64_t count, const EcmWideModulus* m) noexcept nogil
    void second_begin "ecm_wide_second_begin"(Second* t, const Point* p, const uint64_t* s, int D,
                                              uint64_t g, const uint8_t* is_unit, Point* points,
                                              const EcmWideModulus* m) noexcept nogil
    void second_step "ecm_wide_second_step"(Second* t, const uint8_t* wanted,
                                            const EcmWideModulus* m) noexcept nogil

MOST_BITS = 64 * CL_WIDE_LIMBS

cdef enum:
    GIANT = 2310  # 2 3 5 7 11: 240 units below half of it
    HALF = 1155
    UNITS = 240


cdef struct Workspace:
    EcmWideModulus modulus
    Point point
    Point babies[UNITS]
    Point points[HALF]
    Element products[UNITS]
    Second second
    uint64_t s[32]
    uint8_t is_unit[HALF]
    uint8_t wanted[UNITS]
    int place[HALF]  # of a unit among the units


cdef int _first(Workspace* w, const uint64_t* primes, int64_t count,
                uint64_t bound) except -1 nogil:
    """Multiply the point by every prime power up to bound, as many at once as fit a word."""
    cdef uint64_t packed = 1, power
    cdef int64_t i
    for i in range(count):
        if primes[i] > bound:
            break
        power = primes[i]
        while power <= bound // primes[i]:
            power *= primes[i]
        if packed > <uint64_t>-1 // power:
            first_stage(&w.point, w.s, &packed, 1, &w.modulus)
            packed = 1
            check_signals()
        packed *= power
    first_stage(&w.point, w.s, &packed, 1, &w.modulus)
    return 0


cdef int _second(Workspace* w, const uint64_t* primes, int64_t count,
                 uint64_t bound) except -1 nogil:
    """Multiply up the differences for every prime in (bound, last of primes]."""
    cdef int64_t i = 0
    cdef uint64_t g, at, distance
    cdef int j, units = 0
    for j in range(1, HALF):
        w.is_unit[j] = j % 2 != 0 and j % 3 != 0 and j % 5 != 0 and j % 7 != 0 and j % 11 != 0
        w.place[j] = units
        units += w.is_unit[j]
    while i < count and primes[i] <= bound:
        i += 1
    if i == count:
        return 0
    w.second.babies, w.second.products = w.babies, w.products
    g = max((primes[i] + HALF) // GIANT, <uint64_t>2)
    second_begin(&w.second, &w.point, w.s, GIANT, g, w.is_unit, w.points, &w.modulus)
    while i < count:
        memset(w.wanted, 0, UNITS)
        at = g * GIANT
        while i < count and primes[i] < at + HALF:
            if primes[i] + HALF > at:
                distance = max(primes[i], at) - min(primes[i], at)
                w.wanted[w.place[distance]] = 1
            i += 1
        second_step(&w.second, w.wanted, &w.modulus)
        check_signals()
        g += 1
    return 0


cdef int _set(uint64_t* r, object value, int k) except -1:
    cdef bytes raw = value.to_bytes(8 * k, "little")
    memcpy(r, <const char*>raw, 8 * k)
    return 0


cdef object _get(const uint64_t* a, int k):
    return int.from_bytes((<const char*>a)[:8 * k], "little")


def curve(n, x, s, const uint64_t[::1] primes not None, uint64_t bound) -> tuple:
    """Run both stages from the point x : 1 on the curve with (a + 2) / 4 = s, modulo the odd n.

    The first stage takes the prime powers up to `bound`, which is 2,400 at least; the second the
    rest of `primes`, which are all primes from 2 on.  Returns the Z of the first stage and the
    product of the second, each up to a unit: what they share with n is the result.

    >>> import math
    >>> from crystalline._kernels.primes import sieve
    >>> primes = sieve.array(0, 10**5, 9592)
    >>> n = 10000019 * (2**61 - 1)
    >>> z, product = curve(n, 2, 3, primes, 2400)
    >>> math.gcd(z, n), math.gcd(product, n)
    (1, 10000019)
    """
    cdef int k = (n.bit_length() + 63) // 64
    cdef Workspace* w
    if n < 3 or n % 2 == 0 or k > CL_WIDE_LIMBS:
        raise ValueError(f"the modulus must be odd and of 2 to {MOST_BITS} bits, not {n}")
    if bound < 2400:
        raise ValueError(f"the bound of the first stage must be at least 2400, not {bound}")
    w = <Workspace*>calloc(1, sizeof(Workspace))
    if w == NULL:
        raise MemoryError(f"no memory for a curve of {sizeof(Workspace)} bytes")
    try:
        w.modulus.k = k
        _set(w.modulus.n, n, k)
        w.modulus.negative_inverse = 0 - cl_inverse_64(w.modulus.n[0])
        one = pow(2, 64 * k, n)  # a shift of C integers would overflow
        _set(w.point.x, x * one % n, k)
        _set(w.point.z, one, k)
        _set(w.second.acc, one, k)
        _set(w.s, s * one % n, k)
        if primes.shape[0]:
            with nogil:
                _first(w, &primes[0], primes.shape[0], bound)
                _second(w, &primes[0], primes.shape[0], bound)
        return _get(w.point.z, k), _get(w.second.acc, k)
    finally:
        free(w)
