# Attention over kept keys and values for nogil callers.  Shapes as in cache.pyx.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport CacheHead

# The keys and values of one sequence in one layer: room for T positions of G heads of D channels.
cdef struct KeyValues:
    int64_t T, G, D
    bint narrow     # bfloat16; else float32
    float* words    # [key_value_words(T, G, D, narrow)], on a cache line, zeros at first

# The queries of one sequence in one layer at the positions first .. first + n - 1, whose keys and
# values are kept already.
cdef struct Queries:
    const KeyValues* kept
    int64_t n, first
    int64_t H           # heads, a multiple of G: head h reads the keys of h * G // H
    int64_t window      # a position sees itself and the window - 1 before it; 0: all before it
    const float* q      # [n, H * D], rows ldq floats apart
    int64_t ldq
    const float* similar  # [n, first + n], rows ld_similar floats apart; NULL: standard attention
    int64_t ld_similar
    const float* lambdas  # [H]: scores gain lambdas[h] * similar
    float* out          # [n, H * D], rows ldo floats apart
    int64_t ldo
    int64_t spans       # parts that a row's keys are cut into: 1, or more where heads are too few
    float* partials     # [partial_floats(queries)] where there is more than one span

cdef int64_t key_value_words(int64_t T, int64_t G, int64_t D, bint narrow) noexcept nogil
cdef CacheHead kept_head(const KeyValues* kept, int64_t g) noexcept nogil
# Keeps rows of k and v, [n, G * D] and ld floats apart, for the heads g .. g + heads - 1: each head
# is a unit of its own.
cdef void append(const KeyValues* kept, int64_t first, int64_t n, const float* k, const float* v,
                 int64_t ld, int64_t g, int64_t heads) noexcept nogil
# Copies the first `length` positions to another sequence's room of the same G, D and kind.
cdef void copy_kept(const KeyValues* source, const KeyValues* to, int64_t length) noexcept nogil

# Units may be computed in any order and by any thread, each with a scratch [attend_scratch(D)] of
# its own that begins on a cache line.  Later ones take longer: claim them from the last on down.
cdef int64_t attend_units(const Queries* queries) noexcept nogil
cdef int64_t attend_scratch(int64_t D) noexcept nogil
cdef void attend(const Queries* queries, int64_t unit, float* scratch) noexcept nogil
# With more than one span, once all units are done: the units of joining, n * H of them.
cdef int64_t partial_floats(const Queries* queries) noexcept nogil
cdef void join_spans(const Queries* queries, int64_t unit, float* scratch) noexcept nogil
