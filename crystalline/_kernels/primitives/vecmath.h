/* exp, log, tanh and erf on vectors, without libm: the same bits whatever the C library.
 *
 * Error bounds in units of the last place, against a higher-precision value, are
 * stated per function and tested over the whole range at every level.
 */
#ifndef CL_VECMATH_H
#define CL_VECMATH_H

#include "vec.h"

/* 2^n for n in [-126, 127] */
CL_INLINE vf vpow2i(vi n) { return vbits((n + 127) << 23); }

/* exp(x).  Cody-Waite reduction to |r| <= ln2/2, polynomial of degree 6 (Cephes, Moshier).
 * At most 2 ulp for results in the normal range; 0 below -87.33 and inf above 88.72; NaN passes. */
CL_INLINE vf vexp(vf x) {
  const vf hi = vset1(88.722839f), lo = vset1(-87.336548f);
  vf t = vmin(vmax(x, lo), hi);
  vi n = vround(t * vset1(1.44269504088896341f));
  vf k = vfloat(n);
  vf r = vfnma(k, vset1(0.693359375f), t);
  r = vfma(k, vset1(2.12194440e-4f), r);
  vf p = vset1(1.9875691500e-4f);
  p = vfma(p, r, vset1(1.3981999507e-3f));
  p = vfma(p, r, vset1(8.3334519073e-3f));
  p = vfma(p, r, vset1(4.1665795894e-2f));
  p = vfma(p, r, vset1(1.6666665459e-1f));
  p = vfma(p, r, vset1(5.0000001201e-1f));
  p = vfma(p, r * r, r + vset1(1.0f));
  /* two factors, so that n = 128 does not overflow the scale itself */
  vi half = n >> 1;
  vf y = p * vpow2i(half) * vpow2i(n - half);
  y = vselect((vi)(x < lo), vzero(), y);
  y = vselect((vi)(x > hi), vbits(viset1(0x7f800000)), y);
  return vselect((vi)(x != x), x, y);
}

/* log(x) for x > 0: exponent and mantissa in [sqrt(1/2), sqrt(2)), polynomial (Cephes).
 * At most 2 ulp for normal x; -inf at 0, NaN below 0, inf and NaN pass.  Subnormal x counts as 0. */
CL_INLINE vf vlog(vf x) {
  vi bits = vibits(x);
  vi e = ((bits - 0x3f3504f3) >> 23);
  vf m = vbits(bits - (e << 23)) - vset1(1.0f); /* in [sqrt(1/2) - 1, sqrt(2) - 1) */
  vf k = vfloat(e), z = m * m;
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
  y = vfma(k, vset1(-2.12194440e-4f), y);
  y = vfma(z, vset1(-0.5f), y);
  y = vfma(k, vset1(0.693359375f), m + y);
  y = vselect((vi)(x < vset1(1.17549435e-38f)), vbits(viset1((int32_t)0xff800000)), y);
  y = vselect((vi)(x < vzero()), vbits(viset1(0x7fc00000)), y);
  return vselect((vi)((x == vbits(viset1(0x7f800000))) | (x != x)), x, y);
}
CL_INLINE float cl_log(float x) { return vlog(vset1(x))[0]; }

#endif
