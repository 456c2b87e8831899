# What the doors of arrays of fixed-width numbers check, and how much they do between signals.
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.interrupt cimport poll
from crystalline._kernels.bigint.limbs cimport OK

cdef extern from "fixedarray_table.h":
    enum:
        CL_FA_LIMBS


cdef inline int expect_elements(int64_t L, int64_t frac_bits) except -1:
    if not 1 <= L <= CL_FA_LIMBS:
        raise ValueError(f"elements have {L} limbs, expected 1 to {CL_FA_LIMBS}")
    if not 0 <= frac_bits < 64 * L:
        raise ValueError(f"frac_bits is {frac_bits}, expected 0 to {64 * L - 1}")
    return 0


cdef inline int64_t step_of(const uint64_t[:, ::1] x, str name, int64_t n, int64_t L) except -1:
    """The step from one element to the next: 0 where one element stands for all."""
    if x.shape[1] != L or x.shape[0] != n and x.shape[0] != 1:
        raise ValueError(f"{name} is [{x.shape[0]}, {x.shape[1]}], expected [{n} or 1, {L}]")
    return L if x.shape[0] == n else 0


cdef inline int64_t block_of(int64_t L, int64_t limb_steps) noexcept:
    """Elements that take a few milliseconds at so many steps each; eight go together."""
    return 8 + (1 << 22) // (8 * (L + limb_steps)) * 8


cdef inline int poll_each(int64_t* since, int64_t block) noexcept nogil:
    """Count an element in `since`; poll at the last of every block, and return what that says."""
    since[0] += 1
    if since[0] < block:
        return OK
    since[0] = 0
    return poll()


cdef inline void magnitude_of(uint64_t* r, const uint64_t* a, int64_t L) noexcept nogil:
    """r[L] = |a[L]|, 2^(64 L - 1) at most; r may be a."""
    cdef uint64_t sign = -(a[L - 1] >> 63), carry = sign & 1
    cdef int64_t k
    for k in range(L):
        r[k] = (a[k] ^ sign) + carry
        carry = carry & (r[k] == 0)


cdef inline bint negate_if(uint64_t* r, int64_t L, uint64_t negative) noexcept nogil:
    """r[L] = -r for negative = 1, from a magnitude; returns whether it fits."""
    cdef uint64_t sign = -negative, carry = negative, any_ = 0
    cdef int64_t k
    for k in range(L):
        r[k] = (r[k] ^ sign) + carry
        carry = carry & (r[k] == 0)
        any_ |= r[k]
    return r[L - 1] >> 63 == negative or any_ == 0
