# Linear layers.  Operands as in buffers.pyx.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport Kept, NumberFormat, StoreMode
from crystalline.model.layers.table cimport Matrix

# y [rows, N] = x w + bias (+ residual)
cdef void linear(const NumberFormat* f, int64_t rows, const Matrix* m, const float* operand,
                 const float* residual__rn, float* y__rn) noexcept nogil

# For y = x w + bias and rows row .. row + rows of R: db += column sums of dy, and dy goes into its
# place among the panels of all rows, for `weight_gradient`.  Returns the operand of dy.
cdef const float* output_gradient(const NumberFormat* f, int64_t R, int64_t row, int64_t rows,
                                  const Matrix* m, const float* dy__rn, float* vectors,
                                  float* dy_packed, float* operand) noexcept nogil
# The same for dy that is kept.
cdef const float* kept_gradient(const NumberFormat* f, int64_t R, int64_t row, int64_t rows,
                                const Matrix* m, const Kept* dy, float* vectors, float* dy_packed,
                                float* operand) noexcept nogil
# dx [rows, K] = dy w^T, of dy's operand
cdef void input_gradient(const NumberFormat* f, int64_t rows, const Matrix* m, const float* dy,
                         float* dx__rk) noexcept nogil
# dw (+)= x^T dy, of x's operand [R, K]
cdef void weight_gradient(const NumberFormat* f, int64_t R, const Matrix* m, const float* operand,
                          float* turned, const float* dy_packed, float* matrices,
                          StoreMode store) noexcept nogil
