# Causal attention for nogil callers.  Shapes as in attention.pyx.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from crystalline._kernels.isa cimport Kept, NumberFormat

cdef enum:
    CRYSTAL_FEATURES = 16  # F, numbers that describe a token to crystalline attention

# The shape of attention: H heads of D channels, G of keys and values, each for H / G neighbors.  A
# query sees the newest `window` keys up to its own; 0: all of them.
cdef struct Heads:
    int64_t H, G, D, window

# Dropout of attention probabilities: drawn per (sequence, head, query, key).
cdef struct AttentionDropout:
    uint64_t key        # one per (run, step, layer)
    uint64_t first_sequence
    uint32_t threshold  # 0: no dropout
    float scale

# What crystalline attention adds to the scores of head h: lambdas[h] * phi(query) . phi(key).
cdef struct Crystal:
    const float* features  # [V, F], phi of every token; NULL: standard attention
    const int32_t* ids     # [B * T], the tokens
    const float* lambdas   # [H]

cdef int64_t scratch_floats(int64_t T, int64_t D, bint crystalline,
                            const NumberFormat* f) noexcept nogil
cdef void forward(const NumberFormat* f, int64_t B, int64_t T, const Heads* heads, const Kept* qkv,
                  const Crystal* crystal, const AttentionDropout* dropout,
                  const Kept* out, float* lse__bht, float* scratch) noexcept nogil
# The gradient of the lambdas is added to dlambdas [H]; NULL: it is not wanted.
cdef void backward(const NumberFormat* f, int64_t B, int64_t T, const Heads* heads,
                   const Kept* dout, const Kept* qkv, const Kept* out, const float* lse__bht,
                   const Crystal* crystal, const AttentionDropout* dropout, const Kept* dqkv,
                   float* dlambdas, float* scratch) noexcept nogil
