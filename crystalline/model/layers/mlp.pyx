"""The MLP: down(function(up(x))), where the function is GELU, squared ReLU, or silu(gate) up.

GELU is done to each block of the product's sums where the number format can (see kept.pyx); the
others go over the rows of a block in float32, once it is computed.
"""

from libc.stdint cimport int64_t

from crystalline._kernels.formats cimport converts, words
from crystalline._kernels.isa cimport CL_STORE, Kept, NumberFormat, primitives
from crystalline._kernels.kept cimport (
    float_rows, floats, kept, kept_part, multiply_gelu, multiply_gelu_slope,
)
from crystalline._kernels.matmul cimport multiply
from crystalline._kernels.marks cimport (
    ACTIVATION, D_ACTIVATION, D_DOWN, D_UP, PACKING, UP_PASS, mark,
)
from crystalline.model.layers.adapter cimport adapt, adapt_backward
from crystalline.model.layers.buffers cimport (
    ACT, LOW_DY_PACKED, LOW_UP, LOW_WIDE_PACKED, NARROW, NORM2, OPERAND, STRIP, UP, WIDE,
    WIDE_PACKED, Buffers, fuses_mlp, of_layer, shared,
)
from crystalline.model.layers.linear cimport input_gradient, kept_gradient, output_gradient
from crystalline.model.layers.table cimport GELU, SWIGLU, Mlp, Sizes

cdef enum:
    STRIP_ROWS = 16  # rows that become an operand right after they are computed


cdef void activate(const Mlp* m, int64_t rows, const float* x, int64_t ld,
                   float* out) noexcept nogil:
    cdef int64_t i
    if m.kind == SWIGLU:
        primitives().swiglu(rows, m.F, x, ld, out)
        return
    for i in range(rows):
        if m.kind == GELU:
            primitives().gelu(m.F, x + i * ld, out + i * m.F)
        else:
            primitives().relu2(m.F, x + i * ld, out + i * m.F)


cdef void expand(const Sizes* z, const Mlp* m, int64_t layer, int64_t row, int64_t rows,
                 const Buffers* b) noexcept nogil:
    cdef const NumberFormat* f = z.f
    cdef int64_t i = 0, n
    cdef const float* operand = of_layer(b, NORM2, layer) + row * words(f, z.C)
    cdef float* act = of_layer(b, ACT, layer) + row * words(f, z.F)
    cdef Kept whole = kept(f, of_layer(b, UP, layer), z.U)
    cdef Kept up = kept_part(&whole, row, 0)
    cdef float* x
    if fuses_mlp(z):
        multiply_gelu(f, rows, z.U, z.C, operand, m.up.packed, m.up.bias, &up, shared(b, WIDE), act)
        mark(b.marks, UP_PASS)
        return
    x = float_rows(&up) if f.keeps == NULL else shared(b, STRIP)
    multiply(f, rows, z.U, z.C, operand, words(f, z.C), m.up.packed, x, z.U, m.up.bias, NULL,
             CL_STORE)
    if z.rank:
        adapt(f, layer, row, rows, &m.up, operand, LOW_UP, x, b)
    mark(b.marks, UP_PASS)
    if not converts(f):
        activate(m, rows, x, z.U, act)
    while i < rows and converts(f):
        n = min(<int64_t>STRIP_ROWS, rows - i)
        activate(m, n, x + i * z.U, z.U, shared(b, WIDE))
        f.to_operand(n, z.F, shared(b, WIDE), z.F, act + i * words(f, z.F))
        i += n
    if f.keeps != NULL:
        f.keeps.keep(rows, z.U, x, z.U, &up)
    mark(b.marks, ACTIVATION)


cdef void expand_backward(const Sizes* z, const Mlp* m, int64_t layer, int64_t R, int64_t row,
                          int64_t rows, const float* left, const Buffers* b,
                          float* vectors) noexcept nogil:
    cdef const NumberFormat* f = z.f
    cdef Kept whole = kept(f, of_layer(b, UP, layer), z.U)
    cdef Kept up = kept_part(&whole, row, 0), wide = kept(f, shared(b, WIDE), z.U)
    cdef const float* x
    cdef float* dact = shared(b, STRIP)
    cdef float* dup = shared(b, WIDE)
    cdef int64_t ld
    if fuses_mlp(z):
        multiply_gelu_slope(f, rows, z.U, z.C, left, m.down.packed_t, &up, &wide)
        mark(b.marks, D_DOWN)
        left = kept_gradient(f, R, row, rows, &m.up, &wide, vectors, shared(b, WIDE_PACKED),
                             shared(b, OPERAND))
    else:
        input_gradient(f, rows, &m.down, left, dact)
        if z.rank:
            adapt_backward(f, R, row, rows, &m.down, left, LOW_DY_PACKED, dact, b)
        mark(b.marks, D_DOWN)
        x = floats(f, rows, z.U, &up, dact + rows * z.F, &ld)
        if m.kind == SWIGLU:
            primitives().swiglu_backward(rows, z.F, x, ld, dact, dup)
        elif m.kind == GELU:
            primitives().gelu_backward(rows * z.F, x, dact, dup)
        else:
            primitives().relu2_backward(rows * z.F, x, dact, dup)
        mark(b.marks, D_ACTIVATION)
        left = output_gradient(f, R, row, rows, &m.up, dup, vectors, shared(b, WIDE_PACKED),
                               shared(b, OPERAND))
    mark(b.marks, PACKING)
    input_gradient(f, rows, &m.up, left, shared(b, NARROW))
    if z.rank:
        adapt_backward(f, R, row, rows, &m.up, left, LOW_WIDE_PACKED, shared(b, NARROW), b)
    mark(b.marks, D_UP)
