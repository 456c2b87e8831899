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

/* Rows of a tile.  Half a panel at a time has room for twice as many with AVX-512, but 10 to 16 rows
 * take a quarter longer that way than in gemm.h's tiles. */
#if defined(CL_AVX512)
#define CL_FEW_MR 8
#elif defined(__aarch64__) || defined(CL_AVX2)
#define CL_FEW_MR 2
#else
#define CL_FEW_MR 1
#endif

/* Fetch what lies ahead of `bytes` bytes at p, whatever is there: the compiler need not know. */
CL_INLINE void cl_fetch_ahead(const void *p, const int bytes) {
  __asm__("" : "+r"(p));
#pragma GCC unroll 18
  for (int at = 0; at < bytes; at += 64) {
    __builtin_prefetch((const char *)p + CL_NEAR + at);
    __builtin_prefetch((const char *)p + CL_FAR + at, 0, 2);
  }
}

/* n columns of a row: sums + bias + residual + what c holds, in this order. */
CL_INLINE void cl_finish_row(int64_t n, vf *sums, float *c, const float *bias, const float *residual,
                             StoreMode store) {
#pragma GCC unroll 8
  for (int v = 0; v < CL_ACROSS; v++) {
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

CL_INLINE void cl_few_tile(const int MR, const int BF16, int64_t n, int64_t K, const float *a,
                           int64_t lda, const float *panel, float *c, int64_t ldc,
                           const float *bias, const float *residual, StoreMode store) {
  vf acc[CL_FEW_MR][CL_ACROSS];
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
#pragma GCC unroll 8
    for (int v = 0; v < CL_ACROSS; v++) acc[i][v] = vzero();
  /* four rows from one pointer: see gemm.h */
  const char *rows[2];
  int64_t ld = lda * (int64_t)sizeof(float), ld3 = 3 * ld;
  rows[0] = (const char *)a;
  rows[1] = (const char *)(MR > 4 ? a + 4 * lda : a);
  for (const float *const end = panel + K * CL_PANEL; panel < end; panel += CL_PANEL) {
    cl_fetch_ahead(panel, CL_PANEL * sizeof(float));
    CL_HIDE(rows[0]);
    if (MR > 4) CL_HIDE(rows[1]);
    if (MR > 1) CL_HIDE(ld);
    if (MR > 3) CL_HIDE(ld3);
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
      const char *row = rows[i / 4] + (i % 4 == 0 ? 0 : i % 4 == 1 ? ld : i % 4 == 2 ? 2 * ld : ld3);
      const vf x = vset1(*(const float *)row);
#pragma GCC unroll 8
      for (int v = 0; v < CL_ACROSS; v++) {
        const vf b = vload(panel + v * VL);
        acc[i][v] = BF16 ? vdot2(x, b, acc[i][v]) : vfma(x, b, acc[i][v]);
      }
    }
    rows[0] += sizeof(float);
    rows[1] += sizeof(float);
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; i++)
    cl_finish_row(n, acc[i], c + i * ldc, bias, residual ? residual + i * ldc : 0, store);
}

CL_INLINE void cl_few_panel(const int BF16, int64_t M, int64_t n, int64_t K, const float *a,
                            int64_t lda, const float *panel, float *c, int64_t ldc,
                            const float *bias, const float *residual, StoreMode store) {
  const int64_t tiles = (M + CL_FEW_MR - 1) / CL_FEW_MR;
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t row = M * t / tiles, rows = M * (t + 1) / tiles - row;
    const float *x = a + row * lda, *beside = residual ? residual + row * ldc : 0;
    switch (rows) {
#define CL_CASE(m)                                                                                 \
  case m:                                                                                          \
    cl_few_tile(m, BF16, n, K, x, lda, panel, c + row * ldc, ldc, bias, beside, store);            \
    break;
      CL_CASE(1)
#if CL_FEW_MR > 1
      CL_CASE(2)
#endif
#if CL_FEW_MR > 2
      CL_CASE(3) CL_CASE(4) CL_CASE(5) CL_CASE(6) CL_CASE(7) CL_CASE(8)
#endif
#undef CL_CASE
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
