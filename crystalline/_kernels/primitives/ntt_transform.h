/* Transforms modulo one prime, depth first: each node's halves or quarters are finished while they
 * are in the cache, and a product of two nodes is taken leaf by leaf, so that the orders of the
 * forward and the inverse transform cancel and nothing is ever permuted.
 *
 * Bounds, in units of p (see ntt_modular.h): every element that enters a forward node is at most
 * 2.8, every element that leaves an inverse node at most 1.
 */
#ifndef CL_NTT_TRANSFORM_H
#define CL_NTT_TRANSFORM_H

#include "ntt_roots.h"

/* Modulo x^2 - w^2 from x and y: x +- w y. */
#define NTT_SPLIT(x, y, w)              \
  do {                                  \
    NttVec t_ = ntt_mulmod(y, w, f);    \
    (y) = (x) - t_;                     \
    (x) = (x) + t_;                     \
  } while (0)

/* Back, doubled: x + y and (x - y) / w, given 1 / w. */
#define NTT_JOIN(x, y, w)               \
  do {                                  \
    NttVec t_ = (x) - (y);              \
    (x) = (x) + (y);                    \
    (y) = ntt_mulmod(t_, w, f);         \
  } while (0)

/* A node of size M at x becomes its two halves. */
static void ntt_forward_2(NttElement *x, int64_t M, int64_t j, const NttDirection *way,
                          const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactorVec w = ntt_factor(way->half + j);
  for (int64_t i = 0; i < M / 2; i += NTT_W) {
    NttVec x0 = ntt_reduce(ntt_load(x + i), f), x1 = ntt_load(x + i + M / 2);
    NTT_SPLIT(x0, x1, w); /* 1/2 + T(2.8) = 1.35 */
    ntt_store(x + i, x0);
    ntt_store(x + i + M / 2, x1);
  }
}

static void ntt_inverse_2(NttElement *x, int64_t M, int64_t j, const NttDirection *way,
                          const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactorVec w = ntt_factor(way->half + j);
  for (int64_t i = 0; i < M / 2; i += NTT_W) {
    NttVec x0 = ntt_load(x + i), x1 = ntt_load(x + i + M / 2);
    NTT_JOIN(x0, x1, w); /* 2; T(2) = 3/4 */
    ntt_store(x + i, ntt_reduce(x0, f));
    ntt_store(x + i + M / 2, x1);
  }
}

/* A node of size M at x becomes its four quarters. */
static void ntt_forward_4(NttElement *x, int64_t M, int64_t j, const NttDirection *way,
                          const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactorVec w1 = ntt_factor(way->half + j), w2 = ntt_factor(way->half + 2 * j),
               w3 = ntt_factor(way->half + 2 * j + 1);
  NttElement *y0 = x, *y1 = x + M / 4, *y2 = x + M / 2, *y3 = x + M / 4 * 3;
  for (int64_t i = 0; i < M / 4; i += NTT_W) {
    NttVec x0 = ntt_load(y0 + i), x1 = ntt_load(y1 + i), x2 = ntt_load(y2 + i),
           x3 = ntt_load(y3 + i);
    x0 = ntt_reduce(x0, f);
    NTT_SPLIT(x0, x2, w1); /* 1/2 + T(2.8) = 1.35 */
    NTT_SPLIT(x1, x3, w1); /* 2.8 + T(2.8) = 3.65 */
    NTT_SPLIT(x0, x1, w2); /* 1.35 + T(3.65) = 2.31 */
    NTT_SPLIT(x2, x3, w3);
    ntt_store(y0 + i, x0);
    ntt_store(y1 + i, x1);
    ntt_store(y2 + i, x2);
    ntt_store(y3 + i, x3);
  }
}

static void ntt_inverse_4(NttElement *x, int64_t M, int64_t j, const NttDirection *way,
                          const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactorVec w1 = ntt_factor(way->half + j), w2 = ntt_factor(way->half + 2 * j),
               w3 = ntt_factor(way->half + 2 * j + 1);
  NttElement *y0 = x, *y1 = x + M / 4, *y2 = x + M / 2, *y3 = x + M / 4 * 3;
  for (int64_t i = 0; i < M / 4; i += NTT_W) {
    NttVec x0 = ntt_load(y0 + i), x1 = ntt_load(y1 + i), x2 = ntt_load(y2 + i),
           x3 = ntt_load(y3 + i);
    NTT_JOIN(x0, x1, w2); /* 2; T(2) = 3/4 */
    NTT_JOIN(x2, x3, w3);
    NTT_JOIN(x0, x2, w1); /* 4, to be reduced; T(4) = 1 */
    NTT_JOIN(x1, x3, w1); /* 3/2, to be reduced; T(3/2) */
    ntt_store(y0 + i, ntt_reduce(x0, f));
    ntt_store(y1 + i, ntt_reduce(x1, f));
    ntt_store(y2 + i, x2);
    ntt_store(y3 + i, x3);
  }
}

#if NTT_W == 8

/* Eight elements or nodes x[0..7] modulo x^8 - w1^2 = x^8 - w2[0]^4 = ..; w4[i] belongs to the pair
 * i.  From 2.8 to 2.9; factors up to 0.57 (products of two roots) are allowed for. */
NTT_INLINE void ntt_split_8(NttVec x[8], NttVec w1, const NttVec w2[2], const NttVec w4[4],
                            const NttField *f) {
  for (int i = 0; i < 4; i++) x[i] = ntt_reduce(x[i], f);
  for (int i = 0; i < 4; i++) NTT_SPLIT(x[i], x[i + 4], w1); /* 0.5 + T(2.9, 0.57) = 1.42 */
  for (int i = 0; i < 2; i++) {
    NTT_SPLIT(x[i], x[i + 2], w2[0]); /* 1.42 + T(1.42, 0.57) = 2.13 */
    NTT_SPLIT(x[i + 4], x[i + 6], w2[1]);
  }
  for (int i = 0; i < 4; i++) NTT_SPLIT(x[2 * i], x[2 * i + 1], w4[i]); /* 2.13 + T(2.13) = 2.94 */
}

/* From 1 to 1 (see each line), given the inverses. */
NTT_INLINE void ntt_join_8(NttVec x[8], NttVec w1, const NttVec w2[2], const NttVec w4[4],
                           const NttField *f) {
  for (int i = 0; i < 4; i++) NTT_JOIN(x[2 * i], x[2 * i + 1], w4[i]); /* 2; T(2, 0.57) = 0.79 */
  for (int i = 0; i < 2; i++) {
    NTT_JOIN(x[i], x[i + 2], w2[0]); /* 4, 1.58; T(3.5, 0.57) = 1, T(1.58, 0.57) */
    NTT_JOIN(x[i + 4], x[i + 6], w2[1]);
  }
  x[0] = ntt_reduce(x[0], f);
  x[4] = ntt_reduce(x[4], f);
  for (int i = 0; i < 4; i++) NTT_JOIN(x[i], x[i + 4], w1); /* 1, 3.2, 2, 1.5; T(3.2, 0.57) = 0.96 */
  for (int i = 1; i < 4; i++) x[i] = ntt_reduce(x[i], f);
}

NTT_INLINE void ntt_transpose(NttVec x[8]) {
  NttVec a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm512_unpacklo_pd(x[i], x[i + 1]);
    a[i + 1] = _mm512_unpackhi_pd(x[i], x[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int k = 0; k < 2; k++) {
      b[i + k] = _mm512_shuffle_f64x2(a[i + k], a[i + k + 2], 0x88);
      b[i + k + 2] = _mm512_shuffle_f64x2(a[i + k], a[i + k + 2], 0xdd);
    }
  for (int k = 0; k < 4; k++) {
    x[k] = _mm512_shuffle_f64x2(b[k], b[k + 4], 0x88);
    x[k + 4] = _mm512_shuffle_f64x2(b[k], b[k + 4], 0xdd);
  }
}

typedef struct {
  NttVec w1, w2[2], w4[4];
} NttLeafRoots;

/* The roots that act across the vectors of leaf j. */
NTT_INLINE NttLeafRoots ntt_across(const NttDirection *way, int64_t j) {
  const NttFactor *h = way->half;
  return (NttLeafRoots){ntt_factor(h + j),
                        {ntt_factor(h + 2 * j), ntt_factor(h + 2 * j + 1)},
                        {ntt_factor(h + 4 * j), ntt_factor(h + 4 * j + 1),
                         ntt_factor(h + 4 * j + 2), ntt_factor(h + 4 * j + 3)}};
}

/* The roots that act within the lanes of leaf j: lane l belongs to node 8 j + l. */
NTT_INLINE NttLeafRoots ntt_within(const NttDirection *way, int64_t j, const NttField *f) {
  NttLeafRoots r;
  r.w1 = ntt_mulmod(ntt_load(way->lane[0]), ntt_factor(way->leaf[0] + j), f);
  r.w2[0] = ntt_mulmod(ntt_load(way->lane[1]), ntt_factor(way->leaf[1] + j), f);
  r.w2[1] = ntt_mulmod(r.w2[0], ntt_factor(&way->quarter), f);
  r.w4[0] = ntt_mulmod(ntt_load(way->lane[2]), ntt_factor(way->leaf[2] + j), f);
  r.w4[1] = ntt_mulmod(r.w4[0], ntt_factor(&way->quarter), f);
  r.w4[2] = ntt_mulmod(r.w4[0], ntt_factor(&way->eighth), f);
  r.w4[3] = ntt_mulmod(r.w4[0], ntt_factor(&way->three_eighths), f);
  return r;
}

NTT_INLINE void ntt_leaf_split(NttVec x[8], const NttLeafRoots *across, const NttLeafRoots *within,
                               const NttField *f) {
  ntt_split_8(x, across->w1, across->w2, across->w4, f);
  ntt_transpose(x);
  ntt_split_8(x, within->w1, within->w2, within->w4, f);
}

NTT_INLINE void ntt_leaf_join(NttVec x[8], const NttLeafRoots *across, const NttLeafRoots *within,
                              const NttField *f) {
  ntt_join_8(x, within->w1, within->w2, within->w4, f);
  ntt_transpose(x);
  ntt_join_8(x, across->w1, across->w2, across->w4, f);
}

#elif NTT_W == 4

NTT_INLINE void ntt_transpose(NttVec x[4]) {
  NttVec a0 = _mm256_unpacklo_pd(x[0], x[1]), a1 = _mm256_unpackhi_pd(x[0], x[1]);
  NttVec a2 = _mm256_unpacklo_pd(x[2], x[3]), a3 = _mm256_unpackhi_pd(x[2], x[3]);
  x[0] = _mm256_permute2f128_pd(a0, a2, 0x20);
  x[1] = _mm256_permute2f128_pd(a1, a3, 0x20);
  x[2] = _mm256_permute2f128_pd(a0, a2, 0x31);
  x[3] = _mm256_permute2f128_pd(a1, a3, 0x31);
}

typedef struct {
  NttVec w1, w2[2];
} NttLeafRoots;

/* The roots that act across the vectors of leaf j. */
NTT_INLINE NttLeafRoots ntt_across(const NttDirection *way, int64_t j) {
  const NttFactor *h = way->half;
  return (NttLeafRoots){ntt_factor(h + j), {ntt_factor(h + 2 * j), ntt_factor(h + 2 * j + 1)}};
}

/* The roots that act within the lanes of leaf j: lane l belongs to node 4 j + l. */
NTT_INLINE NttLeafRoots ntt_within(const NttDirection *way, int64_t j, const NttField *f) {
  NttLeafRoots r;
  r.w1 = ntt_mulmod(ntt_load(way->lane[0]), ntt_factor(way->leaf[0] + j), f);
  r.w2[0] = ntt_mulmod(ntt_load(way->lane[1]), ntt_factor(way->leaf[1] + j), f);
  r.w2[1] = ntt_mulmod(r.w2[0], ntt_factor(&way->quarter), f);
  return r;
}

/* Bounds as in ntt_forward_4, with factors up to 0.57: 2.8 to 2.5; x1 below 3.72. */
NTT_INLINE void ntt_split_4(NttVec x[4], const NttLeafRoots *w, const NttField *f) {
  x[0] = ntt_reduce(x[0], f);
  NTT_SPLIT(x[0], x[2], w->w1);
  NTT_SPLIT(x[1], x[3], w->w1);
  x[1] = ntt_reduce(x[1], f); /* 3.7 times 0.57 would exceed 2 */
  x[3] = ntt_reduce(x[3], f);
  NTT_SPLIT(x[0], x[1], w->w2[0]);
  NTT_SPLIT(x[2], x[3], w->w2[1]);
}

/* From 0.9 to 1, given the inverses, the last factor up to 0.57. */
NTT_INLINE void ntt_join_4(NttVec x[4], const NttLeafRoots *w, const NttField *f) {
  NTT_JOIN(x[0], x[1], w->w2[0]); /* 1.8; T(1.8, 0.57) = 0.76 */
  NTT_JOIN(x[2], x[3], w->w2[1]);
  NTT_JOIN(x[0], x[2], w->w1); /* 3.6; T(3.5, 0.57) = 1 */
  NTT_JOIN(x[1], x[3], w->w1); /* 1.5; T(1.5, 0.57) */
  x[0] = ntt_reduce(x[0], f);
  x[1] = ntt_reduce(x[1], f);
}

NTT_INLINE void ntt_leaf_split(NttVec x[4], const NttLeafRoots *across, const NttLeafRoots *within,
                               const NttField *f) {
  ntt_split_4(x, across, f);
  ntt_transpose(x);
  ntt_split_4(x, within, f);
}

NTT_INLINE void ntt_leaf_join(NttVec x[4], const NttLeafRoots *across, const NttLeafRoots *within,
                              const NttField *f) {
  ntt_join_4(x, within, f);
  ntt_transpose(x);
  ntt_join_4(x, across, f);
}

#endif

/* x = x y modulo leaf j; the same pointer twice squares. */
static void ntt_leaf_product(NttElement *x, const NttElement *y, int64_t j, const NttRoots *roots,
                             const NttField *field) {
  const NttField copy = *field, *f = &copy;
#if NTT_W > 1
  NttLeafRoots across = ntt_across(&roots->forward, j),
               within = ntt_within(&roots->forward, j, f);
  NttVec a[NTT_W], b[NTT_W];
  for (int i = 0; i < NTT_W; i++) a[i] = ntt_load(x + NTT_W * i);
  ntt_leaf_split(a, &across, &within, f);
  if (x == y) {
    for (int i = 0; i < NTT_W; i++) {
      a[i] = ntt_reduce(a[i], f);
      a[i] = ntt_mulmod_residues(a[i], a[i], f);
    }
  } else {
    for (int i = 0; i < NTT_W; i++) b[i] = ntt_load(y + NTT_W * i);
    ntt_leaf_split(b, &across, &within, f);
    for (int i = 0; i < NTT_W; i++) /* T(2.94, 1/2) = 0.87 */
      a[i] = ntt_mulmod_residues(a[i], ntt_reduce(b[i], f), f);
  }
  across = ntt_across(&roots->inverse, j);
  within = ntt_within(&roots->inverse, j, f);
  ntt_leaf_join(a, &across, &within, f);
  for (int i = 0; i < NTT_W; i++) ntt_store(x + NTT_W * i, a[i]);
#else
  /* Modulo x^4 - e(rev(j)), schoolbook: cheaper than two more levels of three transforms, and the
   * tables are a quarter. */
  NttFactor w = roots->forward.half[j >> 1];
  if (j & 1) w = (NttFactor){-w.w, -w.quotient};
  int64_t a[4], b[4], wb[4];
  for (int i = 0; i < 4; i++) {
    a[i] = ntt_reduce(x[i], f);
    b[i] = ntt_reduce(y[i], f);
    wb[i] = ntt_reduce(ntt_mulmod(b[i], w, f), f);
  }
  for (int i = 0; i < 4; i++) {
    __int128 sum = 0;
    for (int k = 0; k < 4; k++) sum += (__int128)a[k] * (k <= i ? b[i - k] : wb[i - k + 4]);
    x[i] = ntt_reduce(ntt_reduce_wide(sum, f), f);
  }
#endif
}

/* x = x y modulo node j of size 2^log, times 2^log (2^(log - 2) where a leaf is one lane wide); y is
 * destroyed; x == y squares. */
static void ntt_node_product(NttElement *x, NttElement *y, int log, int64_t j,
                             const NttRoots *roots, const NttField *f) {
  int64_t M = (int64_t)1 << log;
  if (log == NTT_LEAF_LOG) {
    ntt_leaf_product(x, y, j, roots, f);
  } else if (log == NTT_LEAF_LOG + 1) {
    ntt_forward_2(x, M, j, &roots->forward, f);
    if (x != y) ntt_forward_2(y, M, j, &roots->forward, f);
    for (int c = 0; c < 2; c++)
      ntt_leaf_product(x + c * (M / 2), y + c * (M / 2), 2 * j + c, roots, f);
    ntt_inverse_2(x, M, j, &roots->inverse, f);
  } else {
    ntt_forward_4(x, M, j, &roots->forward, f);
    if (x != y) ntt_forward_4(y, M, j, &roots->forward, f);
    for (int c = 0; c < 4; c++)
      ntt_node_product(x + c * (M / 4), y + c * (M / 4), log - 2, 4 * j + c, roots, f);
    ntt_inverse_4(x, M, j, &roots->inverse, f);
  }
}

#endif
