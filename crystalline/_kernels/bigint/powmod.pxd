# Powers modulo a limb vector, and Montgomery's representation for whoever multiplies much.
from libc.stdint cimport int64_t, uint64_t

# 1 / a mod B, a odd
cdef uint64_t limb_inverse(uint64_t a) noexcept nogil
# r[n] = 1 / a[n] mod B^n, a odd; r apart from a
cdef int limbs_inverse_low(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil

# r[mn] = base[bn] ** exp[en] mod mod[mn]; mod > 0 normalized, bn and en >= 0, 0 ** 0 = 1 mod mod;
# r may be base or mod
cdef int limbs_powmod(uint64_t* r, const uint64_t* base, int64_t bn, const uint64_t* exp,
                      int64_t en, const uint64_t* mod, int64_t mn) noexcept nogil


# An odd modulus with what its reductions need; x stands for x B^n mod mod, n limbs below mod.
ctypedef struct Montgomery:
    int64_t n
    uint64_t* mod  # [n], a copy
    uint64_t* one  # [n], B^n mod mod
    uint64_t* square  # [n], B^(2 n) mod mod
    uint64_t* inverses  # [n], 1 / mod mod B^n, or NULL where limbs are reduced one by one
    uint64_t inverse  # -1 / mod mod B

# Sets *m up for mod[n], odd and normalized; OK or NO_MEMORY.  montgomery_free gives back what it
# allocated.
cdef int montgomery_init(Montgomery* m, const uint64_t* mod, int64_t n) noexcept nogil
cdef void montgomery_free(Montgomery* m) noexcept nogil
# Scratch of the four below, in limbs.
cdef int64_t montgomery_scratch(const Montgomery* m) noexcept nogil
# r = a * b / B^n; r, a, b [n] below mod may be the same
cdef int montgomery_mul(uint64_t* r, const uint64_t* a, const uint64_t* b, const Montgomery* m,
                        uint64_t* scratch) noexcept nogil
# r = a * a / B^n
cdef int montgomery_sqr(uint64_t* r, const uint64_t* a, const Montgomery* m,
                        uint64_t* scratch) noexcept nogil
# r = a * B^n, for a[n] below mod
cdef int montgomery_to(uint64_t* r, const uint64_t* a, const Montgomery* m,
                       uint64_t* scratch) noexcept nogil
# r = a / B^n
cdef int montgomery_from(uint64_t* r, const uint64_t* a, const Montgomery* m,
                         uint64_t* scratch) noexcept nogil
# r = a ** exp[en] in this representation
cdef int montgomery_pow(uint64_t* r, const uint64_t* a, const uint64_t* exp, int64_t en,
                        const Montgomery* m) noexcept nogil
