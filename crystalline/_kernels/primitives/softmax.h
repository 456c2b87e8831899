/* Rows of causal softmax, forward and backward, in place on a block of scores. */
#ifndef CL_SOFTMAX_H
#define CL_SOFTMAX_H

#include "vecmath.h"

/* A row's last vector of weights, n - last of them kept, and zeros up to its width. */
CL_INLINE void cl_end_row(float *row, vf tail, int64_t last, int64_t n, int64_t width) {
  tail = vkeepn(tail, n - last);
  for (int64_t j = last; j < width; j += VL, tail = vzero())
    vstoren(row + j, tail, width - j < VL ? width - j : VL);
}

/* R rows of softmax side by side, of n, n + 1, .. columns: the maximum of a row, its sum and its
 * division wait for one another, those of other rows do not.
 *
 * The last vector of a row is kept in a register, its missing lanes at -inf, whose exponential is
 * 0: a row's length differs from that of the one before, which scalar code would pay for.  What
 * comes before it is the same in all rows up to `common`. */
enum { CL_SOFTMAX_ROWS = VL == 16 ? 4 : 2 };

#define CL_ROWS(R) _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)

CL_INLINE void cl_softmax(const int R, int64_t n, int64_t width, float scale, float *s, int64_t lds,
                          float *tops, float *sums) {
  const vf k = vset1(scale);
  const int64_t common = (n - 1) / VL * VL;
  vf top[R], tail[R], shift[R], total[R], inverse[R];
  int64_t last[R];
  CL_ROWS(R) {
    last[r] = (n + r - 1) / VL * VL;
    int64_t kept = n + r - last[r];
    tail[r] = vselect(vlanes(kept), vloadn(s + r * lds + last[r], kept), -vinf());
    top[r] = tail[r];
  }
  for (int64_t j = 0; j < common; j += VL) CL_ROWS(R) top[r] = vmax(vload(s + r * lds + j), top[r]);
  CL_ROWS(R) {
    for (int64_t j = common; j < last[r]; j += VL) top[r] = vmax(vload(s + r * lds + j), top[r]);
    float highest = vhmax(top[r]);
    tops[r] = highest * scale;
    shift[r] = vset1(-highest * scale);
    total[r] = vzero();
  }
#define CL_STEP                                                \
  {                                                            \
    vf e = vexp(vfma(vload(s + r * lds + j), k, shift[r]));    \
    vstore(s + r * lds + j, e);                                \
    total[r] += e;                                             \
  }
  for (int64_t j = 0; j < common; j += VL) CL_ROWS(R) CL_STEP
  CL_ROWS(R) {
    for (int64_t j = common; j < last[r]; j += VL) CL_STEP
    tail[r] = vexp(vfma(tail[r], k, shift[r]));
    sums[r] = vsum(total[r] + tail[r]);
    inverse[r] = vset1(1.0f / sums[r]);
  }
#undef CL_STEP
  for (int64_t j = 0; j < common; j += VL)
    CL_ROWS(R) vstore(s + r * lds + j, vload(s + r * lds + j) * inverse[r]);
  CL_ROWS(R) {
    float *row = s + r * lds;
    for (int64_t j = common; j < last[r]; j += VL) vstore(row + j, vload(row + j) * inverse[r]);
    cl_end_row(row, tail[r] * inverse[r], last[r], n + r, width);
  }
}
#undef CL_ROWS

static void softmax_causal(int64_t rows, int64_t first, int64_t width, float scale, float *s,
                           int64_t lds, float *lse) {
  for (int64_t start = 0; start < rows; start += VL) {
    int64_t count = rows - start < VL ? rows - start : VL;
    float tops[VL], sums[VL]; /* whose logarithms are taken together */
    int64_t i = 0;
    for (; i + CL_SOFTMAX_ROWS <= count; i += CL_SOFTMAX_ROWS)
      cl_softmax(CL_SOFTMAX_ROWS, first + start + i + 1, width, scale, s + (start + i) * lds, lds,
                 tops + i, sums + i);
    for (; i < count; i++)
      cl_softmax(1, first + start + i + 1, width, scale, s + (start + i) * lds, lds, tops + i,
                 sums + i);
    vstoren(lse + start, vloadn(tops, count) + vlog(vloadn(sums, count)), count);
  }
}

static void softmax_causal_again(int64_t rows, int64_t first, int64_t width, float scale, float *s,
                                 int64_t lds, const float *lse) {
  vf k = vset1(scale);
  for (int64_t i = 0; i < rows; i++) {
    float *row = s + i * lds;
    int64_t n = first + i + 1, last = (n - 1) / VL * VL;
    vf shift = vset1(-lse[i]);
    for (int64_t j = 0; j < last; j += VL) vstore(row + j, vexp(vfma(vload(row + j), k, shift)));
    cl_end_row(row, vexp(vfma(vloadn(row + last, n - last), k, shift)), last, n, width);
  }
}

static void softmax_backward(int64_t rows, int64_t width, float scale, const float *p, float *ds,
                             int64_t ld, const float *delta) {
  vf k = vset1(scale);
  for (int64_t i = 0; i < rows; i++) {
    const float *pr = p + i * ld;
    float *dr = ds + i * ld;
    vf d = vset1(delta[i]);
    int64_t j = 0;
    for (; j + VL <= width; j += VL) vstore(dr + j, vload(pr + j) * k * (vload(dr + j) - d));
    if (j < width)
      vstoren(dr + j, vloadn(pr + j, width - j) * k * (vloadn(dr + j, width - j) - d), width - j);
  }
}

static void row_dots(int64_t rows, int64_t width, const float *a, int64_t lda, const float *b,
                     int64_t ldb, float *delta) {
  for (int64_t i = 0; i < rows; i++) {
    const float *x = a + i * lda, *y = b + i * ldb;
    vf t0 = vzero(), t1 = vzero();
    int64_t j = 0;
    for (; j + 2 * VL <= width; j += 2 * VL) {
      t0 = vfma(vload(x + j), vload(y + j), t0);
      t1 = vfma(vload(x + j + VL), vload(y + j + VL), t1);
    }
    for (; j < width; j += VL) {
      int64_t n = width - j < VL ? width - j : VL;
      t0 = vfma(vloadn(x + j, n), vloadn(y + j, n), t0);
    }
    delta[i] = vsum(t0 + t1);
  }
}

#endif
