/* One optimizer step over a slice of the flat buffers, and the lanes' sum in a fixed order. */
#ifndef CL_OPTIMIZER_H
#define CL_OPTIMIZER_H

#include "gemm.h" /* CL_LINE */
#include "primitives.h"
#include "vec.h"

/* AdamW (Loshchilov and Hutter 2019), decay decoupled as in PyTorch:
 *   g = clip g;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
 *   w = w - lr weight_decay w - lr (correction1 m) / (sqrt(correction2 v) + epsilon) */
typedef struct {
  vf beta1, other1, beta2, other2, clip, keep, rate, correction2, epsilon;
} AdamWVectors;

CL_INLINE void cl_adamw(const AdamWVectors *k, vf g, vf *w, vf *m, vf *v) {
  g *= k->clip;
  *m = vfma(k->beta1, *m, k->other1 * g);
  *v = vfma(k->beta2, *v, k->other2 * g * g);
  *w = vfnma(k->rate, *m / (vsqrt(*v * k->correction2) + k->epsilon), *w * k->keep);
}

static void adamw(int64_t n, float *w, float *m, float *v, const float *g,
                  const OptimizerStep *step) {
  const AdamWVectors k = {
      .beta1 = vset1(step->beta1),
      .other1 = vset1(1.0f - step->beta1),
      .beta2 = vset1(step->beta2),
      .other2 = vset1(1.0f - step->beta2),
      .clip = vset1(step->clip),
      .keep = vset1(1.0f - step->lr * step->weight_decay),
      .rate = vset1(step->lr * step->correction1),
      .correction2 = vset1(step->correction2),
      .epsilon = vset1(step->epsilon),
  };
  int64_t i = 0;
  for (; i + VL <= n; i += VL) {
    vf wi = vload(w + i), mi = vload(m + i), vi_ = vload(v + i);
    cl_adamw(&k, vload(g + i), &wi, &mi, &vi_);
    vstore(w + i, wi);
    vstore(m + i, mi);
    vstore(v + i, vi_);
  }
  if (i < n) {
    int64_t r = n - i;
    vf wi = vloadn(w + i, r), mi = vloadn(m + i, r), vi_ = vloadn(v + i, r);
    cl_adamw(&k, vloadn(g + i, r), &wi, &mi, &vi_);
    vstoren(w + i, wi, r);
    vstoren(m + i, mi, r);
    vstoren(v + i, vi_, r);
  }
}

/* Both halves of a step read several long arrays side by side, and the memory of each ends its page
 * where the next one begins, elsewhere: what fetches by itself stops there.  So they fetch by hand,
 * half a page ahead. */
enum { CL_FETCH_AHEAD = 512 };
CL_INLINE void cl_fetch(const float *p) { __builtin_prefetch((const char *)p + 4 * CL_FETCH_AHEAD); }

static void keep_state(int64_t n, const float *w, const float *m, const float *v, const float *g,
                       float *kept, int64_t stride) {
  int64_t i = 0;
  for (; i + CL_LINE <= n; i += CL_LINE) {
    cl_fetch(w + i);
    cl_fetch(m + i);
    if (v) cl_fetch(v + i);
    cl_fetch(g + i);
    memcpy(kept + i, w + i, 4 * CL_LINE);
    memcpy(kept + stride + i, m + i, 4 * CL_LINE);
    if (v) memcpy(kept + 2 * stride + i, v + i, 4 * CL_LINE);
  }
  const size_t rest = 4 * (size_t)(n - i);
  memcpy(kept + i, w + i, rest);
  memcpy(kept + stride + i, m + i, rest);
  if (v) memcpy(kept + 2 * stride + i, v + i, rest);
}

/* SGD with momentum beta1 (dampening 0, no Nesterov) and decoupled decay:
 *   m = beta1 m + clip g;  w = w - lr (m + weight_decay w) */
static void sgd(int64_t n, float *w, float *m, const float *g, const OptimizerStep *step) {
  vf beta = vset1(step->beta1), clip = vset1(step->clip), rate = vset1(step->lr);
  vf decay = vset1(step->weight_decay);
  int64_t i = 0;
  for (; i + VL <= n; i += VL) {
    vf wi = vload(w + i), mi = vfma(beta, vload(m + i), clip * vload(g + i));
    vstore(m + i, mi);
    vstore(w + i, vfnma(rate, vfma(decay, wi, mi), wi));
  }
  if (i < n) {
    int64_t r = n - i;
    vf wi = vloadn(w + i, r), mi = vfma(beta, vloadn(m + i, r), clip * vloadn(g + i, r));
    vstoren(m + i, mi, r);
    vstoren(w + i, vfnma(rate, vfma(decay, wi, mi), wi), r);
  }
}

/* ---- the sum over lanes ----
 *
 * The tree: neighbors are paired, (0, 1), (2, 3), .., then pairs of pairs; an odd one at the end
 * moves up unpaired.  First within each `group` lanes, at most 12, then over the groups.  Up to 8
 * lanes are a tree in registers, and a group is one of 8 and what is left; the groups' sums meet on
 * a stack like the digits of a binary counter, which is the same tree. */
enum { CL_TREE_WIDTH = 8, CL_TREE_DEPTH = 56 };

CL_INLINE vf cl_tree_load(const float *p, int64_t n) { return n == VL ? vload(p) : vloadn(p, n); }

/* the tree over `lanes` <= 8 lanes, a compile-time constant at every call */
CL_INLINE vf cl_tree_leaves(const int lanes, const float *p, int64_t stride, int64_t n) {
  vf t[CL_TREE_WIDTH];
#pragma GCC unroll 8
  for (int l = 0; l < lanes; l++) t[l] = cl_tree_load(p + l * stride, n);
#pragma GCC unroll 3
  for (int w = 1; w < CL_TREE_WIDTH; w *= 2)
#pragma GCC unroll 8
    for (int l = 0; l + w < lanes; l += 2 * w) t[l] += t[l + w];
  return t[0];
}

/* the tree over 1 to 12 lanes */
CL_INLINE vf cl_tree_group(int64_t lanes, const float *p, int64_t stride, int64_t n) {
  switch (lanes) {
#define CL_CASE(m) \
  case m:          \
    return cl_tree_leaves(m, p, stride, n);
    CL_CASE(1) CL_CASE(2) CL_CASE(3) CL_CASE(4) CL_CASE(5) CL_CASE(6) CL_CASE(7) CL_CASE(8)
#undef CL_CASE
#define CL_CASE(m)                                       \
  case CL_TREE_WIDTH + m:                                \
    return cl_tree_leaves(CL_TREE_WIDTH, p, stride, n) + \
           cl_tree_leaves(m, p + CL_TREE_WIDTH * stride, stride, n);
    CL_CASE(1) CL_CASE(2) CL_CASE(3)
#undef CL_CASE
    default:
      return cl_tree_leaves(CL_TREE_WIDTH, p, stride, n) +
             cl_tree_leaves(4, p + CL_TREE_WIDTH * stride, stride, n);
  }
}

CL_INLINE vf cl_tree_vector(int64_t lanes, int64_t group, const float *p, int64_t stride,
                            int64_t n) {
  if (lanes <= group) return cl_tree_group(lanes, p, stride, n);
  vf stack[CL_TREE_DEPTH];
  int depth = 0;
  for (int64_t g = 0; lanes > 0; g++, lanes -= group, p += group * stride) {
    vf sum = cl_tree_group(lanes < group ? lanes : group, p, stride, n);
    for (int64_t carry = g; carry & 1; carry >>= 1) sum = stack[--depth] + sum;
    stack[depth++] = sum;
  }
  vf sum = stack[--depth];
  while (depth) sum = stack[--depth] + sum;
  return sum;
}

static double tree_sum(int64_t n, int64_t lanes, int64_t group, const float *first, int64_t stride,
                       float *out, StoreMode store) {
  vd low = {0}, high = {0};
  int64_t i = 0;
  for (; i + VL <= n; i += VL) {
    if (i % CL_LINE == 0)
      for (int64_t l = 0; l < lanes; l++) cl_fetch(first + l * stride + i);
    vf x = cl_tree_vector(lanes, group, first + i, stride, VL);
    if (store == CL_STREAM)
      vstream(out + i, x);
    else
      vstore(out + i, x);
    vd a = vlow(x), b = vhigh(x);
    low += a * a;
    high += b * b;
  }
  if (i < n) {
    vf x = cl_tree_vector(lanes, group, first + i, stride, n - i);
    vstoren(out + i, x, n - i);
    vd a = vlow(x), b = vhigh(x);
    low += a * a;
    high += b * b;
  }
  if (store == CL_STREAM) CL_STREAM_FENCE;
  return vdsum(low + high);
}

#endif
