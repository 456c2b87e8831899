# The MLP without its norm and residual.
from libc.stdint cimport int64_t

from crystalline.model.layers.buffers cimport Buffers
from crystalline.model.layers.table cimport Mlp, Sizes

# out [rows, F] = the MLP's function of rows [U] of x, ld apart.
cdef void activate(const Mlp* m, int64_t rows, const float* x, int64_t ld,
                   float* out) noexcept nogil
# For rows row .. row + rows: UP and ACT from NORM2.
cdef void expand(const Sizes* z, const Mlp* m, int64_t layer, int64_t row, int64_t rows,
                 const Buffers* b) noexcept nogil
# The gradient of the second product's operand, `left` being dy's, to that of NORM2: into NARROW,
# and the panels of WIDE_PACKED.
cdef void expand_backward(const Sizes* z, const Mlp* m, int64_t layer, int64_t R, int64_t row,
                          int64_t rows, const float* left, const Buffers* b,
                          float* vectors) noexcept nogil
