/* Passes over rows of activations: norms, the MLP's functions, rotary positions, sums, embeddings.
 *
 * Each comes with its backward pass.  Elementwise outputs may be the same array as an input.
 */
#ifndef CL_ROWS_H
#define CL_ROWS_H

#include "vecmath.h"

/* ---- LayerNorm (Ba et al. 2016): biased variance, mean first, then the squares about it ----
 *
 * A row is three short loops with a reduction and a division between them, all of which wait for
 * one another; so several rows go side by side.  Each keeps its own sums, in the order that it has
 * alone, and what sums over rows takes them in row order. */
enum { CL_NORM_ROWS = VL == 16 ? 4 : 2 }; /* as many as their sums fit the registers */

#define CL_ROWS(R) _Pragma("GCC unroll 4") for (int r = 0; r < R; r++)
#define CL_SUMS(A) _Pragma("GCC unroll 4") for (int a = 0; a < A; a++)

CL_INLINE void cl_layernorm(const int R, int64_t C, const float *x, const float *gamma,
                            const float *beta, float epsilon, float *out, float *mean,
                            float *rstd) {
  const int64_t full = C / VL * VL, rest = C - full;
  vf s[4][R], shift[R], k[R];
  int64_t j = 0;
  CL_ROWS(R) CL_SUMS(4) s[a][r] = vzero();
  for (; j + 4 * VL <= full; j += 4 * VL)
    CL_ROWS(R) CL_SUMS(4) s[a][r] += vload(x + r * C + j + a * VL);
  for (; j < full; j += VL) CL_ROWS(R) s[0][r] += vload(x + r * C + j);
  CL_ROWS(R) {
    if (rest) s[1][r] += vloadn(x + r * C + j, rest);
    mean[r] = vsum((s[0][r] + s[1][r]) + (s[2][r] + s[3][r])) / (float)C;
    shift[r] = vset1(mean[r]);
    CL_SUMS(4) s[a][r] = vzero();
  }

  for (j = 0; j + 4 * VL <= full; j += 4 * VL)
    CL_ROWS(R) CL_SUMS(4) {
      vf d = vload(x + r * C + j + a * VL) - shift[r];
      s[a][r] = vfma(d, d, s[a][r]);
    }
  for (; j < full; j += VL)
    CL_ROWS(R) {
      vf d = vload(x + r * C + j) - shift[r];
      s[0][r] = vfma(d, d, s[0][r]);
    }
  CL_ROWS(R) {
    if (rest) {
      vf d = vkeepn(vloadn(x + r * C + j, rest) - shift[r], rest);
      s[1][r] = vfma(d, d, s[1][r]);
    }
    float variance = vsum((s[0][r] + s[1][r]) + (s[2][r] + s[3][r])) / (float)C;
    k[r] = vset1(1.0f) / vsqrt(vset1(variance + epsilon));
    rstd[r] = k[r][0];
  }

  for (j = 0; j < full; j += VL) {
    vf g = vload(gamma + j), b = vload(beta + j);
    CL_ROWS(R) vstore(out + r * C + j, vfma((vload(x + r * C + j) - shift[r]) * k[r], g, b));
  }
  if (rest) {
    vf g = vloadn(gamma + j, rest), b = vloadn(beta + j, rest);
    CL_ROWS(R) {
      vf n = (vloadn(x + r * C + j, rest) - shift[r]) * k[r];
      vstoren(out + r * C + j, vfma(n, g, b), rest);
    }
  }
}

static void layernorm(int64_t rows, int64_t C, const float *x, const float *gamma,
                      const float *beta, float epsilon, float *out, float *mean, float *rstd) {
  int64_t i = 0;
  for (; i + CL_NORM_ROWS <= rows; i += CL_NORM_ROWS)
    cl_layernorm(CL_NORM_ROWS, C, x + i * C, gamma, beta, epsilon, out + i * C, mean + i, rstd + i);
  for (; i < rows; i++)
    cl_layernorm(1, C, x + i * C, gamma, beta, epsilon, out + i * C, mean + i, rstd + i);
}

/* With n = (x - mean) rstd and g = dy gamma: dx = rstd (g - mean(g) - n mean(g n)). */
CL_INLINE void cl_layernorm_backward(const int R, int64_t C, const float *dy, const float *x,
                                     const float *gamma, const float *mean, const float *rstd,
                                     float *dx, int accumulate, float *dgamma, float *dbeta) {
  const int64_t full = C / VL * VL, rest = C - full;
  vf m[R], k[R], sum_g[2][R], sum_gn[2][R], mean_g[R], mean_gn[R];
  int64_t j = 0;
  CL_ROWS(R) {
    m[r] = vset1(mean[r]);
    k[r] = vset1(rstd[r]);
    CL_SUMS(2) sum_g[a][r] = sum_gn[a][r] = vzero();
  }
  for (; j + 2 * VL <= full; j += 2 * VL)
    CL_SUMS(2) {
      const int64_t at = j + a * VL;
      vf weight = vload(gamma + at), dw = vload(dgamma + at), db = vload(dbeta + at);
      CL_ROWS(R) {
        vf d = vload(dy + r * C + at), n = (vload(x + r * C + at) - m[r]) * k[r], g = d * weight;
        dw = vfma(d, n, dw);
        db += d;
        sum_g[a][r] += g;
        sum_gn[a][r] = vfma(g, n, sum_gn[a][r]);
      }
      vstore(dgamma + at, dw);
      vstore(dbeta + at, db);
    }
  for (; j < C; j += VL) {
    int64_t w = C - j < VL ? C - j : VL;
    vf weight = vloadn(gamma + j, w), dw = vloadn(dgamma + j, w), db = vloadn(dbeta + j, w);
    CL_ROWS(R) {
      vf d = vloadn(dy + r * C + j, w), n = (vloadn(x + r * C + j, w) - m[r]) * k[r];
      vf g = d * weight; /* dy is 0 beyond w */
      dw = vfma(d, n, dw);
      db += d;
      sum_g[0][r] += g;
      sum_gn[0][r] = vfma(g, n, sum_gn[0][r]);
    }
    vstoren(dgamma + j, dw, w);
    vstoren(dbeta + j, db, w);
  }
  CL_ROWS(R) {
    mean_g[r] = vset1(vsum(sum_g[0][r] + sum_g[1][r]) / (float)C);
    mean_gn[r] = vset1(vsum(sum_gn[0][r] + sum_gn[1][r]) / (float)C);
  }

  for (j = 0; j < full; j += VL) {
    vf weight = vload(gamma + j);
    CL_ROWS(R) {
      float *to = dx + r * C + j;
      vf n = (vload(x + r * C + j) - m[r]) * k[r];
      vf d = vfnma(n, mean_gn[r], vload(dy + r * C + j) * weight - mean_g[r]) * k[r];
      vstore(to, accumulate ? vload(to) + d : d);
    }
  }
  if (rest) {
    vf weight = vloadn(gamma + j, rest);
    CL_ROWS(R) {
      float *to = dx + r * C + j;
      vf n = (vloadn(x + r * C + j, rest) - m[r]) * k[r];
      vf d = vfnma(n, mean_gn[r], vloadn(dy + r * C + j, rest) * weight - mean_g[r]) * k[r];
      vstoren(to, accumulate ? vloadn(to, rest) + d : d, rest);
    }
  }
}
#undef CL_ROWS
#undef CL_SUMS

static void layernorm_backward(int64_t rows, int64_t C, const float *dy, const float *x,
                               const float *gamma, const float *mean, const float *rstd, float *dx,
                               int accumulate, float *dgamma, float *dbeta) {
  int64_t i = 0;
  for (; i + CL_NORM_ROWS <= rows; i += CL_NORM_ROWS)
    cl_layernorm_backward(CL_NORM_ROWS, C, dy + i * C, x + i * C, gamma, mean + i, rstd + i,
                          dx + i * C, accumulate, dgamma, dbeta);
  for (; i < rows; i++)
    cl_layernorm_backward(1, C, dy + i * C, x + i * C, gamma, mean + i, rstd + i, dx + i * C,
                          accumulate, dgamma, dbeta);
}

/* ---- RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + epsilon) gamma ---- */
static void rmsnorm(int64_t rows, int64_t C, const float *x, const float *gamma, float epsilon,
                    float *out, float *rstd) {
  for (int64_t i = 0; i < rows; i++, x += C, out += C) {
    vf s[4] = {{0}};
    int64_t j = 0;
    for (; j + 4 * VL <= C; j += 4 * VL)
      for (int a = 0; a < 4; a++) {
        vf d = vload(x + j + a * VL);
        s[a] = vfma(d, d, s[a]);
      }
    for (; j < C; j += VL) {
      vf d = vloadn(x + j, C - j < VL ? C - j : VL);
      s[0] = vfma(d, d, s[0]);
    }
    vf k = vset1(1.0f) / vsqrt(vset1(vsum((s[0] + s[1]) + (s[2] + s[3])) / (float)C + epsilon));
    rstd[i] = k[0];
    for (j = 0; j + VL <= C; j += VL) vstore(out + j, vload(x + j) * k * vload(gamma + j));
    if (j < C) vstoren(out + j, vloadn(x + j, C - j) * k * vloadn(gamma + j, C - j), C - j);
  }
}

/* With n = x rstd and g = dy gamma: dx = rstd (g - n mean(g n)). */
static void rmsnorm_backward(int64_t rows, int64_t C, const float *dy, const float *x,
                             const float *gamma, const float *rstd, float *dx, int accumulate,
                             float *dgamma) {
  for (int64_t i = 0; i < rows; i++, x += C, dy += C, dx += C) {
    const vf k = vset1(rstd[i]);
    vf s[2] = {{0}};
    for (int64_t j = 0, a = 0; j < C; j += VL, a ^= 1) {
      int64_t w = C - j < VL ? C - j : VL;
      vf d = vloadn(dy + j, w), n = vloadn(x + j, w) * k;
      vstoren(dgamma + j, vfma(d, n, vloadn(dgamma + j, w)), w);
      s[a] = vfma(d * vloadn(gamma + j, w), n, s[a]);
    }
    const vf mean_gn = vset1(vsum(s[0] + s[1]) / (float)C);
    for (int64_t j = 0; j < C; j += VL) {
      int64_t w = C - j < VL ? C - j : VL;
      vf n = vloadn(x + j, w) * k;
      vf d = vfnma(n, mean_gn, vloadn(dy + j, w) * vloadn(gamma + j, w)) * k;
      vstoren(dx + j, accumulate ? vloadn(dx + j, w) + d : d, w);
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

#if defined(CL_AVX512)
/* The bits of vexp_bounded in fewer steps.  It has no power of 2 above 127: from 88.37 on, inf. */
CL_INLINE vf cl_gelu_exp(vf t) {
  vf k = (vf)_mm512_roundscale_ps((__m512)(t * vset1(CL_LOG2E)), 0);
  __mmask16 bounded = _mm512_cmp_ps_mask((__m512)k, (__m512)vset1(128.0f), _CMP_NGE_UQ);
  return (vf)_mm512_mask_scalef_ps((__m512)vinf(), bounded, (__m512)cl_exp_reduced(t, k),
                                   (__m512)k);
}
CL_INLINE vf cl_gelu_slope_exp(vf t) { /* |t| < 67 */
  vf k = (vf)_mm512_roundscale_ps((__m512)(t * vset1(CL_LOG2E)), 0);
  return (vf)_mm512_scalef_ps((__m512)cl_exp_reduced(t, k), (__m512)k);
}
#else
CL_INLINE vf cl_gelu_exp(vf t) { return vexp_bounded(vmin(vset1(88.72f), t)); }
CL_INLINE vf cl_gelu_slope_exp(vf t) { return vexp_bounded(t); }
#endif

CL_INLINE vf vgelu(vf x) {
  vf t = x * vfma(x * x, vset1(-CL_GELU_B), vset1(-CL_GELU_A));
  return x / (vset1(1.0f) + cl_gelu_exp(vmax(vset1(-87.0f), t))); /* this order lets NaN pass */
}

/* d gelu / dx = s + s (1 - s) x (A + 3 B x^2), s = 1 / (1 + e), 1 - s = e s, e = exp(-2u).
 * Beyond |x| = 9 the derivative is 0 or 1 to 1e-26.  Absolute error at most 6 * 2^-24. */
CL_INLINE vf vgelu_slope(vf x) {
  x = vmin(vset1(9.0f), vmax(vset1(-9.0f), x));
  vf z = x * x;
  vf e = cl_gelu_slope_exp(-x * vfma(z, vset1(CL_GELU_B), vset1(CL_GELU_A)));
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

/* ---- SwiGLU (Shazeer 2020): silu(gate) up, silu(x) = x / (1 + exp(-x)) ----
 *
 * Rounding of silu as of gelu above, with t = -x exact: relative error at most
 * (2 + (3 + |x|) min(1, exp(-x))) 2^-24 for x > -87. */
CL_INLINE vf vsilu(vf x) {
  return x / (vset1(1.0f) + cl_gelu_exp(vmax(vset1(-87.0f), -x))); /* this order lets NaN pass */
}

/* d silu / dx = s (1 + x (1 - s)), s = 1 / (1 + e), 1 - s = e s, e = exp(-x); beyond |x| = 66 it
 * is 0 or 1 to 1e-26. */
CL_INLINE vf vsilu_slope(vf x) {
  x = vmin(vset1(66.0f), vmax(vset1(-66.0f), x));
  vf e = cl_gelu_slope_exp(-x), s = vset1(1.0f) / (vset1(1.0f) + e);
  return s * vfma(x, e * s, vset1(1.0f));
}

static void swiglu(int64_t rows, int64_t F, const float *gate_up, int64_t ld, float *out) {
  for (int64_t i = 0; i < rows; i++, gate_up += ld, out += F) {
    int64_t j = 0;
    for (; j + VL <= F; j += VL)
      vstore(out + j, vsilu(vload(gate_up + j)) * vload(gate_up + F + j));
    if (j < F)
      vstoren(out + j, vsilu(vloadn(gate_up + j, F - j)) * vloadn(gate_up + F + j, F - j), F - j);
  }
}

static void swiglu_backward(int64_t rows, int64_t F, const float *gate_up, int64_t ld,
                            const float *dy, float *dgate_up) {
  for (int64_t i = 0; i < rows; i++, gate_up += ld, dy += F, dgate_up += 2 * F)
    for (int64_t j = 0; j < F; j += VL) {
      int64_t w = F - j < VL ? F - j : VL;
      vf g = vloadn(gate_up + j, w), u = vloadn(gate_up + F + j, w), d = vloadn(dy + j, w);
      vstoren(dgate_up + j, d * u * vsilu_slope(g), w);
      vstoren(dgate_up + F + j, d * vsilu(g), w);
    }
}

/* ---- squared ReLU (So et al. 2021) ---- */
static void relu2(int64_t n, const float *x, float *out) {
  for (int64_t i = 0; i < n; i += VL) {
    int64_t w = n - i < VL ? n - i : VL;
    vf y = vmax(vzero(), vloadn(x + i, w)); /* this order lets NaN pass */
    vstoren(out + i, y * y, w);
  }
}

static void relu2_backward(int64_t n, const float *x, const float *dy, float *dx) {
  for (int64_t i = 0; i < n; i += VL) {
    int64_t w = n - i < VL ? n - i : VL;
    vf y = vmax(vzero(), vloadn(x + i, w));
    vstoren(dx + i, vloadn(dy + i, w) * (y + y), w);
  }
}

/* ---- rotary positions (Su et al. 2021): channels i and i + D/2 of a head turn as a pair ---- */
static void rotate(int64_t heads, int64_t D, const float *cosines, const float *sines, int back,
                   float *x) {
  const int64_t half = D / 2;
  for (int64_t h = 0; h < heads; h++, x += D)
    for (int64_t i = 0; i < half; i += VL) {
      int64_t w = half - i < VL ? half - i : VL;
      vf c = vloadn(cosines + i, w), s = vloadn(sines + i, w);
      vf a = vloadn(x + i, w), b = vloadn(x + half + i, w);
      if (back) s = -s;
      vstoren(x + i, vfnma(b, s, a * c), w);
      vstoren(x + half + i, vfma(a, s, b * c), w);
    }
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
    if (wpe)
      add(C, wte + ids[i] * C, wpe + i % T * C, out + i * C);
    else
      memcpy(out + i * C, wte + ids[i] * C, C * sizeof(float));
}

static void embed_backward(int64_t rows, int64_t T, int64_t C, const int32_t *ids, const float *dx,
                           float *dwte, float *dwpe) {
  for (int64_t i = 0; i < rows; i++) {
    float *token = dwte + ids[i] * C;
    add(C, token, dx + i * C, token);
    if (dwpe) add(C, dwpe + i % T * C, dx + i * C, dwpe + i % T * C);
  }
}

#endif
