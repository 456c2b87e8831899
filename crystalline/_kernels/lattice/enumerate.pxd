# Depth-first search of a lattice's vectors within a ball (Schnorr-Euchner), in doubles with a
# proven margin; the exact norm of each vector that passes is the caller's to judge.
from libc.stdint cimport int64_t

# Called at every vector within the bound, nogil; x[n] holds integers.  Lowers search.bound when the
# vector is better than the best so far; returns OK, or INTERRUPTED to end the search.
ctypedef int (*Leaf)(Search* search, void* context) noexcept nogil

# mu[n, n] is transposed: mu[k, i], i > k, belongs to row i on column k.  r[n] are the squared
# norms of the orthogonalized rows, center[n] the target's coefficients on them; with NULL there the
# target is zero, and zero itself and one of x, -x are left out.  pruning[n] are the shares of the
# bound that levels k.. may use; NULL: all of it.  x[n] is the vector under way; stale[n] and
# work[n (n + 1) + 3 n + 1] are scratch.
cdef struct Search:
    int64_t n
    const double* mu
    const double* r
    const double* center
    const double* pruning
    double bound  # squared, the margin included
    double* x
    int64_t* stale
    double* work
    double norm  # squared, in doubles, of the vector that leaf is called with
    int64_t nodes  # visited so far

cdef int search_ball(Search* search, Leaf leaf, void* context) noexcept nogil
