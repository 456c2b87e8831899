/* Passes over rows of activations: LayerNorm, GELU, sums, embeddings.
 *
 * Each comes with its backward pass.  Elementwise outputs may be the same array as an input.
 */
#ifndef CL_ROWS_H
#define CL_ROWS_H

#include "vecmath.h"

/* ---- LayerNorm (Ba et al. 2016): biased variance, mean first, then the squares about it ---- */

static void layernorm(int64_t rows, int64_t C, const float *x, const float *gamma,
                      const float *beta, float epsilon, float *out, float *mean, float *rstd) {
  const int64_t full = C / VL * VL, rest = C - full;
  for (int64_t i = 0; i < rows; i++, x += C, out += C) {
    vf s0 = vzero(), s1 = vzero(), s2 = vzero(), s3 = vzero();
    int64_t j = 0;
    for (; j + 4 * VL <= full; j += 4 * VL) {
      s0 += vload(x + j);
      s1 += vload(x + j + VL);
      s2 += vload(x + j + 2 * VL);
      s3 += vload(x + j + 3 * VL);
    }
    for (; j < full; j += VL) s0 += vload(x + j);
    if (rest) s1 += vloadn(x + j, rest);
    float m = vsum((s0 + s1) + (s2 + s3)) / (float)C;

    vf shift = vset1(m);
    s0 = s1 = s2 = s3 = vzero();
    for (j = 0; j + 4 * VL <= full; j += 4 * VL) {
      vf d0 = vload(x + j) - shift, d1 = vload(x + j + VL) - shift;
      vf d2 = vload(x + j + 2 * VL) - shift, d3 = vload(x + j + 3 * VL) - shift;
      s0 = vfma(d0, d0, s0);
      s1 = vfma(d1, d1, s1);
      s2 = vfma(d2, d2, s2);
      s3 = vfma(d3, d3, s3);
    }
    for (; j < full; j += VL) {
      vf d = vload(x + j) - shift;
      s0 = vfma(d, d, s0);
    }
    if (rest) {
      vf d = vkeepn(vloadn(x + j, rest) - shift, rest);
      s1 = vfma(d, d, s1);
    }
    float variance = vsum((s0 + s1) + (s2 + s3)) / (float)C;
    float r = (vset1(1.0f) / vsqrt(vset1(variance + epsilon)))[0];

    vf k = vset1(r);
    for (j = 0; j < full; j += VL)
      vstore(out + j, vfma((vload(x + j) - shift) * k, vload(gamma + j), vload(beta + j)));
    if (rest)
      vstoren(out + j, vfma((vloadn(x + j, rest) - shift) * k, vloadn(gamma + j, rest),
                            vloadn(beta + j, rest)), rest);
    mean[i] = m;
    rstd[i] = r;
  }
}

/* With n = (x - mean) rstd and g = dy gamma: dx = rstd (g - mean(g) - n mean(g n)). */
static void layernorm_backward(int64_t rows, int64_t C, const float *dy, const float *x,
                               const float *gamma, const float *mean, const float *rstd, float *dx,
                               int accumulate, float *dgamma, float *dbeta) {
  const int64_t full = C / VL * VL, rest = C - full;
  for (int64_t i = 0; i < rows; i++, x += C, dy += C, dx += C) {
    vf m = vset1(mean[i]), r = vset1(rstd[i]);
    vf g0 = vzero(), g1 = vzero(), n0 = vzero(), n1 = vzero();
    int64_t j = 0;
    for (; j + 2 * VL <= full; j += 2 * VL) {
      vf d = vload(dy + j), n = (vload(x + j) - m) * r, g = d * vload(gamma + j);
      vf e = vload(dy + j + VL), o = (vload(x + j + VL) - m) * r, h = e * vload(gamma + j + VL);
      vstore(dgamma + j, vfma(d, n, vload(dgamma + j)));
      vstore(dgamma + j + VL, vfma(e, o, vload(dgamma + j + VL)));
      vstore(dbeta + j, vload(dbeta + j) + d);
      vstore(dbeta + j + VL, vload(dbeta + j + VL) + e);
      g0 += g;
      g1 += h;
      n0 = vfma(g, n, n0);
      n1 = vfma(h, o, n1);
    }
    for (; j < C; j += VL) {
      int64_t w = C - j < VL ? C - j : VL;
      vf d = vloadn(dy + j, w), n = (vloadn(x + j, w) - m) * r, g = d * vloadn(gamma + j, w);
      vstoren(dgamma + j, vfma(d, n, vloadn(dgamma + j, w)), w);
      vstoren(dbeta + j, vloadn(dbeta + j, w) + d, w);
      g0 += g; /* dy is 0 beyond w */
      n0 = vfma(g, n, n0);
    }
    vf mean_g = vset1(vsum(g0 + g1) / (float)C), mean_gn = vset1(vsum(n0 + n1) / (float)C);
    for (j = 0; j < full; j += VL) {
      vf n = (vload(x + j) - m) * r;
      vf d = vfnma(n, mean_gn, vload(dy + j) * vload(gamma + j) - mean_g) * r;
      vstore(dx + j, accumulate ? vload(dx + j) + d : d);
    }
    if (rest) {
      vf n = (vloadn(x + j, rest) - m) * r;
      vf d = vfnma(n, mean_gn, vloadn(dy + j, rest) * vloadn(gamma + j, rest) - mean_g) * r;
      vstoren(dx + j, accumulate ? vloadn(dx + j, rest) + d : d, rest);
    }
  }
}

/* ---- GELU in GPT-2's tanh form (Hendrycks and Gimpel 2016) ----
 *
 * 0.5 x (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715 x^3) is x / (1 + exp(t)) with
 * t = -2u = -x (A + B x^2): one exponential, one division, no cancellation.  Rounding: t has four
 * operations and two constants (5 |t| in the exponent), exp 1.1 ulp, of which the share
 * e / (1 + e) <= min(1, exp(t)) counts; the sum and the quotient one each.  So the relative error is
 * at most (2 + (3 + 5 |t|) min(1, exp(t))) 2^-24 for t < 87; below, the result is 0 to 1e-36. */
#define CL_GELU_A 1.5957691216057308f   /* 2 sqrt(2/pi) */
#define CL_GELU_B 0.071354816272600249f /* A * 0.044715 */

CL_INLINE vf vgelu(vf x) {
  vf t = -x * vfma(x * x, vset1(CL_GELU_B), vset1(CL_GELU_A));
  t = vmin(vset1(88.72f), vmax(vset1(-87.0f), t)); /* this order lets NaN pass */
  return x / (vset1(1.0f) + vexp_bounded(t));
}

/* d gelu / dx = s + s (1 - s) x (A + 3 B x^2), s = 1 / (1 + e), 1 - s = e s, e = exp(-2u).
 * Beyond |x| = 9 the derivative is 0 or 1 to 1e-26.  Absolute error at most 6 * 2^-24. */
CL_INLINE vf vgelu_slope(vf x) {
  x = vmin(vset1(9.0f), vmax(vset1(-9.0f), x));
  vf z = x * x;
  vf e = vexp_bounded(-x * vfma(z, vset1(CL_GELU_B), vset1(CL_GELU_A)));
  vf s = vset1(1.0f) / (vset1(1.0f) + e);
  vf slope = x * vfma(z, vset1(3.0f * CL_GELU_B), vset1(CL_GELU_A));
  return vfma(s * (e * s), slope, s);
}

static void gelu(int64_t n, const float *x, float *out) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) vstore(out + i, vgelu(vload(x + i)));
  if (i < n) vstoren(out + i, vgelu(vloadn(x + i, n - i)), n - i);
}

static void gelu_backward(int64_t n, const float *x, const float *dy, float *dx) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) vstore(dx + i, vload(dy + i) * vgelu_slope(vload(x + i)));
  if (i < n)
    vstoren(dx + i, vloadn(dy + i, n - i) * vgelu_slope(vloadn(x + i, n - i)), n - i);
}

/* ---- sums ---- */

static void add(int64_t n, const float *a, const float *b, float *out) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) vstore(out + i, vload(a + i) + vload(b + i));
  if (i < n) vstoren(out + i, vloadn(a + i, n - i) + vloadn(b + i, n - i), n - i);
}

/* In float64, where the square of a float32 is exact. */
static double sum_squares(int64_t n, const float *x) {
  vd s[4] = {{0}};
  int64_t i = 0;
  for (; i + 2 * VL <= n; i += 2 * VL) {
    vf a = vload(x + i), b = vload(x + i + VL);
    vd a0 = vlow(a), a1 = vhigh(a), b0 = vlow(b), b1 = vhigh(b);
    s[0] += a0 * a0;
    s[1] += a1 * a1;
    s[2] += b0 * b0;
    s[3] += b1 * b1;
  }
  for (; i < n; i += VL) {
    vf a = vloadn(x + i, n - i < VL ? n - i : VL);
    vd a0 = vlow(a), a1 = vhigh(a);
    s[0] += a0 * a0;
    s[1] += a1 * a1;
  }
  return vdsum((s[0] + s[1]) + (s[2] + s[3]));
}

/* ---- embeddings ---- */

static void embed(int64_t rows, int64_t T, int64_t C, const int32_t *ids, const float *wte,
                  const float *wpe, float *out) {
  for (int64_t i = 0; i < rows; i++)
    add(C, wte + ids[i] * C, wpe + i % T * C, out + i * C);
}

static void embed_backward(int64_t rows, int64_t T, int64_t C, const int32_t *ids, const float *dx,
                           float *dwte, float *dwpe) {
  for (int64_t i = 0; i < rows; i++) {
    float *token = dwte + ids[i] * C, *place = dwpe + i % T * C;
    add(C, token, dx + i * C, token);
    add(C, place, dx + i * C, place);
  }
}

#endif
