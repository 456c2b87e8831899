/* The table of primitives that a level exports: storey 1 of the kernels.
 *
 * One struct for all levels; Cython algorithms (storey 2) call through the one
 * table that was chosen at import.  Sizes: M rows, N columns, K inner length;
 * strides (ld*) in floats; a panel is PANEL columns of a packed matrix, laid out
 * [K][PANEL].
 */
#ifndef CL_PRIMITIVES_H
#define CL_PRIMITIVES_H

#include <stdint.h>

#define CL_PANEL 32

/* What an optimizer step needs; correction = 1 / (1 - beta^t) with t counted from 1. */
typedef struct {
  float lr, beta1, beta2, epsilon, weight_decay, clip, correction1, correction2;
} OptimizerStep;

/* Targets spread over neighbors: that of token t is (1 - epsilon) at t and epsilon weights[t, j] at
 * ids[t, j].  A row of weights sums to 1, or is all 0: then t has no neighbors and epsilon is 0. */
typedef struct {
  int64_t k;
  const int32_t *ids;    /* [V, k], each from 0 to V - 1 */
  const float *weights;  /* [V, k], none below 0 */
  double epsilon;        /* above 0, below 1 */
} SoftTargets;

typedef struct {
  const char *name;

  /* ---- gemm.h ---- */
  /* c[M, n] (+)= a[M, K] panel[K, n] (+ bias[n]) (+ residual[M, n]); n <= PANEL.
   * accumulate: add to what c holds; below 0: write c past the cache (rows of n are then whole,
   * aligned cache lines).  bias, residual may be NULL; residual has stride ldc.  The panel of the
   * next call lies at panel + next and is fetched ahead; 0: nothing is known of it. */
  void (*gemm_panel)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                     const float *panel, int64_t next, float *c, int64_t ldc, const float *bias,
                     const float *residual, int accumulate);
  /* the same with a given as its transpose: a[K, M] */
  void (*gemm_panel_ta)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                        const float *panel, int64_t next, float *c, int64_t ldc, const float *bias,
                        const float *residual, int accumulate);
  /* panel[K, PANEL] = b[K, n], zero-filled; column_sums[n] += sums over K when not NULL */
  void (*pack_panel)(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                     float *column_sums);
  /* panel[K, PANEL] = b[n, K]^T, zero-filled */
  void (*pack_panel_t)(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel);
  /* The same in bf16: elements of a and of panels are pairs (see gemm.h), K counts pairs. */
  void (*gemm_panel_bf16)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                          const float *panel, int64_t next, float *c, int64_t ldc, const float *bias,
                          const float *residual, int accumulate);
  void (*gemm_panel_ta_bf16)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                             const float *panel, int64_t next, float *c, int64_t ldc, const float *bias,
                             const float *residual, int accumulate);
  /* panel[(K + 1) / 2, PANEL] of pairs along K from float32 b[K, n] */
  void (*pack_panel_bf16)(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                          float *column_sums);
  /* panel[(K + 1) / 2, PANEL] of pairs along K from float32 b[n, K] */
  void (*pack_panel_t_bf16)(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel);
  /* out[rows, (K + 1) / 2] of pairs along K from float32 x[rows, K] */
  void (*to_pairs)(int64_t rows, int64_t K, const float *x, int64_t ldx, float *out);
  /* out[(rows + 1) / 2, K] of pairs along the rows from x[rows, (K + 1) / 2] of pairs along K */
  void (*pair_rows)(int64_t rows, int64_t K, const float *x, float *out);
  /* sink += a chain-free stream of multiply-adds; returns the FLOPs done */
  int64_t (*fma_peak)(int64_t rounds, float *sink);
  int64_t (*bf16_peak)(int64_t rounds, float *sink);

  /* ---- softmax.h ---- */
  /* s[i, 0..first+i] = softmax(scale * s[i, ..]), zeros to width; lse[i] = log sum exp.
   * Row i of the block sees first + i + 1 columns. */
  void (*softmax_causal)(int64_t rows, int64_t first, int64_t width, float scale, float *s,
                         int64_t lds, float *lse);
  /* s[i, j] = exp(scale * s[i, j] - lse[i]) for j <= first + i, zeros to width */
  void (*softmax_causal_again)(int64_t rows, int64_t first, int64_t width, float scale, float *s,
                               int64_t lds, const float *lse);
  /* ds[i, j] = scale * p[i, j] * (ds[i, j] - delta[i]) */
  void (*softmax_backward)(int64_t rows, int64_t width, float scale, const float *p, float *ds,
                           int64_t ld, const float *delta);
  /* delta[i] = sum_j a[i, j] b[i, j] */
  void (*row_dots)(int64_t rows, int64_t width, const float *a, int64_t lda, const float *b,
                   int64_t ldb, float *delta);
  /* out[j] = sum_i weights[i] a[i, j] */
  void (*weighted_rows)(int64_t rows, int64_t width, const float *weights, const float *a,
                        int64_t lda, float *out);

  /* ---- vecmath.h ---- elementwise; out may be x */
  void (*vec_exp)(int64_t n, const float *x, float *out);
  void (*vec_log)(int64_t n, const float *x, float *out);
  void (*vec_tanh)(int64_t n, const float *x, float *out);
  void (*vec_erf)(int64_t n, const float *x, float *out);

  /* ---- rows.h ---- */
  /* out = (x - mean) rstd gamma + beta for every row of x[rows, C]; mean[rows], rstd[rows] */
  void (*layernorm)(int64_t rows, int64_t C, const float *x, const float *gamma,
                    const float *beta, float epsilon, float *out, float *mean, float *rstd);
  /* dx = or, with accumulate, +=; dgamma[C], dbeta[C] += sums over rows in row order.
   * dx may be dy. */
  void (*layernorm_backward)(int64_t rows, int64_t C, const float *dy, const float *x,
                             const float *gamma, const float *mean, const float *rstd, float *dx,
                             int accumulate, float *dgamma, float *dbeta);
  /* tanh form; out may be x, dx may be dy */
  void (*gelu)(int64_t n, const float *x, float *out);
  void (*gelu_backward)(int64_t n, const float *x, const float *dy, float *dx);
  void (*add)(int64_t n, const float *a, const float *b, float *out);
  /* the sum of x[i]^2 in float64, in a fixed order */
  double (*sum_squares)(int64_t n, const float *x);
  /* out[i] = wte[ids[i]] + wpe[i % T], rows of C */
  void (*embed)(int64_t rows, int64_t T, int64_t C, const int32_t *ids, const float *wte,
                const float *wpe, float *out);
  /* dwte[ids[i]] += dx[i], dwpe[i % T] += dx[i], in row order */
  void (*embed_backward)(int64_t rows, int64_t T, int64_t C, const int32_t *ids, const float *dx,
                         float *dwte, float *dwpe);

  /* ---- crossentropy.h ---- */
  /* Returns the sum of -log softmax(logits[i])[targets[i]]; with backward, logits become
   * scale (softmax - target).  A row's columns V..ld-1 are not touched.  soft NULL: the target is
   * onehot(targets[i]); otherwise it is as above, and *smoothed becomes the sum of the
   * cross-entropies against it. */
  double (*cross_entropy)(int64_t rows, int64_t V, float *logits, int64_t ld,
                          const int32_t *targets, float scale, int backward,
                          const SoftTargets *soft, double *smoothed);

  /* ---- optimizer.h ---- */
  void (*adamw)(int64_t n, float *w, float *m, float *v, const float *g,
                const OptimizerStep *step);
  void (*sgd)(int64_t n, float *w, float *m, const float *g, const OptimizerStep *step);
  /* out[i] = the sum over lanes of first[lane * stride + i] in one fixed binary tree (neighbors
   * first, an odd one moves up), lanes >= 1; returns the sum of out[i]^2.  out may be lane 0. */
  double (*tree_sum)(int64_t n, int64_t lanes, const float *first, int64_t stride, float *out);

  /* ---- random.h ---- */
  /* out[i] = x[i] * scale where hash(key, first + i) >= threshold, else 0; threshold = p 2^32.
   * The same bits at every level and for any split of the range; out may be x. */
  void (*dropout)(int64_t n, const float *x, float *out, uint64_t key, uint64_t first,
                  uint32_t threshold, float scale);
} Primitives;

extern const Primitives cl_primitives_base;
extern const Primitives cl_primitives_avx2;
extern const Primitives cl_primitives_avx512;
extern const Primitives cl_primitives_avx512bf16;

#endif
