/* Products of bfloat16 in matrix tiles: two by two tiles of the result, over one panel.
 *
 * Operands lie in tiles (tile_operands.h), so that the inner length needs no care; rows that do not
 * fill a tile make a smaller tile, and columns beyond n are computed from the panel's zeros and not
 * stored.  Sums begin at the bias and stay in tiles over the whole of a pass.  What follows is done
 * to blocks of 32 by 32 sums in L1, while the tiles are at the next: a residual, or what c holds, is
 * added; or the sums become an operand again, through an activation where one follows.
 */
#ifndef CL_AMX_H
#define CL_AMX_H

#include "few.h"
#include "few_rows.h"
#include "gelu_table.h"
#include "tile_operands.h"

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

/* GELU's functions of rows.h for results of eight bits: a cubic for each segment of the real line,
 * found by one shuffle of two registers a coefficient.  While the tiles compute there is room for
 * one vector operation a cycle, and this takes half as many as an exponential and a quotient.
 * The functions are 0 or 1 beyond the segments to 1e-7; within, the error is that of interpolation
 * in Chebyshev nodes, width^4 / 3072 times the fourth derivative (at most 2e-5 for the slope, less
 * for gelu(x) / x), and rounding. */
typedef struct {
  vf low[4], high[4]; /* the coefficients of segments 0 to 15, and 16 to 31 */
} Cubics;

CL_INLINE Cubics cubics(const float table[4][32]) {
  Cubics c;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) c.low[i] = vload(table[i]), c.high[i] = vload(table[i] + VL);
  return c;
}
CL_INLINE vf vcubic(const Cubics *c, vf x) {
  const float width = CL_SEGMENT_WIDTH, integer = 12582912.0f; /* 1.5 2^23: sums are integers */
  x = vmin(vset1(CL_LAST_SEGMENT * width), vmax(vset1(CL_FIRST_SEGMENT * width), x)); /* or NaN */
  vf t = vfma(x, vset1(1.0f / width), vset1(integer));
  vf r = vfnma(t - vset1(integer), vset1(width), x);
  vf k[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    k[i] = (vf)_mm512_permutex2var_ps((__m512)c->low[i], (__m512i)t, (__m512)c->high[i]);
  return vfma(vfma(vfma(k[3], r, k[2]), r, k[1]), r, k[0]);
}

/* What becomes of a product's sums. */
typedef struct {
  int64_t n; /* columns */
  /* c (+)= sums (+ residual) */
  StoreMode store;
  float *c;
  int64_t ldc;
  const float *residual;
  /* or, where `out` is not NULL, they are kept */
  const Kept *out, *other;
  Activation activation;
} Finish;

CL_INLINE void finish_floats(const Finish *f, int64_t row, const float *sums) {
  float *p = f->c + row * f->ldc;
  const float *q = f->residual ? f->residual + row * f->ldc : 0;
  for (int64_t j = 0; j < f->n; j += VL) {
    int64_t m = f->n - j < VL ? f->n - j : VL;
    vf r = vload(sums + j);
    if (m == VL) {
      if (q) r += vload(q + j);
      if (f->store == CL_ADD) r += vload(p + j);
      if (f->store == CL_STREAM)
        vstream(p + j, r);
      else
        vstore(p + j, r);
    } else {
      if (q) r += vloadn(q + j, m);
      if (f->store == CL_ADD) r += vloadn(p + j, m);
      vstoren(p + j, r, m);
    }
  }
}
CL_INLINE void finish_kept(const Finish *f, const Cubics *c, int64_t row, const float *sums) {
  vf first = vload(sums), second = vload(sums + VL);
  if (f->activation == CL_GELU) {
    tile_put(f->other, row, 0, f->n, first, second);
    first *= vcubic(c, first);
    second *= vcubic(c, second);
  } else if (f->activation == CL_GELU_SLOPE) {
    vf x, y; /* a whole matrix: its columns begin at a tile */
    vwords(tile_row_of(f->other, row) + f->other->column / TILE_ELEMENTS * TILE_FLOATS, &x, &y);
    first *= vcubic(c, x);
    second *= vcubic(c, y);
  }
  tile_put(f->out, row, 0, f->n, first, second);
}

/* What is fetched while the tiles compute, a little with every step of the inner length: the next
 * panel into L2, and what a block's sums will meet. */
typedef struct {
  const Finish *finish;
  const float *panel;
  int64_t lines;           /* of it, at once */
  int64_t row, end, count; /* the block's rows to come, and how many at once */
} TilesAhead;

CL_INLINE void fetch_ahead(TilesAhead *a) {
  const Finish *f = a->finish;
  for (int64_t i = 0; i < a->lines; i++, a->panel += CL_LINE) __builtin_prefetch(a->panel, 0, 2);
  for (int64_t i = 0; i < a->count && a->row < a->end; i++, a->row++) {
    if (f->out) {
      int64_t across = f->out->column / TILE_ELEMENTS * TILE_FLOATS;
      __builtin_prefetch(tile_row_of(f->out, a->row) + across, 1, 3);
      if (f->activation == CL_LINEAR) continue;
      across = f->other->column / TILE_ELEMENTS * TILE_FLOATS;
      __builtin_prefetch(tile_row_of(f->other, a->row) + across, 1, 3);
    } else {
      const float *c = f->c + a->row * f->ldc;
      __builtin_prefetch(c, 1, 3);
      __builtin_prefetch(c + CL_LINE, 1, 3);
      if (!f->residual) continue;
      c = f->residual + a->row * f->ldc;
      __builtin_prefetch(c, 0, 3);
      __builtin_prefetch(c + CL_LINE, 0, 3);
    }
  }
}
/* A block of rows that is next: its share of fetching with every step. */
CL_INLINE void ahead_of(TilesAhead *a, int64_t row, int64_t rows, int64_t steps) {
  a->row = row;
  a->end = !a->finish->out && a->finish->store == CL_STREAM ? row : row + rows;
  a->count = (rows + steps - 1) / steps;
}

/* What is done beside the tiles' work: fetching, and finishing the sums of the block before. */
typedef struct {
  TilesAhead ahead;
  const float *sums;
  int64_t row, end, count; /* rows to be finished, and how many at once */
} Beside;

CL_INLINE void beside_rows(Beside *b, int64_t count) {
  const Finish *f = b->ahead.finish;
  const int64_t end = b->end - b->row < count ? b->end : b->row + count;
  if (!f->out) {
    for (; b->row < end; b->row++, b->sums += CL_PANEL) finish_floats(f, b->row, b->sums);
    return;
  }
  const Cubics c = cubics(f->activation == CL_GELU ? cl_gelu_share : cl_gelu_slope);
  for (; b->row < end; b->row++, b->sums += CL_PANEL) finish_kept(f, &c, b->row, b->sums);
}
CL_INLINE void beside(Beside *b) {
  fetch_ahead(&b->ahead);
  beside_rows(b, b->count);
}

/* Two by two tiles, or with half the rows or columns fewer: constants at every call. */
CL_INLINE void tiles_sums(const int LOWER, const int RIGHT, int64_t K, const float *a, int64_t lda,
                          const float *panel, const float *bias, Beside *work) {
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
    tile_pass(4, a + k * TILE_ROWS, 4 * TILE_WORDS);
    tile_dot_bf16(0, 4, 6);
    if (RIGHT) {
      tile_load(7, panel + k * CL_PANEL + TILE_WORDS, 4 * CL_PANEL);
      tile_dot_bf16(1, 4, 7);
    }
    if (LOWER) {
      tile_pass(5, below + k * TILE_ROWS, 4 * TILE_WORDS);
      tile_dot_bf16(2, 5, 6);
      if (RIGHT) tile_dot_bf16(3, 5, 7);
    }
    beside(work);
  }
}
CL_INLINE void tiles_store(const int LOWER, const int RIGHT, float *c, int64_t ldc) {
  tile_store(0, c, 4 * ldc);
  if (RIGHT) tile_store(1, c + TILE_WORDS, 4 * ldc);
  if (LOWER) tile_store(2, c + TILE_ROWS * ldc, 4 * ldc);
  if (LOWER && RIGHT) tile_store(3, c + TILE_ROWS * ldc + TILE_WORDS, 4 * ldc);
}

/* A product over one panel.  Sums alternate between two blocks in L1: one is finished while the
 * tiles are at the next. */
CL_INLINE void tiles_panel(const int FEW, int64_t M, int64_t K, const float *a, int64_t lda, const float *panel,
                           int64_t next, const float *bias, const Finish *finish) {
  float sums[2][TILE_BLOCK * CL_PANEL] __attribute__((aligned(64)));
  float padded[CL_PANEL] __attribute__((aligned(64))) = {0};
  const int64_t n = finish->n, ldc = finish->ldc;
  const int is_plain =
      !finish->out && n == CL_PANEL && !finish->residual && finish->store == CL_STORE;
  if (bias && n < CL_PANEL) bias = memcpy(padded, bias, (size_t)n * sizeof(float));
  const int64_t blocks = (M + TILE_BLOCK - 1) / TILE_BLOCK, lines = CL_PANEL / CL_LINE * K;
  const int64_t steps = K / TILE_WORDS;
  const int right = n > TILE_WORDS;
  /* The next panel is fetched evenly over the blocks. */
  Beside work = {.ahead = {.finish = finish, .panel = panel + next}};
  if (FEW) work.ahead.panel = panel + CL_FAR / sizeof(float);
  work.ahead.lines = FEW || next ? (lines / blocks + steps - 1) / steps : 0;
  if (!right) memset(sums, 0, sizeof sums);
  for (int64_t row = 0, turn = 0; row < M; row += TILE_BLOCK, turn ^= 1) {
    const int64_t rows = M - row < TILE_BLOCK ? M - row : TILE_BLOCK;
    const int lower = rows > TILE_ROWS;
    float *out = is_plain ? finish->c + row * ldc : sums[turn];
    const int64_t ldo = is_plain ? ldc : CL_PANEL;
    const float *x = a + row * lda;
    if (lower)
      tiles_take(TILE_ROWS, (int)rows - TILE_ROWS);
    else
      tiles_take((int)rows, TILE_ROWS);
    work.count = (work.end - work.row + steps - 1) / steps;
    ahead_of(&work.ahead, row, rows, steps);
#define CL_CASE(LOWER, RIGHT) \
  if (lower == LOWER && right == RIGHT) { \
    tiles_sums(LOWER, RIGHT, K, x, lda, panel, bias, &work); \
    tiles_store(LOWER, RIGHT, out, ldo); \
  }
    CL_CASE(1, 1) CL_CASE(1, 0) CL_CASE(0, 1) CL_CASE(0, 0)
#undef CL_CASE
    if (is_plain) continue;
    work.row = row;
    work.end = row + rows;
    work.sums = out;
  }
  beside_rows(&work, TILE_BLOCK);
}
static void tiles_product(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                          const float *panel, int64_t next, float *c, int64_t ldc,
                          const float *bias, const float *residual, StoreMode store) {
  const Finish finish = {.n = n, .store = store, .c = c, .ldc = ldc, .residual = residual};
  tiles_panel(0, M, K, a, lda, panel, next, bias, &finish);
  if (store == CL_STREAM) CL_STREAM_FENCE;
}
static void tiles_product_few(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                              const float *panel, int64_t next, float *c, int64_t ldc,
                              const float *bias, const float *residual, StoreMode store) {
  const Finish finish = {.n = n, .store = store, .c = c, .ldc = ldc, .residual = residual};
  tiles_panel(1, M, K, a, lda, panel, next, bias, &finish);
  if (store == CL_STREAM) CL_STREAM_FENCE;
}
static void tiles_product_kept(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                               const float *panel, int64_t next, const float *bias,
                               Activation activation, const Kept *out, const Kept *other) {
  const Finish finish = {.n = n, .out = out, .other = other, .activation = activation};
  tiles_panel(0, M, K, a, lda, panel, next, bias, &finish);
}

static const KeptFunctions tiles_keeps = {
    .expand = tiles_expand,
    .keep = tiles_keep,
    .take_operand = tiles_take_operand,
    .pack_panel = tiles_pack_kept,
    .pack_panel_t = tiles_pack_kept_t,
    .product = tiles_product_kept,
};

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
    .row_group = TILE_ROWS,
    .stride = TILE_ROWS,
    .block_rows = TILE_BLOCK,
    .query_rows = 4 * TILE_BLOCK,
    .pass_rows = 512,
    .pass_words = 2048,
    .left_words = 208 * 1024, /* of 2 MB at least, which CPUs with tiles have */
    .keeps = &tiles_keeps,
    .pack_panel = tiles_pack_panel,
    .pack_panel_t = tiles_pack_panel_t,
    .to_operand = tiles_to_operand,
    .turn_operand = tiles_turn_operand,
    .turned_by_rows = 1,
    .product = tiles_product,
    .few_rows = CL_FEW_ROWS_OF(bf16),
    .product_few = tiles_product_few,
    .product_ta = tiles_product,
    .peak = tiles_peak,
    .take_column = bf16_take_column,
};

#define CL_HOOKS \
  { \
    .begin_process = tiles_allowed, .begin_thread = tiles_begin_thread, \
    .end_thread = tiles_end_thread \
  }

#endif
