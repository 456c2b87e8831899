"""Linear work on limb vectors of any length, and array doors to the limb primitives.

Functions of limbs.pxd that end in `_long` do in slices, with looks at the signals, what takes a
second over gigabytes.  The doors, to the level in use, are for tests and measurements.
Limb vectors are uint64 arrays, least significant limb first; the sizes are those of the table in
`primitives/limbs_table.h`, and so is what may overlap.  Algorithms call the table itself.
"""
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.interrupt cimport poll
from crystalline._kernels.exact_isa cimport CL_VECTOR_LIMBS, exact_primitives

VECTOR_LIMBS = CL_VECTOR_LIMBS


cdef int64_t same_size(const uint64_t[::1] r, const uint64_t[::1] a) except -1:
    if r.shape[0] != a.shape[0]:
        raise ValueError(f"sizes {r.shape[0]} and {a.shape[0]} differ")
    if r.shape[0] == 0:
        raise ValueError("a vector without limbs")
    return r.shape[0]


cdef enum:
    SLICE = 1 << 20  # limbs between two looks at the signals


cdef int limbs_copy_long(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil:
    cdef int64_t at = 0, size
    cdef int status = OK
    while at < n and status == OK:
        size = min(n - at, <int64_t>SLICE)
        limbs_copy(r + at, a + at, size)
        at += size
        if at < n:
            status = poll()
    return status


cdef int limbs_zero_long(uint64_t* r, int64_t n) noexcept nogil:
    cdef int64_t at = 0, size
    cdef int status = OK
    while at < n and status == OK:
        size = min(n - at, <int64_t>SLICE)
        limbs_zero(r + at, size)
        at += size
        if at < n:
            status = poll()
    return status


cdef int limbs_lshift_long(uint64_t* out, uint64_t* r, const uint64_t* a, int64_t n,
                           int count) noexcept nogil:
    cdef int64_t at = 0, size
    cdef uint64_t before = 0
    cdef int status = OK
    out[0] = 0
    if count == 0:
        return limbs_copy_long(r, a, n) if r != a else OK
    while at < n and status == OK:
        size = min(n - at, <int64_t>SLICE)
        out[0] = exact_primitives().limbs.lshift(r + at, a + at, size, count)
        r[at] |= before
        before = out[0]
        at += size
        if at < n:
            status = poll()
    return status


cdef int limbs_add_long(uint64_t* out, uint64_t* r, const uint64_t* a, int64_t an,
                        const uint64_t* b, int64_t bn, bint subtract) noexcept nogil:
    cdef int64_t at = 0, size, both
    cdef uint64_t carry = 0, below
    cdef int status = OK
    while at < an and status == OK:
        size = min(an - at, <int64_t>SLICE)
        both = max(<int64_t>0, min(size, bn - at))
        below = carry  # of the slice before
        if subtract:
            carry = limbs_sub(r + at, a + at, size, b + at, both) if both else 0
            if both == 0:
                limbs_copy(r + at, a + at, size if r != a else 0)
            if below:
                carry += limbs_sub_1(r + at, r + at, size, below)
        else:
            carry = limbs_add(r + at, a + at, size, b + at, both) if both else 0
            if both == 0:
                limbs_copy(r + at, a + at, size if r != a else 0)
            if below:
                carry += limbs_add_1(r + at, r + at, size, below)
        at += size
        if at < an:
            status = poll()
    out[0] = carry
    return status


def add_n(uint64_t[::1] r, const uint64_t[::1] a, const uint64_t[::1] b) -> int:
    """r[n] = a[n] + b[n]; return the carry."""
    same_size(r, b)
    return exact_primitives().limbs.add_n(&r[0], &a[0], &b[0], same_size(r, a))


def sub_n(uint64_t[::1] r, const uint64_t[::1] a, const uint64_t[::1] b) -> int:
    """r[n] = a[n] - b[n]; return the borrow."""
    same_size(r, b)
    return exact_primitives().limbs.sub_n(&r[0], &a[0], &b[0], same_size(r, a))


def mul_1(uint64_t[::1] r, const uint64_t[::1] a, uint64_t b) -> int:
    """r[n] = a[n] * b; return the limb carried out."""
    return exact_primitives().limbs.mul_1(&r[0], &a[0], same_size(r, a), b)


def addmul_1(uint64_t[::1] r, const uint64_t[::1] a, uint64_t b) -> int:
    """r[n] += a[n] * b; return the limb carried out."""
    return exact_primitives().limbs.addmul_1(&r[0], &a[0], same_size(r, a), b)


def submul_1(uint64_t[::1] r, const uint64_t[::1] a, uint64_t b) -> int:
    """r[n] -= a[n] * b; return the limb borrowed."""
    return exact_primitives().limbs.submul_1(&r[0], &a[0], same_size(r, a), b)


def lshift(uint64_t[::1] r, const uint64_t[::1] a, int count) -> int:
    """r[n] = a[n] << count, 0 < count < 64; return the bits shifted out."""
    check_count(count)
    return exact_primitives().limbs.lshift(&r[0], &a[0], same_size(r, a), count)


def rshift(uint64_t[::1] r, const uint64_t[::1] a, int count) -> int:
    """r[n] = a[n] >> count, 0 < count < 64; return the bits shifted out, at the top of a limb."""
    check_count(count)
    return exact_primitives().limbs.rshift(&r[0], &a[0], same_size(r, a), count)


cdef int check_count(int count) except -1:
    if not 0 < count < 64:
        raise ValueError(f"cannot shift limbs by {count} bits at once")
    return 0


def mul_basecase(uint64_t[::1] r, const uint64_t[::1] a, const uint64_t[::1] b) -> None:
    """r[an + bn] = a[an] * b[bn] for an >= bn >= 1."""
    check_product(r.shape[0], a.shape[0], b.shape[0])
    if a.shape[0] < b.shape[0]:
        raise ValueError(f"{a.shape[0]} limbs times {b.shape[0]}: the longer factor comes first")
    exact_primitives().limbs.mul_basecase(&r[0], &a[0], a.shape[0], &b[0], b.shape[0])


def sqr_basecase(uint64_t[::1] r, const uint64_t[::1] a) -> None:
    """r[2 n] = a[n] * a[n]."""
    check_product(r.shape[0], a.shape[0], a.shape[0])
    exact_primitives().limbs.sqr_basecase(&r[0], &a[0], a.shape[0])


def mul_vector(uint64_t[::1] r, const uint64_t[::1] a, const uint64_t[::1] b) -> None:
    """r[an + bn] = a[an] * b[bn] for an, bn up to VECTOR_LIMBS."""
    check_product(r.shape[0], a.shape[0], b.shape[0])
    if max(a.shape[0], b.shape[0]) > CL_VECTOR_LIMBS:
        raise ValueError(f"{max(a.shape[0], b.shape[0])} limbs are more than {CL_VECTOR_LIMBS}")
    exact_primitives().limbs.mul_vector(&r[0], &a[0], a.shape[0], &b[0], b.shape[0])


def sqr_vector(uint64_t[::1] r, const uint64_t[::1] a) -> None:
    """r[2 n] = a[n] * a[n] for n up to VECTOR_LIMBS."""
    check_product(r.shape[0], a.shape[0], a.shape[0])
    if a.shape[0] > CL_VECTOR_LIMBS:
        raise ValueError(f"{a.shape[0]} limbs are more than {CL_VECTOR_LIMBS}")
    exact_primitives().limbs.sqr_vector(&r[0], &a[0], a.shape[0])


cdef int check_product(int64_t rn, int64_t an, int64_t bn) except -1:
    if an == 0 or bn == 0:
        raise ValueError("a vector without limbs")
    if rn != an + bn:
        raise ValueError(f"{rn} limbs for a product of {an} and {bn}")
    return 0
