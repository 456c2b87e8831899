# What a layer is: structs over weights that the model's owner holds.  Letters as in config.py; W is
# the width of all queries, U of the MLP's first product (F, or 2 F with a gate).
#
# `at` counts floats in the flat buffer of weights, for the gradients, which lie likewise.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from crystalline._kernels.attention cimport Heads
from crystalline._kernels.isa cimport NumberFormat, StoreMode

# A factor of an adapter, packed as a matrix is.
cdef struct Factor:
    const float* packed
    const float* packed_t
    int64_t at             # among the adapters

# What a frozen matrix learns beside itself: scale x a b, with a [K, r] and b [r, N].
cdef struct Adapter:
    int64_t r              # 0: there is none
    float scale
    Factor a, b

# y = x w + bias, w [K, N]
cdef struct Matrix:
    int64_t K, N
    const float* packed    # for products x w
    const float* packed_t  # for products dy w^T; NULL where nothing is trained
    const float* bias      # [N], or NULL
    int64_t at, bias_at
    Adapter adapter

# LayerNorm, or RMSNorm where there is no shift.
cdef struct Norm:
    int64_t C
    const float* scale     # [C]; NULL: there is no norm
    const float* shift     # [C], or NULL
    int64_t at, shift_at
    float epsilon

cdef struct Attention:
    Heads heads
    Matrix qkv, out
    Norm q_norm, k_norm    # of every head, before it is rotated
    const float* cosines   # [T, D / 2], or NULL: positions are not rotary
    const float* sines
    const float* lambdas   # [H], of crystalline attention, or NULL
    int64_t lambdas_at

ctypedef enum MlpKind:
    GELU
    SWIGLU
    RELU2

cdef struct Mlp:
    MlpKind kind
    int64_t F
    Matrix up, down

cdef struct Layer:
    Norm norm1, norm2
    Attention attention
    Mlp mlp

cdef struct Sizes:
    int64_t V, T, L, C, W, F, U, QKV
    Heads heads
    const NumberFormat* f  # of the operands of products
    bint normalizes_heads, rotates
    MlpKind mlp
    bint crystalline
    int64_t rank           # of the adapters, which are trained in place of the weights; 0: none

# Where gradients go.  All but `tokens`, `positions` and `head` are bases of the tensors' offsets.
# With adapters `matrices` is theirs, the last three are NULL, and nobody reads `vectors`.
cdef struct Gradients:
    float* matrices
    float* vectors
    float* tokens     # [V, C]
    float* positions  # [T, C]; NULL where none are learned
    float* head       # [V, C]; tokens where they are tied

# What dropout needs to know of a chunk of sequences; threshold 0: there is none.
cdef struct Dropping:
    uint32_t threshold
    float scale
    uint64_t key             # of the run and step
    uint64_t first_sequence
    uint64_t first           # number of the first element of [R, C]
