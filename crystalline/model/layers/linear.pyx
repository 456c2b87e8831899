"""Linear layers: y = x w + bias, and the gradients of x, w and bias.

The gradient of w takes all rows of a chunk at once, in panels that are filled row block by row
block while dy is in the cache.
"""

from libc.stdint cimport int64_t

from crystalline._kernels.formats cimport converts, words
from crystalline._kernels.isa cimport CL_STORE, Kept, NumberFormat, StoreMode
from crystalline._kernels.kept cimport pack_kept, row_operand
from crystalline._kernels.matmul cimport multiply, multiply_ta, pack_rows
from crystalline.model.layers.table cimport Matrix


cdef inline float* bias_gradient(const Matrix* m, float* vectors) noexcept nogil:
    return vectors + m.bias_at if m.bias != NULL else NULL


cdef void linear(const NumberFormat* f, int64_t rows, const Matrix* m, const float* operand,
                 const float* residual__rn, float* y__rn) noexcept nogil:
    multiply(f, rows, m.N, m.K, operand, words(f, m.K), m.packed, y__rn, m.N, m.bias, residual__rn,
             CL_STORE)


cdef const float* output_gradient(const NumberFormat* f, int64_t R, int64_t row, int64_t rows,
                                  const Matrix* m, const float* dy__rn, float* vectors,
                                  float* dy_packed, float* operand) noexcept nogil:
    pack_rows(f, R, m.N, row, rows, dy__rn, m.N, dy_packed, bias_gradient(m, vectors))
    if not converts(f):
        return dy__rn
    f.to_operand(rows, m.N, dy__rn, m.N, operand)
    return operand


cdef const float* kept_gradient(const NumberFormat* f, int64_t R, int64_t row, int64_t rows,
                                const Matrix* m, const Kept* dy, float* vectors, float* dy_packed,
                                float* operand) noexcept nogil:
    pack_kept(f, R, m.N, row, rows, dy, dy_packed, bias_gradient(m, vectors))
    return row_operand(f, rows, m.N, dy, operand)


cdef void input_gradient(const NumberFormat* f, int64_t rows, const Matrix* m, const float* dy,
                         float* dx__rk) noexcept nogil:
    multiply(f, rows, m.K, m.N, dy, words(f, m.N), m.packed_t, dx__rk, m.K, NULL, NULL, CL_STORE)


cdef void weight_gradient(const NumberFormat* f, int64_t R, const Matrix* m, const float* operand,
                          float* turned, const float* dy_packed, float* matrices,
                          StoreMode store) noexcept nogil:
    if converts(f):
        f.turn_operand(R, m.K, operand, turned)
        operand = turned
    multiply_ta(f, m.K, m.N, R, operand, dy_packed, matrices + m.at, m.N, store)
