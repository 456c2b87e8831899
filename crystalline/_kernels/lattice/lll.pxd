# LLL of packed rows, in slices that a caller can stop between.
from libc.stdint cimport int64_t

from crystalline._kernels.lattice.basis cimport IntRows, Multiplier
from crystalline._kernels.lattice.gso cimport real

# What a slice returns beside OK (reduced, as far as the floats can tell) and NO_MEMORY.
cdef enum:
    PAUSED = 1     # call again
    IMPRECISE = 2  # the floats are not precise enough for this basis, which is still a basis

ctypedef struct Lll:
    IntRows* b          # INOUT: the basis
    IntRows* u          # INOUT: rows that undergo the same operations, or NULL
    int64_t n, ld
    int64_t k           # rows 0..k-1 are reduced
    int64_t end         # rows end..d-1 were found to be zero
    int64_t visits      # visits left before the floats are held to be imprecise
    int64_t work        # floating operations left in this slice
    double delta, eta
    bint deep
    int64_t* e          # e[d]: row k is scaled by 2^-e_k
    Multiplier* x       # x[d]

cdef int lll_begin(Lll* s, IntRows* b, IntRows* u, double delta, double eta,
                   bint deep) noexcept nogil
cdef void lll_end(Lll* s) noexcept nogil
# The number of floats that lll_slice works in, which it keeps from slice to slice.
cdef int64_t lll_size(int64_t d, int64_t n) noexcept nogil
cdef int lll_slice(Lll* s, real* a) noexcept nogil
# x = value 2^e as a whole number: rounded to the nearest, exact where it is large
cdef void set_multiplier(Multiplier* x, double value, int64_t e) noexcept nogil
