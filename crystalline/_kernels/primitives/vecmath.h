/* exp, log, tanh and erf on vectors, without libm: the same bits whatever the C library.
 *
 * Error bounds in units of the last place (ulp), against a higher-precision value,
 * are stated per function and tested over the whole range at every level.  NaN
 * passes through everything.
 */
#ifndef CL_VECMATH_H
#define CL_VECMATH_H

#include "vec.h"

#define CL_LN2_HIGH 0.693359375f    /* 9 bits: a product with an exponent is exact */
#define CL_LN2_LOW -2.12194440e-4f
#define CL_LOG2E 1.44269504088896341f

CL_INLINE vf vinf(void) { return vbits(viset1(0x7f800000)); }

/* 2^n for n in [-126, 127]; inf for 128 */
CL_INLINE vf vpow2i(vi n) { return vbits((n + 127) << 23); }

/* |magnitude| with the sign of `sign` */
CL_INLINE vf vcopysign(vf magnitude, vf sign) {
  vi bit = viset1((int32_t)0x80000000);
  return (vf)(((vi)magnitude & ~bit) | ((vi)sign & bit));
}

/* exp(t - k ln2) for k = round(t / ln2): Cody-Waite reduction to |r| <= ln2/2, then a
 * polynomial of degree 6 (Cephes expf, Moshier). */
CL_INLINE vf cl_exp_reduced(vf t, vf k) {
  vf r = vfnma(k, vset1(CL_LN2_HIGH), t);
  r = vfnma(k, vset1(CL_LN2_LOW), r);
  vf p = vset1(1.9875691500e-4f);
  p = vfma(p, r, vset1(1.3981999507e-3f));
  p = vfma(p, r, vset1(8.3334519073e-3f));
  p = vfma(p, r, vset1(4.1665795894e-2f));
  p = vfma(p, r, vset1(1.6666665459e-1f));
  p = vfma(p, r, vset1(5.0000001201e-1f));
  return vfma(p, r * r, r) + vset1(1.0f);
}

/* exp(t) for -87.33 <= t <= 88.72 or NaN, without a check; inf may begin at 88.37. */
CL_INLINE vf vexp_bounded(vf t) {
  vi n = vround(t * vset1(CL_LOG2E));
  return cl_exp_reduced(t, vfloat(n)) * vpow2i(n);
}

/* exp(x): at most 1.1 ulp; 0 where x < -87.336548 (no subnormal results), inf above 88.72283. */
#if defined(CL_AVX512)
CL_INLINE vf vexp(vf x) {
  vf t = vmin(vset1(200.0f), x);
  vf k = (vf)_mm512_roundscale_ps((__m512)(t * vset1(CL_LOG2E)), 0);
  __mmask16 keep = _mm512_cmp_ps_mask((__m512)x, (__m512)vset1(-87.336548f), _CMP_NLT_UQ);
  return (vf)_mm512_maskz_scalef_ps(keep, (__m512)cl_exp_reduced(t, k), (__m512)k);
}
#else
CL_INLINE vf vexp(vf x) {
  const vf lo = vset1(-87.336548f);
  vf t = vmin(vset1(89.0f), vmax(lo, x));
  vi n = vround(t * vset1(CL_LOG2E));
  /* two factors, so that n = 128 does not overflow before the product does */
  vi half = n >> 1;
  vf y = cl_exp_reduced(t, vfloat(n)) * vpow2i(half) * vpow2i(n - half);
  return (vf)((vi)y & ~(vi)(x < lo));
}
#endif

/* log(x): exponent and mantissa in [sqrt(1/2), sqrt(2)), polynomial (Cephes logf).
 * At most 1 ulp, subnormals included; -inf at 0, NaN below 0. */
CL_INLINE vf vlog(vf x) {
  vi small = (vi)(x < vset1(1.17549435e-38f));
  vi bits = vibits(vselect(small, x * vset1(8388608.0f), x));
  vi e = (bits - 0x3f3504f3) >> 23;
  vf m = vbits(bits - (e << 23)) - vset1(1.0f); /* in [sqrt(1/2) - 1, sqrt(2) - 1) */
  vf k = vfloat(e - (small & 23)), z = m * m;
  vf p = vset1(7.0376836292e-2f);
  p = vfma(p, m, vset1(-1.1514610310e-1f));
  p = vfma(p, m, vset1(1.1676998740e-1f));
  p = vfma(p, m, vset1(-1.2420140846e-1f));
  p = vfma(p, m, vset1(1.4249322787e-1f));
  p = vfma(p, m, vset1(-1.6668057665e-1f));
  p = vfma(p, m, vset1(2.0000714765e-1f));
  p = vfma(p, m, vset1(-2.4999993993e-1f));
  p = vfma(p, m, vset1(3.3333331174e-1f));
  vf y = p * m * z;
  y = vfma(k, vset1(CL_LN2_LOW), y);
  y = vfma(z, vset1(-0.5f), y);
  y = vfma(k, vset1(CL_LN2_HIGH), m + y);
  y = vselect((vi)(x == vzero()), -vinf(), y);
  y = vselect((vi)(x < vzero()), vbits(viset1(0x7fc00000)), y);
  return vselect((vi)(x == vinf()) | (vi)(x != x), x, y);
}
CL_INLINE float cl_log(float x) { return vlog(vset1(x))[0]; }

/* tanh(x): an odd polynomial below 0.625 (Cephes tanhf), 1 - 2 / (exp(2|x|) + 1) above.
 * At most 1.5 ulp. */
CL_INLINE vf vtanh(vf x) {
  vf t = vabs(x), z = x * x;
  vf p = vset1(-5.70498872745e-3f);
  p = vfma(p, z, vset1(2.06390887954e-2f));
  p = vfma(p, z, vset1(-5.37397155531e-2f));
  p = vfma(p, z, vset1(1.33314422036e-1f));
  p = vfma(p, z, vset1(-3.33332819422e-1f));
  vf small = vfma(p * z, x, x);
  vf e = vexp_bounded(vmin(vset1(20.0f), t + t)); /* tanh(10) rounds to 1 */
  vf large = vset1(1.0f) - vset1(2.0f) / (e + vset1(1.0f));
  return vcopysign(vselect((vi)(t < vset1(0.625f)), small, large), x);
}

/* erf(x): x + x P(x^2) below 0.95; above, 1 - exp(-g) with g = -log(erfc |x|) as a polynomial.
 * Both fitted to the relative error of erf by Lawson's reweighting; at most 1.5 ulp. */
CL_INLINE vf verf(vf x) {
  vf z = x * x;
  vf p = vset1(7.853809075e-5f);
  p = vfma(p, z, vset1(-8.010179154e-4f));
  p = vfma(p, z, vset1(5.188326351e-3f));
  p = vfma(p, z, vset1(-2.685381100e-2f));
  p = vfma(p, z, vset1(1.128358543e-1f));
  p = vfma(p, z, vset1(-3.761262596e-1f));
  p = vfma(p, z, vset1(1.283791661e-1f));
  vf small = vfma(p, x, x);
  vf t = vmin(vset1(4.0f), vabs(x)); /* erf(4) rounds to 1 */
  vf g = vset1(-2.145957260e-4f);
  g = vfma(g, t, vset1(3.219981212e-3f));
  g = vfma(g, t, vset1(-2.290605009e-2f));
  g = vfma(g, t, vset1(1.052868813e-1f));
  g = vfma(g, t, vset1(6.356993318e-1f));
  g = vfma(g, t, vset1(1.285199523e-1f));
  g = vfma(g, t, t);
  vf large = vset1(1.0f) - vexp_bounded(-g);
  return vselect((vi)(vabs(x) < vset1(0.95f)), small, vcopysign(large, x));
}

/* Whole arrays; out may be x. */
#define CL_OVER_ARRAY(name, function)                              \
  static void name(int64_t n, const float *x, float *out) {        \
    int64_t i = 0;                                                 \
    for (; i + VL <= n; i += VL) vstore(out + i, function(vload(x + i))); \
    if (i < n) vstoren(out + i, function(vloadn(x + i, n - i)), n - i);   \
  }
CL_OVER_ARRAY(vec_exp, vexp)
CL_OVER_ARRAY(vec_log, vlog)
CL_OVER_ARRAY(vec_tanh, vtanh)
CL_OVER_ARRAY(vec_erf, verf)
#undef CL_OVER_ARRAY

#endif
