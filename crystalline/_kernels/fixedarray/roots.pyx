"""Square roots of arrays of fixed-width fixed-point numbers, rounded correctly.

Elements and rounding are as in `arithmetic`.  s = floor(sqrt(a 2^frac_bits)) comes with its
remainder, and the nearest integer is s + 1 if and only if the remainder is above s: the square of
s + 1/2 is s^2 + s + 1/4, so there are no ties.
"""

from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport (
    OK,
    limbs_add_1,
    limbs_compare,
    limbs_normalize,
    limbs_zero,
)
from crystalline._kernels.bigint.roots cimport limbs_sqrtrem
from crystalline._kernels.exact_isa cimport exact_primitives
from crystalline._kernels.fixedarray.elements cimport CL_FA_LIMBS, expect_elements


def sqrt(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None, int frac_bits) -> int:
    """out = sqrt(a); a >= 0, which is left to the caller.  Returns n: the root of what fits fits.

    a [n, L]: IN; out [n, L]: OUT, may be a; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a = np.array([[2, 0], [9, 0]], "u8")
    >>> sqrt(a, a, 0), a.tolist()
    (2, [[1, 0], [3, 0]])
    """
    cdef int64_t n = out.shape[0], L = out.shape[1], i = 0
    cdef int status = OK
    expect_elements(L, frac_bits)
    if a.shape[0] != n or a.shape[1] != L:
        raise ValueError(f"a is [{a.shape[0]}, {a.shape[1]}], expected [{n}, {L}]")
    with nogil:
        for i in range(n):
            status = _sqrt(&out[i, 0], &a[i, 0], L, frac_bits)
            if status == OK:
                status = poll()
            if status != OK:
                break
    check(status)
    return n


cdef int _sqrt(uint64_t* r, const uint64_t* a, int64_t L, int64_t F) noexcept nogil:
    cdef uint64_t x[2 * CL_FA_LIMBS + 1]
    cdef uint64_t s[CL_FA_LIMBS + 1]
    cdef uint64_t rest[2 * CL_FA_LIMBS + 1]
    cdef int64_t k, words = F // 64, n, sn, rn
    cdef int bits = <int>(F % 64), status
    limbs_zero(x, words)
    x[words + L] = 0
    for k in range(L):
        x[words + k] = a[k]
    if bits:
        x[words + L] = exact_primitives().limbs.lshift(x + words, x + words, L, bits)
    n = limbs_normalize(x, words + L + 1)
    limbs_zero(r, L)
    if n == 0:
        return OK
    status = limbs_sqrtrem(s, rest, &rn, x, n)
    if status != OK:
        return status
    sn = limbs_normalize(s, (n + 1) // 2)
    if rn > sn or (rn == sn and limbs_compare(rest, s, sn) > 0):
        s[sn] = limbs_add_1(s, s, sn, 1)
        sn = limbs_normalize(s, sn + 1)
    for k in range(sn):
        r[k] = s[k]
    return OK
