"""Attention's products, the norms of its heads and their rotation, around the attention kernel.

Where positions are rotary or heads are normalized, q and k are changed in float32 before they are
kept; otherwise the product ends in what is kept.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from crystalline._kernels cimport attention as kernel
from crystalline._kernels.attention cimport AttentionDropout, Crystal
from crystalline._kernels.formats cimport words
from crystalline._kernels.isa cimport CL_STORE, Kept, NumberFormat, primitives
from crystalline._kernels.kept cimport float_rows, floats, kept, kept_part, multiply_kept
from crystalline._kernels.marks cimport D_QKV, PACKING, mark
from crystalline._kernels.matmul cimport multiply
from crystalline._kernels.random cimport mix
from crystalline.model.layers.adapter cimport adapt, adapt_backward
from crystalline.model.layers.buffers cimport (
    ATT, DATT, DQKV, LOW_QKV, LOW_WIDE_PACKED, LSE, NARROW, NORM1, OPERAND, QKV, RAW, RAW_RSTD,
    SCRATCH, STRIP, WIDE_PACKED, Buffers, keeps_qkv, of_layer, shared,
)
from crystalline.model.layers.linear cimport input_gradient, kept_gradient, output_gradient
from crystalline.model.layers.norm cimport normalize, normalize_backward
from crystalline.model.layers.table cimport Attention, Dropping, Norm, Sizes

cdef enum:
    DROPOUT_SITE = 1  # among those of a layer, see transformer.pyx


cdef inline void turn_head(const Attention* a, const Norm* norm, int64_t position, float* x,
                           float* rstd) noexcept nogil:
    cdef int64_t D = a.heads.D, at = position * (D // 2)
    if norm.scale != NULL:
        normalize(norm, 1, x, x, NULL, rstd)
    if a.cosines != NULL:
        primitives().rotate(1, D, a.cosines + at, a.sines + at, False, x)


cdef void turn_heads(const Attention* a, int64_t rows, int64_t first, int64_t t, float* x,
                     int64_t ld, float* raw, float* rstd) noexcept nogil:
    cdef int64_t H = a.heads.H, G = a.heads.G, D = a.heads.D, i, h, heads = H + G
    for i in range(rows):
        if a.q_norm.scale != NULL:
            memcpy(raw + i * heads * D, x, heads * D * sizeof(float))
        for h in range(heads):
            turn_head(a, &a.q_norm if h < H else &a.k_norm, (first + i) % t, x + h * D,
                      rstd + i * heads + h)
        x += ld


cdef void turn_group(const Attention* a, int64_t rows, int64_t first, int64_t g, float* x,
                     int64_t ld) noexcept nogil:
    cdef int64_t H = a.heads.H, D = a.heads.D, size = H // a.heads.G, i, h
    cdef float rstd
    for i in range(rows):
        for h in range(g * size, (g + 1) * size):
            turn_head(a, &a.q_norm, first + i, x + h * D, &rstd)
        turn_head(a, &a.k_norm, first + i, x + (H + g) * D, &rstd)
        x += ld


cdef void turn_heads_backward(const Attention* a, int64_t rows, int64_t first, int64_t t, float* dx,
                              int64_t ld, const float* raw, const float* rstd,
                              float* vectors) noexcept nogil:
    cdef int64_t H = a.heads.H, G = a.heads.G, D = a.heads.D, i, h, at
    for i in range(rows):
        if a.cosines != NULL:
            at = (first + i) % t * (D // 2)
            primitives().rotate(H + G, D, a.cosines + at, a.sines + at, True, dx)
        if a.q_norm.scale != NULL:
            for h in range(H + G):
                normalize_backward(&a.q_norm if h < H else &a.k_norm, 1, dx + h * D, raw + h * D,
                                   NULL, rstd + h, dx + h * D, False, vectors)
            raw += (H + G) * D
            rstd += H + G
        dx += ld


cdef void project(const Sizes* z, const Attention* a, int64_t layer, int64_t row, int64_t rows,
                  int64_t t, const Buffers* b) noexcept nogil:
    cdef const NumberFormat* f = z.f
    cdef int64_t heads = z.heads.H + z.heads.G, wc = words(f, z.C), ld = z.QKV
    cdef const float* operand = of_layer(b, NORM1, layer) + row * wc
    cdef Kept whole = kept(f, of_layer(b, QKV, layer), z.QKV)
    cdef Kept out = kept_part(&whole, row, 0)
    cdef float* x
    if keeps_qkv(z):
        multiply_kept(f, rows, z.QKV, z.C, operand, wc, a.qkv.packed, a.qkv.bias, &out)
        return
    x = float_rows(&out) if f.keeps == NULL else shared(b, STRIP)
    multiply(f, rows, z.QKV, z.C, operand, wc, a.qkv.packed, x, ld, a.qkv.bias, NULL, CL_STORE)
    if z.rank:
        adapt(f, layer, row, rows, &a.qkv, operand, LOW_QKV, x, b)
    turn_heads(a, rows, row, t, x, ld, of_layer(b, RAW, layer) + row * heads * z.heads.D,
               of_layer(b, RAW_RSTD, layer) + row * heads)
    if f.keeps != NULL:
        f.keeps.keep(rows, z.QKV, x, ld, &out)


cdef void project_backward(const Sizes* z, const Attention* a, int64_t layer, int64_t R,
                           int64_t row, int64_t rows, int64_t t, const Buffers* b,
                           float* vectors) noexcept nogil:
    cdef const NumberFormat* f = z.f
    cdef int64_t heads = z.heads.H + z.heads.G, ld
    cdef Kept whole = kept(f, shared(b, DQKV), z.QKV)
    cdef Kept dqkv = kept_part(&whole, row, 0)
    cdef float* dx
    cdef const float* left
    if keeps_qkv(z):
        left = kept_gradient(f, R, row, rows, &a.qkv, &dqkv, vectors, shared(b, WIDE_PACKED),
                             shared(b, OPERAND))
    else:
        dx = <float*>floats(f, rows, z.QKV, &dqkv, shared(b, STRIP), &ld)
        turn_heads_backward(a, rows, row, t, dx, ld,
                            of_layer(b, RAW, layer) + row * heads * z.heads.D,
                            of_layer(b, RAW_RSTD, layer) + row * heads, vectors)
        left = output_gradient(f, R, row, rows, &a.qkv, dx, vectors, shared(b, WIDE_PACKED),
                               shared(b, OPERAND))
    mark(b.marks, PACKING)
    input_gradient(f, rows, &a.qkv, left, shared(b, NARROW))
    if z.rank:
        adapt_backward(f, R, row, rows, &a.qkv, left, LOW_WIDE_PACKED, shared(b, NARROW), b)
    mark(b.marks, D_QKV)


cdef AttentionDropout attention_dropout(const Dropping* d, int64_t layer) noexcept nogil:
    cdef AttentionDropout drop
    drop.key = mix(d.key, 4 * layer + DROPOUT_SITE)
    drop.first_sequence = d.first_sequence
    drop.threshold = d.threshold
    drop.scale = d.scale
    return drop


cdef void attend(const Sizes* z, const Attention* a, int64_t layer, int64_t n, int64_t t,
                 const Crystal* crystal, const Dropping* d, const Buffers* b) noexcept nogil:
    cdef Kept qkv = kept(z.f, of_layer(b, QKV, layer), z.QKV)
    cdef Kept att = kept(z.f, of_layer(b, ATT, layer), z.W)
    cdef AttentionDropout drop = attention_dropout(d, layer)
    kernel.forward(z.f, n, t, &a.heads, &qkv, crystal, &drop, &att, of_layer(b, LSE, layer),
                   shared(b, SCRATCH))


cdef void attend_backward(const Sizes* z, const Attention* a, int64_t layer, int64_t n, int64_t t,
                          const Crystal* crystal, const Dropping* d, const Buffers* b,
                          float* dlambdas) noexcept nogil:
    cdef Kept qkv = kept(z.f, of_layer(b, QKV, layer), z.QKV)
    cdef Kept att = kept(z.f, of_layer(b, ATT, layer), z.W)
    cdef Kept datt = kept(z.f, shared(b, DATT), z.W), dqkv = kept(z.f, shared(b, DQKV), z.QKV)
    cdef AttentionDropout drop = attention_dropout(d, layer)
    kernel.backward(z.f, n, t, &a.heads, &datt, &qkv, &att, of_layer(b, LSE, layer), crystal, &drop,
                    &dqkv, dlambdas, shared(b, SCRATCH))
