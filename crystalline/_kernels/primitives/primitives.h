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

typedef struct {
  const char *name;

  /* ---- gemm.h ---- */
  /* c[M, n] (+)= a[M, K] panel[K, n] (+ bias[n]) (+ residual[M, n]); n <= PANEL.
   * accumulate: add to what c holds.  bias, residual may be NULL; residual has stride ldc. */
  void (*gemm_panel)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                     const float *panel, float *c, int64_t ldc, const float *bias,
                     const float *residual, int accumulate);
  /* the same with a given as its transpose: a[K, M] */
  void (*gemm_panel_ta)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                        const float *panel, float *c, int64_t ldc, const float *bias,
                        const float *residual, int accumulate);
  /* panel[K, PANEL] = b[K, n], zero-filled; column_sums[n] += sums over K when not NULL */
  void (*pack_panel)(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                     float *column_sums);
  /* panel[K, PANEL] = b[n, K]^T, zero-filled */
  void (*pack_panel_t)(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel);
  /* sink += a chain-free stream of fused multiply-adds; returns the FLOPs done */
  int64_t (*fma_peak)(int64_t rounds, float *sink);

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
} Primitives;

extern const Primitives cl_primitives_base;
extern const Primitives cl_primitives_avx2;
extern const Primitives cl_primitives_avx512;

#endif
