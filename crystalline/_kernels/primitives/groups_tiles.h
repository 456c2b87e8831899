/* Products of weights in groups in matrix tiles: a tile's product is the sum of one group.
 *
 * A tile multiplies 64 bytes of K, two groups.  The weights of both, unpacked, lie in a buffer with
 * zeros between them, eight rows each:
 *
 *     first group | zeros | second group
 *
 * so that a tile of 16 rows from its start meets the first group of a row and one from the zeros on the
 * second.  Sums leave the tiles after every group, become floats and are added up in L1, those of one
 * block of rows while the tiles are at the next.
 */
#ifndef CL_GROUPS_TILES_H
#define CL_GROUPS_TILES_H

enum {
  GROUPS_ROWS = 64,                                  /* of a left-hand side that share what is unpacked */
  GROUPS_HALF = GROUP_BYTES_WORDS * CL_PANEL,        /* words of a group, or of the zeros */
};

typedef struct {
  int32_t sums[2][TILE_ROWS * CL_PANEL]; /* of both groups */
} GroupsSums;

/* The weights of a group as signed bytes, eight rows of PANEL words. */
CL_INLINE void groups_unpack(const int BITS, const float *group, float *out) {
  const vi low = viset1(0x0f0f0f0f);
#pragma GCC unroll 8
  for (int i = 0; i < BITS * CL_PANEL; i += VL) {
    vi x = (vi)vload(group + i);
    if (BITS == 8) {
      vstore(out + i, (vf)x);
      continue;
    }
    const __m512i bias = _mm512_set1_epi8(8);
    const vi y = (vi)((vu)x >> 4) & low;
    vstore(out + i, (vf)_mm512_sub_epi8((__m512i)(x & low), bias));
    vstore(out + 4 * CL_PANEL + i, (vf)_mm512_sub_epi8((__m512i)y, bias));
  }
}

/* The sums of both groups for the rows that the tiles are configured for. */
CL_INLINE void groups_multiply(const float *a, int64_t lda, const float *weights, GroupsSums *s) {
  tile_load(4, a, 4 * lda);
  tile_load(6, weights, 4 * CL_PANEL);
  tile_zero(0);
  tile_dot_int8(0, 4, 6);
  tile_load(7, weights + TILE_WORDS, 4 * CL_PANEL);
  tile_zero(1);
  tile_dot_int8(1, 4, 7);
  tile_load(6, weights + GROUPS_HALF, 4 * CL_PANEL);
  tile_load(5, a, 4 * lda); /* the same again: tiles 2 and 3 go with it */
  tile_zero(2);
  tile_dot_int8(2, 5, 6);
  tile_load(7, weights + GROUPS_HALF + TILE_WORDS, 4 * CL_PANEL);
  tile_zero(3);
  tile_dot_int8(3, 5, 7);
  tile_store(0, s->sums[0], 4 * CL_PANEL);
  tile_store(1, s->sums[0] + TILE_WORDS, 4 * CL_PANEL);
  tile_store(2, s->sums[1], 4 * CL_PANEL);
  tile_store(3, s->sums[1] + TILE_WORDS, 4 * CL_PANEL);
}

/* What becomes of the sums of some rows, once they are made. */
typedef struct {
  int64_t rows;
  const GroupsSums *sums;
  const float *scales;
  vf d[2][2];
  float *acc;
} GroupsMade;

/* acc[rows][PANEL] += the sums of two groups, scaled */
CL_INLINE void groups_add(const GroupsMade *m, int64_t lda) {
  const GroupsMade f = *m; /* a copy, which what is stored cannot change */
  const float *scales = f.scales;
  float *acc = f.acc;
  for (int64_t i = 0; i < f.rows; i++, scales += lda, acc += CL_PANEL) {
    const vf first = vset1(scales[0]), second = vset1(scales[1]);
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      vf x = vload(acc + v * VL);
      x += vfloat(viload(f.sums->sums[0] + i * CL_PANEL + v * VL)) * first * f.d[0][v];
      x += vfloat(viload(f.sums->sums[1] + i * CL_PANEL + v * VL)) * second * f.d[1][v];
      vstore(acc + v * VL, x);
    }
  }
}

/* acc[rows][PANEL] = the sums over all groups, for whole sixteens of rows or for fewer than one. */
CL_INLINE void groups_block(const int BITS, const int FIRST, int64_t rows, int64_t groups,
                            const float *a, int64_t lda, const float *panel, float *acc) {
  float weights[2][3 * GROUPS_HALF] __attribute__((aligned(64)));
  GroupsSums sums[2] __attribute__((aligned(64)));
  const float *scales = a + groups * GROUP_BYTES_WORDS;
  const int64_t at_once = rows < TILE_ROWS ? rows : TILE_ROWS;
  GroupsMade made = {.rows = 0};
  memset(acc, 0, (size_t)(rows * CL_PANEL) * sizeof(float));
  for (int i = 0; i < 2; i++) memset(weights[i] + GROUPS_HALF, 0, GROUPS_HALF * sizeof(float));
  tiles_take((int)at_once, (int)at_once);
  groups_unpack(BITS, panel, weights[0]);
  groups_unpack(BITS, panel + GROUP_PANEL_WORDS(BITS), weights[0] + 2 * GROUPS_HALF);
  int turn = 0;
  for (int64_t g = 0; g < groups; g += 2, panel += 2 * GROUP_PANEL_WORDS(BITS)) {
    const float *unpacked = weights[g / 2 & 1];
    const uint16_t *halves = (const uint16_t *)(panel + BITS * CL_PANEL);
    const uint16_t *others = (const uint16_t *)(panel + GROUP_PANEL_WORDS(BITS) + BITS * CL_PANEL);
    if (FIRST) cl_fetch_ahead(panel, 2 * GROUP_PANEL_WORDS(BITS) * sizeof(float));
    for (int64_t r = 0; r < rows; r += at_once, turn ^= 1) {
      groups_multiply(a + r * lda + g * GROUP_BYTES_WORDS, lda, unpacked, &sums[turn]);
      /* Tiles do not see what is still on its way to the cache: it is unpacked a step before. */
      if (r == 0 && g + 2 < groups) {
        const float *later = panel + 2 * GROUP_PANEL_WORDS(BITS);
        float *out = weights[(g / 2 & 1) ^ 1];
        groups_unpack(BITS, later, out);
        groups_unpack(BITS, later + GROUP_PANEL_WORDS(BITS), out + 2 * GROUPS_HALF);
      }
      groups_add(&made, lda);
      made = (GroupsMade){at_once, &sums[turn], scales + r * lda + g,
                          {{vhalf(halves), vhalf(halves + VL)}, {vhalf(others), vhalf(others + VL)}},
                          acc + r * CL_PANEL};
    }
  }
  groups_add(&made, lda);
}

CL_INLINE void groups_tiles_panel(const int BITS, int64_t M, int64_t n, int64_t K, const float *a,
                                  int64_t lda, const float *panel, float *c, int64_t ldc,
                                  const float *bias, const float *residual, StoreMode store) {
  float acc[GROUPS_ROWS * CL_PANEL] __attribute__((aligned(64)));
  const int64_t groups = K / GROUP_ROW_WORDS;
  for (int64_t row = 0, rows; row < M; row += rows) {
    const int64_t left = M - row;
    rows = left > GROUPS_ROWS ? GROUPS_ROWS : left < TILE_ROWS ? left : left / TILE_ROWS * TILE_ROWS;
    const float *x = a + row * lda;
    if (row == 0)
      groups_block(BITS, 1, rows, groups, x, lda, panel, acc);
    else
      groups_block(BITS, 0, rows, groups, x, lda, panel, acc);
    for (int64_t i = 0; i < rows; i++) {
      vf y[CL_ACROSS] = {vload(acc + i * CL_PANEL), vload(acc + i * CL_PANEL + VL)};
      const int64_t at = (row + i) * ldc;
      cl_finish_row(n, y, c + at, bias, residual ? residual + at : 0, store);
    }
  }
}

/* A block of rows over a panel that stays in L1, with all that is done to a group. */
CL_INLINE int64_t groups_tiles_peak(const int BITS, int64_t rounds, float *sink) {
  enum { GROUPS = 2 };
  float a[GROUPS_ROWS * GROUPS * GROUP_ROW_WORDS], c[GROUPS_ROWS * CL_PANEL];
  float panel[GROUPS * GROUP_PANEL_WORDS(8)] __attribute__((aligned(64)));
  memset(a, 0, sizeof a);
  memset(panel, 0, sizeof panel);
  for (int64_t r = 0; r < rounds; r++)
    groups_tiles_panel(BITS, GROUPS_ROWS, CL_PANEL, GROUPS * GROUP_ROW_WORDS, a,
                       GROUPS * GROUP_ROW_WORDS, panel, c, CL_PANEL, 0, 0, CL_STORE);
  tiles_end_thread();
  sink[0] += c[0];
  return rounds * GROUPS_ROWS * CL_PANEL * GROUPS * GROUP * 2;
}

#endif
