"""Norms of rows: LayerNorm (Ba et al. 2016) where there is a shift, RMSNorm otherwise."""

from libc.stdint cimport int64_t

from crystalline._kernels.formats cimport converts, words
from crystalline._kernels.isa cimport NumberFormat, primitives
from crystalline.model.layers.table cimport Norm

cdef enum:
    STRIP_ROWS = 16  # rows that become an operand right after they are computed


cdef void normalize(const Norm* n, int64_t rows, const float* x__rc, float* out__rc, float* mean,
                    float* rstd) noexcept nogil:
    if n.shift != NULL:
        primitives().layernorm(rows, n.C, x__rc, n.scale, n.shift, n.epsilon, out__rc, mean, rstd)
    else:
        primitives().rmsnorm(rows, n.C, x__rc, n.scale, n.epsilon, out__rc, rstd)


cdef void normalize_operand(const NumberFormat* f, const Norm* n, int64_t rows, const float* x__rc,
                            float* narrow, float* out, float* mean, float* rstd) noexcept nogil:
    cdef int64_t C = n.C, wc = words(f, C), row = 0, count
    if not converts(f):
        normalize(n, rows, x__rc, out, mean, rstd)
        return
    while row < rows:
        count = min(<int64_t>STRIP_ROWS, rows - row)
        normalize(n, count, x__rc + row * C, narrow, mean + row, rstd + row)
        f.to_operand(count, C, narrow, C, out + row * wc)
        row += count


cdef void normalize_backward(const Norm* n, int64_t rows, const float* dy__rc, const float* x__rc,
                             const float* mean, const float* rstd, float* dx__rc, bint accumulate,
                             float* vectors) noexcept nogil:
    if n.shift != NULL:
        primitives().layernorm_backward(rows, n.C, dy__rc, x__rc, n.scale, mean, rstd, dx__rc,
                                        accumulate, vectors + n.at, vectors + n.shift_at)
    else:
        primitives().rmsnorm_backward(rows, n.C, dy__rc, x__rc, n.scale, rstd, dx__rc, accumulate,
                                      vectors + n.at)
