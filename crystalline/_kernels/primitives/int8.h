/* Products of signed bytes, for inference: four elements of K to a word, sums in 32 bits.
 *
 * A row of the left-hand side and a column of the right-hand side each have a scale of their own,
 * from the largest magnitude of the whole row or column:
 *
 *   scale  = largest / 127
 *   byte   = x * (127 / largest), rounded to nearest, ties to even: from -127 to 127
 *   result = float32(sum of byte products) * row's scale * column's scale, multiplied in this order;
 *            then + bias, + residual, + what c holds
 *
 * Sums are exact and every other step is one rounded float32 operation, no multiply-add, so that
 * all levels give the same bits.  With e = scale (1/2 + 127 * 2^-22) an element differs from
 * byte * scale by at most e: the 1/2 is the rounding to a byte, the rest that of scale and quotient.
 *
 * A row or column whose largest magnitude is below INT8_SMALLEST counts as zero: its scale, or its
 * inverse, would not be a normal number.  One that holds an infinity or a NaN has the scale NaN and
 * zero bytes, so that every result of it is NaN.  Scales are multiplied in turn, so that small
 * results do not vanish with the product of two small scales; where a row has elements beyond 2^104,
 * the sum times its scale may be infinite, and so is the result then.
 *
 * Layout: an operand's row is its bytes in order of K, zeros to whole words and steps, then
 * INT8_EXTRA words of which the first is the scale, the second the sum of the bytes times -128: what is
 * to be added, modulo 2^32, where the other side's bytes are multiplied as unsigned numbers, 128 too
 * large.  A panel's word [w][j] is the bytes 4 w to 4 w + 3 of column j; of its last INT8_EXTRA rows
 * the first is the scales.  The other extra words are zero: they keep rows on cache lines, and are
 * not read.
 */
#ifndef CL_INT8_H
#define CL_INT8_H

#include "few.h"
#include "few_rows.h"
#include "primitives.h"
#include "vec.h"

#if defined(CL_TILES)
#include "amx.h"
#endif

enum {
  INT8_STEP = 16, /* words: a tile's row, a cache line; the same layout at every level */
  INT8_EXTRA = 16,
  INT8_LONGEST = 131072, /* elements: 127 * 127 * this is below 2^31 */
};
#define INT8_MOST 127.0f
#define INT8_SMALLEST 0x1p-119f /* 128 times the smallest normal number */

/* Words of K elements, without the extra ones. */
CL_INLINE int64_t int8_words(int64_t K) {
  return (K + 4 * INT8_STEP - 1) / (4 * INT8_STEP) * INT8_STEP;
}

/* The bits of |x|: as integers they are in order, a NaN after infinity. */
CL_INLINE vi int8_magnitude(vf x) { return (vi)vabs(x); }

/* Scales, and what elements are multiplied by, of rows or columns by their largest magnitudes. */
CL_INLINE vf int8_scales(vi magnitude, vf *inverse) {
  const vf largest = (vf)magnitude, most = vset1(INT8_MOST);
  const vi is_finite = (vi)(magnitude < viset1(0x7f800000));
  const vi is_used = is_finite & (vi)(largest >= vset1(INT8_SMALLEST));
  *inverse = (vf)(is_used & (vi)(most / largest));
  return vselect(is_finite, (vf)(is_used & (vi)(largest / most)), vbits(viset1(0x7fc00000)));
}

/* The largest magnitude of a row of K elements. */
CL_INLINE int32_t int8_largest(int64_t K, const float *x) {
  vi largest = viset1(0);
  int64_t k = 0;
  for (; k + VL <= K; k += VL) largest = vimax(largest, int8_magnitude(vload(x + k)));
  return vihmax(vimax(largest, int8_magnitude(vloadn(x + k, K - k))));
}

/* The bytes of K elements and zeros to `bytes`, a multiple of 4 VL; out may be x. */
CL_INLINE void int8_row(int64_t K, const float *x, float inverse, int64_t bytes, int8_t *out) {
  if (inverse == 0.0f) { /* there may be what times 0 is NaN */
    memset(out, 0, (size_t)bytes);
    return;
  }
  const vf by = vset1(inverse);
  for (int64_t k = 0; k < bytes; k += 4 * VL) {
    vi q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      const float *p = x + k + i * VL;
      const int64_t n = K - k - i * VL;
      q[i] = vround((n >= VL ? vload(p) : vloadn(p, n < 0 ? 0 : n)) * by);
    }
    vbytes(out + k, q[0], q[1], q[2], q[3]);
  }
}

/* The sum of a row's bytes times -128: of at most 2^17 bytes, so below 2^31. */
CL_INLINE int32_t int8_correction(int64_t words, const float *row) {
  vi sum = viset1(0);
  for (int64_t w = 0; w < words; w += VL) sum = vdot4((vi)vload(row + w), viset1(0x01010101), sum);
  uint32_t total = 0;
  for (int i = 0; i < VL; i++) total += (uint32_t)sum[i];
  return (int32_t)(total * (uint32_t)-128);
}

static void int8_to_operand(int64_t rows, int64_t K, const float *x, int64_t ldx, float *out) {
  const int64_t words = int8_words(K);
  for (int64_t i = 0; i < rows; i++, x += ldx, out += words + INT8_EXTRA) {
    vf inverse, scale = int8_scales(viset1(int8_largest(K, x)), &inverse);
    int8_row(K, x, inverse[0], 4 * words, (int8_t *)out);
    memset(out + words, 0, INT8_EXTRA * sizeof(float));
    out[words] = scale[0];
    const int32_t correction = int8_correction(words, out);
    memcpy(out + words + 1, &correction, sizeof correction);
  }
}

static void int8_pack_panel(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                            float *column_sums) {
  const int64_t words = int8_words(K);
  memset(panel + words * CL_PANEL, 0, INT8_EXTRA * CL_PANEL * sizeof(float));
  for (int64_t j = 0; j < CL_PANEL; j += VL) {
    int64_t m = n - j < 0 ? 0 : n - j > VL ? VL : n - j;
    const float *p = b + j;
    vi largest = viset1(0);
    vf sum = vzero(), inverse;
    for (int64_t k = 0; k < K; k++) {
      vf x = m == VL ? vload(p + k * ldb) : vloadn(p + k * ldb, m);
      largest = vimax(largest, int8_magnitude(x));
      sum += x;
    }
    if (column_sums) vstoren(column_sums + j, vloadn(column_sums + j, m) + sum, m);
    vstore(panel + words * CL_PANEL + j, int8_scales(largest, &inverse));
    for (int64_t w = 0; w < words; w++) {
      vu word = (vu)vzero();
      for (int64_t i = 0; i < 4 && 4 * w + i < K; i++) {
        const float *q = p + (4 * w + i) * ldb;
        vf x = m == VL ? vload(q) : vloadn(q, m);
        word |= ((vu)vround(x * inverse) & 0xff) << (8 * (int)i);
      }
      vstore(panel + w * CL_PANEL + j, (vf)word);
    }
  }
}

static void int8_pack_panel_t(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel) {
  const int64_t words = int8_words(K);
  memset(panel + words * CL_PANEL, 0, INT8_EXTRA * CL_PANEL * sizeof(float));
  for (int64_t j = 0; j < CL_PANEL; j += VL) {
    vi largest = viset1(0);
    for (int i = 0; i < VL; i++)
      if (j + i < n) largest[i] = int8_largest(K, b + (j + i) * ldb);
    vf inverse;
    vstore(panel + words * CL_PANEL + j, int8_scales(largest, &inverse));
    for (int64_t w = 0; w < words; w += VL) { /* VL words of VL columns, turned in registers */
      vf r[VL];
      for (int i = 0; i < VL; i++) {
        float row[VL];
        const float *x = b + (j + i) * ldb + 4 * w;
        int8_row(K - 4 * w, x, j + i < n ? inverse[i] : 0.0f, 4 * VL, (int8_t *)row);
        r[i] = vload(row);
      }
      vtranspose(r);
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++) vstore(panel + (w + i) * CL_PANEL + j, r[i]);
    }
  }
}

/* A block of sums [rows][PANEL] that becomes results, n <= PANEL columns of c. */
typedef struct {
  int64_t rows, n;
  const int32_t *sums;
  const float *scale, *scales; /* of the first row, the next ones' lda words apart; of the columns */
  int64_t lda;
  float *c;
  int64_t ldc;
  const float *bias, *residual;
  StoreMode store;
} Int8Block;

/* The next `rows` rows of a block, or what is left of them. */
CL_INLINE void int8_finish(Int8Block *block, int64_t rows) {
  const Int8Block f = *block; /* a copy, which what is stored cannot change */
  if (rows > f.rows) rows = f.rows;
  for (int64_t j = 0; j < f.n; j += VL) {
    const int64_t m = f.n - j < VL ? f.n - j : VL;
    const vf scales = vload(f.scales + j);
    const vf bias = f.bias ? m == VL ? vload(f.bias + j) : vloadn(f.bias + j, m) : vzero();
    for (int64_t i = 0; i < rows; i++) {
      const int64_t at = i * f.ldc + j;
      float *p = f.c + at;
      vf r = vfloat(viload(f.sums + i * CL_PANEL + j)) * vset1(f.scale[i * f.lda]) * scales;
      if (f.bias) r += bias;
      if (m == VL) {
        if (f.residual) r += vload(f.residual + at);
        if (f.store == CL_ADD) r += vload(p);
        if (f.store == CL_STREAM)
          vstream(p, r);
        else
          vstore(p, r);
      } else {
        if (f.residual) r += vloadn(f.residual + at, m);
        if (f.store == CL_ADD) r += vloadn(p, m);
        vstoren(p, r, m);
      }
    }
  }
  block->rows -= rows;
  block->sums += rows * CL_PANEL;
  block->scale += rows * block->lda;
  block->c += rows * block->ldc;
  if (block->residual) block->residual += rows * block->ldc;
}

#if defined(CL_TILES) /* ---- in matrix tiles ---- */

enum { INT8_STEPS_BETWEEN = 16 };

/* Two by two tiles, or with half the rows or columns fewer; with BETWEEN, some rows of the block
 * before become results with every step.  Constants at every call. */
CL_INLINE void int8_tiles_sums(const int LOWER, const int RIGHT, const int BETWEEN, int64_t words,
                               const float *a, int64_t lda, const float *panel, int32_t *sums,
                               TilesAhead *ahead, Int8Block *before, int64_t rows_at_once) {
  const float *below = a + TILE_ROWS * lda;
  tile_zero(0);
  if (RIGHT) tile_zero(1);
  if (LOWER) tile_zero(2);
  if (LOWER && RIGHT) tile_zero(3);
  for (int64_t w = 0; w < words; w += TILE_WORDS) {
    tile_load(6, panel + w * CL_PANEL, 4 * CL_PANEL);
    tile_pass(4, a + w, 4 * lda);
    tile_dot_int8(0, 4, 6);
    if (RIGHT) {
      tile_load(7, panel + w * CL_PANEL + TILE_WORDS, 4 * CL_PANEL);
      tile_dot_int8(1, 4, 7);
    }
    if (LOWER) {
      tile_pass(5, below + w, 4 * lda);
      tile_dot_int8(2, 5, 6);
      if (RIGHT) tile_dot_int8(3, 5, 7);
    }
    fetch_ahead(ahead);
    if (BETWEEN) int8_finish(before, rows_at_once);
  }
  tile_store(0, sums, 4 * CL_PANEL);
  if (RIGHT) tile_store(1, sums + TILE_WORDS, 4 * CL_PANEL);
  if (LOWER) tile_store(2, sums + TILE_ROWS * CL_PANEL, 4 * CL_PANEL);
  if (LOWER && RIGHT) tile_store(3, sums + TILE_ROWS * CL_PANEL + TILE_WORDS, 4 * CL_PANEL);
}

CL_INLINE void int8_tiles_panel(const int FEW, int64_t M, int64_t n, int64_t K, const float *a,
                                int64_t lda, const float *panel, int64_t next, float *c,
                                int64_t ldc, const float *bias, const float *residual,
                                StoreMode store) {
  /* Two blocks of sums in turn: one becomes results while the tiles are at the next.  With few
   * steps between them that is left to the processor, which looks far enough ahead. */
  int32_t sums[2][TILE_BLOCK * CL_PANEL] __attribute__((aligned(64)));
  const int64_t words = K - INT8_EXTRA, steps = words / TILE_WORDS;
  const int64_t blocks = (M + TILE_BLOCK - 1) / TILE_BLOCK, lines = CL_PANEL / CL_LINE * words;
  const Finish meets = {.n = n, .store = store, .c = c, .ldc = ldc, .residual = residual};
  TilesAhead ahead = {.finish = &meets, .panel = panel + next};
  if (FEW) ahead.panel = panel + CL_FAR / sizeof(float);
  ahead.lines = FEW || next ? (lines / blocks + steps - 1) / steps : 0;
  Int8Block block = {.rows = 0};
  for (int64_t row = 0, turn = 0; row < M; row += TILE_BLOCK, turn ^= 1) {
    const int64_t rows = M - row < TILE_BLOCK ? M - row : TILE_BLOCK;
    const int64_t rows_at_once = (TILE_BLOCK + steps - 1) / steps;
    const int lower = rows > TILE_ROWS, right = n > TILE_WORDS, between = steps >= INT8_STEPS_BETWEEN;
    const float *x = a + row * lda;
    if (lower)
      tiles_take(TILE_ROWS, (int)rows - TILE_ROWS);
    else
      tiles_take((int)rows, TILE_ROWS);
    ahead_of(&ahead, row, rows, steps);
#define CL_CASE(LOWER, RIGHT, BETWEEN) \
  if (lower == LOWER && right == RIGHT && between == BETWEEN) \
    int8_tiles_sums(LOWER, RIGHT, BETWEEN, words, x, lda, panel, sums[turn], &ahead, &block, \
                    rows_at_once);
    CL_CASE(1, 1, 0) CL_CASE(1, 0, 0) CL_CASE(0, 1, 0) CL_CASE(0, 0, 0)
    CL_CASE(1, 1, 1) CL_CASE(1, 0, 1) CL_CASE(0, 1, 1) CL_CASE(0, 0, 1)
#undef CL_CASE
    block = (Int8Block){rows, n, sums[turn], x + words, panel + words * CL_PANEL, lda, c + row * ldc,
                        ldc, bias, residual ? residual + row * ldc : 0, store};
    if (!between) int8_finish(&block, rows);
  }
  int8_finish(&block, block.rows);
  if (store == CL_STREAM) CL_STREAM_FENCE;
}
static void int8_tiles_product(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                               const float *panel, int64_t next, float *c, int64_t ldc,
                               const float *bias, const float *residual, StoreMode store) {
  int8_tiles_panel(0, M, n, K, a, lda, panel, next, c, ldc, bias, residual, store);
}
static void int8_tiles_product_few(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                                   const float *panel, int64_t next, float *c, int64_t ldc,
                                   const float *bias, const float *residual, StoreMode store) {
  int8_tiles_panel(1, M, n, K, a, lda, panel, next, c, ldc, bias, residual, store);
}

static int64_t int8_peak(int64_t rounds, float *sink) {
  enum { UNROLL = 4 };
  tiles_take(TILE_ROWS, TILE_ROWS);
  for (int64_t r = 0; r < rounds; r++)
    for (int u = 0; u < UNROLL; u++) {
      tile_dot_int8(0, 4, 6);
      tile_dot_int8(1, 4, 7);
      tile_dot_int8(2, 5, 6);
      tile_dot_int8(3, 5, 7);
    }
  float out[TILE_ROWS * TILE_WORDS];
  tile_store(0, out, 4 * TILE_WORDS);
  tiles_end_thread();
  sink[0] += out[0];
  return rounds * UNROLL * 4 * 2 * TILE_ROWS * TILE_WORDS * 4 * TILE_WORDS;
}

#define INT8_PRODUCT int8_tiles_product
#define INT8_PRODUCT_FEW int8_tiles_product_few
#define INT8_BLOCK_ROWS TILE_BLOCK
#if defined(CL_PLAIN_TILES)
#define INT8_IS_NATIVE 0
#else
#define INT8_IS_NATIVE 1
#endif

#else /* ---- in vectors ---- */

#if defined(CL_AVX512)
enum { INT8_ROWS = 12 }; /* of a register tile: what is left of the registers unpacks bytes */
#else
enum { INT8_ROWS = 4 };
#endif

#if defined(CL_VNNI)
#define INT8_UNSIGNED 1
#else
#define INT8_UNSIGNED 0
#endif

/* sums[MR][PANEL] of two vectors of columns; `lines` of what comes next are fetched with a word, or
 * with FEW what lies ahead in the panel. */
CL_INLINE void int8_tile(const int FEW, const int MR, int64_t words, const float *a, int64_t lda,
                         const float *panel, int32_t *sums, const float *next, int64_t lines) {
  vi acc[INT8_ROWS][2];
  /* bytes of 128 more than they are, or as they are */
  const vi more = viset1(INT8_UNSIGNED ? (int32_t)0x80808080u : 0);
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
    acc[i][0] = acc[i][1] = INT8_UNSIGNED ? (vi)vset1(a[i * lda + words + 1]) : viset1(0);
  for (int64_t w = 0; w < words; w++) {
    const float *p = panel + w * CL_PANEL;
    const vi b0 = (vi)vload(p) ^ more, b1 = (vi)vload(p + VL) ^ more;
    if (FEW) {
      cl_fetch_ahead(p, 2 * VL * sizeof(float));
    } else {
      __builtin_prefetch(p + 8 * CL_PANEL);
      for (int64_t l = 0; l < lines; l++, next += 16) __builtin_prefetch(next, 0, 2);
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      const vi x = (vi)vset1(a[i * lda + w]);
      acc[i][0] = INT8_UNSIGNED ? vdot4u(b0, x, acc[i][0]) : vdot4(x, b0, acc[i][0]);
      acc[i][1] = INT8_UNSIGNED ? vdot4u(b1, x, acc[i][1]) : vdot4(x, b1, acc[i][1]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) vstore((float *)sums + i * CL_PANEL + v * VL, (vf)acc[i][v]);
}

CL_INLINE void int8_panel(const int FEW, int64_t M, int64_t n, int64_t K, const float *a,
                          int64_t lda, const float *panel, int64_t next, float *c, int64_t ldc,
                          const float *bias, const float *residual, StoreMode store) {
  int32_t sums[INT8_ROWS * CL_PANEL] __attribute__((aligned(64)));
  const int64_t words = K - INT8_EXTRA, tiles = (M + INT8_ROWS - 1) / INT8_ROWS;
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t row = M * t / tiles, rows = M * (t + 1) / tiles - row;
    const float *x = a + row * lda;
    for (int64_t col = 0; col < n; col += 2 * VL) {
      const int64_t lines = next && t == 0 && col == 0 ? 2 : 0;
      switch (rows) {
#define CL_CASE(m) \
  case m: \
    int8_tile(FEW, m, words, x, lda, panel + col, sums + col, panel + next, lines); \
    break;
        CL_CASE(1) CL_CASE(2) CL_CASE(3) CL_CASE(4)
#if defined(CL_AVX512)
        CL_CASE(5) CL_CASE(6) CL_CASE(7) CL_CASE(8) CL_CASE(9) CL_CASE(10) CL_CASE(11) CL_CASE(12)
#endif
#undef CL_CASE
      }
    }
    Int8Block block = {rows, n, sums, x + words, panel + words * CL_PANEL, lda, c + row * ldc, ldc,
                       bias, residual ? residual + row * ldc : 0, store};
    int8_finish(&block, rows);
  }
  if (store == CL_STREAM) CL_STREAM_FENCE;
}
static void int8_product(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                         const float *panel, int64_t next, float *c, int64_t ldc,
                         const float *bias, const float *residual, StoreMode store) {
  int8_panel(0, M, n, K, a, lda, panel, next, c, ldc, bias, residual, store);
}
static void int8_product_few(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                             const float *panel, int64_t next, float *c, int64_t ldc,
                             const float *bias, const float *residual, StoreMode store) {
  int8_panel(1, M, n, K, a, lda, panel, next, c, ldc, bias, residual, store);
}

/* A register tile over a panel that stays in L1: on registers alone the compiler would multiply
 * once, as sums of bytes take several instructions that it knows. */
static int64_t int8_peak(int64_t rounds, float *sink) {
  enum { WORDS = 16 };
  float a[INT8_ROWS * WORDS + 2], panel[WORDS * CL_PANEL] __attribute__((aligned(64)));
  int32_t sums[INT8_ROWS * CL_PANEL] __attribute__((aligned(64)));
  for (int i = 0; i < INT8_ROWS * WORDS + 2; i++) a[i] = sink[0];
  for (int i = 0; i < WORDS * CL_PANEL; i++) panel[i] = sink[0];
  for (int64_t r = 0; r < rounds; r++) {
    int8_tile(0, INT8_ROWS, WORDS, a, WORDS, panel, sums, 0, 0);
    __asm__ volatile("" ::"r"(a), "r"(panel), "r"(sums) : "memory");
  }
  sink[0] += (float)sums[0];
  return rounds * INT8_ROWS * 2 * VL * WORDS * 4 * 2;
}

#define INT8_PRODUCT int8_product
#define INT8_PRODUCT_FEW int8_product_few
#define INT8_BLOCK_ROWS (2 * INT8_ROWS)
#define INT8_IS_NATIVE 0

#endif

static void int8_take_column(int64_t K, const float *panel, int64_t column, float *out) {
  const float scale = panel[int8_words(K) * CL_PANEL + column];
  for (int64_t k = 0; k < K; k++)
    out[k] = (float)((const int8_t *)(panel + k / 4 * CL_PANEL + column))[k % 4] * scale;
}

static const NumberFormat format_int8 = {
    .name = "int8",
    .native = INT8_IS_NATIVE,
    .elements = 4,
    .step = INT8_STEP,
    .extra = INT8_EXTRA,
    .longest = INT8_LONGEST,
    .row_group = 1,
    .stride = 1,
    .block_rows = INT8_BLOCK_ROWS,
    .query_rows = INT8_BLOCK_ROWS,
    .pass_rows = CL_PASS_ROWS,
    .pass_words = INT8_LONGEST, /* always one: a scale is that of a whole row or column */
    .left_words = CL_LEFT_WORDS,
    .pack_panel = int8_pack_panel,
    .pack_panel_t = int8_pack_panel_t,
    .to_operand = int8_to_operand,
    .product = INT8_PRODUCT,
    .few_rows = CL_FEW_ROWS_OF(int8),
    .product_few = INT8_PRODUCT_FEW,
    .peak = int8_peak,
    .take_column = int8_take_column,
};

#endif
