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

/* The last vector of a row is kept in a register, its missing lanes at -inf, whose exponential is
 * 0: a row's length differs from that of the one before, which scalar code would pay for. */
static void softmax_causal(int64_t rows, int64_t first, int64_t width, float scale, float *s,
                           int64_t lds, float *lse) {
  vf k = vset1(scale);
  for (int64_t start = 0; start < rows; start += VL) {
    int64_t count = rows - start < VL ? rows - start : VL;
    float tops[VL], sums[VL]; /* whose logarithms are taken together */
    for (int64_t i = 0; i < count; i++) {
      float *row = s + (start + i) * lds;
      int64_t n = first + start + i + 1, last = (n - 1) / VL * VL;
      vf tail = vselect(vlanes(n - last), vloadn(row + last, n - last), -vinf()), top = tail;
      for (int64_t j = 0; j < last; j += VL) top = vmax(vload(row + j), top);
      float highest = vhmax(top);
      vf shift = vset1(-highest * scale), total = vzero();
      for (int64_t j = 0; j < last; j += VL) {
        vf e = vexp(vfma(vload(row + j), k, shift));
        vstore(row + j, e);
        total += e;
      }
      tail = vexp(vfma(tail, k, shift));
      tops[i] = highest * scale;
      sums[i] = vsum(total + tail);
      vf inverse = vset1(1.0f / sums[i]);
      for (int64_t j = 0; j < last; j += VL) vstore(row + j, vload(row + j) * inverse);
      cl_end_row(row, tail * inverse, last, n, width);
    }
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

static void weighted_rows(int64_t rows, int64_t width, const float *weights, const float *a,
                          int64_t lda, float *out) {
  for (int64_t j = 0; j < width; j += VL) {
    int64_t n = width - j < VL ? width - j : VL;
    vf t0 = vzero(), t1 = vzero();
    int64_t i = 0;
    if (n == VL) {
      for (; i + 2 <= rows; i += 2) {
        t0 = vfma(vset1(weights[i]), vload(a + i * lda + j), t0);
        t1 = vfma(vset1(weights[i + 1]), vload(a + (i + 1) * lda + j), t1);
      }
    }
    for (; i < rows; i++) t0 = vfma(vset1(weights[i]), vloadn(a + i * lda + j, n), t0);
    vstoren(out + j, t0 + t1, n);
  }
}

#endif
