/* Cross-entropy of rows of logits, and its gradient in their place. */
#ifndef CL_CROSSENTROPY_H
#define CL_CROSSENTROPY_H

#include "vecmath.h"

/* A row is read three times (maximum, exponentials, gradient); callers keep blocks of rows in L2.
 * A NaN or +inf logit, or -inf at the target, makes the loss non-finite. */
static double cross_entropy(int64_t rows, int64_t V, float *logits, int64_t ld,
                            const int32_t *targets, float scale, int backward) {
  const int64_t full = V / VL * VL, rest = V - full;
  double loss = 0.0;
  for (int64_t i = 0; i < rows; i++) {
    float *row = logits + i * ld, at_target = row[targets[i]];
    vf t0 = -vinf(), t1 = -vinf(), t2 = -vinf(), t3 = -vinf();
    int64_t j = 0;
    for (; j + 4 * VL <= full; j += 4 * VL) {
      t0 = vmax(vload(row + j), t0);
      t1 = vmax(vload(row + j + VL), t1);
      t2 = vmax(vload(row + j + 2 * VL), t2);
      t3 = vmax(vload(row + j + 3 * VL), t3);
    }
    for (; j < full; j += VL) t0 = vmax(vload(row + j), t0);
    if (rest) t1 = vmax(vselect(vlanes(rest), vloadn(row + j, rest), -vinf()), t1);
    float highest = vhmax(vmax(vmax(t0, t1), vmax(t2, t3)));

    vf shift = vset1(highest), s0 = vzero(), s1 = vzero();
    if (backward) {
      for (j = 0; j + 2 * VL <= full; j += 2 * VL) {
        vf e = vexp(vload(row + j) - shift), f = vexp(vload(row + j + VL) - shift);
        vstore(row + j, e);
        vstore(row + j + VL, f);
        s0 += e;
        s1 += f;
      }
    } else {
      for (j = 0; j + 2 * VL <= full; j += 2 * VL) {
        s0 += vexp(vload(row + j) - shift);
        s1 += vexp(vload(row + j + VL) - shift);
      }
    }
    if (j < full) {
      vf e = vexp(vload(row + j) - shift);
      if (backward) vstore(row + j, e);
      s0 += e;
      j += VL;
    }
    vf last = vkeepn(vexp(vloadn(row + j, rest) - shift), rest);
    float sum = vsum(s0 + (s1 + last));
    loss += (double)cl_log(sum) + ((double)highest - (double)at_target);

    if (backward) {
      vf k = vset1(scale / sum);
      for (j = 0; j < full; j += VL) vstore(row + j, vload(row + j) * k);
      vstoren(row + j, last * k, rest);
      row[targets[i]] -= scale;
    }
  }
  return loss;
}

#endif
