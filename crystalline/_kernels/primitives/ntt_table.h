/* Products of long limb vectors by number-theoretic transforms; n, an, bn limbs. */
#ifndef CL_NTT_TABLE_H
#define CL_NTT_TABLE_H

#include <stdint.h>

#include "exact_poll.h"

enum { NTT_THREE_PRIMES_MAX = 4189441 }; /* the longest b at one limb a coefficient */

typedef struct {
  /* r[an + bn] = a[an] * b[bn] for an >= bn >= 1; r apart from a and b, which may be the same (then
   * one transform is saved).  Coefficients of one limb modulo three primes, for bn up to
   * NTT_THREE_PRIMES_MAX, or of two limbs modulo six.  Returns 0, -1 when memory does not suffice
   * or a transform would have more than 2^33 points, or what `poll` returned; products of less
   * than 2^16 limbs never ask. */
  int (*mul)(uint64_t *r, const uint64_t *a, int64_t an, const uint64_t *b, int64_t bn,
             int limbs_per_coefficient, ExactPoll poll);
} NttPrimitives;

#endif
