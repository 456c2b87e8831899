"""Causal self-attention in tiles: forward and backward.

    s = q k^T / sqrt(D);  p = softmax over keys <= query;  out = dropout(p) v

Only blocks of a few query rows of the score matrix exist at a time; they stay in the cache.  A
block is the format's `query_rows`, in groups of `block_rows`, which see no more keys than they
need.
The forward pass keeps the log of each row's normalizer (lse), from which the backward pass
computes p again (Dao et al. 2022, FlashAttention; here on CPU caches, with whole rows).

A row of `qkv` [B * T, (H + 2 G) D] holds H heads of q, then G of k, then G of v, D channels each;
the heads of q share those of k and v in groups of H / G neighbors.  qkv, out and their gradients
are kept matrices (kept.pxd).

Crystalline attention adds lambda_h K(a, b) to the score of a query token a and a key token b,
where K(a, b) = phi(a) . phi(b) has F fixed features a token and lambda_h is learned:

    s = (q k^T + (lambda_h sqrt(D) phi_q) phi_k^T) / sqrt(D)
    d lambda_h = sum over queries and keys of ds K = sum over queries of (ds phi_k) . phi_q

as if q and k had F more dimensions.  Where lambda_h is 0, nothing is added at all: the bits are
those of standard attention.

In a narrow number format, the operands of the products with q, k, v, p and their gradients are
rounded to it and the sums are float32, as in matmul.pyx; softmax, lse and all that concerns K stay
float32.
"""

import numpy as np

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

from crystalline._kernels.formats cimport (
    converts, float32, operand_size, packed_words, padded, training_format, turned_stride,
    turned_words, words,
)
from crystalline._kernels.isa cimport (
    CL_ADD, CL_PANEL, CL_STORE, Kept, NumberFormat, Primitives, StoreMode, begin_thread,
    end_thread, primitives,
)
from crystalline._kernels.kept cimport (
    KeptRows, float_rows, floats, kept_part, kept_rows, left_operand, multiply_beginning,
    pack_kept, pack_kept_t,
)
from crystalline._kernels.matmul cimport multiply, pack, pack_t
from crystalline._kernels.random cimport drop_threshold

FEATURES = CRYSTAL_FEATURES

# A sequence's features: as they are, packed both ways, and those of a block's queries by a head.
cdef struct Features:
    float* rows      # [T, F]
    float* packed    # [T, F]; backward only
    float* packed_t  # [F, T]
    float* block     # [query_rows, F]


# Where the pieces of a head's work lie in the scratch memory.  Packed matrices are the format's.
cdef struct Scratch:
    int64_t width        # of a row of scores: T, rounded up to whole panels
    float* kt            # [D, T] packed k^T
    float* vt            # [D, T] packed v^T; backward only
    float* kv            # [T, D] packed: v forward, k backward
    float* q             # [query_rows, D] packed; backward only, as dout, ds, dropped and delta
    float* dout          # [query_rows, D] packed
    float* p             # [query_rows, width]
    float* ds            # [query_rows, width]
    float* dropped       # [query_rows, width] p after dropout, where there is any
    float* delta         # [query_rows]
    float* left          # [query_rows, D or width] operand, where the format converts
    float* left_t        # the turned operand of [query_rows, width]; backward only
    float* dkv           # [T, D] and [T, D]: dk and dv, where they are kept as operands; likewise
    float* rows          # [query_rows, D] and [query_rows, D]: rows of dout and out
    float* end


cdef Scratch scratch_at(float* base, int64_t T, int64_t D, const NumberFormat* f) noexcept nogil:
    cdef Scratch z
    cdef int64_t scores, queries = f.query_rows
    z.width = padded(T)
    scores = queries * z.width
    z.kt = base
    z.vt = z.kt + packed_words(f, D, T)
    z.kv = z.vt + packed_words(f, D, T)
    z.q = z.kv + packed_words(f, T, D)
    z.dout = z.q + packed_words(f, queries, D)
    z.p = z.dout + packed_words(f, queries, D)
    z.ds = z.p + scores
    z.dropped = z.ds + scores
    z.delta = z.dropped + scores
    z.left = z.delta + (queries + 15) // 16 * 16
    z.left_t = z.left + (operand_size(f, queries, max(D, z.width)) if converts(f) else 0)
    z.dkv = z.left_t + turned_words(f, queries, z.width)
    z.rows = z.dkv + (2 * T * D if f.keeps != NULL else 0)
    z.end = z.rows + (2 * queries * D if f.keeps != NULL else 0)
    return z


cdef Features features_at(float* base, int64_t T) noexcept nogil:
    cdef Features f
    f.rows = base
    f.packed = f.rows + T * CRYSTAL_FEATURES
    f.packed_t = f.packed + packed_words(float32(), T, CRYSTAL_FEATURES)
    f.block = f.packed_t + packed_words(float32(), CRYSTAL_FEATURES, T)
    return f


cdef int64_t scratch_floats(int64_t T, int64_t D, bint crystalline,
                            const NumberFormat* f) noexcept nogil:
    cdef float* end = scratch_at(NULL, T, D, f).end
    if crystalline:
        end = features_at(end, T).block + f.query_rows * CRYSTAL_FEATURES
    return <int64_t><size_t>end // <int64_t>sizeof(float)


cdef void gather(int64_t T, const float* table, const int32_t* ids,
                 const Features* f) noexcept nogil:
    cdef int64_t t
    for t in range(T):
        memcpy(f.rows + t * CRYSTAL_FEATURES, table + ids[t] * <int64_t>CRYSTAL_FEATURES,
               CRYSTAL_FEATURES * sizeof(float))
    pack_t(float32(), CRYSTAL_FEATURES, T, f.rows, CRYSTAL_FEATURES, f.packed_t)


cdef float strength(const float* lambdas, int64_t h, int64_t D) noexcept nogil:
    # lambda_h before the scores are divided by sqrt(D)
    return <float>(lambdas[h] * sqrt(<double>D))


cdef void add_similarity(int64_t rows, int64_t first, int64_t keys, float factor,
                         const Features* f, float* s, int64_t width) noexcept nogil:
    # s [rows, keys] += factor * phi of queries first .. first + rows times phi of the keys
    cdef const float* queries = f.rows + first * CRYSTAL_FEATURES
    cdef int64_t i
    for i in range(rows * CRYSTAL_FEATURES):
        f.block[i] = factor * queries[i]
    multiply(float32(), rows, padded(keys), CRYSTAL_FEATURES, f.block, CRYSTAL_FEATURES, f.packed_t,
             s, width, NULL, NULL, CL_ADD)


cdef void hide(int64_t rows, int64_t first, int64_t window, float* s, int64_t width) noexcept nogil:
    # Keys that are too old for queries first .. first + rows have no weight.
    cdef int64_t i, j
    if window == 0:
        return
    for i in range(rows):
        for j in range(first + i - window + 1):
            s[i * width + j] = -INFINITY


cdef double similarity_gradient(int64_t rows, int64_t first, int64_t keys, const float* ds,
                                int64_t width, const Features* f, float* dots) noexcept nogil:
    # The sum of ds * K over a block.
    cdef const Primitives* p = primitives()
    cdef double total = 0.0
    cdef int64_t i
    float32().product(rows, CRYSTAL_FEATURES, keys, ds, width, f.packed, 0, f.block,
                      CRYSTAL_FEATURES, NULL, NULL, CL_STORE)
    p.row_dots(rows, CRYSTAL_FEATURES, f.block, CRYSTAL_FEATURES, f.rows + first * CRYSTAL_FEATURES,
               CRYSTAL_FEATURES, dots)
    for i in range(rows):
        total += dots[i]
    return total


cdef void drop_rows(int64_t rows, int64_t keys, int64_t T, const float* x, float* out,
                    int64_t ld, uint64_t base, const AttentionDropout* dropout) noexcept nogil:
    # Row i is query keys - rows + i of its head; place (query, key) has number query * T + key.
    cdef const Primitives* p = primitives()
    cdef int64_t i
    for i in range(rows):
        p.dropout(keys, x + i * ld, out + i * ld, dropout.key, (base + keys - rows + i) * T,
                  dropout.threshold, dropout.scale)


# Scores of a block before softmax, or the gradient of p: out [rows, keys] = x [rows, D] packed.
cdef inline void block_scores(const NumberFormat* f, int64_t rows, int64_t keys, int64_t D,
                              const Kept* x, const float* packed, float* out,
                              const Scratch* z) noexcept nogil:
    cdef int64_t lda
    cdef const float* left = left_operand(f, rows, D, x, z.left, &lda)
    multiply(f, rows, padded(keys), D, left, lda, packed, out, z.width, NULL, NULL, CL_STORE)


# The operand of x [rows, keys], scores of a block, ldx[0] words a row.
cdef inline const float* scores_operand(const NumberFormat* f, int64_t rows, int64_t keys,
                                        const float* x, int64_t* ldx,
                                        const Scratch* z) noexcept nogil:
    ldx[0] = z.width
    if not converts(f):
        return x
    f.to_operand(rows, keys, x, z.width, z.left)
    ldx[0] = words(f, keys)
    return z.left


# out [keys, D] (+)= x [rows, keys]^T packed [rows, D], of x's operand
cdef inline void over_queries(const NumberFormat* f, int64_t rows, int64_t keys, int64_t D,
                              const float* x, int64_t ldx, const float* packed, float* out,
                              int64_t ldo, StoreMode store, const Scratch* z) noexcept nogil:
    cdef int64_t d = 0
    if converts(f):
        f.turn_operand(rows, keys, x, z.left_t)
        x, ldx = z.left_t, turned_stride(f, rows, keys)
    while d < D:
        f.product_ta(keys, min(<int64_t>CL_PANEL, D - d), words(f, rows), x, ldx,
                     packed + d * words(f, rows), 0, out + d, ldo, NULL, NULL, store)
        d += CL_PANEL


# delta [rows] = the sums over D of dout out
cdef inline void row_sums(const NumberFormat* f, int64_t rows, int64_t D, const Kept* dout,
                          const Kept* out, const Scratch* z) noexcept nogil:
    cdef int64_t lda, ldb
    cdef const float* a = floats(f, rows, D, dout, z.rows, &lda)
    cdef const float* b = floats(f, rows, D, out, z.rows + rows * D, &ldb)
    primitives().row_dots(rows, D, a, lda, b, ldb, z.delta)


cdef void forward(const NumberFormat* f, int64_t B, int64_t T, const Heads* heads, const Kept* qkv,
                  const Crystal* crystal, const AttentionDropout* dropout,
                  const Kept* out, float* lse__bht, float* scratch) noexcept nogil:
    cdef const Primitives* p = primitives()
    cdef int64_t H = heads.H, D = heads.D, group = H // heads.G
    cdef int64_t keys_at = H * D, values_at = keys_at + heads.G * D
    cdef float scale = <float>(1.0 / sqrt(<double>D))
    cdef Scratch z = scratch_at(scratch, T, D, f)
    cdef Kept q, k, v, y
    cdef float* at
    cdef const float* left
    cdef float factor = 0.0
    cdef Features features
    cdef int64_t b, h, first, rows, keys, row, n, seen, ldx
    if crystal.features != NULL:
        features = features_at(z.end, T)
    for b in range(B):
        if crystal.features != NULL:
            gather(T, crystal.features, crystal.ids + b * T, &features)
        for h in range(H):
            if crystal.features != NULL:
                factor = strength(crystal.lambdas, h, D)
            if h % group == 0:
                k = kept_part(qkv, b * T, keys_at + h // group * D)
                v = kept_part(qkv, b * T, values_at + h // group * D)
                pack_kept_t(f, D, T, &k, z.kt)
                pack_kept(f, T, D, 0, T, &v, z.kv, NULL)
            first = 0
            while first < T:
                rows = min(f.query_rows, T - first)
                keys = first + rows
                row = 0
                while row < rows:
                    n = min(f.block_rows, rows - row)
                    seen = first + row + n
                    at = z.p + row * z.width
                    q = kept_part(qkv, b * T + first + row, h * D)
                    block_scores(f, n, seen, D, &q, z.kt, at, &z)
                    if factor != 0.0:
                        add_similarity(n, first + row, seen, factor, &features, at, z.width)
                    hide(n, first + row, heads.window, at, z.width)
                    p.softmax_causal(n, first + row, keys, scale, at, z.width,
                                     lse__bht + (b * H + h) * T + first + row)
                    row += n
                if dropout.threshold:
                    drop_rows(rows, keys, T, z.p, z.p, z.width,
                              ((dropout.first_sequence + b) * H + h) * T, dropout)
                left = scores_operand(f, rows, keys, z.p, &ldx, &z)
                row = 0
                while row < rows:
                    n = min(f.block_rows, rows - row)
                    y = kept_part(out, b * T + first + row, h * D)
                    multiply_beginning(f, n, D, first + row + n, T, left + row * ldx, ldx, z.kv, &y)
                    row += n
                first += rows


cdef void backward(const NumberFormat* f, int64_t B, int64_t T, const Heads* heads,
                   const Kept* dout, const Kept* qkv, const Kept* out, const float* lse__bht,
                   const Crystal* crystal, const AttentionDropout* dropout, const Kept* dqkv,
                   float* dlambdas, float* scratch) noexcept nogil:
    cdef const Primitives* p = primitives()
    cdef int64_t H = heads.H, D = heads.D, group = H // heads.G, ld = D
    cdef int64_t keys_at = H * D, values_at = keys_at + heads.G * D
    cdef float scale = <float>(1.0 / sqrt(<double>D))
    cdef Scratch z = scratch_at(scratch, T, D, f)
    cdef float* used
    cdef float* at
    cdef float* ds
    cdef const float* left
    cdef float* dk
    cdef float* dv
    cdef Kept q, k, v, do, y, dq, dk_kept, dv_kept
    cdef float factor = 0.0
    cdef double dlambda
    cdef Features features
    cdef int64_t b, h, first, rows, keys, row, n, seen, ldx, i
    cdef uint64_t base
    cdef StoreMode store
    cdef bint learning = crystal.features != NULL and dlambdas != NULL
    if crystal.features != NULL:
        features = features_at(z.end, T)
    for b in range(B):
        if crystal.features != NULL:
            gather(T, crystal.features, crystal.ids + b * T, &features)
        if learning:
            pack(float32(), T, CRYSTAL_FEATURES, features.rows, CRYSTAL_FEATURES, features.packed,
                 NULL)
        for h in range(H):
            if crystal.features != NULL:
                factor = strength(crystal.lambdas, h, D)
            dlambda = 0.0
            k = kept_part(qkv, b * T, keys_at + h // group * D)
            v = kept_part(qkv, b * T, values_at + h // group * D)
            dk_kept = kept_part(dqkv, b * T, keys_at + h // group * D)
            dv_kept = kept_part(dqkv, b * T, values_at + h // group * D)
            if f.keeps != NULL:
                dk, dv = z.dkv, z.dkv + T * D
            else:
                dk, dv = float_rows(&dk_kept), float_rows(&dv_kept)
                ld = dqkv.ld
            base = ((dropout.first_sequence + b) * H + h) * T
            if h % group == 0:
                pack_kept_t(f, D, T, &k, z.kt)
                pack_kept_t(f, D, T, &v, z.vt)
                pack_kept(f, T, D, 0, T, &k, z.kv, NULL)
            # The last block sees every key, so it stores dk and dv for its group; the others add.
            first = (T - 1) // f.query_rows * f.query_rows
            store = CL_STORE if h % group == 0 else CL_ADD
            while first >= 0:
                rows = min(f.query_rows, T - first)
                keys = first + rows
                q, do = kept_part(qkv, b * T + first, h * D), kept_part(dout, b * T + first, h * D)
                y = kept_part(out, b * T + first, h * D)
                pack_kept(f, rows, D, 0, rows, &q, z.q, NULL)
                pack_kept(f, rows, D, 0, rows, &do, z.dout, NULL)
                row_sums(f, rows, D, &do, &y, &z)
                row = 0
                while row < rows:
                    n = min(f.block_rows, rows - row)
                    seen = first + row + n
                    at, ds = z.p + row * z.width, z.ds + row * z.width
                    q = kept_part(qkv, b * T + first + row, h * D)
                    do = kept_part(dout, b * T + first + row, h * D)
                    block_scores(f, n, seen, D, &q, z.kt, at, &z)
                    if factor != 0.0:
                        add_similarity(n, first + row, seen, factor, &features, at, z.width)
                    hide(n, first + row, heads.window, at, z.width)
                    p.softmax_causal_again(n, first + row, keys, scale, at, z.width,
                                           lse__bht + (b * H + h) * T + first + row)
                    block_scores(f, n, seen, D, &do, z.vt, ds, &z)
                    for i in range(n if seen < keys else 0):  # keys that no query of the group sees
                        memset(ds + i * z.width + seen, 0, (keys - seen) * sizeof(float))
                    row += n
                used = z.p
                if dropout.threshold:
                    used = z.dropped
                    drop_rows(rows, keys, T, z.p, z.dropped, z.width, base, dropout)
                    drop_rows(rows, keys, T, z.ds, z.ds, z.width, base, dropout)
                p.softmax_backward(rows, keys, scale, z.p, z.ds, z.width, z.delta)
                if learning:
                    dlambda += similarity_gradient(rows, first, keys, z.ds, z.width, &features,
                                                   z.delta)
                left = scores_operand(f, rows, keys, z.ds, &ldx, &z)
                row = 0
                while row < rows:
                    n = min(f.block_rows, rows - row)
                    dq = kept_part(dqkv, b * T + first + row, h * D)
                    multiply_beginning(f, n, D, first + row + n, T, left + row * ldx, ldx, z.kv,
                                       &dq)
                    row += n
                over_queries(f, rows, keys, D, left, ldx, z.q, dk, ld, store, &z)
                left = scores_operand(f, rows, keys, used, &ldx, &z)
                over_queries(f, rows, keys, D, left, ldx, z.dout, dv, ld, store, &z)
                store = CL_ADD
                first -= f.query_rows
            if f.keeps != NULL and h % group == group - 1:
                f.keeps.keep(T, D, dk, D, &dk_kept)
                f.keeps.keep(T, D, dv, D, &dv_kept)
            if learning:
                dlambdas[h] += <float>(dlambda * sqrt(<double>D))  # ds holds 1 / sqrt(D)


cdef Heads _heads(qkv, int64_t T, int64_t H, int64_t kv_heads, int64_t window) except *:
    cdef int64_t R = qkv.shape[0], columns = qkv.shape[1]
    cdef Heads heads
    heads.H, heads.G, heads.window = H, kv_heads or H, window
    if T < 1 or R % T:
        raise ValueError(f"qkv has {R} rows, which sequences of {T} do not fill")
    if H < 1 or heads.G < 1 or H % heads.G or columns % (H + 2 * heads.G):
        raise ValueError(f"qkv has {columns} columns, which {H} heads of q and twice {heads.G} of "
                         "k and v do not divide")
    if window < 0:
        raise ValueError(f"window is {window}, expected 0 or more")
    heads.D = columns // (H + 2 * heads.G)
    return heads


cdef AttentionDropout _dropout(double probability, uint64_t key, uint64_t first_sequence):
    cdef AttentionDropout d
    d.key = key
    d.first_sequence = first_sequence
    d.threshold = drop_threshold(probability)
    d.scale = <float>(1.0 / (1.0 - probability))
    return d


def _same_shape(name, array, shape):
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")


cdef Crystal _crystal(int64_t rows, int64_t H, const float[:, ::1] features,
                      const int32_t[::1] ids, const float[::1] lambdas) except *:
    # The memory stays the caller's.
    cdef Crystal c
    cdef int64_t i
    c.features = NULL
    c.ids = NULL
    c.lambdas = NULL
    if (features is None) != (ids is None) or (ids is None) != (lambdas is None):
        raise ValueError("features, ids and lambdas come together")
    if features is None:
        return c
    _same_shape("features", np.asarray(features), (features.shape[0], CRYSTAL_FEATURES))
    _same_shape("ids", np.asarray(ids), (rows,))
    _same_shape("lambdas", np.asarray(lambdas), (H,))
    for i in range(rows):
        if not 0 <= ids[i] < features.shape[0]:
            raise ValueError(f"token {ids[i]} is outside the table of {features.shape[0]} features")
    c.features, c.ids, c.lambdas = &features[0, 0], &ids[0], &lambdas[0]
    return c


def attention_forward(const float[:, ::1] qkv, int64_t T, int64_t H, float[:, ::1] out,
                      float[:, :, ::1] lse, double dropout=0.0, uint64_t key=0,
                      uint64_t first_sequence=0, const float[:, ::1] features=None,
                      const int32_t[::1] ids=None, const float[::1] lambdas=None,
                      str precision="float32", int64_t kv_heads=0, int64_t window=0) -> None:
    """Fill out [B * T, H D] and lse [B, H, T] from qkv [B * T, (H + 2 G) D] (OUT out, lse).

    G is `kv_heads`, 0 for H; a query sees the newest `window` keys up to its own, 0 for all.

    Crystalline attention is given features [V, FEATURES], ids [B * T] and lambdas [H] (IN).  The
    products' operands are rounded to `precision`.
    """
    array = np.asarray(qkv)
    cdef const NumberFormat* f = training_format(precision)
    cdef Heads heads = _heads(array, T, H, kv_heads, window)
    cdef int64_t B = array.shape[0] // T
    _same_shape("out", np.asarray(out), (B * T, H * heads.D))
    _same_shape("lse", np.asarray(lse), (B, H, T))
    cdef Crystal crystal = _crystal(B * T, H, features, ids, lambdas)
    cdef float[::1] scratch = np.empty(scratch_floats(T, heads.D, features is not None, f),
                                       dtype=np.float32)
    cdef AttentionDropout drop = _dropout(dropout, key, first_sequence)
    cdef KeptRows qkv_rows = kept_rows(f, qkv), out_rows = kept_rows(f, out)
    with nogil:
        begin_thread()
        forward(f, B, T, &heads, &qkv_rows.all, &crystal, &drop, &out_rows.all, &lse[0, 0, 0],
                &scratch[0])
        end_thread()
    out_rows.give_back()


def attention_backward(const float[:, ::1] dout, const float[:, ::1] qkv,
                       const float[:, ::1] out, const float[:, :, ::1] lse, int64_t T, int64_t H,
                       float[:, ::1] dqkv, double dropout=0.0, uint64_t key=0,
                       uint64_t first_sequence=0, const float[:, ::1] features=None,
                       const int32_t[::1] ids=None, const float[::1] lambdas=None,
                       float[::1] dlambdas=None, str precision="float32", int64_t kv_heads=0,
                       int64_t window=0) -> None:
    """Fill dqkv like qkv from dout [B * T, H D] and the forward pass's tensors (OUT dqkv).

    In crystalline attention, the gradient of the lambdas is added to dlambdas [H] (INOUT), which
    may be left out.
    """
    array = np.asarray(qkv)
    cdef const NumberFormat* f = training_format(precision)
    cdef Heads heads = _heads(array, T, H, kv_heads, window)
    cdef int64_t B = array.shape[0] // T
    _same_shape("dout", np.asarray(dout), (B * T, H * heads.D))
    _same_shape("out", np.asarray(out), (B * T, H * heads.D))
    _same_shape("lse", np.asarray(lse), (B, H, T))
    _same_shape("dqkv", np.asarray(dqkv), array.shape)
    if dlambdas is not None:
        _same_shape("dlambdas", np.asarray(dlambdas), (H,))
        if features is None:
            raise ValueError("there are no features: there are no lambdas to learn")
    cdef Crystal crystal = _crystal(B * T, H, features, ids, lambdas)
    cdef float* gradient = &dlambdas[0] if dlambdas is not None else NULL
    cdef float[::1] scratch = np.empty(scratch_floats(T, heads.D, features is not None, f),
                                       dtype=np.float32)
    cdef AttentionDropout drop = _dropout(dropout, key, first_sequence)
    cdef KeptRows dout_rows = kept_rows(f, dout), qkv_rows = kept_rows(f, qkv)
    cdef KeptRows out_rows = kept_rows(f, out), dqkv_rows = kept_rows(f, dqkv)
    with nogil:
        begin_thread()
        backward(f, B, T, &heads, &dout_rows.all, &qkv_rows.all, &out_rows.all, &lse[0, 0, 0],
                 &crystal, &drop, &dqkv_rows.all, gradient, &scratch[0])
        end_thread()
    dqkv_rows.give_back()
