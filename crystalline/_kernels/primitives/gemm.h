/* Matrix products on packed panels: register tiles over one panel of 32 columns.
 *
 * Written once for two number formats.  In float32 an element of a and of the panel is a float.
 * In bf16 it is a pair: two bfloat16 that follow each other along K, the first in the low half
 * of 32 bits; K, lda and the panel's height then count pairs, and the sums are float32 as before.
 *
 * A tile keeps MR x NV vectors of the result in registers over the whole of K:
 * 14 x 32 floats with AVX-512, 6 x 16 with AVX2, 6 x 8 with 128-bit vectors.
 * Rows are shared out evenly, so no tile is much smaller than the others.
 */
#ifndef CL_GEMM_H
#define CL_GEMM_H

#include "primitives.h"
#include "vec.h"

#if defined(CL_AVX512)
#define CL_MR 14
#elif defined(__aarch64__)
#define CL_MR 12
#else
#define CL_MR 6
#endif
#define CL_NV 2              /* vectors across a tile */
#define CL_NR (CL_NV * VL)   /* columns of a tile */
#define CL_LINE 16           /* floats of a cache line; a panel's row has two */
#define CL_AHEAD 8           /* k that operands are fetched ahead into L1 */
#define CL_RESIDENT 65536    /* floats of a result that is still in L2 when it is written again */

/* What a tile fetches into L2 for others: at every k the line at `at`, which then moves on by `step` bytes,
 * so there is nothing to be predicted wrongly. */
typedef struct {
  const char *at;
  int64_t step;
} Ahead;

/* x86 reaches five rows from one pointer and the strides ld and 3 ld.  A compiler that sees through the
 * pointers makes one of each row instead: more than there are registers, and a load more for each that
 * does not fit.  Other processors have the registers, and not these addresses. */
#if defined(__x86_64__)
#define CL_HIDE(x) __asm__("" : "+r"(x))
#else
#define CL_HIDE(x) (void)0
#endif

/* One tile.  MR, TA and BF16 are compile-time constants at every call. */
CL_INLINE void cl_tile(const int MR, const int TA, const int BF16, int64_t n, int64_t K, const float *a, int64_t lda,
                       const float *panel, float *c, int64_t ldc, const float *bias,
                       const float *residual, StoreMode store, Ahead ahead) {
  vf acc[CL_MR][CL_NV];
#define CL_EACH(...) \
  _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++) \
    _Pragma("GCC unroll 2") for (int v = 0; v < CL_NV; v++) { __VA_ARGS__; }
  CL_EACH(acc[i][v] = vzero())
  const char *rows[3] = {(const char *)a, (const char *)(TA ? a : a + 5 * lda),
                         (const char *)(TA ? a : a + 10 * lda)};
  int64_t ld = lda * (int64_t)sizeof(float), ld3 = 3 * ld;
  for (const float *const end = panel + K * CL_PANEL; panel < end; panel += CL_PANEL) {
    CL_HIDE(rows[0]);
    if (!TA && MR > 5) CL_HIDE(rows[1]);
    if (!TA && MR > 10) CL_HIDE(rows[2]);
    if (!TA && MR > 1) CL_HIDE(ld);
    if (!TA && MR > 3) CL_HIDE(ld3);
    vf b0 = vload(panel), b1 = vload(panel + VL);
    __builtin_prefetch(panel + CL_AHEAD * CL_PANEL);
    __builtin_prefetch(ahead.at, 0, 2);
    ahead.at += ahead.step;
    if (TA) { /* every k is another line, pages apart for all the hardware knows */
      const float *later = (const float *)rows[0] + CL_AHEAD * lda;
      __builtin_prefetch(later + MR - 1);
#if CL_MR >= 12 /* a row of the tile is often in two lines, and there are loads to spare */
      __builtin_prefetch(later);
      __builtin_prefetch(later + MR + CL_MR - 1, 0, 2); /* the next tile's, from beyond L2 */
#endif
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      const char *five = rows[i / 5];
      const char *row = i % 5 == 0   ? five
                        : i % 5 == 1 ? five + ld
                        : i % 5 == 2 ? five + 2 * ld
                        : i % 5 == 3 ? five + ld3
                                     : five + 4 * ld;
      vf x = vset1(TA ? ((const float *)rows[0])[i] : *(const float *)row);
      acc[i][0] = BF16 ? vdot2(x, b0, acc[i][0]) : vfma(x, b0, acc[i][0]);
      acc[i][1] = BF16 ? vdot2(x, b1, acc[i][1]) : vfma(x, b1, acc[i][1]);
    }
    for (int i = 0; i < 3; i++) rows[i] += TA ? ld : (int64_t)sizeof(float);
  }
  /* whole passes over the registers: a short product would feel four branches a vector */
  if (n >= CL_NR) {
    if (bias) {
      vf x[CL_NV] = {vload(bias), vload(bias + VL)};
      CL_EACH(acc[i][v] += x[v])
    }
    if (residual) CL_EACH(acc[i][v] += vload(residual + i * ldc + v * VL))
    if (store == CL_ADD) CL_EACH(acc[i][v] += vload(c + i * ldc + v * VL))
    if (store == CL_STREAM) /* whole aligned cache lines, not to be read soon */
      CL_EACH(vstream(c + i * ldc + v * VL, acc[i][v]))
    else
      CL_EACH(vstore(c + i * ldc + v * VL, acc[i][v]))
  } else {
    const int64_t m[CL_NV] = {n < VL ? n : VL, n < VL ? 0 : n - VL};
    if (bias) {
      vf x[CL_NV] = {vloadn(bias, m[0]), vloadn(bias + VL, m[1])};
      CL_EACH(acc[i][v] += x[v])
    }
    if (residual) CL_EACH(acc[i][v] += vloadn(residual + i * ldc + v * VL, m[v]))
    if (store == CL_ADD) CL_EACH(acc[i][v] += vloadn(c + i * ldc + v * VL, m[v]))
    CL_EACH(vstoren(c + i * ldc + v * VL, acc[i][v], m[v]))
  }
#undef CL_EACH
}

CL_INLINE void cl_tile_rows(const int TA, const int BF16, int64_t rows, int64_t n, int64_t K, const float *a,
                            int64_t lda, const float *panel, float *c, int64_t ldc,
                            const float *bias, const float *residual, StoreMode store,
                            Ahead ahead) {
  switch (rows) {
#define CL_CASE(m) \
  case m: \
    cl_tile(m, TA, BF16, n, K, a, lda, panel, c, ldc, bias, residual, store, ahead); \
    break;
    CL_CASE(1) CL_CASE(2) CL_CASE(3) CL_CASE(4) CL_CASE(5) CL_CASE(6)
#if CL_MR >= 12
    CL_CASE(7) CL_CASE(8) CL_CASE(9) CL_CASE(10) CL_CASE(11) CL_CASE(12)
#endif
#if CL_MR >= 14
    CL_CASE(13) CL_CASE(14)
#endif
#undef CL_CASE
  }
}

/* Fetch a tile's rows into L2: they lie apart, where the hardware does not see a pattern. */
CL_INLINE void cl_fetch_rows(const float *p, int64_t ld, int64_t rows) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < CL_NR; j += CL_LINE) __builtin_prefetch(p + i * ld + j, 0, 2);
}

/* What a product reads from memory arrives while the tiles before compute: of `a` read by rows and the
 * panel the hardware's own guesses are good, but a panel ends too soon for them, so every tile fetches
 * its share of the next one.  A processor can wait for a dozen lines or two at once, and a tile that asked
 * for a line at every k would wait with them; less than a line at every k means the same one again, which
 * costs nothing.  What the sums are added to, and where they go unless it stays in the cache anyway, is
 * fetched a tile ahead. */
CL_INLINE void cl_gemm_panel(const int TA, const int BF16, int64_t M, int64_t n, int64_t K, const float *a,
                             int64_t lda, const float *panel, int64_t next, float *c, int64_t ldc,
                             const float *bias, const float *residual, StoreMode store) {
  const int64_t line = CL_LINE * sizeof(float), width = CL_PANEL * sizeof(float);
  int64_t tiles = (M + CL_MR - 1) / CL_MR, least = M / tiles, taller = M % tiles;
  int64_t step = tiles < 2 ? line : (width + tiles - 1) / tiles;
  int fetch = residual || store == CL_ADD || (store == CL_STORE && M * ldc >= CL_RESIDENT);
  for (int64_t col = 0; col < n; col += CL_NR)
    for (int64_t t = 0, row = 0; t < tiles; t++) {
      int64_t rows = least + (t < taller), end = row + rows;
      int64_t from = t ? end : 0, to = t + 1 < tiles ? end + least + (t + 1 < taller) : M; /* at first, two */
      if (fetch) cl_fetch_rows(c + from * ldc + col, ldc, to - from);
      if (residual) cl_fetch_rows(residual + from * ldc + col, ldc, to - from);
      Ahead ahead = {(const char *)panel, 0};
      if (next && col == 0) ahead = (Ahead){(const char *)(panel + next) + t * K * step, step};
      cl_tile_rows(TA, BF16, rows, n - col, K, TA ? a + row : a + row * lda, lda, panel + col,
                   c + row * ldc + col, ldc, bias ? bias + col : 0,
                   residual ? residual + row * ldc + col : 0, store, ahead);
      row = end;
    }
  if (store == CL_STREAM) CL_STREAM_FENCE;
}

#define CL_GEMM(name, TA, BF16) \
  static void name(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda, \
                   const float *panel, int64_t next, float *c, int64_t ldc, const float *bias, \
                   const float *residual, StoreMode store) { \
    cl_gemm_panel(TA, BF16, M, n, K, a, lda, panel, next, c, ldc, bias, residual, store); \
  }
CL_GEMM(float32_product, 0, 0)
CL_GEMM(float32_product_ta, 1, 0)
CL_GEMM(bf16_product, 0, 1)
CL_GEMM(bf16_product_ta, 1, 1)
#undef CL_GEMM

#define CL_PANEL_VECTORS (CL_PANEL / VL)

/* The values of a panel's column. */
static void float32_take_column(int64_t K, const float *panel, int64_t column, float *out) {
  for (int64_t k = 0; k < K; k++) out[k] = panel[k * CL_PANEL + column];
}

/* Of bfloat16, two to a word; tiles have the same panels. */
static void bf16_take_column(int64_t K, const float *panel, int64_t column, float *out) {
  for (int64_t k = 0; k < K; k++) {
    uint32_t word;
    memcpy(&word, panel + k / 2 * CL_PANEL + column, sizeof word);
    word = k % 2 ? word & 0xffff0000u : word << 16;
    memcpy(out + k, &word, sizeof word);
  }
}

static void float32_pack_panel(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                       float *column_sums) {
  vf sums[CL_PANEL_VECTORS];
  for (int v = 0; v < CL_PANEL_VECTORS; v++) sums[v] = vzero();
  if (n == CL_PANEL) {
    for (int64_t k = 0; k < K; k++)
#pragma GCC unroll 8
      for (int v = 0; v < CL_PANEL_VECTORS; v++) {
        vf x = vload(b + k * ldb + v * VL);
        vstore(panel + k * CL_PANEL + v * VL, x);
        sums[v] += x;
      }
  } else {
    for (int64_t k = 0; k < K; k++)
      for (int v = 0; v < CL_PANEL_VECTORS; v++) {
        int64_t m = n - v * VL;
        m = m < 0 ? 0 : m > VL ? VL : m;
        vf x = vloadn(b + k * ldb + v * VL, m);
        vstore(panel + k * CL_PANEL + v * VL, x);
        sums[v] += x;
      }
  }
  if (column_sums)
    for (int v = 0; v < CL_PANEL_VECTORS; v++) {
      int64_t m = n - v * VL;
      m = m < 0 ? 0 : m > VL ? VL : m;
      vstoren(column_sums + v * VL, vloadn(column_sums + v * VL, m) + sums[v], m);
    }
}

static void float32_pack_panel_t(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel) {
  int64_t whole = n / VL * VL, k = 0;
  for (; k + VL <= K; k += VL)
    for (int64_t j = 0; j < whole; j += VL) {
      vf r[VL];
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++) r[i] = vload(b + (j + i) * ldb + k);
      vtranspose(r);
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++) vstore(panel + (k + i) * CL_PANEL + j, r[i]);
    }
  for (; k < K; k++)
    for (int64_t j = 0; j < whole; j++) panel[k * CL_PANEL + j] = b[j * ldb + k];
  for (int64_t j = whole; j < CL_PANEL; j++)
    for (k = 0; k < K; k++) panel[k * CL_PANEL + j] = j < n ? b[j * ldb + k] : 0.0f;
}

/* One vector of pairs: bf16(low) in the low halves, bf16(high) in the high ones. */
CL_INLINE vf vpair(vf low, vf high) {
  return (vf)(vbf16(low) | (vbf16(high) << 16));
}

static void bf16_pack_panel(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                            float *column_sums) {
  for (int64_t j = 0; j < CL_PANEL; j += VL) {
    int64_t m = n - j < 0 ? 0 : n - j > VL ? VL : n - j;
    const float *p = b + j;
    vf sum = vzero();
    int64_t k = 0;
    for (; k + 2 <= K; k += 2) {
      vf x = m == VL ? vload(p + k * ldb) : vloadn(p + k * ldb, m);
      vf y = m == VL ? vload(p + (k + 1) * ldb) : vloadn(p + (k + 1) * ldb, m);
      vstore(panel + k / 2 * CL_PANEL + j, vpair(x, y));
      sum += x;
      sum += y;
    }
    if (k < K) {
      vf x = vloadn(p + k * ldb, m);
      vstore(panel + k / 2 * CL_PANEL + j, vpair(x, vzero()));
      sum += x;
    }
    if (column_sums) vstoren(column_sums + j, vloadn(column_sums + j, m) + sum, m);
  }
}

/* VL pairs of neighbors out of 2 VL floats (n of them, the rest counting as 0) */
CL_INLINE vf vneighbors(const float *x, int64_t n) {
  vf a = n >= VL ? vload(x) : vloadn(x, n < 0 ? 0 : n);
  vf b = n >= 2 * VL ? vload(x + VL) : vloadn(x + VL, n < VL ? 0 : n - VL);
  return (vf)vbf16x2(a, b);
}

static void bf16_pack_panel_t(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel) {
  int64_t pairs = (K + 1) / 2;
  for (int64_t k = 0; k < pairs; k += VL)
    for (int64_t j = 0; j < CL_PANEL; j += VL) {
      vf r[VL];
#pragma GCC unroll 16
      for (int i = 0; i < VL; i++)
        r[i] = j + i < n ? vneighbors(b + (j + i) * ldb + 2 * k, K - 2 * k) : vzero();
      vtranspose(r);
      int64_t rows = pairs - k < VL ? pairs - k : VL;
      if (rows == VL) {
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) vstore(panel + (k + i) * CL_PANEL + j, r[i]);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++)
          if (i < rows) vstore(panel + (k + i) * CL_PANEL + j, r[i]);
      }
    }
}

static void bf16_to_operand(int64_t rows, int64_t K, const float *x, int64_t ldx, float *out) {
  int64_t pairs = (K + 1) / 2;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < pairs; k += VL) {
      vf y = vneighbors(x + i * ldx + 2 * k, K - 2 * k);
      float *p = out + i * pairs + k;
      if (pairs - k >= VL)
        vstore(p, y);
      else
        vstoren(p, y, pairs - k);
    }
}

static void bf16_turn_operand(int64_t rows, int64_t K, const float *x, float *out) {
  int64_t pairs = (K + 1) / 2;
  for (int64_t i = 0; i < rows; i += 2) {
    const float *a = x + i * pairs;
    float *o = out + i / 2 * K;
    for (int64_t k = 0; k < pairs; k += VL) {
      int64_t m = pairs - k < VL ? pairs - k : VL, n = K - 2 * k;
      vu p = (vu)vloadn(a + k, m), q = i + 1 < rows ? (vu)vloadn(a + pairs + k, m) : (vu)vzero();
      /* element 2 k of both rows, then element 2 k + 1, in turn */
      vf even = (vf)((p & 0xffff) | (q << 16)), odd = (vf)((p >> 16) | (q & 0xffff0000u));
      vf low, high;
      vinterleave(even, odd, &low, &high);
      if (n >= 2 * VL) {
        vstore(o + 2 * k, low);
        vstore(o + 2 * k + VL, high);
      } else {
        vstoren(o + 2 * k, low, n < VL ? n : VL);
        vstoren(o + 2 * k + VL, high, n < VL ? 0 : n - VL);
      }
    }
  }
}

CL_INLINE int64_t cl_peak(const int BF16, int64_t rounds, float *sink) {
  enum { CHAINS = CL_MR >= 12 ? 24 : 12, UNROLL = 16 };
  vf acc[CHAINS];
  for (int i = 0; i < CHAINS; i++) acc[i] = vset1((float)i);
  vf x = vset1(0.999f), y = vset1(sink[0]);
  for (int64_t r = 0; r < rounds; r++) {
    for (int u = 0; u < UNROLL; u++) {
#pragma GCC unroll 24
      for (int i = 0; i < CHAINS; i++)
        acc[i] = BF16 ? vdot2(x, y, acc[i]) : vfma(acc[i], x, y);
    }
  }
  vf total = vzero();
  for (int i = 0; i < CHAINS; i++) total += acc[i];
  sink[0] = vsum(total);
  return rounds * UNROLL * CHAINS * VL * (BF16 ? 4 : 2);
}

static int64_t float32_peak(int64_t rounds, float *sink) { return cl_peak(0, rounds, sink); }
static int64_t bf16_peak(int64_t rounds, float *sink) { return cl_peak(1, rounds, sink); }

#endif
