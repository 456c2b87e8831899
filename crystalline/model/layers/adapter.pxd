# Adapters: what a frozen matrix learns beside itself (see table.pxd and `model/adapters.py`).
#
# `kept` holds the operand of scale x a for all rows, `packed` the gradient of x a in panels, both
# for `adapter_gradient`.  Every function but the last takes rows row .. row + rows of R.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport NumberFormat, StoreMode
from crystalline.model.layers.buffers cimport Buffer, Buffers
from crystalline.model.layers.table cimport Matrix

# y [rows, N] += scale x a b, of x's operand
cdef void adapt(const NumberFormat* f, int64_t layer, int64_t row, int64_t rows, const Matrix* m,
                const float* operand, Buffer kept, float* y__rn, const Buffers* b) noexcept nogil
# dx [rows, K] += scale dy b^T a^T, of dy's operand
cdef void adapt_backward(const NumberFormat* f, int64_t R, int64_t row, int64_t rows,
                         const Matrix* m, const float* dy, Buffer packed, float* dx__rk,
                         const Buffers* b) noexcept nogil
# da (+)= scale x^T dy b^T and db (+)= scale (x a)^T dy, of x's operand and dy in panels
cdef void adapter_gradient(const NumberFormat* f, int64_t layer, int64_t R, const Matrix* m,
                           const float* operand, Buffer kept, const float* dy_packed,
                           Buffer packed, float* adapters, StoreMode store,
                           const Buffers* b) noexcept nogil
