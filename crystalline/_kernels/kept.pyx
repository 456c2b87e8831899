"""Kept matrices: what lives from one product to the next, and from forward to backward.

A number format keeps them as float32, or as its own operands (`NumberFormat.keeps`).  In the first
case a product ends in float32 and other passes follow; in the second, what follows is done to each
block of sums while it is in L1, and nothing is converted twice.
"""

import numpy as np

from crystalline._kernels.memory import aligned_empty

from libc.stdint cimport int64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.formats cimport (
    converts, grouped, operand_size, packed_words, training_format, words,
)
from crystalline._kernels.isa cimport (
    CL_GELU, CL_GELU_SLOPE, CL_LINEAR, CL_PANEL, CL_STORE, Activation, Kept, NumberFormat,
    begin_thread, end_thread, primitives,
)
from crystalline._kernels.matmul cimport multiply, pack, pack_rows, pack_t

cdef enum:
    STRIP_ROWS = 16  # rows that become an operand right after they are computed


cdef int64_t kept_words(const NumberFormat* f, int64_t columns) noexcept nogil:
    return words(f, columns) if f.keeps != NULL else columns


cdef int64_t kept_size(const NumberFormat* f, int64_t rows, int64_t columns) noexcept nogil:
    return grouped(f, rows) * kept_words(f, columns)


cdef Kept kept(const NumberFormat* f, const float* start, int64_t columns) noexcept nogil:
    cdef Kept x
    x.words = <float*>start
    x.ld, x.columns = kept_words(f, columns), columns
    x.row = x.column = 0
    return x


cdef Kept kept_part(const Kept* x, int64_t row, int64_t column) noexcept nogil:
    cdef Kept y = x[0]
    y.row += row
    y.column += column
    return y


cdef const float* left_operand(const NumberFormat* f, int64_t rows, int64_t K, const Kept* x,
                               float* scratch, int64_t* lda) noexcept nogil:
    cdef int64_t unit = f.elements * f.step
    if f.keeps == NULL and not converts(f):
        lda[0] = x.ld
        return float_rows(x)
    if f.keeps != NULL and x.row % f.row_group == 0 and x.column % unit == 0 and K % unit == 0:
        lda[0] = x.ld
        return x.words + x.row * x.ld + x.column // f.elements * f.stride
    lda[0] = words(f, K)
    if f.keeps != NULL:
        f.keeps.take_operand(rows, K, x, scratch)
    else:
        f.to_operand(rows, K, float_rows(x), x.ld, scratch)
    return scratch


cdef const float* row_operand(const NumberFormat* f, int64_t rows, int64_t K, const Kept* x,
                              float* scratch) noexcept nogil:
    if f.keeps != NULL:
        return x.words + x.row * x.ld
    if not converts(f):
        return float_rows(x)
    f.to_operand(rows, K, float_rows(x), x.ld, scratch)
    return scratch


cdef const float* floats(const NumberFormat* f, int64_t rows, int64_t n, const Kept* x,
                         float* scratch, int64_t* lda) noexcept nogil:
    if f.keeps == NULL:
        lda[0] = x.ld
        return float_rows(x)
    lda[0] = n
    f.keeps.expand(rows, n, x, scratch, n)
    return scratch


cdef void pack_kept(const NumberFormat* f, int64_t K, int64_t N, int64_t row, int64_t rows,
                    const Kept* x, float* packed, float* column_sums) noexcept nogil:
    cdef int64_t j = 0, height = words(f, K), start = row // f.elements
    cdef Kept panel
    if f.keeps == NULL:
        pack_rows(f, K, N, row, rows, float_rows(x), x.ld, packed, column_sums)
        return
    while j < N:
        panel = kept_part(x, 0, j)
        f.keeps.pack_panel(rows, min(<int64_t>CL_PANEL, N - j), &panel,
                           packed + j * height + start * CL_PANEL,
                           column_sums + j if column_sums != NULL else NULL)
        j += CL_PANEL


cdef void pack_kept_t(const NumberFormat* f, int64_t K, int64_t N, const Kept* x,
                      float* packed) noexcept nogil:
    cdef int64_t j = 0, height = words(f, K)
    cdef Kept panel
    if f.keeps == NULL:
        pack_t(f, K, N, float_rows(x), x.ld, packed)
        return
    while j < N:
        panel = kept_part(x, j, 0)
        f.keeps.pack_panel_t(K, min(<int64_t>CL_PANEL, N - j), &panel, packed + j * height)
        j += CL_PANEL


cdef void panels_kept(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                      int64_t lda, const float* packed, int64_t height, const float* bias,
                      Activation activation, const Kept* out, const Kept* other) noexcept nogil:
    cdef int64_t j = 0
    cdef Kept y, z = out[0]
    while j < N:
        y = kept_part(out, 0, j)
        if other != NULL:
            z = kept_part(other, 0, j)
        f.keeps.product(M, min(<int64_t>CL_PANEL, N - j), words(f, K), a, lda, packed + j * height,
                        height * CL_PANEL if j + CL_PANEL < N else 0,
                        bias + j if bias != NULL else NULL, activation, &y, &z)
        j += CL_PANEL


cdef void multiply_kept(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                        int64_t lda, const float* packed, const float* bias,
                        const Kept* out) noexcept nogil:
    if f.keeps != NULL:
        panels_kept(f, M, N, K, a, lda, packed, words(f, K), bias, CL_LINEAR, out, NULL)
    else:
        multiply(f, M, N, K, a, lda, packed, float_rows(out), out.ld, bias, NULL, CL_STORE)


cdef void multiply_beginning(const NumberFormat* f, int64_t M, int64_t N, int64_t K, int64_t whole,
                             const float* a, int64_t lda, const float* packed,
                             const Kept* out) noexcept nogil:
    cdef int64_t j = 0
    if f.keeps != NULL:
        panels_kept(f, M, N, K, a, lda, packed, words(f, whole), NULL, CL_LINEAR, out, NULL)
        return
    while j < N:
        f.product(M, min(<int64_t>CL_PANEL, N - j), words(f, K), a, lda,
                  packed + j * words(f, whole), 0, float_rows(out) + j, out.ld, NULL, NULL,
                  CL_STORE)
        j += CL_PANEL


cdef void multiply_gelu(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                        const float* packed, const float* bias, const Kept* pre, float* strip,
                        float* act) noexcept nogil:
    cdef int64_t row = 0, n
    cdef Kept out
    if f.keeps != NULL:
        out = kept(f, act, N)
        panels_kept(f, M, N, K, a, words(f, K), packed, words(f, K), bias, CL_GELU, &out, pre)
        return
    multiply(f, M, N, K, a, words(f, K), packed, float_rows(pre), pre.ld, bias, NULL, CL_STORE)
    if not converts(f):
        primitives().gelu(M * N, float_rows(pre), act)
        return
    while row < M:
        n = min(<int64_t>STRIP_ROWS, M - row)
        primitives().gelu(n * N, float_rows(pre) + row * N, strip)
        f.to_operand(n, N, strip, N, act + row * words(f, N))
        row += n


cdef void multiply_gelu_slope(const NumberFormat* f, int64_t M, int64_t N, int64_t K,
                              const float* a, const float* packed, const Kept* pre,
                              const Kept* out) noexcept nogil:
    if f.keeps != NULL:
        panels_kept(f, M, N, K, a, words(f, K), packed, words(f, K), NULL, CL_GELU_SLOPE, out, pre)
        return
    multiply(f, M, N, K, a, words(f, K), packed, float_rows(out), out.ld, NULL, NULL, CL_STORE)
    primitives().gelu_backward(M * N, float_rows(pre), float_rows(out), float_rows(out))


cdef class KeptRows:
    cdef void give_back(self):
        if self._format.keeps != NULL:
            self._format.keeps.expand(self._floats.shape[0], self._floats.shape[1], &self.all,
                                      &self._floats[0, 0], self._floats.shape[1])


cdef KeptRows kept_rows(const NumberFormat* f, const float[:, ::1] array):
    cdef int64_t rows = array.shape[0], columns = array.shape[1]
    cdef KeptRows x = KeptRows.__new__(KeptRows)
    x._format = f
    if f.keeps == NULL:
        x.all = kept(f, &array[0, 0], columns)
        return x
    x._floats = np.asarray(array) if np.asarray(array).flags.writeable else np.array(array)
    x._words = aligned_empty((kept_size(f, rows, columns),))
    x.all = kept(f, &x._words[0], columns)
    f.keeps.keep(rows, columns, &array[0, 0], columns, &x.all)
    return x


cdef float[::1] _packed(const NumberFormat* f, const float[:, ::1] w):
    cdef float[::1] out = aligned_empty((packed_words(f, w.shape[0], w.shape[1]),))
    pack(f, w.shape[0], w.shape[1], &w[0, 0], w.shape[1], &out[0], NULL)
    return out


cdef float[::1] _operand(const NumberFormat* f, const float[:, ::1] x):
    cdef float[::1] out = aligned_empty((operand_size(f, x.shape[0], x.shape[1]),))
    if converts(f):
        f.to_operand(x.shape[0], x.shape[1], &x[0, 0], x.shape[1], &out[0])
    else:
        np.asarray(out)[...] = np.asarray(x).reshape(-1)
    return out


def mlp(const float[:, ::1] x, const float[:, ::1] w1, const float[::1] b1,
        const float[:, ::1] w2, str precision="float32"):
    """Return pre = x [M, K] w1 [K, N] + b1 as it is kept, and gelu(pre) w2 [N, C]: two arrays.

    >>> one = np.ones((1, 1), np.float32)
    >>> pre, y = mlp(np.float32([[1, 2]]), np.float32([[3], [4]]), np.float32([-12]), one)
    >>> pre.item(), round(y.item(), 4)
    (-1.0, -0.1588)
    """
    cdef const NumberFormat* f = training_format(precision)
    cdef int64_t M = x.shape[0], K = x.shape[1], N = w1.shape[1], C = w2.shape[1]
    expect_length("b1", b1.shape[0], N)
    expect_length("w1's rows", w1.shape[0], K)
    expect_length("w2's rows", w2.shape[0], N)
    pre, y = np.empty((M, N), np.float32), np.empty((M, C), np.float32)
    cdef float[:, ::1] out = y
    cdef float[::1] left = _operand(f, x), first = _packed(f, w1), second = _packed(f, w2)
    cdef float[::1] strip = aligned_empty((STRIP_ROWS * N,))
    cdef float[::1] act = aligned_empty((operand_size(f, M, N),))
    cdef KeptRows rows = kept_rows(f, pre)
    begin_thread()
    multiply_gelu(f, M, N, K, &left[0], &first[0], &b1[0], &rows.all, &strip[0], &act[0])
    multiply(f, M, C, N, &act[0], words(f, N), &second[0], &out[0, 0], C, NULL, NULL, CL_STORE)
    end_thread()
    rows.give_back()
    return pre, y


def mlp_gradient(const float[:, ::1] dy, const float[:, ::1] w2, const float[:, ::1] pre,
                 str precision="float32"):
    """Return the gradient of pre [M, N], as it is kept, from that of y = gelu(pre) w2 [N, C].

    >>> one = np.ones((1, 1), np.float32)
    >>> round(mlp_gradient(2 * one, one, -one).item(), 4)
    -0.1659
    """
    cdef const NumberFormat* f = training_format(precision)
    cdef int64_t M = dy.shape[0], C = dy.shape[1], N = w2.shape[0]
    expect_length("w2's columns", w2.shape[1], C)
    expect_length("pre's rows", pre.shape[0], M)
    expect_length("pre's columns", pre.shape[1], N)
    out = np.empty((M, N), np.float32)
    cdef float[::1] left = _operand(f, dy)
    cdef float[::1] back = _packed(f, np.ascontiguousarray(np.asarray(w2).T))
    cdef KeptRows inputs = kept_rows(f, pre), rows = kept_rows(f, out)
    begin_thread()
    multiply_gelu_slope(f, M, N, C, &left[0], &back[0], &inputs.all, &rows.all)
    end_thread()
    rows.give_back()
    return out
