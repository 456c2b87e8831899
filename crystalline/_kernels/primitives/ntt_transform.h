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

/* A node of size M at x becomes its two halves: columns from .. to of M / 2. */
static void ntt_forward_2(NttElement *x, int64_t M, int64_t from, int64_t to, int64_t j,
                          const NttDirection *way, const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactorVec w = ntt_factor(way->half + j);
  for (int64_t i = from; i < to; i += NTT_W) {
    NttVec x0 = ntt_reduce(ntt_load(x + i), f), x1 = ntt_load(x + i + M / 2);
    NTT_SPLIT(x0, x1, w); /* 1/2 + T(2.8) = 1.35 */
    ntt_store(x + i, x0);
    ntt_store(x + i + M / 2, x1);
  }
}

static void ntt_inverse_2(NttElement *x, int64_t M, int64_t from, int64_t to, int64_t j,
                          const NttDirection *way, const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactorVec w = ntt_factor(way->half + j);
  for (int64_t i = from; i < to; i += NTT_W) {
    NttVec x0 = ntt_load(x + i), x1 = ntt_load(x + i + M / 2);
    NTT_JOIN(x0, x1, w); /* 2; T(2) = 3/4 */
    ntt_store(x + i, ntt_reduce(x0, f));
    ntt_store(x + i + M / 2, x1);
  }
}

/* A node of size M at x becomes its four quarters: columns from .. to of M / 4, two abreast. */
static void ntt_forward_4(NttElement *x, int64_t M, int64_t from, int64_t to, int64_t j,
                          const NttDirection *way, const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactorVec w1 = ntt_factor(way->half + j), w2 = ntt_factor(way->half + 2 * j),
               w3 = ntt_factor(way->half + 2 * j + 1);
  for (int64_t i = from; i < to; i += 2 * NTT_W) {
    NttVec y[2][4];
    for (int t = 0; t < 4; t++)
      for (int u = 0; u < 2; u++) y[u][t] = ntt_load(x + i + t * (M / 4) + u * NTT_W);
    for (int u = 0; u < 2; u++) y[u][0] = ntt_reduce(y[u][0], f);
    for (int u = 0; u < 2; u++) NTT_SPLIT(y[u][0], y[u][2], w1); /* 1/2 + T(2.8) = 1.35 */
    for (int u = 0; u < 2; u++) NTT_SPLIT(y[u][1], y[u][3], w1); /* 2.8 + T(2.8) = 3.65 */
    for (int u = 0; u < 2; u++) NTT_SPLIT(y[u][0], y[u][1], w2); /* 1.35 + T(3.65) = 2.31 */
    for (int u = 0; u < 2; u++) NTT_SPLIT(y[u][2], y[u][3], w3);
    for (int t = 0; t < 4; t++)
      for (int u = 0; u < 2; u++) ntt_store(x + i + t * (M / 4) + u * NTT_W, y[u][t]);
  }
}

static void ntt_inverse_4(NttElement *x, int64_t M, int64_t from, int64_t to, int64_t j,
                          const NttDirection *way, const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactorVec w1 = ntt_factor(way->half + j), w2 = ntt_factor(way->half + 2 * j),
               w3 = ntt_factor(way->half + 2 * j + 1);
  for (int64_t i = from; i < to; i += 2 * NTT_W) {
    NttVec y[2][4];
    for (int t = 0; t < 4; t++)
      for (int u = 0; u < 2; u++) y[u][t] = ntt_load(x + i + t * (M / 4) + u * NTT_W);
    for (int u = 0; u < 2; u++) NTT_JOIN(y[u][0], y[u][1], w2); /* 2; T(2) = 3/4 */
    for (int u = 0; u < 2; u++) NTT_JOIN(y[u][2], y[u][3], w3);
    for (int u = 0; u < 2; u++) NTT_JOIN(y[u][0], y[u][2], w1); /* 4, to be reduced; T(4) = 1 */
    for (int u = 0; u < 2; u++) NTT_JOIN(y[u][1], y[u][3], w1); /* 3/2, to be reduced; T(3/2) */
    for (int t = 0; t < 2; t++)
      for (int u = 0; u < 2; u++) y[u][t] = ntt_reduce(y[u][t], f);
    for (int t = 0; t < 4; t++)
      for (int u = 0; u < 2; u++) ntt_store(x + i + t * (M / 4) + u * NTT_W, y[u][t]);
  }
}

#if NTT_W > 1

/* Leaves are handled two at a time, step by step alternating, since one alone is a chain of
 * dependent steps too long for the processor to hide.  Roots that act across a leaf's vectors are
 * broadcast; within the lanes, lane l of leaf j belongs to node NTT_W j + l. */
typedef struct {
  NttVec w1, w2[2];
#if NTT_W == 8
  NttVec w4[4];
#endif
} NttLeafRoots;

NTT_INLINE NttLeafRoots ntt_across(const NttDirection *way, int64_t j) {
  const NttFactor *h = way->half;
  NttLeafRoots r;
  r.w1 = ntt_factor(h + j);
  for (int i = 0; i < 2; i++) r.w2[i] = ntt_factor(h + 2 * j + i);
#if NTT_W == 8
  for (int i = 0; i < 4; i++) r.w4[i] = ntt_factor(h + 4 * j + i);
#endif
  return r;
}

/* Products of two factors at most 1/2: at most 0.57, T(0.57, 1/2). */
NTT_INLINE NttLeafRoots ntt_within(const NttDirection *way, int64_t j, const NttField *f) {
  NttLeafRoots r;
  r.w1 = ntt_mulmod(ntt_load(way->lane[0]), ntt_factor(way->leaf[0] + j), f);
  r.w2[0] = ntt_mulmod(ntt_load(way->lane[1]), ntt_factor(way->leaf[1] + j), f);
  r.w2[1] = ntt_mulmod(r.w2[0], ntt_factor(&way->quarter), f);
#if NTT_W == 8
  r.w4[0] = ntt_mulmod(ntt_load(way->lane[2]), ntt_factor(way->leaf[2] + j), f);
  r.w4[1] = ntt_mulmod(r.w4[0], ntt_factor(&way->quarter), f);
  r.w4[2] = ntt_mulmod(r.w4[0], ntt_factor(&way->eighth), f);
  r.w4[3] = ntt_mulmod(r.w4[0], ntt_factor(&way->three_eighths), f);
#endif
  return r;
}

#if NTT_W == 8

/* From 2.8 to 2.94, with roots up to 0.57. */
NTT_INLINE void ntt_split_lines(NttVec *s, NttVec *t, const NttLeafRoots *rs,
                                const NttLeafRoots *rt, const NttField *f) {
  for (int i = 0; i < 4; i++) {
    s[i] = ntt_reduce(s[i], f);
    t[i] = ntt_reduce(t[i], f);
  }
  for (int i = 0; i < 4; i++) {
    NTT_SPLIT(s[i], s[i + 4], rs->w1); /* 0.5 + T(2.94, 0.57) = 1.42 */
    NTT_SPLIT(t[i], t[i + 4], rt->w1);
  }
  for (int i = 0; i < 4; i++) {
    int k = i / 2 * 4 + i % 2;
    NTT_SPLIT(s[k], s[k + 2], rs->w2[i / 2]); /* 1.42 + T(1.42, 0.57) = 2.13 */
    NTT_SPLIT(t[k], t[k + 2], rt->w2[i / 2]);
  }
  for (int i = 0; i < 4; i++) {
    NTT_SPLIT(s[2 * i], s[2 * i + 1], rs->w4[i]); /* 2.13 + T(2.13, 0.57) = 2.94 */
    NTT_SPLIT(t[2 * i], t[2 * i + 1], rt->w4[i]);
  }
}

/* From 1 to 1 with inverse roots up to 1/2; or from 0.87 with roots up to 0.57. */
NTT_INLINE void ntt_join_lines(NttVec *s, NttVec *t, const NttLeafRoots *rs,
                               const NttLeafRoots *rt, const NttField *f) {
  for (int i = 0; i < 4; i++) {
    NTT_JOIN(s[2 * i], s[2 * i + 1], rs->w4[i]); /* 2; T(2, 1/2), T(1.74, 0.57) = 0.75 */
    NTT_JOIN(t[2 * i], t[2 * i + 1], rt->w4[i]);
  }
  for (int i = 0; i < 4; i++) { /* 4, 1.5; T(4, 1/2), T(3.5, 0.57) = 1, T(1.5, 0.57) */
    int k = i / 2 * 4 + i % 2;
    NTT_JOIN(s[k], s[k + 2], rs->w2[i / 2]);
    NTT_JOIN(t[k], t[k + 2], rt->w2[i / 2]);
  }
  for (int i = 0; i < 8; i += 4) {
    s[i] = ntt_reduce(s[i], f);
    t[i] = ntt_reduce(t[i], f);
  }
  for (int i = 0; i < 4; i++) {
    NTT_JOIN(s[i], s[i + 4], rs->w1); /* 1, 3, 2, 1.5; T(3, 0.57) = 0.93 */
    NTT_JOIN(t[i], t[i + 4], rt->w1);
  }
  for (int i = 1; i < 4; i++) {
    s[i] = ntt_reduce(s[i], f);
    t[i] = ntt_reduce(t[i], f);
  }
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

#else

/* From 2.8 to 2.4, with roots up to 0.57. */
NTT_INLINE void ntt_split_lines(NttVec *s, NttVec *t, const NttLeafRoots *rs,
                                const NttLeafRoots *rt, const NttField *f) {
  for (int i = 0; i < 2; i++) {
    s[i] = ntt_reduce(s[i], f);
    t[i] = ntt_reduce(t[i], f);
  }
  for (int i = 0; i < 2; i++) {
    NTT_SPLIT(s[i], s[i + 2], rs->w1); /* 0.5 + T(2.8, 0.57) = 1.4 */
    NTT_SPLIT(t[i], t[i + 2], rt->w1);
  }
  for (int i = 0; i < 2; i++) {
    NTT_SPLIT(s[2 * i], s[2 * i + 1], rs->w2[i]); /* 1.4 + T(1.4, 0.57) = 2.1 */
    NTT_SPLIT(t[2 * i], t[2 * i + 1], rt->w2[i]);
  }
}

/* From 1 to 1 with inverse roots up to 1/2; or from 0.87 with roots up to 0.57. */
NTT_INLINE void ntt_join_lines(NttVec *s, NttVec *t, const NttLeafRoots *rs,
                               const NttLeafRoots *rt, const NttField *f) {
  for (int i = 0; i < 2; i++) {
    NTT_JOIN(s[2 * i], s[2 * i + 1], rs->w2[i]); /* 2; T(2, 1/2), T(1.74, 0.57) = 0.75 */
    NTT_JOIN(t[2 * i], t[2 * i + 1], rt->w2[i]);
  }
  for (int i = 0; i < 2; i++) { /* 4, 1.5; T(4, 1/2), T(3.5, 0.57) = 1, T(1.5, 0.57) */
    NTT_JOIN(s[i], s[i + 2], rs->w1);
    NTT_JOIN(t[i], t[i + 2], rt->w1);
  }
  for (int i = 0; i < 2; i++) {
    s[i] = ntt_reduce(s[i], f);
    t[i] = ntt_reduce(t[i], f);
  }
}

NTT_INLINE void ntt_transpose(NttVec x[4]) {
  NttVec a0 = _mm256_unpacklo_pd(x[0], x[1]), a1 = _mm256_unpackhi_pd(x[0], x[1]);
  NttVec a2 = _mm256_unpacklo_pd(x[2], x[3]), a3 = _mm256_unpackhi_pd(x[2], x[3]);
  x[0] = _mm256_permute2f128_pd(a0, a2, 0x20);
  x[1] = _mm256_permute2f128_pd(a1, a3, 0x20);
  x[2] = _mm256_permute2f128_pd(a0, a2, 0x31);
  x[3] = _mm256_permute2f128_pd(a1, a3, 0x31);
}

#endif

NTT_INLINE void ntt_split_leaves(NttVec *s, NttVec *t, const NttElement *x, const NttElement *y,
                                 const NttLeafRoots across[2], const NttLeafRoots within[2],
                                 int u, const NttField *f) {
  for (int i = 0; i < NTT_W; i++) {
    s[i] = ntt_load(x + NTT_W * i);
    t[i] = ntt_load(y + NTT_W * i);
  }
  ntt_split_lines(s, t, &across[0], &across[u], f);
  ntt_transpose(s);
  ntt_transpose(t);
  ntt_split_lines(s, t, &within[0], &within[u], f);
}

/* x = x y modulo leaves j and j + 1, times NTT_W^2; the same pointer twice squares. */
static void ntt_leaf_products(NttElement *x, const NttElement *y, int64_t j, const NttRoots *roots,
                              const NttField *field) {
  enum { LEAF = NTT_W * NTT_W };
  const NttField copy = *field, *f = &copy;
  const NttDirection *way = &roots->forward, *back = &roots->inverse;
  NttLeafRoots across[2] = {ntt_across(way, j), ntt_across(way, j + 1)};
  NttLeafRoots within[2] = {ntt_within(way, j, f), ntt_within(way, j + 1, f)};
  NttVec a[2][NTT_W], b[NTT_W];
  if (x == y) {
    ntt_split_leaves(a[0], a[1], x, x + LEAF, across, within, 1, f);
    for (int i = 0; i < NTT_W; i++)
      for (int u = 0; u < 2; u++) {
        NttVec v = ntt_reduce(a[u][i], f);
        a[u][i] = ntt_mulmod_residues(v, v, f);
      }
  } else {
    for (int u = 0; u < 2; u++) {
      ntt_split_leaves(a[u], b, x + u * LEAF, y + u * LEAF, across + u, within + u, 0, f);
      for (int i = 0; i < NTT_W; i++) /* T(2.94, 1/2) = 0.87 */
        a[u][i] = ntt_mulmod_residues(a[u][i], ntt_reduce(b[i], f), f);
    }
  }
  for (int u = 0; u < 2; u++) {
    across[u] = ntt_across(back, j + u);
    within[u] = ntt_within(back, j + u, f);
  }
  ntt_join_lines(a[0], a[1], &within[0], &within[1], f);
  ntt_transpose(a[0]);
  ntt_transpose(a[1]);
  ntt_join_lines(a[0], a[1], &across[0], &across[1], f);
  for (int u = 0; u < 2; u++)
    for (int i = 0; i < NTT_W; i++) ntt_store(x + u * LEAF + NTT_W * i, a[u][i]);
}

#else

/* The same with one lane, without the factor.  Modulo x^4 - e(rev(j)), schoolbook: cheaper than two
 * more levels of three transforms, and the tables are a quarter. */
static void ntt_leaf_products(NttElement *x, const NttElement *y, int64_t j, const NttRoots *roots,
                              const NttField *field) {
  const NttField copy = *field, *f = &copy;
  NttFactor w = roots->forward.half[j / 2];
  for (int u = 0; u < 2; u++, x += 4, y += 4) {
    int64_t a[4], b[4], wb[4];
    for (int i = 0; i < 4; i++) {
      a[i] = ntt_reduce(x[i], f);
      b[i] = ntt_reduce(y[i], f);
      wb[i] = ntt_reduce(ntt_mulmod(b[i], w, f), f);
      if (u) wb[i] = -wb[i];
    }
    for (int i = 0; i < 4; i++) {
      __int128 sum = 0;
      for (int k = 0; k < 4; k++) sum += (__int128)a[k] * (k <= i ? b[i - k] : wb[i - k + 4]);
      x[i] = ntt_reduce(ntt_reduce_wide(sum, f), f);
    }
  }
}

#endif

/* x = x y modulo node j of size 2^log, at least two leaves, times 2^log (2^log / 4 with one lane);
 * y is destroyed; x == y squares.  Returns 0, or what `poll` returned; small nodes do not ask. */
static int ntt_node_product(NttElement *x, NttElement *y, int log, int64_t j,
                            const NttRoots *roots, const NttField *f, ExactPoll poll) {
  int64_t M = (int64_t)1 << log;
  if (log == NTT_LEAF_LOG + 1) {
    ntt_forward_2(x, M, 0, M / 2, j, &roots->forward, f);
    if (x != y) ntt_forward_2(y, M, 0, M / 2, j, &roots->forward, f);
    ntt_leaf_products(x, y, 2 * j, roots, f);
    ntt_inverse_2(x, M, 0, M / 2, j, &roots->inverse, f);
    return 0;
  }
  NTT_IN_SLICES(M / 4, ntt_forward_4(x, M, from, to, j, &roots->forward, f));
  if (x != y) NTT_IN_SLICES(M / 4, ntt_forward_4(y, M, from, to, j, &roots->forward, f));
  if (log == NTT_LEAF_LOG + 2) {
    ntt_leaf_products(x, y, 4 * j, roots, f);
    ntt_leaf_products(x + M / 2, y + M / 2, 4 * j + 2, roots, f);
  } else {
    for (int c = 0; c < 4; c++) {
      int status = ntt_node_product(x + c * (M / 4), y + c * (M / 4), log - 2, 4 * j + c, roots, f,
                                    poll);
      if (!status && log >= NTT_POLL_LOG) status = poll();
      if (status) return status;
    }
  }
  NTT_IN_SLICES(M / 4, ntt_inverse_4(x, M, from, to, j, &roots->inverse, f));
  return 0;
}

#endif
