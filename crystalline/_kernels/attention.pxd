# Causal attention for nogil callers.  Shapes as in attention.pyx.
from libc.stdint cimport int64_t, uint32_t, uint64_t

# Dropout of attention probabilities: drawn per (sequence, head, query, key).
cdef struct AttentionDropout:
    uint64_t key        # one per (run, step, layer)
    uint64_t first_sequence
    uint32_t threshold  # 0: no dropout
    float scale

cdef int64_t scratch_floats(int64_t T, int64_t D) noexcept nogil
cdef void forward(int64_t B, int64_t T, int64_t H, int64_t D, const float* qkv__rc3,
                  const AttentionDropout* dropout, float* out__rc, float* lse__bht,
                  float* scratch) noexcept nogil
cdef void backward(int64_t B, int64_t T, int64_t H, int64_t D, const float* dout__rc,
                   const float* qkv__rc3, const float* out__rc, const float* lse__bht,
                   const AttentionDropout* dropout, float* dqkv__rc3, float* scratch) noexcept nogil
cdef void row(int64_t H, int64_t D, int64_t n, const float* q__c, const float* k__nc,
              const float* v__nc, int64_t ld, float* out__c, float* scratch) noexcept nogil
