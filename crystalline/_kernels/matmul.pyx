"""Matrix products in the three transpositions that training needs, on packed panels.

The right-hand side is packed once into panels of 32 columns, [ceil(N/32)][K][32], and shared by
every product that uses it:

    forward    y[M, N]  = x[M, K] W[K, N]          pack(W)
    backward   dx[M, K] = dy[M, N] W[K, N]^T       pack_transposed(W)
    weights    dW[K, N] = x[M, K]^T dy[M, N]       pack(dy), multiply_transposed

The left-hand side is read in place, row by row or column by column.
"""

from libc.stdint cimport int64_t

from crystalline._kernels.checks cimport expect_length
from crystalline._kernels.isa cimport CL_PANEL, Primitives, primitives

# The part of the left-hand side that one sweep over the panels uses: it stays in L2.
cdef int64_t LEFT_BLOCK_FLOATS = 128 * 1024
# Longest inner length of one pass: longer ones add up in memory, for the cache's sake and because
# one chain of thousands of float32 additions rounds worse than a few short ones.
cdef int64_t INNER_BLOCK = 1024


cdef int64_t panels(int64_t N) noexcept nogil:
    return (N + CL_PANEL - 1) // CL_PANEL


cdef int64_t padded(int64_t N) noexcept nogil:
    return panels(N) * CL_PANEL


cdef int64_t inner(int64_t K, bint bf16) noexcept nogil:
    return (K + 1) // 2 if bf16 else K


cdef int64_t packed_floats(int64_t K, int64_t N, bint bf16) noexcept nogil:
    return padded(N) * inner(K, bf16)


cdef void pack(int64_t K, int64_t N, const float* b, int64_t ldb, float* packed,
               float* column_sums, bint bf16) noexcept nogil:
    pack_rows(K, N, 0, K, b, ldb, packed, column_sums, bf16)


cdef void pack_rows(int64_t K, int64_t N, int64_t row, int64_t rows, const float* b, int64_t ldb,
                    float* packed, float* column_sums, bint bf16) noexcept nogil:
    cdef const Primitives* p = primitives()
    cdef int64_t panel, j, n, start = row // 2 if bf16 else row
    cdef float* sums
    cdef float* at
    for panel in range(panels(N)):
        j = panel * CL_PANEL
        n = min(<int64_t>CL_PANEL, N - j)
        sums = column_sums + j if column_sums != NULL else NULL
        at = packed + j * inner(K, bf16) + start * CL_PANEL
        if bf16:
            p.pack_panel_bf16(rows, n, b + j, ldb, at, sums)
        else:
            p.pack_panel(rows, n, b + j, ldb, at, sums)


cdef void pack_t(int64_t K, int64_t N, const float* b, int64_t ldb, float* packed,
                 bint bf16) noexcept nogil:
    cdef const Primitives* p = primitives()
    cdef int64_t panel, j, n
    for panel in range(panels(N)):
        j = panel * CL_PANEL
        n = min(<int64_t>CL_PANEL, N - j)
        if bf16:
            p.pack_panel_t_bf16(K, n, b + j * ldb, ldb, packed + j * inner(K, True))
        else:
            p.pack_panel_t(K, n, b + j * ldb, ldb, packed + j * K)


cdef void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t lda,
                   const float* packed, float* c, int64_t ldc, const float* bias,
                   const float* residual, bint accumulate, bint bf16) noexcept nogil:
    cdef const Primitives* p = primitives()
    gemm = p.gemm_panel_bf16 if bf16 else p.gemm_panel
    cdef int64_t words = inner(K, bf16)
    cdef int64_t depths = (words + INNER_BLOCK - 1) // INNER_BLOCK
    cdef int64_t blocks, block, row, rows, panel, j, n, depth, k, length, next_panel
    for depth in range(depths):
        k = words * depth // depths
        length = words * (depth + 1) // depths - k
        blocks = (M * length + LEFT_BLOCK_FLOATS - 1) // LEFT_BLOCK_FLOATS
        for block in range(blocks):
            row = M * block // blocks
            rows = M * (block + 1) // blocks - row
            for panel in range(panels(N)):
                j = panel * CL_PANEL
                n = min(<int64_t>CL_PANEL, N - j)
                next_panel = words * CL_PANEL if j + n < N else 0
                if depth == 0:
                    gemm(rows, n, length, a + row * lda, lda, packed + j * words, next_panel,
                         c + row * ldc + j, ldc, bias + j if bias != NULL else NULL,
                         residual + row * ldc + j if residual != NULL else NULL, accumulate)
                else:
                    gemm(rows, n, length, a + row * lda + k, lda, packed + j * words + k * CL_PANEL,
                         next_panel, c + row * ldc + j, ldc, NULL, NULL, True)


cdef void multiply_ta(int64_t M, int64_t N, int64_t K, const float* a, int64_t lda,
                      const float* packed, float* c, int64_t ldc, bint accumulate,
                      bint bf16) noexcept nogil:
    cdef const Primitives* p = primitives()
    gemm = p.gemm_panel_ta_bf16 if bf16 else p.gemm_panel_ta
    cdef int64_t words = inner(K, bf16), blocks = max(<int64_t>1, M * words // LEFT_BLOCK_FLOATS)
    cdef int64_t block, row, rows, panel, j
    # Weight gradients are large and not read again soon: where rows are whole cache lines, they
    # are written past the cache.
    cdef int mode = 1 if accumulate else 0
    if not accumulate and N % 16 == 0 and ldc % 16 == 0 and <size_t>c % 64 == 0:
        mode = -1
    for block in range(blocks):
        row = M * block // blocks
        rows = M * (block + 1) // blocks - row
        for panel in range(panels(N)):
            j = panel * CL_PANEL
            gemm(rows, min(<int64_t>CL_PANEL, N - j), words, a + row, lda, packed + j * words,
                 words * CL_PANEL if j + CL_PANEL < N else 0, c + row * ldc + j, ldc, NULL, NULL,
                 mode)


def packed_size(int64_t K, int64_t N, bint bf16=False) -> int:
    """Return the 32-bit words that the packed form of a [K, N] matrix takes.

    >>> packed_size(7, 33), packed_size(7, 33, bf16=True)
    (448, 256)
    """
    return packed_floats(K, N, bf16)


def pack_matrix(const float[:, ::1] b, float[::1] out, float[::1] column_sums=None,
                bint bf16=False) -> None:
    """Pack b [K, N] into `out` [packed_size(K, N)]; with `column_sums` [N], add the sums over K.

    With `bf16`, elements are rounded to the nearest bfloat16 (ties to even); sums are of b itself.
    """
    cdef int64_t K = b.shape[0], N = b.shape[1]
    expect_length("out", out.shape[0], packed_floats(K, N, bf16))
    if column_sums is not None:
        expect_length("column_sums", column_sums.shape[0], N)
    if K == 0 or N == 0:
        return
    cdef float* sums = &column_sums[0] if column_sums is not None else NULL
    with nogil:
        pack(K, N, &b[0, 0], N, &out[0], sums, bf16)


def pack_transposed(const float[:, ::1] b, float[::1] out, bint bf16=False) -> None:
    """Pack the transpose of b [N, K] into `out` [packed_size(K, N)]."""
    cdef int64_t N = b.shape[0], K = b.shape[1]
    expect_length("out", out.shape[0], packed_floats(K, N, bf16))
    if K == 0 or N == 0:
        return
    with nogil:
        pack_t(K, N, &b[0, 0], K, &out[0], bf16)


def to_pairs(const float[:, ::1] x, float[:, ::1] out) -> None:
    """Round x [M, K] to bfloat16 and store it as pairs along K, out [M, (K + 1) // 2] words.

    >>> import numpy as np
    >>> out = np.empty((1, 2), np.float32); to_pairs(np.float32([[1, 2, -1]]), out)
    >>> [hex(word) for word in out.view(np.uint32)[0]]
    ['0x40003f80', '0xbf80']
    """
    cdef int64_t M = x.shape[0], K = x.shape[1]
    if out.shape[0] != M or out.shape[1] != inner(K, True):
        raise ValueError(
            f"out is [{out.shape[0]}, {out.shape[1]}], expected [{M}, {inner(K, True)}]")
    if M and K:
        with nogil:
            primitives().to_pairs(M, K, &x[0, 0], K, &out[0, 0])


def pair_rows(const float[:, ::1] x, int64_t K, float[:, ::1] out) -> None:
    """Regroup pairs along K, x [M, (K + 1) // 2], into pairs along M, out [(M + 1) // 2, K]."""
    cdef int64_t M = x.shape[0]
    if x.shape[1] != inner(K, True) or out.shape[0] != inner(M, True) or out.shape[1] != K:
        raise ValueError(
            f"x [{M}, {x.shape[1]}] of {K} elements and out [{out.shape[0]}, {out.shape[1]}] "
            "do not fit")
    if M and K:
        with nogil:
            primitives().pair_rows(M, K, &x[0, 0], &out[0, 0])


def matmul(const float[:, ::1] a, const float[::1] packed, float[:, ::1] out,
           const float[::1] bias=None, const float[:, ::1] residual=None,
           bint accumulate=False, int64_t bf16_columns=0) -> None:
    """out [M, N] = a [M, K] B [K, N] (+ bias [N]) (+ residual [M, N]), B packed.

    `accumulate` adds the result to what `out` holds.  For a product in bf16, `a` holds pairs
    [M, (K + 1) // 2] as `to_pairs` makes them, and `bf16_columns` is K.

    >>> import numpy as np
    >>> a, b = np.float32([[1, 2]]), np.float32([[3], [4]])
    >>> packed, out = np.empty(packed_size(2, 1), np.float32), np.empty((1, 1), np.float32)
    >>> pack_matrix(b, packed); matmul(a, packed, out); out.tolist()
    [[11.0]]
    """
    cdef bint bf16 = bf16_columns > 0
    cdef int64_t M = a.shape[0], K = bf16_columns if bf16 else a.shape[1], N = out.shape[1]
    if out.shape[0] != M:
        raise ValueError(f"out has {out.shape[0]} rows, a has {M}")
    if a.shape[1] != inner(K, bf16):
        raise ValueError(f"a has {a.shape[1]} words a row, expected {inner(K, bf16)}")
    expect_length("packed", packed.shape[0], packed_floats(K, N, bf16))
    if bias is not None:
        expect_length("bias", bias.shape[0], N)
    if residual is not None and (residual.shape[0] != M or residual.shape[1] != N):
        raise ValueError(
            f"residual is [{residual.shape[0]}, {residual.shape[1]}], expected [{M}, {N}]"
        )
    if M == 0 or N == 0:
        return
    if K == 0:
        raise ValueError("a has no columns: the inner length must be at least 1")
    cdef const float* bias_n = &bias[0] if bias is not None else NULL
    cdef const float* residual_mn = &residual[0, 0] if residual is not None else NULL
    with nogil:
        multiply(M, N, K, &a[0, 0], a.shape[1], &packed[0], &out[0, 0], N, bias_n, residual_mn,
                 accumulate, bf16)


def matmul_transposed(const float[:, ::1] a, const float[::1] packed, float[:, ::1] out,
                      bint accumulate=False, int64_t bf16_rows=0) -> None:
    """out [M, N] = a [K, M]^T B [K, N], B packed; `accumulate` adds to what `out` holds.

    For a product in bf16, `a` holds pairs [(K + 1) // 2, M] as `pair_rows` makes them, and
    `bf16_rows` is K.
    """
    cdef bint bf16 = bf16_rows > 0
    cdef int64_t K = bf16_rows if bf16 else a.shape[0], M = a.shape[1], N = out.shape[1]
    if out.shape[0] != M:
        raise ValueError(f"out has {out.shape[0]} rows, a has {M} columns")
    if a.shape[0] != inner(K, bf16):
        raise ValueError(f"a has {a.shape[0]} rows of words, expected {inner(K, bf16)}")
    expect_length("packed", packed.shape[0], packed_floats(K, N, bf16))
    if M == 0 or N == 0:
        return
    if K == 0:
        raise ValueError("a has no rows: the inner length must be at least 1")
    with nogil:
        multiply_ta(M, N, K, &a[0, 0], M, &packed[0], &out[0, 0], N, accumulate, bf16)
