# Attention without its norm and residual: products before and after it, heads' norms, rotation.
from libc.stdint cimport int32_t, int64_t

from crystalline._kernels.attention cimport Crystal
from crystalline._kernels.isa cimport NumberFormat
from crystalline.model.layers.buffers cimport Buffers
from crystalline.model.layers.table cimport Attention, Dropping, Sizes

# For rows row .. row + rows of sequences of t: q, k and v of a layer, from NORM1 into QKV.
cdef void project(const Sizes* z, const Attention* a, int64_t layer, int64_t row, int64_t rows,
                  int64_t t, const Buffers* b) noexcept nogil
# Their gradients DQKV to that of the operand: into NARROW, and the panels of WIDE_PACKED.
cdef void project_backward(const Sizes* z, const Attention* a, int64_t layer, int64_t R,
                           int64_t row, int64_t rows, int64_t t, const Buffers* b,
                           float* vectors) noexcept nogil
# n sequences of t: ATT from QKV, and DQKV from DATT.
cdef void attend(const Sizes* z, const Attention* a, int64_t layer, int64_t n, int64_t t,
                 const Crystal* crystal, const Dropping* d, const Buffers* b) noexcept nogil
cdef void attend_backward(const Sizes* z, const Attention* a, int64_t layer, int64_t n, int64_t t,
                          const Crystal* crystal, const Dropping* d, const Buffers* b,
                          float* dlambdas) noexcept nogil
# Rows of q, k and v in float32, ld apart, as the product left them: heads are normalized and
# rotated in place.  Row i is at position first + i of sequences of t; raw and rstd keep what
# backward needs.
cdef void turn_heads(const Attention* a, int64_t rows, int64_t first, int64_t t, float* x,
                     int64_t ld, float* raw, float* rstd) noexcept nogil
# The same for one head of keys and its heads of queries, at positions first + i, with nothing kept.
cdef void turn_group(const Attention* a, int64_t rows, int64_t first, int64_t g, float* x,
                     int64_t ld) noexcept nogil
