/* Cross-entropy of rows of logits against hard or soft targets, and its gradient in their place. */
#ifndef CL_CROSSENTROPY_H
#define CL_CROSSENTROPY_H

#include "primitives.h"
#include "vecmath.h"

/* Whether a token has neighbors, and then in *missed the sum of w (highest - logit) over them: what
 * they add to a row's loss beside log(sum), as differences, so that large logits do not cancel. */
static int neighbors_missed(const SoftTargets *soft, int32_t token, const float *row,
                            float highest, double *missed) {
  const int32_t *ids = soft->ids + token * soft->k;
  const float *weights = soft->weights + token * soft->k;
  double sum = 0.0;
  int any = 0;
  for (int64_t j = 0; j < soft->k; j++) {
    if (weights[j] == 0.0f) continue; /* not even times infinity */
    sum += (double)weights[j] * ((double)highest - (double)row[ids[j]]);
    any = 1;
  }
  *missed = sum;
  return any;
}

/* A token's rows of the tables, for `neighbors_missed` after the pass over the logits. */
static void prefetch_neighbors(const SoftTargets *soft, int32_t token) {
  const int64_t line = 64 / (int64_t)sizeof(float);
  for (int64_t j = 0; j < soft->k + line - 1; j += line) {
    __builtin_prefetch(soft->ids + token * soft->k + j);
    __builtin_prefetch(soft->weights + token * soft->k + j);
  }
}

/* row -= scale times the soft target of a token that has neighbors */
static void subtract_soft_target(const SoftTargets *soft, int32_t token, float scale, float *row) {
  const int32_t *ids = soft->ids + token * soft->k;
  const float *weights = soft->weights + token * soft->k;
  const float share = (float)(scale * soft->epsilon);
  row[token] -= (float)(scale * (1.0 - soft->epsilon));
  for (int64_t j = 0; j < soft->k; j++) row[ids[j]] -= share * weights[j];
}

/* A row is read three times (maximum, exponentials, gradient); callers keep blocks of rows in L2.
 * A NaN or +inf logit, or -inf at the target, makes the loss non-finite; so does, for *smoothed,
 * -inf at a neighbor of the target. */
static double cross_entropy(int64_t rows, int64_t V, float *logits, int64_t ld,
                            const int32_t *targets, float scale, int backward,
                            const SoftTargets *soft, double *smoothed) {
  const int64_t full = V / VL * VL, rest = V - full;
  double loss = 0.0, soft_loss = 0.0;
  for (int64_t i = 0; i < rows; i++) {
    float *row = logits + i * ld, at_target = row[targets[i]];
    if (soft) prefetch_neighbors(soft, targets[i]);
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

    double missed = 0.0; /* before the exponentials take the logits' place */
    const int spread = soft && neighbors_missed(soft, targets[i], row, highest, &missed);

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
    const double log_sum = (double)cl_log(sum), at = (double)highest - (double)at_target;
    loss += log_sum + at;
    if (soft) {
      const double e = soft->epsilon;
      soft_loss += log_sum + (spread ? (1.0 - e) * at + e * missed : at);
    }

    if (backward) {
      vf k = vset1(scale / sum);
      for (j = 0; j < full; j += VL) vstore(row + j, vload(row + j) * k);
      vstoren(row + j, last * k, rest);
      if (spread) {
        subtract_soft_target(soft, targets[i], scale, row);
      } else {
        row[targets[i]] -= scale;
      }
    }
  }
  if (soft) *smoothed = soft_loss;
  return loss;
}

#endif
