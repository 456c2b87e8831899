"""Sums, products and comparisons of arrays of fixed-width fixed-point numbers.

An element is a two's complement integer of L limbs that counts units of 2^-frac_bits; an array is
uint64 [n, L], least significant limb first.  Operands of one element are used for all.  Results
are rounded to the nearest unit, ties to even, once.  Functions return the index of the first
element whose result does not fit (n when all do); what `out` holds from there on means nothing.
`out` may be an operand of the same size, and is apart from them otherwise; names, formats and
errors are the faces' (crystalline.exact.array).  The GIL is released, and signals are heard
between blocks of a few milliseconds.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int8_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from crystalline._kernels.bigint.interrupt cimport check, poll
from crystalline._kernels.bigint.limbs cimport OK
from crystalline._kernels.exact_isa cimport exact_primitives
from crystalline._kernels.fixedarray.elements cimport (
    block_of,
    expect_elements,
    poll_each,
    step_of,
)

cdef extern from *:
    """
    #include <stdlib.h>
    """
    void* aligned_alloc(size_t alignment, size_t size) noexcept nogil

cdef enum:
    ADD = 0
    SUB = 1


cdef int64_t _sum(int kind, uint64_t[:, ::1] out, const uint64_t[:, ::1] a,
                  const uint64_t[:, ::1] b) except -1:
    cdef int64_t n = out.shape[0], L = out.shape[1], start = 0, count, done
    cdef int64_t a_step = step_of(a, "a", n, L), b_step = step_of(b, "b", n, L)
    cdef int64_t block = block_of(L, L)
    while start < n:
        count = min(block, n - start)
        with nogil:
            if kind == ADD:
                done = exact_primitives().fixedarray.add(
                    &out[start, 0], &a[0, 0] + start * a_step, a_step,
                    &b[0, 0] + start * b_step, b_step, count, <int>L)
            else:
                done = exact_primitives().fixedarray.sub(
                    &out[start, 0], &a[0, 0] + start * a_step, a_step,
                    &b[0, 0] + start * b_step, b_step, count, <int>L)
        if done < count:
            return start + done
        PyErr_CheckSignals()
        start += count
    return n


def add(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None,
        const uint64_t[:, ::1] b not None) -> int:
    """out = a + b.

    a, b [n or 1, L]: IN; out [n, L]: OUT.

    >>> import numpy as np
    >>> a, out = np.array([[2**64 - 1, 0]], "u8"), np.empty((1, 2), "u8")
    >>> add(out, a, a), out.tolist()
    (1, [[18446744073709551614, 1]])
    """
    return _sum(ADD, out, a, b)


def subtract(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None,
             const uint64_t[:, ::1] b not None) -> int:
    """out = a - b.

    a, b [n or 1, L]: IN; out [n, L]: OUT.

    >>> import numpy as np
    >>> zero, least = np.zeros((1, 2), "u8"), np.array([[0, 2**63]], "u8")
    >>> subtract(zero.copy(), zero, least)  # 2^127 does not fit
    0
    """
    return _sum(SUB, out, a, b)


def multiply_add(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None,
                 const uint64_t[:, ::1] b not None, const uint64_t[:, ::1] c,
                 int frac_bits) -> int:
    """out = a b + c, rounded once; None for c is zero.

    a, b, c [n or 1, L]: IN; out [n, L]: OUT; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a, out = np.array([[3, 0]], "u8"), np.empty((1, 2), "u8")
    >>> multiply_add(out, a, a, None, 1), out.tolist()  # 1.5 · 1.5 = 2.25, in halves: 4.5
    (1, [[4, 0]])
    """
    cdef int64_t n = out.shape[0], L = out.shape[1], start = 0, count, done
    cdef int64_t a_step = step_of(a, "a", n, L), b_step = step_of(b, "b", n, L), c_step = 0
    cdef int64_t block = block_of(L, L * L)
    cdef const uint64_t* addend = NULL
    expect_elements(L, frac_bits)
    if n == 0:
        return 0
    if c is not None:
        c_step = step_of(c, "c", n, L)
        addend = &c[0, 0]
    while start < n:
        count = min(block, n - start)
        with nogil:
            done = exact_primitives().fixedarray.fma(
                &out[start, 0], &a[0, 0] + start * a_step, a_step, &b[0, 0] + start * b_step,
                b_step, addend, c_step, count, <int>L, frac_bits)
        if done < count:
            return start + done
        if addend != NULL:
            addend += count * c_step
        PyErr_CheckSignals()
        start += count
    return n


def dot(uint64_t[::1] out not None, const uint64_t[:, ::1] a not None,
        const uint64_t[:, ::1] b not None, int frac_bits) -> bool:
    """out = Σ a b, added up exactly and rounded once; returns whether it fits.

    a, b [n, L]: IN; out [L]: OUT; 0 <= frac_bits < 64 L.

    >>> import numpy as np
    >>> a, out = np.array([[3, 0], [1, 0]], "u8"), np.empty(2, "u8")
    >>> dot(out, a, a, 1), out.tolist()  # 2.25 + 0.25
    (True, [5, 0])
    """
    cdef int64_t n = a.shape[0], L = out.shape[0], start = 0, count
    cdef int64_t block = block_of(L, L * L)
    cdef bint fits
    expect_elements(L, frac_bits)
    if a.shape[1] != L or b.shape[1] != L or b.shape[0] != n:
        raise ValueError(f"a is [{n}, {a.shape[1]}] and b [{b.shape[0]}, {b.shape[1]}], "
                         f"expected the same n and {L} limbs")
    cdef uint64_t* exact = <uint64_t*>malloc((2 * L + 2) * sizeof(uint64_t))
    if exact == NULL:
        raise MemoryError(f"no memory for {2 * L + 2} limbs")
    memset(exact, 0, (2 * L + 2) * sizeof(uint64_t))
    try:
        while start < n:
            count = min(block, n - start)
            with nogil:
                exact_primitives().fixedarray.dot(exact, &a[start, 0], &b[start, 0], count,
                                                  <int>L)
            PyErr_CheckSignals()
            start += count
        fits = exact_primitives().fixedarray.round(&out[0], exact, <int>(2 * L + 2), <int>L,
                                                   frac_bits)
    finally:
        free(exact)
    return fits


def matmul(uint64_t[:, :, ::1] out not None, const uint64_t[:, :, ::1] a not None,
           const uint64_t[:, :, ::1] b not None, int frac_bits) -> int:
    """out = a b, matrices; each element added up exactly and rounded once.

    a [M, K, L], b [K, N, L]: IN; out [M, N, L]: OUT, apart from a and b; 0 <= frac_bits < 64 L.
    The index returned counts the elements of out row by row.

    >>> import numpy as np
    >>> a, out = np.zeros((2, 2, 2), "u8"), np.empty((2, 2, 2), "u8")
    >>> a[:, :, 0] = [[1, 2], [3, 4]]
    >>> matmul(out, a, a, 0), out[:, :, 0].tolist()
    (4, [[7, 10], [15, 22]])
    """
    cdef int64_t M = out.shape[0], N = out.shape[1], L = out.shape[2], K = b.shape[0]
    cdef int64_t j = 0, at, first = M * N
    cdef int status
    expect_elements(L, frac_bits)
    if (a.shape[0] != M or a.shape[1] != K or a.shape[2] != L or b.shape[1] != N
            or b.shape[2] != L):
        raise ValueError(
            f"a is [{a.shape[0]}, {a.shape[1]}, {a.shape[2]}] and b [{K}, {b.shape[1]}, "
            f"{b.shape[2]}], expected [{M}, K, {L}] and [K, {N}, {L}]")
    if M == 0 or N == 0:
        return 0
    if K == 0:
        memset(&out[0, 0, 0], 0, M * N * L * sizeof(uint64_t))
        return first
    cdef int64_t size = exact_primitives().fixedarray.matmul_work(M, K, <int>L)
    cdef void* work = aligned_alloc(64, 64 + (size + 63) // 64 * 64)
    if work == NULL:
        raise MemoryError(f"no memory for a matrix product's {size} bytes of digits")
    try:
        with nogil:
            status = exact_primitives().fixedarray.matmul_begin(work, &a[0, 0, 0], M, K, <int>L,
                                                                poll)
        check(status)
        while j < N:
            with nogil:
                at = exact_primitives().fixedarray.matmul_columns(
                    &out[0, 0, 0], &a[0, 0, 0], &b[0, 0, 0], M, K, N, j, <int>L, frac_bits, work,
                    poll)
            if at < 0:
                check(<int>at)
            first = min(first, at)
            PyErr_CheckSignals()
            j += 8
    finally:
        free(work)
    return first


def sum_rows(uint64_t[:, ::1] out not None, const uint64_t[:, :, ::1] a not None) -> int:
    """out = Σ a over the middle axis, added up exactly.

    a [n, K, L]: IN; out [n, L]: OUT, apart from a.

    >>> import numpy as np
    >>> a, out = np.ones((1, 3, 2), "u8"), np.empty((1, 2), "u8")
    >>> sum_rows(out, a), out.tolist()
    (1, [[3, 3]])
    """
    cdef int64_t n = out.shape[0], L = out.shape[1], K = a.shape[1], i = 0, k, w, done = 0
    cdef int64_t above, block = block_of(L, L), start
    cdef uint64_t carry, sign
    cdef uint64_t* sum_
    if a.shape[0] != n or a.shape[2] != L:
        raise ValueError(f"a is [{a.shape[0]}, {K}, {a.shape[2]}], expected [{n}, K, {L}]")
    while i < n:
        sum_ = &out[i, 0]
        memset(sum_, 0, L * sizeof(uint64_t))
        above = 0  # what is beyond the L limbs
        start = 0
        while start < K:
            with nogil:
                for k in range(start, min(start + block, K)):
                    carry = exact_primitives().limbs.add_n(sum_, sum_, &a[i, k, 0], L)
                    sign = a[i, k, L - 1] >> 63
                    above += <int64_t>carry - <int64_t>sign
            PyErr_CheckSignals()
            start += block
        w = -<int64_t>(sum_[L - 1] >> 63)
        if above != w:
            return i
        done += K
        i += 1
        if done > block:
            PyErr_CheckSignals()
            done = 0
    return n


def absolute(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None) -> int:
    """out = |a|; only the least number does not fit.

    a [n, L]: IN; out [n, L]: OUT.

    >>> import numpy as np
    >>> a = np.array([[2**64 - 3, 2**64 - 1]], "u8")
    >>> absolute(a, a), a.tolist()
    (1, [[3, 0]])
    """
    cdef int64_t n = out.shape[0], L = out.shape[1], i, k, block = block_of(L, L), since = 0
    cdef uint64_t sign, carry
    cdef int status = OK
    if a.shape[0] != n or a.shape[1] != L:
        raise ValueError(f"a is [{a.shape[0]}, {a.shape[1]}], expected [{n}, {L}]")
    with nogil:
        for i in range(n):
            status = poll_each(&since, block)
            if status != OK:
                break
            sign = -(a[i, L - 1] >> 63)
            carry = sign & 1
            for k in range(L):
                out[i, k] = (a[i, k] ^ sign) + carry
                carry = carry & (out[i, k] == 0)
            if out[i, L - 1] >> 63:
                break
        else:
            i = n
    check(status)
    return i


def compare(int8_t[::1] out not None, const uint64_t[:, ::1] a not None,
            const uint64_t[:, ::1] b not None) -> None:
    """out = -1, 0 or 1 as a is below, equal to or above b.

    a, b [n or 1, L]: IN; out [n]: OUT.

    >>> import numpy as np
    >>> a, out = np.array([[0, 2**63], [5, 0]], "u8"), np.empty(2, "i1")
    >>> compare(out, a, a[1:]); out.tolist()
    [-1, 0]
    """
    cdef int64_t n = out.shape[0], L = a.shape[1], i, block = block_of(L, L), since = 0
    cdef int64_t a_step = step_of(a, "a", n, L), b_step = step_of(b, "b", n, L)
    cdef int status = OK
    if n == 0:
        return
    with nogil:
        for i in range(n):
            status = poll_each(&since, block)
            if status != OK:
                break
            out[i] = _order(&a[0, 0] + i * a_step, &b[0, 0] + i * b_step, L)
    check(status)


cdef int8_t _order(const uint64_t* a, const uint64_t* b, int64_t L) noexcept nogil:
    cdef int64_t i = L - 2
    if a[L - 1] != b[L - 1]:
        return -1 if <int64_t>a[L - 1] < <int64_t>b[L - 1] else 1
    while i >= 0:
        if a[i] != b[i]:
            return -1 if a[i] < b[i] else 1
        i -= 1
    return 0


def extreme(const uint64_t[:, ::1] a not None, int sign) -> int:
    """Return the index of the first of the largest elements, of the least for a negative sign.

    a [n, L]: IN, n >= 1.

    >>> import numpy as np
    >>> extreme(np.array([[7, 0], [9, 0], [0, 2**63]], "u8"), 1)
    1
    """
    cdef int64_t n = a.shape[0], L = a.shape[1], i, best = 0, block = block_of(L, L), start = 1
    cdef int status = OK
    if n == 0:
        raise ValueError("an empty array has no extreme element")
    with nogil:
        while start < n and status == OK:
            for i in range(start, min(n, start + block)):
                if _order(&a[i, 0], &a[best, 0], L) * sign > 0:
                    best = i
            start += block
            status = poll()
    check(status)
    return best


def merge(int64_t[::1] out not None, const int64_t[::1] order not None,
          const uint64_t[:, ::1] a not None, int64_t run) -> None:
    """out = the indices in `order`, sorted runs of length `run`, merged in pairs; stable.

    order [n]: IN; out [n]: OUT, apart from it; a [any, L]: IN, what is sorted.

    >>> import numpy as np
    >>> a, out = np.array([[2], [4], [1], [2]], "u8"), np.empty(4, "i8")
    >>> merge(out, np.arange(4), a, 2); out.tolist()
    [2, 0, 3, 1]
    """
    cdef int64_t n = order.shape[0], L = a.shape[1], start = 0, k, i, j, middle, end
    cdef int64_t block = block_of(L, 16 * L), since = 0
    cdef int status = OK
    if out.shape[0] != n:
        raise ValueError(f"out has {out.shape[0]} elements, expected {n}")
    with nogil:
        while start < n and status == OK:
            middle, end = min(n, start + run), min(n, start + 2 * run)
            i, j = start, middle
            for k in range(start, end):
                if j == end or (i < middle
                                and _order(&a[order[i], 0], &a[order[j], 0], L) <= 0):
                    out[k] = order[i]
                    i += 1
                else:
                    out[k] = order[j]
                    j += 1
                status = poll_each(&since, block)
                if status != OK:
                    break
            start = end
    check(status)


def rescale(uint64_t[:, ::1] out not None, const uint64_t[:, ::1] a not None, int shift) -> int:
    """out = a · 2^shift, rounded where bits are shifted out.

    a [n, L]: IN; out [n, any number of limbs]: OUT, apart from a; |shift| < 64 times the limbs of
    a or of out, whichever are more.

    >>> import numpy as np
    >>> a, out = np.array([[6, 0]], "u8"), np.empty((1, 1), "u8")
    >>> rescale(out, a, -2), out.tolist()  # 1.5
    (1, [[2]])
    """
    cdef int64_t n = out.shape[0], L = out.shape[1], m = a.shape[1], i, k
    cdef int64_t words = max(shift, 0) // 64, bits = max(shift, 0) % 64
    cdef int64_t block = block_of(L, m + words), since = 0
    cdef bint fits
    cdef int status = OK
    expect_elements(L, 0)
    expect_elements(max(L, m), abs(shift))
    if a.shape[0] != n:
        raise ValueError(f"a has {a.shape[0]} elements, expected {n}")
    cdef int64_t size = max(m, L) + words + 2
    cdef uint64_t sign
    cdef uint64_t* p = <uint64_t*>malloc(size * sizeof(uint64_t))
    if p == NULL:
        raise MemoryError(f"no memory for {size} limbs")
    with nogil:
        for i in range(n):
            status = poll_each(&since, block)
            if status != OK:
                break
            sign = -(a[i, m - 1] >> 63)
            memset(p, 0, words * sizeof(uint64_t))
            memcpy(p + words, &a[i, 0], m * sizeof(uint64_t))
            for k in range(words + m, size):
                p[k] = sign
            if bits:
                exact_primitives().limbs.lshift(p, p, size, <int>bits)
            fits = exact_primitives().fixedarray.round(&out[i, 0], p, <int>size, <int>L,
                                                       max(-shift, 0))
            if not fits:
                break
        else:
            i = n
    free(p)
    check(status)
    return i
