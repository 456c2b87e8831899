# Vectors of 64-bit limbs, least significant first: what every exact kernel starts from.
#
# n, an, bn: sizes in limbs.  An operand is normalized when its top limb is not zero; zero has no
# limbs.  Inline, so that small sizes pay no call beside the primitive's own.
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from crystalline._kernels.exact_isa cimport exact_primitives

# What a function that allocates or takes long returns; a face passes it to `interrupt.check`,
# which raises.  Long ones ask `interrupt.poll` for Ctrl-C, see there.
cdef enum:
    OK = 0
    NO_MEMORY = -1
    INTERRUPTED = -2  # the exception is set already


cdef inline void limbs_copy(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil:
    memcpy(r, a, n * sizeof(uint64_t))


cdef inline void limbs_zero(uint64_t* r, int64_t n) noexcept nogil:
    memset(r, 0, n * sizeof(uint64_t))


cdef inline int64_t limbs_normalize(const uint64_t* a, int64_t n) noexcept nogil:
    """The size of a[n] without its leading zero limbs."""
    while n > 0 and a[n - 1] == 0:
        n -= 1
    return n


# The same with looks at the signals, for vectors of any length; they return a status.
cdef int limbs_copy_long(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil
cdef int limbs_zero_long(uint64_t* r, int64_t n) noexcept nogil
# r[n] = a[n] 2^count, 0 <= count < 64; *out: what was shifted out; r may be a
cdef int limbs_lshift_long(uint64_t* out, uint64_t* r, const uint64_t* a, int64_t n,
                           int count) noexcept nogil
# r[an] = a[an] + b[bn] or, for a >= b, a[an] - b[bn], an >= bn; *out: the carry; r may be a or b
cdef int limbs_add_long(uint64_t* out, uint64_t* r, const uint64_t* a, int64_t an,
                        const uint64_t* b, int64_t bn, bint subtract) noexcept nogil


cdef inline int limbs_compare(const uint64_t* a, const uint64_t* b, int64_t n) noexcept nogil:
    """-1, 0 or 1 as a[n] is below, equal to or above b[n]."""
    cdef int64_t i = n - 1
    while i >= 0:
        if a[i] != b[i]:
            return 1 if a[i] > b[i] else -1
        i -= 1
    return 0


cdef inline uint64_t limbs_add_1(uint64_t* r, const uint64_t* a, int64_t n,
                                 uint64_t b) noexcept nogil:
    """r[n] = a[n] + b; returns the carry; r may be a."""
    cdef int64_t i
    for i in range(n):
        r[i] = a[i] + b
        b = r[i] < b
    return b


cdef inline uint64_t limbs_sub_1(uint64_t* r, const uint64_t* a, int64_t n,
                                 uint64_t b) noexcept nogil:
    """r[n] = a[n] - b; returns the borrow; r may be a."""
    cdef int64_t i
    cdef uint64_t limb
    for i in range(n):
        limb = a[i]
        r[i] = limb - b
        b = limb < b
    return b


cdef inline uint64_t limbs_add(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                               int64_t bn) noexcept nogil:
    """r[an] = a[an] + b[bn], an >= bn; returns the carry; r may be a or b."""
    cdef uint64_t carry = exact_primitives().limbs.add_n(r, a, b, bn)
    return limbs_add_1(r + bn, a + bn, an - bn, carry)


cdef inline uint64_t limbs_sub(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                               int64_t bn) noexcept nogil:
    """r[an] = a[an] - b[bn], an >= bn; returns the borrow; r may be a or b."""
    cdef uint64_t borrow = exact_primitives().limbs.sub_n(r, a, b, bn)
    return limbs_sub_1(r + bn, a + bn, an - bn, borrow)
