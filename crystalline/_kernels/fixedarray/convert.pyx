"""Doubles to fixed-width fixed-point numbers and back, each rounded once to nearest, ties to even.

Elements are as in `arithmetic`.  The GIL is released; functions return the index of the first
element that cannot be converted, n when all can.
"""

from libc.math cimport ldexp
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from crystalline._kernels.bigint.interrupt cimport check
from crystalline._kernels.bigint.limbs cimport OK
from crystalline._kernels.fixedarray.elements cimport (
    CL_FA_LIMBS,
    block_of,
    expect_elements,
    magnitude_of,
    negate_if,
    poll_each,
)

cdef extern from *:
    int __builtin_clzll(unsigned long long x) noexcept nogil


def from_doubles(uint64_t[:, ::1] out not None, const double[::1] x not None,
                 int frac_bits) -> int:
    """out = x; NaN, infinities and what is too large cannot be converted.

    x [n]: IN; out [n, L]: OUT; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> out = np.empty((2, 1), "u8")
    >>> from_doubles(out, np.array([2.5, -0.5]), 1), out.tolist()
    (2, [[5], [18446744073709551615]])
    """
    cdef int64_t n = out.shape[0], L = out.shape[1], i, block = block_of(L, 8 * L), since = 0
    cdef int status = OK
    expect_elements(L, frac_bits)
    if x.shape[0] != n:
        raise ValueError(f"x has {x.shape[0]} elements, expected {n}")
    with nogil:
        for i in range(n):
            status = poll_each(&since, block)
            if status != OK:
                break
            if not _from_double(&out[i, 0], x[i], L, frac_bits):
                break
        else:
            i = n
    check(status)
    return i


cdef bint _from_double(uint64_t* r, double x, int64_t L, int F) noexcept nogil:
    cdef uint64_t bits, mantissa, rest, half
    memcpy(&bits, &x, sizeof(bits))
    cdef int64_t exponent = (bits >> 52) & 0x7ff, k, word
    cdef int shift
    if exponent == 0x7ff:
        return False
    mantissa = bits & ((<uint64_t>1 << 52) - 1)
    if exponent:
        mantissa |= <uint64_t>1 << 52
    else:
        exponent = 1
    exponent += F - 1075  # |x| 2^F = mantissa 2^exponent
    for k in range(L):
        r[k] = 0
    if exponent < 0:
        if exponent < -54:
            return True
        shift = <int>-exponent
        rest = mantissa & ((<uint64_t>1 << shift) - 1)
        half = <uint64_t>1 << (shift - 1)
        mantissa >>= shift
        mantissa += rest > half or (rest == half and (mantissa & 1) != 0)
        exponent = 0
    if mantissa == 0:
        return True
    if 64 - __builtin_clzll(mantissa) + exponent > 64 * L:
        return False
    word, shift = exponent >> 6, <int>(exponent & 63)
    r[word] = mantissa << shift
    if shift and word + 1 < L:
        r[word + 1] = mantissa >> (64 - shift)
    return negate_if(r, L, bits >> 63)


def to_doubles(double[::1] out not None, const uint64_t[:, ::1] a not None,
               int frac_bits) -> int:
    """out = a; what is beyond the largest double cannot be converted, the tiniest may become 0.

    a [n, L]: IN; out [n]: OUT; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> out = np.empty(1)
    >>> to_doubles(out, np.array([[2**64 - 5, 2**64 - 1]], "u8"), 1), out.tolist()
    (1, [-2.5])
    """
    cdef int64_t n = out.shape[0], L = a.shape[1], i, block = block_of(L, 8 * L), since = 0
    cdef int status = OK
    expect_elements(L, frac_bits)
    if a.shape[0] != n:
        raise ValueError(f"a has {a.shape[0]} elements, expected {n}")
    with nogil:
        for i in range(n):
            status = poll_each(&since, block)
            if status != OK:
                break
            if not _to_double(&out[i], &a[i, 0], L, frac_bits):
                break
        else:
            i = n
    check(status)
    return i


cdef bint _to_double(double* r, const uint64_t* a, int64_t L, int F) noexcept nogil:
    cdef uint64_t magnitude[CL_FA_LIMBS]
    cdef uint64_t x, below, rest, half
    cdef int64_t k, top, exponent
    cdef int shift, kept
    magnitude_of(magnitude, a, L)
    top = L - 1
    while top >= 0 and magnitude[top] == 0:
        top -= 1
    if top < 0:
        r[0] = 0.0
        return True
    shift = __builtin_clzll(magnitude[top])
    x, below = magnitude[top] << shift, 0  # the 64 leading bits, and whether any follows
    if shift and top:
        x |= magnitude[top - 1] >> (64 - shift)
        below = magnitude[top - 1] << shift
    elif top:
        below = magnitude[top - 1]
    for k in range(top - 1):
        below |= magnitude[k]
    exponent = 64 * top + 63 - shift - F  # 2^exponent <= |a| < 2^(exponent + 1)
    kept = 53
    if exponent < -1022:
        kept = <int>(53 + 1022 + exponent)
    if kept < 0:
        r[0] = 0.0
        return True
    shift = 64 - kept
    rest = x << kept
    x = 0 if shift == 64 else x >> shift
    half = <uint64_t>1 << 63
    x += rest > half or (rest == half and (below != 0 or (x & 1) != 0))
    if exponent - kept + 1 + 64 - (__builtin_clzll(x) if x else 64) > 1024:
        return False
    r[0] = ldexp(<double>x, <int>(exponent - kept + 1))
    if a[L - 1] >> 63:
        r[0] = -r[0]
    return True
