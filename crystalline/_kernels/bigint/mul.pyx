"""Products of limb vectors."""
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigint.limbs cimport OK
from crystalline._kernels.exact_isa cimport exact_primitives


cdef int limbs_mul(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                   int64_t bn) noexcept nogil:
    exact_primitives().limbs.mul_basecase(r, a, an, b, bn)
    return OK


cdef int limbs_sqr(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil:
    return limbs_mul(r, a, n, a, n)
