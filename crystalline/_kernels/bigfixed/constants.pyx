"""Pi, e, ln 2 and ln 10 as fractions of any length, kept for the life of the process.

A constant is computed once at the longest length asked for so far, a quarter more each time, and
published by one atomic store; shorter ones are its leading limbs.  Older, shorter copies are
never freed, since another thread may be reading them: all copies together are at most five
times the longest.  How the digits arise is in `splitting`.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc

from crystalline._kernels.bigfixed.splitting cimport constant_digits
from crystalline._kernels.bigint.limbs cimport NO_MEMORY, OK

cdef extern from *:
    """
    typedef struct {
      int64_t n;
      uint64_t limbs[]; /* n + 2: one more fraction limb than is shown */
    } cl_constant;
    static cl_constant *cl_constants[8];
    static inline cl_constant *cl_constant_load(int which) {
      return __atomic_load_n(&cl_constants[which], __ATOMIC_ACQUIRE);
    }
    static inline int cl_constant_swap(int which, cl_constant *old, cl_constant *fresh) {
      return __atomic_compare_exchange_n(&cl_constants[which], &old, fresh, 0, __ATOMIC_RELEASE,
                                         __ATOMIC_RELAXED);
    }
    """
    ctypedef struct Digits "cl_constant":
        int64_t n
        uint64_t* limbs
    Digits* cl_constant_load(int which) noexcept nogil
    int cl_constant_swap(int which, Digits* old, Digits* fresh) noexcept nogil


cdef int constant(const uint64_t** r, int which, int64_t n) noexcept nogil:
    cdef Digits* known = cl_constant_load(which)
    cdef Digits* fresh
    cdef int64_t size = n
    cdef int status
    if known != NULL and known.n >= n:
        r[0] = known.limbs + 1 + (known.n - n)
        return OK
    if known == NULL:
        size = max(n, 24)
    else:
        size = max(n, known.n + known.n // 4)
    fresh = <Digits*>malloc(sizeof(Digits) + (size + 2) * sizeof(uint64_t))
    if fresh == NULL:
        return NO_MEMORY
    fresh.n = size
    status = constant_digits(fresh.limbs, which, size + 1)
    if status:
        free(fresh)
        return status
    if not cl_constant_swap(which, known, fresh):  # another thread was faster
        free(fresh)
        return constant(r, which, n)
    r[0] = fresh.limbs + 1 + (size - n)
    return OK
