/* The layout of operands for matrix tiles, and the ways into it, out of it and across it.
 *
 * A row of K elements takes `ld` words, ld a whole number of tiles' rows, and holds pairs of
 * neighbors.  Sixteen rows lie together, tile by tile: the words of row r in the k-th tile across are
 *
 *     base + (r - r % 16) ld + 256 k + 16 (r % 16),  16 of them
 *
 * so that a tile is one stretch of 1 KB: rows apart would share sets of the cache and pages of
 * memory.  Words beyond K are zero; rows beyond the last, up to sixteen, are never read.
 *
 * Elements of a rectangle need not begin at a tile or a pair: what does is moved by vectors, the rest
 * one by one.
 */
#ifndef CL_TILE_OPERANDS_H
#define CL_TILE_OPERANDS_H

#include "gemm.h"
#include "tiles.h"

enum { TILE_FLOATS = TILE_ROWS * TILE_WORDS, TILE_ELEMENTS = 2 * TILE_WORDS };

CL_INLINE int64_t tiles_words(int64_t K) {
  return (K + TILE_ELEMENTS - 1) / TILE_ELEMENTS * TILE_WORDS;
}
/* The words of a row in the first tile across; those in the k-th are TILE_FLOATS k further. */
CL_INLINE float *tile_row(float *base, int64_t ld, int64_t row) {
  return base + row / TILE_ROWS * TILE_ROWS * ld + row % TILE_ROWS * TILE_WORDS;
}
CL_INLINE float *tile_row_of(const Kept *x, int64_t row) {
  return tile_row(x->words, x->ld, x->row + row);
}

/* One element of a row, as bits. */
CL_INLINE uint16_t *tile_element(float *row, int64_t column) {
  return (uint16_t *)(row + column / TILE_ELEMENTS * TILE_FLOATS) + column % TILE_ELEMENTS;
}
CL_INLINE uint16_t tile_bits(const Kept *x, int64_t row, int64_t column) {
  return *tile_element(tile_row_of(x, row), x->column + column);
}
CL_INLINE uint16_t bf16_bits(float x) { return (uint16_t)(vbf16(vset1(x))[0] & 0xffff); }
CL_INLINE float bf16_float(uint16_t bits) { return vbits(viset1((int32_t)bits << 16))[0]; }

/* Elements 2 w and 2 w + 1 of the words of a row, in order: 2 VL floats. */
CL_INLINE void vwords(const float *p, vf *first, vf *second) {
  vu x = (vu)vload(p);
  vinterleave((vf)(x << 16), (vf)(x & 0xffff0000u), first, second);
}

/* Store n <= 32 floats, first and second, in a row of `out` from an element on.  What lies beside them
 * is not touched, but for the zeros after a row's last element. */
CL_INLINE void tile_put(const Kept *out, int64_t row, int64_t column, int64_t n, vf first,
                        vf second) {
  float *p = tile_row_of(out, row);
  column += out->column;
  int ends = column + n == out->columns;
  if (column % TILE_ELEMENTS == 0 && (n == TILE_ELEMENTS || ends)) {
    first = n < VL ? vkeepn(first, n) : first;
    second = n < TILE_ELEMENTS ? vkeepn(second, n < VL ? 0 : n - VL) : second;
    vstore(p + column / TILE_ELEMENTS * TILE_FLOATS, (vf)vbf16x2(first, second));
    return;
  }
  float x[TILE_ELEMENTS];
  vstore(x, first);
  vstore(x + VL, second);
  for (int64_t j = 0; j < n; j++) *tile_element(p, column + j) = bf16_bits(x[j]);
  for (int64_t j = column + n; ends && j % TILE_ELEMENTS; j++) *tile_element(p, j) = 0;
}

static void tiles_to_operand(int64_t rows, int64_t K, const float *x, int64_t ldx, float *out) {
  int64_t ld = tiles_words(K);
  for (int64_t i = 0; i < rows; i++) {
    float *o = tile_row(out, ld, i);
    for (int64_t k = 0; k < K; k += TILE_ELEMENTS, o += TILE_FLOATS)
      vstore(o, vneighbors(x + i * ldx + k, K - k));
  }
}

/* ---- between a kept matrix and floats ---- */

static void tiles_keep(int64_t rows, int64_t n, const float *x, int64_t ldx, const Kept *out) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < n; j += TILE_ELEMENTS) {
      int64_t m = n - j < TILE_ELEMENTS ? n - j : TILE_ELEMENTS, m0 = m < VL ? m : VL;
      const float *p = x + i * ldx + j;
      vf first = m0 == VL ? vload(p) : vloadn(p, m0);
      vf second = m == TILE_ELEMENTS ? vload(p + VL) : vloadn(p + VL, m - m0);
      tile_put(out, i, j, m, first, second);
    }
}
static void tiles_expand(int64_t rows, int64_t n, const Kept *x, float *out, int64_t ldo) {
  for (int64_t i = 0; i < rows; i++) {
    int64_t j = 0;
    if (x->column % TILE_ELEMENTS == 0)
      for (; j + TILE_ELEMENTS <= n; j += TILE_ELEMENTS) {
        vf first, second;
        vwords(tile_row_of(x, i) + (x->column + j) / TILE_ELEMENTS * TILE_FLOATS, &first, &second);
        vstore(out + i * ldo + j, first);
        vstore(out + i * ldo + j + VL, second);
      }
    for (; j < n; j++) out[i * ldo + j] = bf16_float(tile_bits(x, i, j));
  }
}

/* out = the operand of a rectangle of a kept matrix */
static void tiles_take_operand(int64_t rows, int64_t K, const Kept *x, float *out) {
  int64_t ld = tiles_words(K), whole = K / TILE_ELEMENTS * TILE_ELEMENTS;
  for (int64_t i = 0; i < rows; i++) {
    float *o = tile_row(out, ld, i);
    int64_t k = 0;
    if (x->column % TILE_ELEMENTS == 0) {
      const float *p = tile_row_of(x, i) + x->column / TILE_ELEMENTS * TILE_FLOATS;
      for (; k < whole; k += TILE_ELEMENTS, p += TILE_FLOATS)
        vstore(o + k / TILE_ELEMENTS * TILE_FLOATS, vload(p));
    }
    for (; k < K; k += TILE_ELEMENTS) {
      uint16_t bits[TILE_ELEMENTS] = {0};
      for (int64_t j = 0; j < TILE_ELEMENTS && k + j < K; j++) bits[j] = tile_bits(x, i, k + j);
      memcpy(o + k / TILE_ELEMENTS * TILE_FLOATS, bits, sizeof bits);
    }
  }
}

/* ---- panels ---- */

/* Zeros from a panel's last row of pairs to a whole tile. */
CL_INLINE void tiles_fill(int64_t K, float *panel) {
  int64_t pairs = (K + 1) / 2, whole = tiles_words(K);
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

/* panel = x[K, n], a rectangle of a kept matrix; as pack_panel otherwise */
static void tiles_pack_kept(int64_t K, int64_t n, const Kept *x, float *panel, float *column_sums) {
  tiles_fill(K, panel);
  if (n < CL_PANEL || x->column % TILE_ELEMENTS) {
    float rows[2][CL_PANEL], sums[CL_PANEL] = {0};
    for (int64_t k = 0; k < K; k += 2) {
      memset(rows, 0, sizeof rows);
      for (int64_t j = 0; j < n; j++) {
        rows[0][j] = bf16_float(tile_bits(x, k, j));
        sums[j] += rows[0][j];
        if (k + 1 == K) continue;
        rows[1][j] = bf16_float(tile_bits(x, k + 1, j));
        sums[j] += rows[1][j];
      }
      for (int64_t j = 0; j < CL_PANEL; j += VL)
        vstore(panel + k / 2 * CL_PANEL + j, vpair(vload(rows[0] + j), vload(rows[1] + j)));
    }
    for (int64_t j = 0; column_sums && j < n; j++) column_sums[j] += sums[j];
    return;
  }
  const vi high = viset1((int32_t)0xffff0000);
  const int64_t across = x->column / TILE_ELEMENTS * TILE_FLOATS;
  vf even = vzero(), odd = vzero();
  for (int64_t k = 0; k < K; k += 2) {
    vi p = (vi)vload(tile_row_of(x, k) + across), q = (vi)vzero();
    if (k + 1 < K) q = (vi)vload(tile_row_of(x, k + 1) + across);
    vf first, second, p0 = (vf)(p << 16), p1 = (vf)(p & high), q0 = (vf)(q << 16), q1 = (vf)(q & high);
    vinterleave((vf)((vu)p0 >> 16 | (vu)q0), (vf)((vu)p1 >> 16 | (vu)q1), &first, &second);
    vstore(panel + k / 2 * CL_PANEL, first);
    vstore(panel + k / 2 * CL_PANEL + VL, second);
    even += p0;
    even += q0;
    odd += p1;
    odd += q1;
  }
  if (column_sums) {
    vf first, second;
    vinterleave(even, odd, &first, &second);
    vstore(column_sums, vload(column_sums) + first);
    vstore(column_sums + VL, vload(column_sums + VL) + second);
  }
}
/* panel = x[n, K]^T */
static void tiles_pack_kept_t(int64_t K, int64_t n, const Kept *x, float *panel) {
  const int aligned = x->column % TILE_ELEMENTS == 0;
  for (int64_t k = 0; k < K; k += TILE_ELEMENTS)
    for (int64_t j = 0; j < CL_PANEL; j += TILE_WORDS) {
      vf r[TILE_WORDS];
#pragma GCC unroll 16
      for (int i = 0; i < TILE_WORDS; i++) {
        if (j + i >= n) {
          r[i] = vzero();
        } else if (aligned && k + TILE_ELEMENTS <= K) {
          r[i] = vload(tile_row_of(x, j + i) + (x->column + k) / TILE_ELEMENTS * TILE_FLOATS);
        } else {
          uint16_t bits[TILE_ELEMENTS] = {0};
          for (int64_t e = 0; e < TILE_ELEMENTS && k + e < K; e++)
            bits[e] = tile_bits(x, j + i, k + e);
          r[i] = vload((const float *)bits);
        }
      }
      vtranspose(r);
#pragma GCC unroll 16
      for (int i = 0; i < TILE_WORDS; i++) vstore(panel + (k / 2 + i) * CL_PANEL + j, r[i]);
    }
}

/* Pairs along K become pairs along the rows: the operand of x^T [K, rows] out of that of x.  Squares
 * of 32 by 32 elements: two rows give sixteen words of even and sixteen of odd columns, which are
 * turned like floats. */
static void tiles_turn_operand(int64_t rows, int64_t K, const float *operand, float *out) {
  int64_t ld = tiles_words(K), ldo = tiles_words(rows);
  for (int64_t m = 0; m < rows; m += TILE_ELEMENTS)
    for (int64_t k = 0; k < K; k += TILE_ELEMENTS) {
      vf even[TILE_WORDS], odd[TILE_WORDS];
      const float *p = operand + m * ld + k / TILE_ELEMENTS * TILE_FLOATS;
      float *o = out + k * ldo + m / TILE_ELEMENTS * TILE_FLOATS;
#pragma GCC unroll 16
      for (int i = 0; i < TILE_WORDS; i++) { /* rows m + 2 i and the next */
        const float *q = p + (i < 8 ? 0 : TILE_ROWS * ld) + 2 * i % TILE_ROWS * TILE_WORDS;
        vu x = m + 2 * i < rows ? (vu)vload(q) : (vu)vzero();
        vu y = m + 2 * i + 1 < rows ? (vu)vload(q + TILE_WORDS) : (vu)vzero();
        even[i] = (vf)((x & 0xffff) | (y << 16));
        odd[i] = (vf)((x >> 16) | (y & 0xffff0000u));
      }
      vtranspose(even);
      vtranspose(odd);
#pragma GCC unroll 16
      for (int i = 0; i < TILE_WORDS; i++) { /* columns k + 2 i and the next */
        if (k + 2 * i / TILE_ROWS * TILE_ROWS >= K) break;
        float *q = o + (i < 8 ? 0 : TILE_ROWS * ldo) + 2 * i % TILE_ROWS * TILE_WORDS;
        vstore(q, even[i]);
        vstore(q + TILE_WORDS, odd[i]);
      }
    }
}

#endif
