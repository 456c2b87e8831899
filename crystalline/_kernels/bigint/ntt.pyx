"""Products of long limb vectors by number-theoretic transforms: the chosen level's primitive.

The arithmetic, its bounds and the transforms are in primitives/ntt*.h; when to come here is
`mul`'s to say.  `product` and `square` are doors for tests and timings.
"""
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport NO_MEMORY
from crystalline._kernels.exact_isa cimport NTT_THREE_PRIMES_MAX, exact_primitives


cdef int _limbs_per_coefficient(int64_t bn) noexcept nogil:
    return 1 if bn <= NTT_THREE_PRIMES_MAX else 2


cdef int ntt_mul(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                 int64_t bn) noexcept nogil:
    return exact_primitives().ntt.mul(r, a, an, b, bn, _limbs_per_coefficient(bn), poll)


cdef int ntt_sqr(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil:
    return exact_primitives().ntt.mul(r, a, n, a, n, _limbs_per_coefficient(n), poll)


def product(uint64_t[::1] r, const uint64_t[::1] a, const uint64_t[::1] b,
            int limbs_per_coefficient=0) -> None:
    """Set r = a b; limbs, least significant first; r apart from a and b.

    Coefficients of 1 or 2 limbs; 0 takes what ntt_mul takes.  The same array twice is a square.

    >>> import numpy as np
    >>> r = np.zeros(3, np.uint64)
    >>> product(r, np.array([5, 7], np.uint64), np.array([2**64 - 1], np.uint64))
    >>> r.tolist()
    [18446744073709551611, 18446744073709551613, 6]
    """
    cdef int64_t an = a.shape[0], bn = b.shape[0]
    cdef int status, h = limbs_per_coefficient
    if not 1 <= bn <= an:
        raise ValueError(f"sizes {an} and {bn}: the first operand is the longer, and none is empty")
    if r.shape[0] != an + bn:
        raise ValueError(f"a product of {an} and {bn} limbs has {an + bn}, not {r.shape[0]}")
    if h == 0:
        h = _limbs_per_coefficient(bn)
    if h != 2 and not (h == 1 and bn <= NTT_THREE_PRIMES_MAX):
        raise ValueError(f"{h} limbs a coefficient do not do for {bn} limbs")
    with nogil:
        status = exact_primitives().ntt.mul(&r[0], &a[0], an, &b[0], bn, h, poll)
    if status == NO_MEMORY:
        raise MemoryError(f"no memory for a product of {an} and {bn} limbs")
    check(status)


def square(uint64_t[::1] r, const uint64_t[::1] a) -> None:
    """Set r = a a; limbs, least significant first; r apart from a.

    >>> import numpy as np
    >>> r = np.zeros(2, np.uint64)
    >>> square(r, np.array([2**64 - 1], np.uint64))
    >>> r.tolist()
    [1, 18446744073709551614]
    """
    cdef int64_t n = a.shape[0]
    cdef int status
    if n < 1:
        raise ValueError("an empty operand")
    if r.shape[0] != 2 * n:
        raise ValueError(f"a square of {n} limbs has {2 * n}, not {r.shape[0]}")
    with nogil:
        status = ntt_sqr(&r[0], &a[0], n)
    if status == NO_MEMORY:
        raise MemoryError(f"no memory for a square of {n} limbs")
    check(status)
