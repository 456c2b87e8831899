"""Matrix products in the three transpositions that training needs, on packed panels.

The right-hand side is packed once into panels of 32 columns, [ceil(N/32)][K][32], and shared by
every product that uses it:

    forward    y[M, N]  = x[M, K] W[K, N]          pack(W)
    backward   dx[M, K] = dy[M, N] W[K, N]^T       pack_transposed(W)
    weights    dW[K, N] = x[M, K]^T dy[M, N]       pack(dy), multiply_transposed

The left-hand side is read in place, row by row or column by column, unless its stride is bad for
the caches.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.formats cimport (
    grouped, number_format, packed_words, panel_words, training_format, turned_stride, words,
)
from crystalline._kernels.isa cimport (
    CL_ADD, CL_PANEL, CL_STORE, CL_STREAM, NumberFormat, StoreMode, begin_thread,
    end_thread,
)

# A format's function that multiplies by one panel.
ctypedef void (*Product)(int64_t M, int64_t n, int64_t K, const float* a, int64_t lda,
                         const float* panel, int64_t next, float* c, int64_t ldc,
                         const float* bias, const float* residual, StoreMode store) noexcept nogil

cdef enum:
    # Rows of words that lie multiples of CROWDED apart share so few sets of the caches that what a
    # sweep reads of them pushes itself out of L1 and L2.  Such a left-hand side is copied in strips
    # whose rows are an odd number of lines apart, if enough panels use the copy.
    CROWDED = 512
    LINE = 16
    STRIP_WORDS = 112 * 512         # on the stack: eight tiles across 512 rows, which is a chunk
    LEAST_HEIGHT = 128
    MOST_HEIGHT = STRIP_WORDS // 48  # three lines wide at least
    LEAST_PANELS = 8


cdef int64_t panel_count(int64_t N) noexcept nogil:
    return (N + CL_PANEL - 1) // CL_PANEL


# Where a block of rows begins; those of a group stay together.
cdef int64_t first_row(const NumberFormat* f, int64_t M, int64_t block,
                       int64_t blocks) noexcept nogil:
    cdef int64_t step = 2 * f.row_group if f.row_group > 1 else 1  # two tiles
    return M if block == blocks else M * block // blocks // step * step


cdef void pack(const NumberFormat* f, int64_t K, int64_t N, const float* b, int64_t ldb,
               float* packed, float* column_sums) noexcept nogil:
    pack_rows(f, K, N, 0, K, b, ldb, packed, column_sums)


cdef void pack_rows(const NumberFormat* f, int64_t K, int64_t N, int64_t row, int64_t rows,
                    const float* b, int64_t ldb, float* packed, float* column_sums) noexcept nogil:
    cdef int64_t panel, j, height = panel_words(f, K), start = row // f.elements
    for panel in range(panel_count(N)):
        j = panel * CL_PANEL
        f.pack_panel(rows, min(<int64_t>CL_PANEL, N - j), b + j, ldb,
                     packed + j * height + start * CL_PANEL,
                     column_sums + j if column_sums != NULL else NULL)


cdef void pack_t(const NumberFormat* f, int64_t K, int64_t N, const float* b, int64_t ldb,
                 float* packed) noexcept nogil:
    cdef int64_t panel, j, height = panel_words(f, K)
    for panel in range(panel_count(N)):
        j = panel * CL_PANEL
        f.pack_panel_t(K, min(<int64_t>CL_PANEL, N - j), b + j * ldb, ldb, packed + j * height)


cdef void multiply(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                   int64_t lda, const float* packed, float* c, int64_t ldc, const float* bias,
                   const float* residual, StoreMode store) noexcept nogil:
    multiply_panels(f, 0, panel_count(N), M, N, K, a, lda, packed, c, ldc, bias, residual, store)


cdef void multiply_panels(const NumberFormat* f, int64_t first, int64_t stop, int64_t M, int64_t N,
                          int64_t K, const float* a, int64_t lda, const float* packed, float* c,
                          int64_t ldc, const float* bias, const float* residual,
                          StoreMode store) noexcept nogil:
    cdef int64_t height = words(f, K), step = panel_words(f, K) * CL_PANEL
    cdef int64_t steps = height // f.step, depths = (height + f.pass_words - 1) // f.pass_words
    cdef int64_t blocks, block, row, rows, panel, depth, k, length
    if M <= f.few_rows:
        # Weights that are used once are read in the order in which they lie.
        for panel in range(first, stop):
            for depth in range(depths):
                k = steps * depth // depths * f.step
                length = steps * (depth + 1) // depths * f.step - k
                multiply_panel(f, f.product_few, panel, k, M, N, length, a + k * f.stride, lda,
                               packed + panel * step, step if panel + 1 < stop else 0, c, ldc,
                               bias, residual, store)
        return
    for depth in range(depths):
        k = steps * depth // depths * f.step
        length = steps * (depth + 1) // depths * f.step - k
        blocks = (M * length + f.left_words - 1) // f.left_words
        for block in range(blocks):
            row = first_row(f, M, block, blocks)
            rows = first_row(f, M, block + 1, blocks) - row
            if rows == 0:
                continue
            for panel in range(first, stop):
                multiply_panel(f, f.product, panel, k, rows, N, length,
                               a + row * lda + k * f.stride, lda, packed + panel * step,
                               step if panel + 1 < stop else 0, c + row * ldc, ldc, bias,
                               residual + row * ldc if residual != NULL else NULL, store)


# One panel, from word k of the inner length on: what begins the sums stores, what follows adds.
cdef inline void multiply_panel(const NumberFormat* f, Product product, int64_t panel, int64_t k,
                                int64_t M, int64_t N, int64_t K, const float* a, int64_t lda,
                                const float* packed, int64_t next_panel, float* c, int64_t ldc,
                                const float* bias, const float* residual,
                                StoreMode store) noexcept nogil:
    cdef int64_t j = panel * CL_PANEL, n = min(<int64_t>CL_PANEL, N - j)
    if k == 0:
        product(M, n, K, a, lda, packed, next_panel, c + j, ldc, bias + j if bias != NULL else NULL,
                residual + j if residual != NULL else NULL, store)
    else:
        product(M, n, K, a, lda, packed + k * CL_PANEL, next_panel, c + j, ldc, NULL, NULL, CL_ADD)


cdef void multiply_ta(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                      const float* packed, float* c, int64_t ldc, StoreMode store) noexcept nogil:
    cdef int64_t height = words(f, K), lda = turned_stride(f, K, M)
    cdef int64_t blocks = max(<int64_t>1, M * height // f.left_words)
    cdef int64_t block, row, rows
    # Weight gradients are large and not read again soon: where rows are whole cache lines, they
    # are written past the cache.
    if store == CL_STORE and N % 16 == 0 and ldc % 16 == 0 and <size_t>c % 64 == 0:
        store = CL_STREAM
    if (not f.turned_by_rows and lda % CROWDED == 0 and panel_count(N) >= LEAST_PANELS
            and LEAST_HEIGHT <= height <= MOST_HEIGHT):
        multiply_strips(f, M, N, height, a, packed, c, ldc, store)
        return
    for block in range(blocks):
        row = first_row(f, M, block, blocks)
        rows = first_row(f, M, block + 1, blocks) - row
        if rows == 0:
            continue
        sweep_ta(f, rows, N, height, a + (row * lda if f.turned_by_rows else row), lda, packed,
                 c + row * ldc, ldc, store)


cdef void sweep_ta(const NumberFormat* f, int64_t rows, int64_t N, int64_t height, const float* a,
                   int64_t lda, const float* packed, float* c, int64_t ldc,
                   StoreMode store) noexcept nogil:
    cdef int64_t panel, j
    for panel in range(panel_count(N)):
        j = panel * CL_PANEL
        f.product_ta(rows, min(<int64_t>CL_PANEL, N - j), height, a, lda, packed + j * height,
                     height * CL_PANEL if j + CL_PANEL < N else 0, c + j, ldc, NULL, NULL, store)


cdef void multiply_strips(const NumberFormat* f, int64_t M, int64_t N, int64_t height,
                          const float* a, const float* packed, float* c, int64_t ldc,
                          StoreMode store) noexcept nogil:
    cdef float room[STRIP_WORDS + LINE]
    cdef float* strip = <float*>((<size_t>room + 63) // 64 * 64)
    cdef int64_t lda = ((STRIP_WORDS // height // LINE - 1) | 1) * LINE
    cdef int64_t blocks = (M + lda - 1) // lda
    cdef int64_t block, row, rows, k
    for block in range(blocks):
        row = M * block // blocks
        rows = M * (block + 1) // blocks - row
        for k in range(height):
            memcpy(strip + k * lda, a + k * M + row, rows * sizeof(float))
        sweep_ta(f, rows, N, height, strip, lda, packed, c + row * ldc, ldc, store)


def packed_size(int64_t K, int64_t N, str precision="float32") -> int:
    """Return the 32-bit words that the packed form of a [K, N] matrix takes.

    >>> packed_size(32, 33), packed_size(32, 33, "bf16")
    (2048, 1024)
    """
    return packed_words(number_format(precision, K), K, N)


def operand_shape(int64_t M, int64_t K, str precision="float32") -> tuple[int, int]:
    """Return the shape of the operand of a matrix [M, K]: whole groups of rows, and their words.

    >>> operand_shape(5, 32), operand_shape(5, 32, "bf16")[1]
    ((5, 32), 16)
    """
    cdef const NumberFormat* f = number_format(precision, K)
    return grouped(f, M), words(f, K)


def pack_matrix(const float[:, ::1] b, float[::1] out, float[::1] column_sums=None,
                str precision="float32") -> None:
    """Pack b [K, N] into `out` [packed_size(K, N)]; with `column_sums` [N], add the sums over K.

    A narrow format rounds elements to nearest, ties to even; int8 scales each column first, by its
    largest magnitude (`primitives/int8.h` has the steps); int8g32 and int4 scale each 32 elements
    of a column (`primitives/groups.h`).  Sums are of b itself.
    """
    cdef int64_t K = b.shape[0], N = b.shape[1]
    cdef const NumberFormat* f = number_format(precision, K)
    expect_length("out", out.shape[0], packed_words(f, K, N))
    if column_sums is not None:
        expect_length("column_sums", column_sums.shape[0], N)
    if K == 0 or N == 0:
        return
    cdef float* sums = &column_sums[0] if column_sums is not None else NULL
    with nogil:
        pack(f, K, N, &b[0, 0], N, &out[0], sums)


def pack_transposed(const float[:, ::1] b, float[::1] out, str precision="float32") -> None:
    """Pack the transpose of b [N, K] into `out` [packed_size(K, N)], as `pack_matrix(b.T)` does."""
    cdef int64_t N = b.shape[0], K = b.shape[1]
    cdef const NumberFormat* f = number_format(precision, K)
    expect_length("out", out.shape[0], packed_words(f, K, N))
    if K == 0 or N == 0:
        return
    with nogil:
        pack_t(f, K, N, &b[0, 0], K, &out[0])


def to_operand(const float[:, ::1] x, float[:, ::1] out, str precision) -> None:
    """Store x [M, K] as the left-hand side of a product, out of `operand_shape(M, K)`.

    >>> import numpy as np
    >>> out = np.empty(operand_shape(1, 3, "bf16"), np.float32)
    >>> to_operand(np.float32([[1, 2, -1]]), out, "bf16")
    >>> [hex(word) for word in out.view(np.uint32)[0, :2]]
    ['0x40003f80', '0xbf80']
    """
    cdef int64_t M = x.shape[0], K = x.shape[1]
    cdef const NumberFormat* f = number_format(precision, K)
    _expect_operand("out", out, M, K, f)
    if f.to_operand == NULL:
        out[...] = x
    elif M and K:
        with nogil:
            f.to_operand(M, K, &x[0, 0], K, &out[0, 0])


cdef int _expect_operand(str name, const float[:, :] x, int64_t M, int64_t K,
                         const NumberFormat* f) except -1:
    if x.shape[0] != grouped(f, M) or x.shape[1] != words(f, K):
        raise ValueError(
            f"{name} is [{x.shape[0]}, {x.shape[1]}], expected [{grouped(f, M)}, {words(f, K)}] "
            f"for {M} rows of {K} elements")
    return 0


def turned_shape(int64_t M, int64_t K, str precision) -> tuple[int, int]:
    """Return the shape of what `turn_operand` makes of an operand of M rows of K elements.

    >>> turned_shape(5, 3, "float32")
    (5, 3)
    """
    cdef const NumberFormat* f = training_format(precision)
    return (grouped(f, K), words(f, M)) if f.turned_by_rows else (words(f, M), K)


def turn_operand(const float[:, ::1] x, int64_t M, int64_t K, float[:, ::1] out,
                 str precision) -> None:
    """Turn the operand x of a matrix [M, K] into the left-hand side of its transpose.

    out has `turned_shape(M, K)`.
    """
    cdef const NumberFormat* f = training_format(precision)
    _expect_operand("x", x, M, K, f)
    if (out.shape[0], out.shape[1]) != turned_shape(M, K, precision):
        raise ValueError(
            f"out is [{out.shape[0]}, {out.shape[1]}], "
            f"expected {[*turned_shape(M, K, precision)]}")
    if f.turn_operand == NULL:
        out[...] = x
    elif M and K:
        with nogil:
            f.turn_operand(M, K, &x[0, 0], &out[0, 0])


def matmul(const float[:, ::1] a, const float[::1] packed, float[:, ::1] out,
           const float[::1] bias=None, const float[:, ::1] residual=None,
           bint accumulate=False, str precision="float32", inner=None, panels=None) -> None:
    """out [M, N] = a [M, K] B [K, N] (+ bias [N]) (+ residual [M, N]), B packed.

    `accumulate` adds the result to what `out` holds.  In another precision than float32, `a` is
    what `to_operand` makes of a matrix with `inner` = K columns.  `panels` is a range of those of
    B, 32 columns each: only these columns of `out` are computed, with the bits that they have in
    the whole, so that several threads can share a product.

    >>> import numpy as np
    >>> a, b = np.float32([[1, 2]]), np.float32([[3], [4]])
    >>> packed, out = np.empty(packed_size(2, 1), np.float32), np.empty((1, 1), np.float32)
    >>> pack_matrix(b, packed); matmul(a, packed, out); out.tolist()
    [[11.0]]
    """
    cdef int64_t M = out.shape[0], K = a.shape[1] if inner is None else inner, N = out.shape[1]
    cdef const NumberFormat* f = number_format(precision, K)
    _expect_operand("a", a, M, K, f)
    expect_length("packed", packed.shape[0], packed_words(f, K, N))
    if bias is not None:
        expect_length("bias", bias.shape[0], N)
    if residual is not None and (residual.shape[0] != M or residual.shape[1] != N):
        raise ValueError(
            f"residual is [{residual.shape[0]}, {residual.shape[1]}], expected [{M}, {N}]"
        )
    cdef int64_t first = 0, stop = panel_count(N)
    if panels is not None:
        if panels.step != 1 or panels.start < 0 or panels.stop > stop:
            raise ValueError(f"panels are {panels}, expected a range within 0 to {stop}")
        first, stop = panels.start, panels.stop
    if M == 0 or N == 0:
        return
    if K == 0:
        raise ValueError("a has no columns: the inner length must be at least 1")
    cdef const float* bias_n = &bias[0] if bias is not None else NULL
    cdef const float* residual_mn = &residual[0, 0] if residual is not None else NULL
    cdef StoreMode store = CL_ADD if accumulate else CL_STORE
    with nogil:
        begin_thread()
        multiply_panels(f, first, stop, M, N, K, &a[0, 0], a.shape[1], &packed[0], &out[0, 0], N,
                        bias_n, residual_mn, store)
        end_thread()


def matmul_each(const float[:, ::1] a, const float[:, ::1] packed, float[:, ::1] out,
                str precision, int64_t inner, panels, int64_t few_rows=-1) -> None:
    """out [M, N] = a [M, K] B [K, N] for every B of packed [L, packed_size], one after the other.

    For measuring: what a model with L layers reads, without what Python takes between two products.
    `panels` as in `matmul`; up to `few_rows` rows go through the kernel for few, -1: as the table
    says.
    """
    cdef int64_t M = out.shape[0], N = out.shape[1], layer
    cdef const NumberFormat* f = number_format(precision, inner)
    cdef NumberFormat other = f[0]
    other.few_rows = few_rows
    _expect_operand("a", a, M, inner, f)
    expect_length("packed[0]", packed.shape[1], packed_words(f, inner, N))
    cdef int64_t first = panels.start, stop = panels.stop
    if panels.step != 1 or first < 0 or stop > panel_count(N) or inner < 1 or M < 1:
        raise ValueError(f"panels are {panels}, expected a range within 0 to {panel_count(N)}")
    if few_rows >= 0:
        f = &other
    with nogil:
        begin_thread()
        for layer in range(packed.shape[0]):
            multiply_panels(f, first, stop, M, N, inner, &a[0, 0], a.shape[1], &packed[layer, 0],
                            &out[0, 0], N, NULL, NULL, CL_STORE)
        end_thread()


def matmul_transposed(const float[:, ::1] a, const float[::1] packed, float[:, ::1] out,
                      bint accumulate=False, str precision="float32", inner=None) -> None:
    """out [M, N] = a [K, M]^T B [K, N], B packed; `accumulate` adds to what `out` holds.

    In another precision than float32, `a` is what `turn_operand` makes of the operand of a matrix
    with `inner` = K rows.
    """
    cdef const NumberFormat* f = training_format(precision)
    cdef int64_t K = a.shape[0] if inner is None else inner, M = out.shape[0], N = out.shape[1]
    have, need = (a.shape[0], a.shape[1]), turned_shape(K, M, precision)
    if have != need:
        raise ValueError(f"a is {[*have]}, expected {[*need]} for an out of {M} rows")
    expect_length("packed", packed.shape[0], packed_words(f, K, N))
    if M == 0 or N == 0:
        return
    if K == 0:
        raise ValueError("a has no rows: the inner length must be at least 1")
    cdef StoreMode store = CL_ADD if accumulate else CL_STORE
    with nogil:
        begin_thread()
        multiply_ta(f, M, N, K, &a[0, 0], &packed[0], &out[0, 0], N, store)
        end_thread()
