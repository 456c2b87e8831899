/* Products with few rows in float32 and bf16: the weights are read once, as fast as memory gives them.
 *
 * A tile spans the whole width of a panel, so that the panel is read from end to end and what follows
 * can be fetched by distance alone: what is next is the next panel, and after a matrix, as a rule, the
 * next matrix.  An element's sum is one chain over K, in order, as in gemm.h: a row has the same
 * bits among few rows and among many.
 */
#ifndef CL_FEW_H
#define CL_FEW_H

#include "gemm.h"

enum {
  CL_NEAR = 1024,     /* bytes that are fetched ahead into L1 */
  CL_FAR = 6 * 1024,  /* and from memory into L2: a latency's worth of what a core gets */
  CL_ACROSS = CL_PANEL / VL, /* vectors across a panel */
};

/* Rows of a tile over the whole width of a panel; and, where registers allow no more of these, of one over
 * half of it: its lines are every other one, and those beside them come along. */
#if defined(CL_AVX512)
enum { CL_FEW_MR = 8, CL_FEW_HALF_MR = 16 };
#elif defined(__aarch64__) || defined(CL_AVX2)
enum { CL_FEW_MR = 2, CL_FEW_HALF_MR = 0 };
#else
enum { CL_FEW_MR = 1, CL_FEW_HALF_MR = 0 };
#endif
enum { CL_FEW_MOST = CL_FEW_HALF_MR > CL_FEW_MR ? CL_FEW_HALF_MR : CL_FEW_MR };

/* Fetch what lies ahead of `bytes` bytes at p, whatever is there: the compiler need not know. */
CL_INLINE void cl_fetch_ahead(const void *p, const int bytes) {
  __asm__("" : "+r"(p));
#pragma GCC unroll 18
  for (int at = 0; at < bytes; at += 64) {
    __builtin_prefetch((const char *)p + CL_NEAR + at);
    __builtin_prefetch((const char *)p + CL_FAR + at, 0, 2);
  }
}

/* n columns of a row in `across` vectors: sums + bias + residual + what c holds, in this order. */
CL_INLINE void cl_finish_part(const int across, int64_t n, vf *sums, float *c, const float *bias,
                              const float *residual, StoreMode store) {
#pragma GCC unroll 8
  for (int v = 0; v < across; v++) {
    const int64_t at = v * VL, m = n - at < 0 ? 0 : n - at > VL ? VL : n - at;
    if (m == VL) {
      if (bias) sums[v] += vload(bias + at);
      if (residual) sums[v] += vload(residual + at);
      if (store == CL_ADD) sums[v] += vload(c + at);
      vstore(c + at, sums[v]);
    } else if (m) {
      if (bias) sums[v] += vloadn(bias + at, m);
      if (residual) sums[v] += vloadn(residual + at, m);
      if (store == CL_ADD) sums[v] += vloadn(c + at, m);
      vstoren(c + at, sums[v], m);
    }
  }
}

CL_INLINE void cl_finish_row(int64_t n, vf *sums, float *c, const float *bias, const float *residual,
                             StoreMode store) {
  cl_finish_part(CL_ACROSS, n, sums, c, bias, residual, store);
}

/* MR rows by ACROSS vectors of columns. */
CL_INLINE void cl_few_tile(const int MR, const int ACROSS, const int BF16, int64_t n, int64_t K,
                           const float *a, int64_t lda, const float *panel, float *c, int64_t ldc,
                           const float *bias, const float *residual, StoreMode store) {
  vf acc[CL_FEW_MOST][CL_ACROSS];
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int v = 0; v < ACROSS; v++) acc[i][v] = vzero();
  /* four rows from one pointer: see gemm.h */
  const char *rows[4];
  int64_t ld = lda * (int64_t)sizeof(float), ld3 = 3 * ld;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) rows[i] = (const char *)(4 * i < MR ? a + 4 * i * lda : a);
  for (const float *const end = panel + K * CL_PANEL; panel < end; panel += CL_PANEL) {
    cl_fetch_ahead(panel, ACROSS * VL * sizeof(float));
    CL_HIDE(rows[0]);
    if (MR > 4) CL_HIDE(rows[1]);
    if (MR > 8) CL_HIDE(rows[2]);
    if (MR > 12) CL_HIDE(rows[3]);
    if (MR > 1) CL_HIDE(ld);
    if (MR > 3) CL_HIDE(ld3);
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++) {
      const char *row = rows[i / 4] + (i % 4 == 0 ? 0 : i % 4 == 1 ? ld : i % 4 == 2 ? 2 * ld : ld3);
      const vf x = vset1(*(const float *)row);
#pragma GCC unroll 8
      for (int v = 0; v < ACROSS; v++) {
        const vf b = vload(panel + v * VL);
        acc[i][v] = BF16 ? vdot2(x, b, acc[i][v]) : vfma(x, b, acc[i][v]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) rows[i] += sizeof(float);
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; i++)
    cl_finish_part(ACROSS, n, acc[i], c + i * ldc, bias, residual ? residual + i * ldc : 0, store);
}

CL_INLINE void cl_few_panel(const int BF16, int64_t M, int64_t n, int64_t K, const float *a,
                            int64_t lda, const float *panel, float *c, int64_t ldc,
                            const float *bias, const float *residual, StoreMode store) {
  const int64_t most = M > CL_FEW_MR && CL_FEW_HALF_MR ? CL_FEW_HALF_MR : CL_FEW_MR;
  const int64_t tiles = (M + most - 1) / most;
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t row = M * t / tiles, rows = M * (t + 1) / tiles - row;
    const float *x = a + row * lda, *beside = residual ? residual + row * ldc : 0;
    float *out = c + row * ldc;
    switch (rows) {
#define CL_WHOLE(m)                                                                                \
  case m:                                                                                          \
    cl_few_tile(m, CL_ACROSS, BF16, n, K, x, lda, panel, out, ldc, bias, beside, store);           \
    break;
#define CL_HALF(m)                                                                                 \
  case m:                                                                                          \
    for (int64_t j = 0; j < n; j += VL)                                                            \
      cl_few_tile(m, 1, BF16, n - j, K, x, lda, panel + j, out + j, ldc, bias ? bias + j : 0,      \
                  beside ? beside + j : 0, store);                                                 \
    break;
      CL_WHOLE(1)
#if defined(CL_AVX512) || defined(CL_AVX2) || defined(__aarch64__)
      CL_WHOLE(2)
#endif
#if defined(CL_AVX512)
      CL_WHOLE(3) CL_WHOLE(4) CL_WHOLE(5) CL_WHOLE(6) CL_WHOLE(7) CL_WHOLE(8)
      CL_HALF(9) CL_HALF(10) CL_HALF(11) CL_HALF(12) CL_HALF(13) CL_HALF(14) CL_HALF(15) CL_HALF(16)
#endif
#undef CL_WHOLE
#undef CL_HALF
    }
  }
}

static void float32_product_few(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                                const float *panel, int64_t next, float *c, int64_t ldc,
                                const float *bias, const float *residual, StoreMode store) {
  (void)next;
  cl_few_panel(0, M, n, K, a, lda, panel, c, ldc, bias, residual, store);
}
static void bf16_product_few(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                             const float *panel, int64_t next, float *c, int64_t ldc,
                             const float *bias, const float *residual, StoreMode store) {
  (void)next;
  cl_few_panel(1, M, n, K, a, lda, panel, c, ldc, bias, residual, store);
}

#endif
