/* Dropout from counter-based random numbers: element i depends on (key, i) only. */
#ifndef CL_RANDOM_H
#define CL_RANDOM_H

#include "mix64.h"
#include "vec.h"

/* The 32-bit mixer "lowbias32" (Wellons, hash-prospector, public domain): a bijection with an
 * avalanche bias of 0.17 / 2^32. */
CL_INLINE vu cl_mix32(vu x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

/* Two rounds with a word of the key before each: with one, masks of two keys would be the same
 * sequence in another order. */
CL_INLINE vf cl_drop(vf x, vu counter, vu key0, vu key1, vu threshold, vf scale) {
  vu h = cl_mix32(cl_mix32(counter ^ key0) + key1);
  return (vf)((vi)(x * scale) & (vi)(h >= threshold));
}

/* out[i] = x[i] * scale where hash(key, first + i) >= threshold, else 0 */
static void dropout(int64_t n, const float *x, float *out, uint64_t key, uint64_t first,
                    uint32_t threshold, float scale) {
  vu limit = (vu)viset1((int32_t)threshold);
  vf k = vset1(scale);
  while (n > 0) {
    /* the counter's upper half is part of the key: a run never crosses a multiple of 2^32 */
    uint64_t left = (UINT64_C(1) << 32) - (uint32_t)first;
    int64_t run = (uint64_t)n < left ? n : (int64_t)left, i = 0;
    uint64_t words = cl_mix64(key, first >> 32);
    vu key0 = (vu)viset1((int32_t)words), key1 = (vu)viset1((int32_t)(words >> 32));
    vu counter = (vu)viota() + (vu)viset1((int32_t)first);
    for (; i + VL <= run; i += VL, counter += VL)
      vstore(out + i, cl_drop(vload(x + i), counter, key0, key1, limit, k));
    if (i < run)
      vstoren(out + i, cl_drop(vloadn(x + i, run - i), counter, key0, key1, limit, k), run - i);
    x += run;
    out += run;
    first += (uint64_t)run;
    n -= run;
  }
}

#endif
