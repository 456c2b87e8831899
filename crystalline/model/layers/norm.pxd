# Norms of rows.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport NumberFormat
from crystalline.model.layers.table cimport Norm

# out [rows, C] in float32; mean (of LayerNorm only) and rstd [rows]
cdef void normalize(const Norm* n, int64_t rows, const float* x__rc, float* out__rc, float* mean,
                    float* rstd) noexcept nogil
# The same into an operand; where that converts, strip by strip through `narrow`.
cdef void normalize_operand(const NumberFormat* f, const Norm* n, int64_t rows, const float* x__rc,
                            float* narrow, float* out, float* mean, float* rstd) noexcept nogil
# dx = or, with accumulate, +=; the gradients of scale and shift add.  dx may be dy.
cdef void normalize_backward(const Norm* n, int64_t rows, const float* dy__rc, const float* x__rc,
                             const float* mean, const float* rstd, float* dx__rc, bint accumulate,
                             float* vectors) noexcept nogil
