# What lives beside the weights while a chunk of R rows goes through the model: the one list of it.
#
# A buffer's form, rows and columns stand in one line of `describe` in buffers.pyx; sizes and places
# follow.  Those of a layer exist once a layer: they keep what backward needs.
from libc.stdint cimport int64_t

from crystalline._kernels.marks cimport Marks
from crystalline.model.layers.table cimport GELU, Sizes

cdef enum Buffer:
    X, NORM1, MEAN1, RSTD1
    QKV, RAW, RAW_RSTD, LSE, ATT, ATT_IN
    MID, NORM2, MEAN2, RSTD2
    UP, ACT
    LOW_QKV, LOW_OUT, LOW_UP, LOW_DOWN  # of adapters: scale x a
    # shared by all layers
    FINAL, FINAL_IN, MEAN_F, RSTD_F
    DX, DATT, DQKV
    DY_PACKED, WIDE_PACKED, LOW_DY_PACKED, LOW_WIDE_PACKED
    NARROW, WIDE, STRIP, OPERAND, TURNED, LOW, LOW_OPERAND
    LOGITS, SCRATCH
    BUFFERS

cdef struct Buffers:
    float* base
    int64_t layer          # floats from one layer's buffers to the next one's
    int64_t at[BUFFERS]
    int64_t size           # floats of all
    Marks* marks           # of a profiled run; NULL: nothing is recorded

cdef Buffers buffers(const Sizes* z, int64_t R, float* base) noexcept nogil


# A buffer of a layer; X of the layer beyond the last is the output of all of them.
cdef inline float* of_layer(const Buffers* b, Buffer which, int64_t layer) noexcept nogil:
    return b.base + layer * b.layer + b.at[<int>which]


cdef inline float* shared(const Buffers* b, Buffer which) noexcept nogil:
    return b.base + b.at[<int>which]


# Whether q, k and v are kept as their product leaves it, and whether the MLP's function is part of
# its products; otherwise they are float32 first.
cdef inline bint keeps_qkv(const Sizes* z) noexcept nogil:
    return not z.rotates and not z.normalizes_heads and not z.rank


cdef inline bint fuses_mlp(const Sizes* z) noexcept nogil:
    return z.mlp == GELU and not z.rank


# Rows of logits that exist at once, of R rows; most of them for any R.
cdef int64_t head_rows(const Sizes* z, int64_t R) noexcept nogil
cdef int64_t most_head_rows(int64_t V) noexcept nogil
# Where the operand of the logits' gradient begins in their buffer: it takes their place, row by
# row, unless it is longer than they are or its rows come in groups.
cdef int64_t dlogits_at(const Sizes* z, int64_t rows) noexcept nogil
