/* Products of bfloat16 in matrix tiles: two by two tiles of the result, over one panel.
 *
 * Operands are the pairs of gemm.h with rows padded to whole tiles, so that the inner length needs
 * no care; rows that do not fill a tile make a smaller tile, and columns beyond n are computed from
 * the panel's zeros and not stored.  Sums begin at the bias and stay in tiles over the whole of a pass;
 * residual, or what c holds, is added once, on the way to memory.
 */
#ifndef CL_AMX_H
#define CL_AMX_H

#include "gemm.h"
#include "tiles.h"

enum { TILE_BLOCK = 2 * TILE_ROWS };

/* The rows that this thread's tiles are configured for, r0 + 32 r1; 0: they are not. */
#ifdef CL_PLAIN_TILES /* whose tiles are too large for the static block of late libraries */
static __thread int cl_tiles_rows;
#else
static __thread int cl_tiles_rows __attribute__((tls_model("initial-exec")));
#endif

CL_INLINE void tiles_take(int r0, int r1) {
  int rows = r0 + 32 * r1;
  if (cl_tiles_rows == rows) return;
  tiles_configure(r0, r1);
  cl_tiles_rows = rows;
}
static void tiles_begin_thread(void) { tiles_take(TILE_ROWS, TILE_ROWS); }
static void tiles_end_thread(void) {
  if (cl_tiles_rows) tiles_release();
  cl_tiles_rows = 0;
}

/* c (+)= sums (+ residual) for a block of the result, n <= PANEL columns. */
CL_INLINE void tiles_finish(int64_t rows, int64_t n, const float *sums, float *c, int64_t ldc,
                            const float *residual, StoreMode store) {
  for (int64_t j = 0; j < n; j += VL) {
    int64_t m = n - j < VL ? n - j : VL;
    for (int64_t i = 0; i < rows; i++) {
      float *p = c + i * ldc + j;
      vf r = vload(sums + i * CL_PANEL + j);
      if (m == VL) {
        if (residual) r += vload(residual + i * ldc + j);
        if (store == CL_ADD) r += vload(p);
        if (store == CL_STREAM)
          vstream(p, r);
        else
          vstore(p, r);
      } else {
        if (residual) r += vloadn(residual + i * ldc + j, m);
        if (store == CL_ADD) r += vloadn(p, m);
        vstoren(p, r, m);
      }
    }
  }
}

/* What is fetched while the tiles compute, a little with every step: cache lines of the next panel
 * into L2, rows of where the sums go, and of the residual. */
typedef struct {
  const float *panel;
  int64_t lines; /* a step */
  const float *c, *residual;
  int64_t ldc, rows, rows_at_once;
} TilesAhead;

CL_INLINE void tiles_fetch(TilesAhead *f) {
  for (int64_t i = 0; i < f->lines; i++, f->panel += CL_LINE) __builtin_prefetch(f->panel, 0, 2);
  for (int64_t i = 0; i < f->rows_at_once && f->rows > 0; i++, f->rows--, f->c += f->ldc) {
    __builtin_prefetch(f->c, 1, 3);
    __builtin_prefetch(f->c + CL_LINE, 1, 3);
    if (f->residual) {
      __builtin_prefetch(f->residual, 0, 3);
      __builtin_prefetch(f->residual + CL_LINE, 0, 3);
      f->residual += f->ldc;
    }
  }
}

/* Two by two tiles, or with half the rows or columns fewer: constants at every call. */
CL_INLINE void tiles_sums(const int LOWER, const int RIGHT, int64_t K, const float *a, int64_t lda,
                          const float *panel, const float *bias, TilesAhead *fetch) {
  const float *below = a + TILE_ROWS * lda;
  if (bias) { /* in every row */
    tile_load(0, bias, 0);
    if (RIGHT) tile_load(1, bias + TILE_WORDS, 0);
    if (LOWER) tile_load(2, bias, 0);
    if (LOWER && RIGHT) tile_load(3, bias + TILE_WORDS, 0);
  } else {
    tile_zero(0);
    if (RIGHT) tile_zero(1);
    if (LOWER) tile_zero(2);
    if (LOWER && RIGHT) tile_zero(3);
  }
  for (int64_t k = 0; k < K; k += TILE_WORDS) {
    tile_load(6, panel + k * CL_PANEL, 4 * CL_PANEL);
    tile_load(4, a + k, 4 * lda);
    tile_dot_bf16(0, 4, 6);
    if (RIGHT) {
      tile_load(7, panel + k * CL_PANEL + TILE_WORDS, 4 * CL_PANEL);
      tile_dot_bf16(1, 4, 7);
    }
    if (LOWER) {
      tile_load(5, below + k, 4 * lda);
      tile_dot_bf16(2, 5, 6);
      if (RIGHT) tile_dot_bf16(3, 5, 7);
    }
    tiles_fetch(fetch);
  }
}
CL_INLINE void tiles_store(const int LOWER, const int RIGHT, float *c, int64_t ldc) {
  tile_store(0, c, 4 * ldc);
  if (RIGHT) tile_store(1, c + TILE_WORDS, 4 * ldc);
  if (LOWER) tile_store(2, c + TILE_ROWS * ldc, 4 * ldc);
  if (LOWER && RIGHT) tile_store(3, c + TILE_ROWS * ldc + TILE_WORDS, 4 * ldc);
}

static void tiles_product(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                          const float *panel, int64_t next, float *c, int64_t ldc,
                          const float *bias, const float *residual, StoreMode store) {
  /* Two blocks of sums in turn: one goes to memory while the tiles are at the next. */
  float sums[2][TILE_BLOCK * CL_PANEL] __attribute__((aligned(64)));
  const int is_whole = n == CL_PANEL && !residual && store == CL_STORE;
  float padded[CL_PANEL] __attribute__((aligned(64))) = {0};
  if (bias && n < CL_PANEL) bias = memcpy(padded, bias, (size_t)n * sizeof(float));
  const int64_t blocks = (M + TILE_BLOCK - 1) / TILE_BLOCK, lines = CL_PANEL / CL_LINE * K;
  const int64_t steps = K / TILE_WORDS;
  /* The next panel is fetched evenly over the blocks. */
  TilesAhead fetch = {.panel = panel + next, .ldc = ldc};
  fetch.lines = next ? (lines / blocks + steps - 1) / steps : 0;
  for (int64_t row = 0, turn = 0; row < M; row += TILE_BLOCK, turn ^= 1) {
    int64_t rows = M - row < TILE_BLOCK ? M - row : TILE_BLOCK;
    int lower = rows > TILE_ROWS, right = n > TILE_WORDS;
    float *out = is_whole ? c + row * ldc : sums[turn];
    int64_t ldo = is_whole ? ldc : CL_PANEL;
    const float *x = a + row * lda;
    if (lower)
      tiles_take(TILE_ROWS, (int)rows - TILE_ROWS);
    else
      tiles_take((int)rows, TILE_ROWS);
    fetch.c = c + row * ldc;
    fetch.residual = residual ? residual + row * ldc : 0;
    fetch.rows = store == CL_STREAM ? 0 : rows;
    fetch.rows_at_once = (rows + steps - 1) / steps;
#define CL_CASE(LOWER, RIGHT) \
  if (lower == LOWER && right == RIGHT) { \
    tiles_sums(LOWER, RIGHT, K, x, lda, panel, bias, &fetch); \
    tiles_store(LOWER, RIGHT, out, ldo); \
  }
    CL_CASE(1, 1) CL_CASE(1, 0) CL_CASE(0, 1) CL_CASE(0, 0)
#undef CL_CASE
    if (!is_whole)
      tiles_finish(rows, n, out, c + row * ldc, ldc, residual ? residual + row * ldc : 0, store);
  }
  if (store == CL_STREAM) CL_STREAM_FENCE;
}

/* Zeros from a panel's last row of pairs to a whole tile. */
CL_INLINE void tiles_fill(int64_t K, float *panel) {
  int64_t pairs = (K + 1) / 2, whole = (pairs + TILE_WORDS - 1) / TILE_WORDS * TILE_WORDS;
  memset(panel + pairs * CL_PANEL, 0, (size_t)((whole - pairs) * CL_PANEL) * sizeof(float));
}
/* Rows of b lie far apart: they are fetched ahead, and each is read once, both vectors of it. */
static void tiles_pack_panel(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                             float *column_sums) {
  enum { AHEAD = 16 }; /* rows */
  tiles_fill(K, panel);
  if (n < CL_PANEL) {
    bf16_pack_panel(K, n, b, ldb, panel, column_sums);
    return;
  }
  vf left = vzero(), right = vzero();
  for (int64_t k = 0; k < K; k += 2) {
    const float *p = b + k * ldb, *q = p + ldb;
    if (k + AHEAD + 2 <= K)
      for (int i = 0; i < 2; i++) {
        __builtin_prefetch(p + (AHEAD + i) * ldb);
        __builtin_prefetch(p + (AHEAD + i) * ldb + CL_LINE);
      }
    vf x0 = vload(p), x1 = vload(p + VL), y0 = vzero(), y1 = vzero();
    if (k + 1 < K) y0 = vload(q), y1 = vload(q + VL);
    vstore(panel + k / 2 * CL_PANEL, vpair(x0, y0));
    vstore(panel + k / 2 * CL_PANEL + VL, vpair(x1, y1));
    left += x0;
    left += y0;
    right += x1;
    right += y1;
  }
  if (column_sums) {
    vstore(column_sums, vload(column_sums) + left);
    vstore(column_sums + VL, vload(column_sums + VL) + right);
  }
}
static void tiles_pack_panel_t(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel) {
  bf16_pack_panel_t(K, n, b, ldb, panel);
  tiles_fill(K, panel);
}

CL_INLINE int64_t tiles_words(int64_t K) {
  return (K + 2 * TILE_WORDS - 1) / (2 * TILE_WORDS) * TILE_WORDS;
}
static void tiles_to_operand(int64_t rows, int64_t K, const float *x, int64_t ldx, float *out) {
  int64_t words = tiles_words(K);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t w = 0; w < words; w += VL)
      vstore(out + i * words + w, vneighbors(x + i * ldx + 2 * w, K - 2 * w));
}

/* Pairs along K become pairs along the rows: [K, words(rows)].  Squares of 32 by 32 elements: two
 * rows give sixteen words of even and sixteen of odd columns, which are turned like floats. */
static void tiles_turn_operand(int64_t rows, int64_t K, const float *operand, float *out) {
  int64_t words = tiles_words(K), ldo = tiles_words(rows);
  for (int64_t m = 0; m < rows; m += 2 * TILE_WORDS)
    for (int64_t w = 0; w < words; w += TILE_WORDS) {
      vf even[TILE_WORDS], odd[TILE_WORDS];
      int64_t columns = K - 2 * w < 2 * TILE_WORDS ? K - 2 * w : 2 * TILE_WORDS;
#pragma GCC unroll 16
      for (int i = 0; i < TILE_WORDS; i++) {
        const float *p = operand + (m + 2 * i) * words + w;
        vu x = m + 2 * i < rows ? (vu)vload(p) : (vu)vzero();
        vu y = m + 2 * i + 1 < rows ? (vu)vload(p + words) : (vu)vzero();
        even[i] = (vf)((x & 0xffff) | (y << 16));
        odd[i] = (vf)((x >> 16) | (y & 0xffff0000u));
      }
      vtranspose(even);
      vtranspose(odd);
      float *o = out + 2 * w * ldo + m / 2;
      for (int i = 0; 2 * i < columns; i++) {
        vstore(o + 2 * i * ldo, even[i]);
        if (2 * i + 1 < columns) vstore(o + (2 * i + 1) * ldo, odd[i]);
      }
    }
}

static int64_t tiles_peak(int64_t rounds, float *sink) {
  enum { UNROLL = 4 };
  tiles_take(TILE_ROWS, TILE_ROWS);
  for (int64_t r = 0; r < rounds; r++)
    for (int u = 0; u < UNROLL; u++) {
      tile_dot_bf16(0, 4, 6);
      tile_dot_bf16(1, 4, 7);
      tile_dot_bf16(2, 5, 6);
      tile_dot_bf16(3, 5, 7);
    }
  float out[TILE_ROWS * TILE_WORDS];
  tile_store(0, out, 4 * TILE_WORDS);
  tiles_end_thread();
  sink[0] += out[0];
  return rounds * UNROLL * 4 * 2 * TILE_ROWS * TILE_WORDS * 2 * TILE_WORDS;
}

static const NumberFormat format_bf16 = {
    .name = "bf16",
#if defined(CL_PLAIN_TILES)
    .native = 0,
#else
    .native = 1,
#endif
    .elements = 2,
    .step = TILE_WORDS,
    .block_rows = TILE_BLOCK,
    .pack_panel = tiles_pack_panel,
    .pack_panel_t = tiles_pack_panel_t,
    .to_operand = tiles_to_operand,
    .turn_operand = tiles_turn_operand,
    .turned_by_rows = 1,
    .product = tiles_product,
    .product_few = tiles_product,
    .product_ta = tiles_product,
    .peak = tiles_peak,
};

#define CL_HOOKS \
  { \
    .begin_process = tiles_allowed, .begin_thread = tiles_begin_thread, \
    .end_thread = tiles_end_thread \
  }

#endif
