"""Quotients of arrays of fixed-width fixed-point numbers, rounded correctly.

Elements, rounding and what is returned are as in `arithmetic`.  A quotient is one long division
of integers whose remainder decides the rounding.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.div cimport limbs_divrem
from crystalline._kernels.bigint.interrupt cimport check
from crystalline._kernels.bigint.limbs cimport (
    OK,
    limbs_add_1,
    limbs_compare,
    limbs_normalize,
    limbs_zero,
)
from crystalline._kernels.exact_isa cimport exact_primitives
from crystalline._kernels.fixedarray.elements cimport (
    CL_FA_LIMBS,
    block_of,
    expect_elements,
    magnitude_of,
    negate_if,
    step_of,
)


cdef enum:
    TOO_LARGE = 1


def divide(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None,
           const uint64_t[:, ::1] b not None, int frac_bits) -> int:
    """out = a / b; a division by zero is left to the caller to find, and counts as too large.

    a, b [n or 1, L]: IN; out [n, L]: OUT; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a, b, out = np.array([[7, 0]], "u8"), np.array([[4, 0]], "u8"), np.empty((1, 2), "u8")
    >>> divide(out, a, b, 1), out.tolist()  # 3.5 / 2 = 1.75, in halves: 3.5
    (1, [[4, 0]])
    """
    cdef int64_t n = out.shape[0], L = out.shape[1], start = 0, count, i
    cdef int64_t a_step = step_of(a, "a", n, L), b_step = step_of(b, "b", n, L)
    cdef int64_t block = block_of(L, 64 * L)
    cdef int status = OK
    expect_elements(L, frac_bits)
    while start < n:
        count = min(block, n - start)
        with nogil:
            for i in range(start, start + count):
                status = _divide(&out[i, 0], &a[0, 0] + i * a_step, &b[0, 0] + i * b_step, L,
                                 frac_bits)
                if status != OK:
                    break
        check(status)
        if status == TOO_LARGE:
            return i
        PyErr_CheckSignals()
        start += count
    return n


cdef int _divide(uint64_t* r, const uint64_t* a, const uint64_t* b, int64_t L,
                 int F) noexcept nogil:
    """r = a / b: OK, TOO_LARGE where it does not fit, NO_MEMORY or INTERRUPTED."""
    cdef uint64_t u[2 * CL_FA_LIMBS + 1]
    cdef uint64_t v[CL_FA_LIMBS]
    cdef uint64_t q[2 * CL_FA_LIMBS + 2]
    cdef uint64_t rest[CL_FA_LIMBS]
    cdef uint64_t negative = (a[L - 1] ^ b[L - 1]) >> 63
    cdef int64_t un, vn, qn, k, words = F // 64
    cdef int bits = F % 64, order, status
    magnitude_of(u + words, a, L)
    magnitude_of(v, b, L)
    vn = limbs_normalize(v, L)
    if vn == 0:
        return TOO_LARGE
    limbs_zero(u, words)
    u[L + words] = 0
    if bits:
        u[L + words] = exact_primitives().limbs.lshift(u + words, u + words, L, bits)
    un = limbs_normalize(u, L + words + 1)
    limbs_zero(r, L)
    if un < vn:  # the quotient is below 1 unit: all is in the remainder
        q[0], qn = 0, 1
        for k in range(vn):
            rest[k] = u[k] if k < un else 0
    else:
        status = limbs_divrem(q, rest, u, un, v, vn)
        if status != OK:
            return status
        qn = un - vn + 1
    # the remainder against half of the divisor: is 2 rest above v, or equal with q odd?
    cdef uint64_t out = exact_primitives().limbs.lshift(rest, rest, vn, 1)
    order = 1 if out else limbs_compare(rest, v, vn)
    if order > 0 or (order == 0 and q[0] & 1):
        q[qn] = limbs_add_1(q, q, qn, 1)
        qn += 1
    qn = limbs_normalize(q, qn)
    if qn > L:
        return TOO_LARGE
    for k in range(qn):
        r[k] = q[k]
    return OK if negate_if(r, L, negative) else TOO_LARGE
