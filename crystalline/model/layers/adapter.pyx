"""Low-rank adapters: products of few columns beside those of a matrix that stays as it is."""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from crystalline._kernels.formats cimport converts, words
from crystalline._kernels.isa cimport CL_ADD, CL_STORE, NumberFormat, StoreMode
from crystalline._kernels.matmul cimport multiply, multiply_ta, pack_rows
from crystalline.model.layers.buffers cimport (
    LOW, LOW_OPERAND, TURNED, Buffer, Buffers, of_layer, shared,
)
from crystalline.model.layers.table cimport Matrix


cdef void to_low(const NumberFormat* f, int64_t rows, int64_t K, int64_t r, const float* operand,
                 const float* packed, float scale, float* low) noexcept nogil:
    # low [rows, r] = scale times the product of an operand with K columns
    cdef int64_t i
    multiply(f, rows, r, K, operand, words(f, K), packed, low, r, NULL, NULL, CL_STORE)
    for i in range(rows * r):
        low[i] *= scale


cdef void low_operand(const NumberFormat* f, int64_t rows, int64_t r, const float* low,
                      float* out) noexcept nogil:
    if converts(f):
        f.to_operand(rows, r, low, r, out)
    else:
        memcpy(out, low, rows * r * sizeof(float))


cdef void adapt(const NumberFormat* f, int64_t layer, int64_t row, int64_t rows, const Matrix* m,
                const float* operand, Buffer kept, float* y__rn, const Buffers* b) noexcept nogil:
    cdef int64_t r = m.adapter.r
    cdef float* low = shared(b, LOW)
    cdef float* out = of_layer(b, kept, layer) + row * words(f, r)
    to_low(f, rows, m.K, r, operand, m.adapter.a.packed, m.adapter.scale, low)
    low_operand(f, rows, r, low, out)
    multiply(f, rows, m.N, r, out, words(f, r), m.adapter.b.packed, y__rn, m.N, NULL, NULL, CL_ADD)


cdef void adapt_backward(const NumberFormat* f, int64_t R, int64_t row, int64_t rows,
                         const Matrix* m, const float* dy, Buffer packed, float* dx__rk,
                         const Buffers* b) noexcept nogil:
    cdef int64_t r = m.adapter.r
    cdef float* low = shared(b, LOW)
    cdef float* left = shared(b, LOW_OPERAND)
    to_low(f, rows, m.N, r, dy, m.adapter.b.packed_t, m.adapter.scale, low)
    pack_rows(f, R, r, row, rows, low, r, shared(b, packed), NULL)
    low_operand(f, rows, r, low, left)
    multiply(f, rows, m.K, r, left, words(f, r), m.adapter.a.packed_t, dx__rk, m.K, NULL, NULL,
             CL_ADD)


cdef const float* turned(const NumberFormat* f, int64_t R, int64_t K, const float* operand,
                         const Buffers* b) noexcept nogil:
    if not converts(f):
        return operand
    f.turn_operand(R, K, operand, shared(b, TURNED))
    return shared(b, TURNED)


cdef void adapter_gradient(const NumberFormat* f, int64_t layer, int64_t R, const Matrix* m,
                           const float* operand, Buffer kept, const float* dy_packed,
                           Buffer packed, float* adapters, StoreMode store,
                           const Buffers* b) noexcept nogil:
    cdef int64_t r = m.adapter.r
    multiply_ta(f, m.K, r, R, turned(f, R, m.K, operand, b), shared(b, packed),
                adapters + m.adapter.a.at, r, store)
    multiply_ta(f, r, m.N, R, turned(f, R, r, of_layer(b, kept, layer), b), dy_packed,
                adapters + m.adapter.b.at, m.N, store)
