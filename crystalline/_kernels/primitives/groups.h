/* Products of weights in groups, for inference: 32 elements along K of a column share a scale.
 *
 *   int4     four bits an element: what llama.cpp calls Q4_0
 *   int8g32  eight bits: what it calls Q8_0
 *
 * Weights, in float32 unless said otherwise, with `largest` the element of a group whose magnitude is
 * the largest, the first of several:
 *
 *   int4     d = largest / -8, q = x (1 / d) + 8.5 cut to an integer, 15 at most; the value is (q - 8) d
 *   int8g32  d = |largest| / 127, q = x (1 / d), rounded to nearest, ties away from zero; it is q d
 *
 * d is kept as a float16.  The sum of x (1 / d) + 8.5 is rounded once, as by a multiply-add.  A
 * group whose d is 0 as a float16 has zeros only.  Values that are of this form already, with a float16
 * d and, in int4, a -8 in the group (8, if d is negative), stay as they are: a file's weights
 * survive.  The left-hand side becomes bytes in groups of 32, too, each with a float32 scale by the
 * steps of int8.h.  A scale for each group costs one multiplication in 32, and an element that is much
 * larger than the others of its row spoils 31 of them instead of all.
 *
 *   result = sum over groups, in order, of float32(sum of integer products) * row's d * column's d,
 *            multiplied in this order; then + bias, + residual, + what c holds
 *
 * Sums of a group are exact and every other step is one rounded float32 operation, no multiply-add,
 * so that all levels give the same bits, whatever the number of rows.  A group that holds an infinity
 * or a NaN, or whose d is beyond float16's largest, 65504, has the scale NaN.
 *
 * Layout, for every two groups of K, the second filled with zeros where there is none.  An operand's row: the bytes
 * of all groups in order of K, eight words a group; then a scale a group; then a word a group, the sum of
 * its bytes times -8 (int4) or -128 (int8g32): what is to be added where weights are multiplied as
 * unsigned numbers, 8 or 128 too large.  A panel is one stretch of memory, group by group: in int4
 * four rows of PANEL words, the byte i of word [w][j] holding element 4 w + i of column j in its low half
 * and 16 + 4 w + i in its high half; in int8g32 eight rows, [w][j] the bytes 4 w to 4 w + 3 of column j;
 * then PANEL scales.
 */
#ifndef CL_GROUPS_H
#define CL_GROUPS_H

#include <math.h>

#include "few.h"
#include "int8.h"

enum {
  GROUP = 32,
  GROUP_BYTES_WORDS = GROUP / 4, /* words of a group's bytes */
  GROUP_ROW_WORDS = GROUP_BYTES_WORDS + 2,
  GROUP_SCALES_WORDS = CL_PANEL / 2, /* words of a panel's scales */
  GROUPS_UNIT = 2 * GROUP,
  GROUPS_LONGEST = 1 << 30,
};
#define GROUPS_BIAS(BITS) (1 << ((BITS) - 1))
/* words of a group of a panel, scales included */
#define GROUP_PANEL_WORDS(BITS) ((BITS) * CL_PANEL + GROUP_SCALES_WORDS)

CL_INLINE int64_t groups_of(int64_t K) { return (K + GROUPS_UNIT - 1) / GROUPS_UNIT * 2; }

/* ---- weights ---- */

/* x as a float16, rounded to nearest, ties to even; what is not finite or too large: NaN */
CL_INLINE uint16_t groups_half(float x) {
  uint32_t bits, magnitude;
  memcpy(&bits, &x, sizeof bits);
  magnitude = bits & 0x7fffffffu;
  const uint32_t sign = bits >> 16 & 0x8000u;
  if (magnitude >= 0x477ff000u) return 0x7e00u; /* 65520 and more would be rounded to infinity */
  if (magnitude < 0x38800000u) /* below 2^-14: a multiple of 2^-24 */
    return (uint16_t)(sign | (uint32_t)lrintf(fabsf(x) * 0x1p24f));
  return (uint16_t)(sign | (magnitude + 0xfffu + (magnitude >> 13 & 1) - (112u << 23)) >> 13);
}

/* A column's group, x[k * stride] for k < n and zeros to GROUP: its integers, int4's without their 8
 * taken off, and its scale. */
CL_INLINE uint16_t groups_quantize(const int BITS, int64_t n, const float *x, int64_t stride,
                                   uint8_t *q) {
  float v[GROUP] = {0}, largest = 0.0f, magnitude = 0.0f;
  int is_finite = 1;
  for (int64_t k = 0; k < n; k++) {
    v[k] = x[k * stride];
    is_finite &= fabsf(v[k]) <= 3.402823466e38f;
    if (fabsf(v[k]) > magnitude) magnitude = fabsf(v[k]), largest = v[k];
  }
  const float d = BITS == 4 ? largest / -8.0f : magnitude / 127.0f;
  const uint16_t half = is_finite ? groups_half(d) : 0x7e00u;
  if ((half & 0x7fffu) == 0 || half == 0x7e00u) {
    memset(q, BITS == 4 ? 8 : 0, GROUP);
    return half;
  }
  const float inverse = 1.0f / d;
  if (BITS == 4) {
    for (int k = 0; k < GROUP; k++) {
      const float y = (float)((double)v[k] * (double)inverse + 8.5);
      q[k] = (uint8_t)(y < 15.0f ? (int32_t)y : 15);
    }
  } else {
    for (int k = 0; k < GROUP; k++) {
      const float y = v[k] * inverse, cut = (float)(int32_t)y;
      const float away = fabsf(y - cut) >= 0.5f ? (y < 0.0f ? -1.0f : 1.0f) : 0.0f;
      q[k] = (uint8_t)(int8_t)(int32_t)(cut + away);
    }
  }
  return half;
}

/* Column j of a group of a panel. */
CL_INLINE void groups_put(const int BITS, const uint8_t *q, uint16_t scale, float *group, int64_t j) {
  uint8_t *bytes = (uint8_t *)(group + j);
  if (BITS == 4) {
    for (int w = 0; w < 4; w++)
      for (int i = 0; i < 4; i++)
        bytes[4 * w * CL_PANEL + i] = (uint8_t)(q[4 * w + i] | q[16 + 4 * w + i] << 4);
  } else {
    for (int w = 0; w < GROUP_BYTES_WORDS; w++) memcpy(bytes + 4 * w * CL_PANEL, q + 4 * w, 4);
  }
  ((uint16_t *)(group + BITS * CL_PANEL))[j] = scale;
}

/* Element k of column j at b + k * down + j * across. */
CL_INLINE void groups_pack(const int BITS, int64_t K, int64_t n, const float *b, int64_t down,
                           int64_t across, float *panel) {
  const int64_t groups = groups_of(K);
  for (int64_t g = 0; g < groups; g++, panel += GROUP_PANEL_WORDS(BITS)) {
    const int64_t left = K - g * GROUP, rows = left < 0 ? 0 : left > GROUP ? GROUP : left;
    uint8_t q[GROUP];
    if (n < CL_PANEL) memset(panel, 0, GROUP_PANEL_WORDS(BITS) * sizeof(float));
    for (int64_t j = 0; j < n; j++) {
      const uint16_t scale = groups_quantize(BITS, rows, b + g * GROUP * down + j * across, down, q);
      groups_put(BITS, q, scale, panel, j);
    }
  }
}

/* The value of a float16. */
CL_INLINE float groups_single(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7fffu;
  if (rest < 0x400u) return (sign ? -1.0f : 1.0f) * (float)rest * 0x1p-24f;
  const uint32_t bits = sign | (rest >= 0x7c00u ? 0x7f800000u | (rest & 0x3ffu) << 13
                                                : (rest << 13) + (112u << 23));
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

CL_INLINE void groups_take(const int BITS, int64_t K, const float *panel, int64_t column,
                           float *out) {
  for (int64_t k = 0; k < K; k++) {
    const float *group = panel + k / GROUP * GROUP_PANEL_WORDS(BITS);
    const uint8_t *bytes = (const uint8_t *)(group + column);
    const float d = groups_single(((const uint16_t *)(group + BITS * CL_PANEL))[column]);
    const int64_t i = k % GROUP, at = BITS == 4 ? i % 16 : i;
    const uint8_t q = bytes[at / 4 * 4 * CL_PANEL + at % 4];
    const int value = BITS == 4 ? (i < 16 ? q & 15 : q >> 4) - 8 : (int8_t)q;
    out[k] = (float)value * d;
  }
}

CL_INLINE void groups_column_sums(int64_t K, int64_t n, const float *b, int64_t ldb, float *sums) {
  for (int64_t j = 0; j < n; j++) {
    float sum = 0.0f;
    for (int64_t k = 0; k < K; k++) sum += b[k * ldb + j];
    sums[j] += sum;
  }
}

/* ---- the left-hand side ---- */

CL_INLINE void groups_operand(const int BITS, int64_t rows, int64_t K, const float *x, int64_t ldx,
                              float *out) {
  const int64_t groups = groups_of(K);
  for (int64_t i = 0; i < rows; i++, x += ldx, out += groups * GROUP_ROW_WORDS) {
    float *scales = out + groups * GROUP_BYTES_WORDS, *corrections = scales + groups;
    for (int64_t g = 0; g < groups; g++) {
      const int64_t left = K - g * GROUP, n = left < 0 ? 0 : left > GROUP ? GROUP : left;
      int8_t q[4 * VL > GROUP ? 4 * VL : GROUP];
      vf inverse, scale = int8_scales(viset1(int8_largest(n, x + g * GROUP)), &inverse);
      int8_row(n, x + g * GROUP, inverse[0], 4 * VL > GROUP ? 4 * VL : GROUP, q);
      int32_t sum = 0;
      for (int k = 0; k < GROUP; k++) sum += q[k];
      memcpy(out + g * GROUP_BYTES_WORDS, q, GROUP);
      scales[g] = scale[0];
      sum *= -GROUPS_BIAS(BITS);
      memcpy(corrections + g, &sum, sizeof sum);
    }
  }
}

/* ---- products in vectors ---- */

enum { GROUPS_MR = 4 }; /* rows of a register tile */
#if defined(CL_AVX512)
enum { GROUPS_NV = 2 }; /* vectors of columns whose sums are in registers at a time */
#else
enum { GROUPS_NV = 1 };
#endif

/* Whether weights are multiplied as unsigned numbers, and the sums corrected. */
#if defined(CL_VNNI)
#define GROUPS_UNSIGNED(BITS) 1
#else
#define GROUPS_UNSIGNED(BITS) ((BITS) == 4)
#endif
/* Without byte products that sum to 32 bits, pairs of products of four bits by eight sum to 16: 32 of
 * a group are at most 8 * 2 * 15 * 127 = 30480 in each. */
#if (defined(CL_AVX512) && !defined(CL_VNNI)) || defined(CL_AVX2)
#define GROUPS_IN_PAIRS(BITS) ((BITS) == 4)
#else
#define GROUPS_IN_PAIRS(BITS) 0
#endif
CL_INLINE vi groups_dot(const int PAIRS, vi u, vi s, vi c) {
#if defined(CL_AVX512)
  if (PAIRS)
    return (vi)_mm512_add_epi16((__m512i)c, _mm512_maddubs_epi16((__m512i)u, (__m512i)s));
#elif defined(CL_AVX2)
  if (PAIRS)
    return (vi)_mm256_add_epi16((__m256i)c, _mm256_maddubs_epi16((__m256i)u, (__m256i)s));
#endif
  return vdot4u(u, s, c);
}
CL_INLINE vi groups_total(vi c) {
#if defined(__x86_64__)
  return (vi)vmadd16((vs)c, (vs)viset1(0x00010001));
#else
  return c; /* there are no pairs */
#endif
}

/* sums[MR][NV] of one group: `a` its bytes of the first row, `correction` what is to be added to that
 * row's, `weights` a panel's from a column on. */
CL_INLINE void groups_sums(const int BITS, const int MR, const float *a, const float *correction,
                           int64_t lda, const float *weights, vi sums[GROUPS_MR][GROUPS_NV]) {
  const int PAIRS = GROUPS_IN_PAIRS(BITS), CORRECTED = GROUPS_UNSIGNED(BITS) && !PAIRS;
  const vi low = viset1(0x0f0f0f0f), high = viset1((int32_t)0x80808080u);
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int v = 0; v < GROUPS_NV; v++)
      sums[i][v] = CORRECTED ? (vi)vset1(correction[i * lda]) : viset1(0);
#pragma GCC unroll 8
  for (int w = 0; w < BITS; w++) {
#pragma GCC unroll 2
    for (int v = 0; v < GROUPS_NV; v++) {
      vi x = (vi)vload(weights + w * CL_PANEL + v * VL), y;
      if (BITS == 4) {
        y = (vi)((vu)x >> 4) & low;
        x &= low;
      } else if (GROUPS_UNSIGNED(BITS)) {
        x ^= high;
      }
#pragma GCC unroll 8
      for (int i = 0; i < MR; i++) {
        sums[i][v] = groups_dot(PAIRS, x, (vi)vset1(a[i * lda + w]), sums[i][v]);
        if (BITS == 4)
          sums[i][v] = groups_dot(PAIRS, y, (vi)vset1(a[i * lda + 4 + w]), sums[i][v]);
      }
    }
  }
  if (!PAIRS) return;
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 2
    for (int v = 0; v < GROUPS_NV; v++)
      sums[i][v] = groups_total(sums[i][v]) + (vi)vset1(correction[i * lda]);
}

CL_INLINE void groups_tile(const int BITS, const int MR, int64_t groups, const float *a, int64_t lda,
                           const float *panel, vf acc[GROUPS_MR][CL_ACROSS]) {
  const float *scales = a + groups * GROUP_BYTES_WORDS, *corrections = scales + groups;
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int v = 0; v < CL_ACROSS; v++) acc[i][v] = vzero();
  for (int64_t g = 0; g < groups; g++, panel += GROUP_PANEL_WORDS(BITS)) {
    const float *bytes = a + g * GROUP_BYTES_WORDS;
    const uint16_t *halves = (const uint16_t *)(panel + BITS * CL_PANEL);
    cl_fetch_ahead(panel, GROUP_PANEL_WORDS(BITS) * sizeof(float));
#pragma GCC unroll 8
    for (int v = 0; v < CL_ACROSS; v += GROUPS_NV) {
      vi sums[GROUPS_MR][GROUPS_NV];
      groups_sums(BITS, MR, bytes, corrections + g, lda, panel + v * VL, sums);
#pragma GCC unroll 2
      for (int u = 0; u < GROUPS_NV; u++) {
        const vf d = vhalf(halves + (v + u) * VL);
#pragma GCC unroll 8
        for (int i = 0; i < MR; i++) {
          acc[i][v + u] += vfloat(sums[i][u]) * vset1(scales[i * lda + g]) * d;
        }
      }
    }
  }
}

CL_INLINE void groups_panel(const int BITS, int64_t M, int64_t n, int64_t K, const float *a,
                            int64_t lda, const float *panel, float *c, int64_t ldc,
                            const float *bias, const float *residual, StoreMode store) {
  const int64_t groups = K / GROUP_ROW_WORDS, tiles = (M + GROUPS_MR - 1) / GROUPS_MR;
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t row = M * t / tiles, rows = M * (t + 1) / tiles - row;
    vf acc[GROUPS_MR][CL_ACROSS];
    switch (rows) {
#define CL_CASE(m) \
  case m: groups_tile(BITS, m, groups, a + row * lda, lda, panel, acc); break;
      CL_CASE(1) CL_CASE(2) CL_CASE(3) CL_CASE(4)
#undef CL_CASE
    }
    for (int64_t i = 0; i < rows; i++) {
      const int64_t at = (row + i) * ldc;
      cl_finish_row(n, acc[i], c + at, bias, residual ? residual + at : 0, store);
    }
  }
}

CL_INLINE int64_t groups_vector_peak(const int BITS, int64_t rounds, float *sink) {
  enum { GROUPS = 2 };
  float a[GROUPS_MR * GROUPS * GROUP_ROW_WORDS];
  float panel[GROUPS * GROUP_PANEL_WORDS(8)] __attribute__((aligned(64)));
  vf acc[GROUPS_MR][CL_ACROSS];
  for (int i = 0; i < GROUPS_MR * GROUPS * GROUP_ROW_WORDS; i++) a[i] = sink[0];
  for (int i = 0; i < GROUPS * GROUP_PANEL_WORDS(8); i++) panel[i] = sink[0];
  for (int64_t r = 0; r < rounds; r++) {
    groups_tile(BITS, GROUPS_MR, GROUPS, a, GROUPS * GROUP_ROW_WORDS, panel, acc);
    __asm__ volatile("" ::"r"(a), "r"(panel), "r"(acc) : "memory");
  }
  sink[0] += acc[0][0][0];
  return rounds * GROUPS_MR * CL_PANEL * GROUPS * GROUP * 2;
}

#if defined(CL_TILES)
#include "groups_tiles.h"
#define GROUPS_PRODUCT groups_tiles_panel
#define GROUPS_PEAK groups_tiles_peak
#define GROUPS_BLOCK_ROWS TILE_BLOCK
#define GROUPS_IS_NATIVE INT8_IS_NATIVE
#else
#define GROUPS_PRODUCT groups_panel
#define GROUPS_PEAK groups_vector_peak
#define GROUPS_BLOCK_ROWS (4 * GROUPS_MR)
#define GROUPS_IS_NATIVE INT8_IS_NATIVE
#endif

/* ---- the two rows ---- */

#define CL_GROUPS(FORMAT, BITS)                                                                    \
  static void FORMAT##_pack_panel(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel, \
                                float *column_sums) {                                            \
    groups_pack(BITS, K, n, b, ldb, 1, panel);                                                   \
    if (column_sums) groups_column_sums(K, n, b, ldb, column_sums);                              \
  }                                                                                              \
  static void FORMAT##_pack_panel_t(int64_t K, int64_t n, const float *b, int64_t ldb,             \
                                  float *panel) {                                                \
    groups_pack(BITS, K, n, b, 1, ldb, panel);                                                   \
  }                                                                                              \
  static void FORMAT##_to_operand(int64_t rows, int64_t K, const float *x, int64_t ldx,            \
                                float *out) {                                                    \
    groups_operand(BITS, rows, K, x, ldx, out);                                                  \
  }                                                                                              \
  static void FORMAT##_product(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,       \
                             const float *panel, int64_t next, float *c, int64_t ldc,            \
                             const float *bias, const float *residual, StoreMode store) {        \
    (void)next;                                                                                  \
    GROUPS_PRODUCT(BITS, M, n, K, a, lda, panel, c, ldc, bias, residual, store);                 \
  }                                                                                              \
  static void FORMAT##_product_few(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,   \
                                 const float *panel, int64_t next, float *c, int64_t ldc,        \
                                 const float *bias, const float *residual, StoreMode store) {    \
    (void)next;                                                                                  \
    groups_panel(BITS, M, n, K, a, lda, panel, c, ldc, bias, residual, store);                   \
  }                                                                                              \
  static void FORMAT##_take_column(int64_t K, const float *panel, int64_t column, float *out) {      \
    groups_take(BITS, K, panel, column, out);                                                      \
  }                                                                                              \
  static int64_t FORMAT##_peak(int64_t rounds, float *sink) {                                      \
    return GROUPS_PEAK(BITS, rounds, sink);                                                      \
  }                                                                                              \
  static const NumberFormat format_##FORMAT = {                                                    \
      .name = #FORMAT,                                                                             \
      .native = GROUPS_IS_NATIVE,                                                                \
      .elements = 4,                                                                             \
      .step = 2 * GROUP_ROW_WORDS,                                                               \
      .unit = GROUPS_UNIT,                                                                       \
      .panel_step = 2 * GROUP_PANEL_WORDS(BITS) / CL_PANEL,                                      \
      .longest = GROUPS_LONGEST,                                                                 \
      .row_group = 1,                                                                            \
      .stride = 1,                                                                               \
      .block_rows = GROUPS_BLOCK_ROWS,                                                           \
      .query_rows = GROUPS_BLOCK_ROWS,                                                           \
      .pass_rows = CL_PASS_ROWS,                                                                 \
      .pass_words = GROUPS_LONGEST, /* always one: a row's scales follow all of its bytes */     \
      .left_words = CL_LEFT_WORDS,                                                               \
      .few_rows = CL_FEW_ROWS_OF(FORMAT),                                                          \
      .pack_panel = FORMAT##_pack_panel,                                                           \
      .pack_panel_t = FORMAT##_pack_panel_t,                                                       \
      .to_operand = FORMAT##_to_operand,                                                           \
      .product = FORMAT##_product,                                                                 \
      .product_few = FORMAT##_product_few,                                                         \
      .peak = FORMAT##_peak,                                                                       \
      .take_column = FORMAT##_take_column,                                                         \
  };
CL_GROUPS(int4, 4)
CL_GROUPS(int8g32, 8)
#undef CL_GROUPS

#endif
