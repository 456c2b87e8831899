/* Attention of a few query rows over one block of cached keys, and what is kept of a sequence.
 *
 * All sums are float32.  Keys and values are float32, or narrow: bfloat16, two to a word, widened
 * where they are used.  Of one head:
 *
 *   keys    [T / 32][D][32], panels of 32 positions; narrow [T / 32][D / 2][32], the channels 2 w
 *           (low half) and 2 w + 1 in word w
 *   values  [T][stride]; narrow [T / 2][stride], positions 2 t (low half) and 2 t + 1 in row t
 *
 * A row of queries meets the blocks of CL_CACHE_BLOCK positions one by one and keeps of each its
 * largest score, the sum of its weights and the weighted sum of values; `cache_merge` joins them in
 * order.  What a row gets is a chain of operations on its own keys: every score sums over the
 * channels in order, every sum of values over the positions in order, from the row's first to its
 * last.  So its bits are the same however many rows go through the registers together, and nothing
 * that it does not see can touch it, not even a NaN.
 */
#ifndef CL_CACHE_H
#define CL_CACHE_H

#include "gemm.h"
#include "vecmath.h"

/* Rows and vectors of a register tile.  Few rows take more vectors side by side: their additions
 * would wait for one another, and several streams from memory are faster than one. */
#if defined(CL_AVX512) || defined(__aarch64__)
enum { CL_CACHE_TILE = 12, CL_CACHE_FEW = 3 };
#define CL_CACHE_ACROSS(R) ((R) <= 3 ? 8 : (R) <= 6 ? 4 : 2)
#else
enum { CL_CACHE_TILE = 6, CL_CACHE_FEW = 2 };
#define CL_CACHE_ACROSS(R) ((R) == 1 ? 8 : (R) == 2 ? 4 : 2)
#endif
enum {
  CL_SCORES = CL_CACHE_BLOCK + 16, /* floats from one row of scores to the next: no power of 2 */
  CL_FETCH_VALUES = 1024,          /* bytes that values are fetched ahead */
};

#define CL_LOW_PART(words) vbits((vi)((vu)vibits(words) << 16))
#define CL_HIGH_PART(words) vbits(vibits(words) & viset1((int32_t)0xffff0000))
#define CL_ROWS(R) _Pragma("GCC unroll 12") for (int r = 0; r < R; r++)
#define CL_ACROSS(NV) _Pragma("GCC unroll 8") for (int v = 0; v < NV; v++)

/* One step of both products for a row of words: sum[r][v] += x[r] times the low halves of the words
 * and y[r] times the high ones; where they are not NARROW, x[r] times the words.  What is in
 * registers meanwhile besides the sums: of few rows their factors, else a vector for each v. */
#define CL_STEP(words, x, y)                                                             \
  if (R <= CL_CACHE_FEW) {                                                               \
    vf factor[2][CL_CACHE_FEW];                                                          \
    CL_ROWS(R) factor[0][r] = vset1(x), factor[1][r] = NARROW ? vset1(y) : vzero();      \
    CL_ACROSS(NV) {                                                                      \
      const vf w = words;                                                                \
      CL_ROWS(R) sum[r][v] = vfma(factor[0][r], NARROW ? CL_LOW_PART(w) : w, sum[r][v]); \
      if (NARROW)                                                                        \
        CL_ROWS(R) sum[r][v] = vfma(factor[1][r], CL_HIGH_PART(w), sum[r][v]);           \
    }                                                                                    \
  } else {                                                                               \
    vf part[8];                                                                          \
    CL_ACROSS(NV) part[v] = NARROW ? CL_LOW_PART(words) : words;                         \
    CL_ROWS(R) {                                                                         \
      const vf factor = vset1(x);                                                        \
      CL_ACROSS(NV) sum[r][v] = vfma(factor, part[v], sum[r][v]);                        \
    }                                                                                    \
    if (NARROW) {                                                                        \
      CL_ACROSS(NV) part[v] = CL_HIGH_PART(words);                                       \
      CL_ROWS(R) {                                                                       \
        const vf factor = vset1(y);                                                      \
        CL_ACROSS(NV) sum[r][v] = vfma(factor, part[v], sum[r][v]);                      \
      }                                                                                  \
    }                                                                                    \
  }

/* ---- scores: out[r, 0 .. NV VL - 1] = q[r] . keys ---- */

/* `keys` is the first of these positions in its panel, panels are `panel` floats apart.  The next
 * tile's are fetched.  As in gemm.h, the compiler must not see through the pointers. */
CL_INLINE void cache_dots(const int NARROW, const int R, const int NV, int64_t D, const float *q,
                          int64_t ldq, const float *keys, int64_t panel, float *out) {
  const int PANELS = NV * VL > CL_PANEL ? NV * VL / CL_PANEL : 1;
  vf sum[CL_CACHE_TILE][8];
  CL_ROWS(R) CL_ACROSS(NV) sum[r][v] = vzero();
  const char *p[8], *rows[3] = {(const char *)q, (const char *)(q + 5 * ldq),
                                (const char *)(q + 10 * ldq)};
  int64_t ld = ldq * (int64_t)sizeof(float), ld3 = 3 * ld;
  int64_t ahead = PANELS * panel * (int64_t)sizeof(float);
  for (int i = 0; i < PANELS; i++) p[i] = (const char *)(keys + i * panel);
#define CL_WORDS vload((const float *)p[v * VL / CL_PANEL] + v * VL % CL_PANEL)
#define CL_ROW                                              \
  ((const float *)(rows[r / 5] + (r % 5 == 0   ? 0          \
                                  : r % 5 == 1 ? ld         \
                                  : r % 5 == 2 ? 2 * ld     \
                                  : r % 5 == 3 ? ld3        \
                                               : 4 * ld)))
  const int64_t words = NARROW ? D / 2 : D;
  for (int64_t d = 0; d < words; d++) {
    for (int i = 0; i < PANELS; i++) CL_HIDE(p[i]);
    CL_HIDE(rows[0]);
    if (R > 5) CL_HIDE(rows[1]);
    if (R > 10) CL_HIDE(rows[2]);
    if (R > 1) CL_HIDE(ld);
    if (R > 3) CL_HIDE(ld3);
    CL_HIDE(ahead);
    CL_ACROSS(NV) if (v * VL % CL_LINE == 0)
      __builtin_prefetch(p[v * VL / CL_PANEL] + ahead + v * VL % CL_PANEL * 4);
    CL_STEP(CL_WORDS, CL_ROW[0], CL_ROW[1])
    for (int i = 0; i < PANELS; i++) p[i] += CL_PANEL * sizeof(float);
    for (int i = 0; i < 3; i++) rows[i] += (NARROW ? 2 : 1) * sizeof(float);
  }
  if (NARROW && D % 2)
    CL_ROWS(R) {
      const vf factor = vset1(CL_ROW[0]);
      CL_ACROSS(NV) sum[r][v] = vfma(factor, CL_LOW_PART(CL_WORDS), sum[r][v]);
    }
#undef CL_WORDS
#undef CL_ROW
  CL_ROWS(R) CL_ACROSS(NV) vstore(out + r * CL_SCORES + v * VL, sum[r][v]);
}

/* Scores of the positions from .. to - 1 of a block that begins at `start`, whole panels. */
CL_INLINE void cache_scores(const int NARROW, const int R, const CacheHead *head, int64_t start,
                            int64_t from, int64_t to, const float *q, int64_t ldq, float *scores) {
  const int wide = CL_CACHE_ACROSS(R) * VL;
  const int64_t D = head->D, panel = (NARROW ? (D + 1) / 2 : D) * CL_PANEL;
#define CL_AT(j) (head->keys + (j) / CL_PANEL * panel + (j) % CL_PANEL)
  int64_t j = from / CL_PANEL * CL_PANEL;
  to = (to + CL_PANEL - 1) / CL_PANEL * CL_PANEL;
  for (; j + wide <= to; j += wide)
    cache_dots(NARROW, R, CL_CACHE_ACROSS(R), D, q, ldq, CL_AT(j), panel, scores + (j - start));
  for (; j < to; j += 2 * VL)
    cache_dots(NARROW, R, 2, D, q, ldq, CL_AT(j), panel, scores + (j - start));
#undef CL_AT
}

/* ---- weights: exp(x - top) for the columns from .. to - 1, x = scale s + strength K ---- */

CL_INLINE vf cache_score(const CacheRow *row, const float *similar, vf s, int64_t j, int64_t n) {
  s = s * vset1(row->scale);
  return similar ? vfma(vset1(row->strength), vloadn(similar + j, n), s) : s;
}

/* Columns count from `start`; nothing outside of them is left in any meaningful state. */
CL_INLINE void cache_weights(CacheRow *row, int64_t start, int64_t from, int64_t to, float *s) {
  const float *similar = row->strength != 0.0f ? row->similar + start : 0;
  const int64_t j0 = from / VL * VL, last = (to - 1) / VL * VL;
  const vi early = ~vlanes(from - j0);
  vf top = -vinf(), other = -vinf(), sum[2] = {vzero(), vzero()};
  /* only the last vector of `similar` may end before its lanes do */
  for (int64_t j = j0; j <= last; j += VL) {
    vf x = cache_score(row, similar, vload(s + j), j, to - j < VL ? to - j : VL);
    if (j == j0) x = vselect(early, x, -vinf());
    if (j == last) x = vselect(vlanes(to - j), x, -vinf());
    vstore(s + j, x);
    vf next = vmax(x, other);
    other = top;
    top = next;
  }
  const float highest = vhmax(vmax(top, other));
  const vf shift = vset1(highest);
  int64_t j = j0;
  for (; j + VL <= last; j += 2 * VL)
    _Pragma("GCC unroll 2") for (int a = 0; a < 2; a++) {
      vf e = vexp(vload(s + j + a * VL) - shift);
      vstore(s + j + a * VL, e);
      sum[a] += e;
    }
  if (j <= last) {
    vf e = vexp(vload(s + j) - shift);
    vstore(s + j, e);
    sum[0] += e;
  }
  row->top = highest;
  row->sum = vsum(sum[0] + sum[1]);
}

/* ---- values: out[r, ..] += the sum over the positions from .. to - 1 of weight x value ---- */

CL_INLINE void cache_mix(const int NARROW, const int R, const int NV, const float *values,
                         int64_t stride, int64_t from, int64_t to, const float *weights, float *out,
                         int64_t ldo, int64_t later) {
  vf sum[CL_CACHE_TILE][8];
  CL_ROWS(R) CL_ACROSS(NV) sum[r][v] = vload(out + r * ldo + v * VL);
  const float *p = values + (NARROW ? from / 2 : from) * stride;
#define CL_WORDS vload(p + v * VL)
#define CL_ALONE(part)                                                                   \
  CL_ROWS(R) {                                                                           \
    const vf factor = vset1(weights[r * CL_SCORES]);                                     \
    CL_ACROSS(NV) sum[r][v] = vfma(factor, part(CL_WORDS), sum[r][v]);                   \
  }
  if (NARROW && from % 2) { /* from < to */
    CL_ALONE(CL_HIGH_PART)
    from++, weights++, p += stride;
  }
  for (const int step = NARROW ? 2 : 1; from + step <= to; from += step) {
    CL_HIDE(p);
    CL_ACROSS(NV) if (v * VL % CL_LINE == 0)
      __builtin_prefetch((const char *)p + CL_FETCH_VALUES + 4 * v * VL);
    for (int64_t i = NV * VL; i < later; i += CL_LINE)
      __builtin_prefetch((const char *)p + CL_FETCH_VALUES + 4 * i);
    CL_STEP(CL_WORDS, weights[r * CL_SCORES], weights[r * CL_SCORES + 1])
    weights += step;
    p += stride;
  }
  if (NARROW && from < to) CL_ALONE(CL_LOW_PART)
#undef CL_WORDS
#undef CL_ALONE
  CL_ROWS(R) CL_ACROSS(NV) vstore(out + r * ldo + v * VL, sum[r][v]);
}

/* The first pass over the rows fetches what later ones read of them.  `weights` are those of the
 * position `from`.  Vectors may reach beyond D, into the next row of
 * values: `out` has room for what they make there. */
CL_INLINE void cache_values(const int NARROW, const int R, const CacheHead *head, int64_t from,
                            int64_t to, const float *weights, float *out, int64_t ldo) {
  int64_t d = 0, left = (head->D + VL - 1) / VL;
  if (from >= to) return;
#define CL_TAKE(NV)                                                                              \
  for (; CL_CACHE_ACROSS(R) >= NV && left >= NV; left -= NV, d += NV * VL)                       \
    cache_mix(NARROW, R, NV, head->values + d, head->stride, from, to, weights, out + d, ldo, \
              d ? 0 : head->D);
  CL_TAKE(8) CL_TAKE(4) CL_TAKE(2) CL_TAKE(1)
#undef CL_TAKE
}

/* ---- one block ---- */

static void cache_alone_float(const CacheHead *head, int64_t from, int64_t to, const float *weights,
                              float *out) {
  cache_values(0, 1, head, from, to, weights, out, 0);
}
static void cache_alone_narrow(const CacheHead *head, int64_t from, int64_t to,
                               const float *weights, float *out) {
  cache_values(1, 1, head, from, to, weights, out, 0);
}

/* One register tile of rows, whose first and last positions do not decrease. */
CL_INLINE void cache_tile(const int NARROW, const int R, const CacheHead *head, int64_t start,
                          CacheRow *row, const float *q, float *out, int64_t ld) {
  float scores[CL_CACHE_TILE * CL_SCORES] __attribute__((aligned(64)));
  const int64_t stop = start + CL_CACHE_BLOCK;
  int64_t from[CL_CACHE_TILE], to[CL_CACHE_TILE];
  CL_ROWS(R) {
    from[r] = row[r].begin > start ? row[r].begin : start;
    to[r] = row[r].end < stop ? row[r].end : stop;
    row[r].top = -vinf()[0];
    row[r].sum = 0.0f;
  }
  memset(out, 0, (size_t)(R * ld) * sizeof(float));
  if (from[0] >= to[R - 1]) return;
  cache_scores(NARROW, R, head, start, from[0], to[R - 1], q, ld, scores);
  for (int r = 0; r < R; r++)
    if (from[r] < to[r])
      cache_weights(row + r, start, from[r] - start, to[r] - start, scores + r * CL_SCORES);
  /* what all rows see goes through the registers together, the rest row by row around it */
  const int64_t first = from[R - 1];
  const int64_t last = to[0] > first ? to[0] : first;
#define CL_ALONE(a, b)                                                                        \
  (NARROW ? cache_alone_narrow : cache_alone_float)(head, a, b,                               \
                                                    scores + r * CL_SCORES + ((a) - start), \
                                                    out + r * ld)
  if (R > 1)
    for (int r = 0; r < R; r++)
      if (from[r] < to[r]) CL_ALONE(from[r], first < to[r] ? first : to[r]);
  cache_values(NARROW, R, head, first, last, scores + (first - start), out, ld);
  if (R > 1)
    for (int r = 0; r < R; r++)
      if (last < to[r]) CL_ALONE(last, to[r]);
#undef CL_ALONE
}

#define CL_TILE(NARROW, R)                                                                     \
  static void cache_tile_##NARROW##_##R(const CacheHead *head, int64_t start, CacheRow *row,   \
                                        const float *q, float *out, int64_t ld) {              \
    cache_tile(NARROW, R, head, start, row, q, out, ld);                                       \
  }
#if defined(CL_AVX512) || defined(__aarch64__)
#define CL_TILES_OF(X, N) X(N, 1) X(N, 2) X(N, 3) X(N, 4) X(N, 5) X(N, 6) X(N, 7) X(N, 8) X(N, 12)
#else
#define CL_TILES_OF(X, N) X(N, 1) X(N, 2) X(N, 3) X(N, 4) X(N, 5) X(N, 6)
#endif
CL_TILES_OF(CL_TILE, 0)
CL_TILES_OF(CL_TILE, 1)
#undef CL_TILE

static void cache_block(const CacheHead *head, int64_t start, int64_t rows, CacheRow *row,
                        const float *q, float *out, int64_t ld) {
  for (int64_t i = 0; i < rows;) {
    int64_t R = rows - i;
    if (R >= CL_CACHE_TILE)
      R = CL_CACHE_TILE;
    else if (R > 8)
      R = 8;
#define CL_CASE(NARROW, R)                                                       \
  case 2 * R + NARROW:                                                           \
    cache_tile_##NARROW##_##R(head, start, row + i, q + i * ld, out + i * ld, ld); \
    break;
    switch (2 * R + (head->narrow != 0)) { CL_TILES_OF(CL_CASE, 0) CL_TILES_OF(CL_CASE, 1) }
#undef CL_CASE
    i += R;
  }
}
#undef CL_TILES_OF

/* (top, sum, out) of a row and those of its next block, in one: exp(x - top) for a common top. */
static void cache_merge(int64_t D, const CacheRow *part, const float *values, float *top,
                        float *sum, float *out) {
  if (part->sum == 0.0f) return; /* it sees none of the block: every other sum is 1 at least */
  const float highest = *top > part->top ? *top : part->top;
  const vf factor = vexp(vset1(*top - highest)), share = vexp(vset1(part->top - highest));
  *top = highest;
  *sum = vfma(vset1(*sum), factor, vset1(part->sum) * share)[0];
  for (int64_t d = 0; d < D; d += VL) {
    const int64_t n = D - d < VL ? D - d : VL;
    vstoren(out + d, vfma(vloadn(out + d, n), factor, vloadn(values + d, n) * share), n);
  }
}

static void cache_finish(int64_t D, float sum, const float *x, float *out) {
  const vf total = vset1(sum);
  for (int64_t d = 0; d < D; d += VL) {
    const int64_t n = D - d < VL ? D - d : VL;
    vstoren(out + d, vloadn(x + d, n) / total, n);
  }
}

/* ---- what is kept ---- */

/* One position of the panels, a word at a time. */
CL_INLINE void cache_key(const CacheHead *head, int64_t t, const float *k) {
  const int64_t D = head->D, words = head->narrow ? (D + 1) / 2 : D;
  float *at = head->keys + t / CL_PANEL * words * CL_PANEL + t % CL_PANEL;
  float w[VL];
  for (int64_t i = 0; i < words; i += VL) {
    const int64_t n = words - i < VL ? words - i : VL;
    vstore(w, head->narrow ? vneighbors(k + 2 * i, D - 2 * i) : vloadn(k + i, n));
    for (int64_t j = 0; j < n; j++) at[(i + j) * CL_PANEL] = w[j];
  }
}

static void cache_append(const CacheHead *head, int64_t first, int64_t n, const float *k,
                         const float *v, int64_t ld) {
  const int64_t D = head->D, words = head->narrow ? (D + 1) / 2 : D, end = first + n;
  for (int64_t t = first; t < end;) {
    if (t % CL_PANEL == 0 && end - t >= CL_PANEL) {
      (head->narrow ? bf16_pack_panel_t : float32_pack_panel_t)(
          D, CL_PANEL, k + (t - first) * ld, ld, head->keys + t * words);
      t += CL_PANEL;
    } else {
      cache_key(head, t, k + (t - first) * ld);
      t++;
    }
  }
  for (int64_t t = first; t < end; t++, v += ld) {
    float *row = head->values + (head->narrow ? t / 2 : t) * head->stride;
    const int pair = head->narrow && t % 2 == 0 && t + 1 < end;
    for (int64_t d = 0; d < D; d += VL) {
      const int64_t m = D - d < VL ? D - d : VL;
      vf x = vloadn(v + d, m);
      if (pair)
        x = vpair(x, vloadn(v + ld + d, m));
      else if (head->narrow && t % 2)
        x = vbits((vibits(vloadn(row + d, m)) & 0xffff) | (vi)(vbf16(x) << 16));
      else if (head->narrow)
        x = (vf)vbf16(x);
      vstoren(row + d, x, m);
    }
    if (pair) t++, v += ld;
  }
}

#undef CL_LOW_PART
#undef CL_HIGH_PART
#undef CL_STEP
#undef CL_ROWS
#undef CL_ACROSS
#undef CL_CACHE_ACROSS

#endif
