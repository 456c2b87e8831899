/* Primitives on vectors of 64-bit limbs, least significant first; n limbs. */
#ifndef CL_LIMBS_TABLE_H
#define CL_LIMBS_TABLE_H

#include <stdint.h>

enum { CL_VECTOR_LIMBS = 512 };

typedef struct {
  /* r[n] = a[n] + b[n], a[n] - b[n]; r may be a or b; returns the carry or borrow, 0 or 1 */
  uint64_t (*add_n)(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t n);
  uint64_t (*sub_n)(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t n);
  /* r[n] = a[n] * b; r[n] += a[n] * b; r[n] -= a[n] * b; r may be a; returns the limb carried out */
  uint64_t (*mul_1)(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b);
  uint64_t (*addmul_1)(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b);
  uint64_t (*submul_1)(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b);
  /* r[n] = a[n] << count, >> count for 0 < count < 64; returns the bits shifted out, at the far
   * end of a limb.  r may be a. */
  uint64_t (*lshift)(uint64_t *r, const uint64_t *a, int64_t n, int count);
  uint64_t (*rshift)(uint64_t *r, const uint64_t *a, int64_t n, int count);
  /* r[an + bn] = a[an] * b[bn], schoolbook; an >= bn >= 1; r apart from a and b */
  void (*mul_basecase)(uint64_t *r, const uint64_t *a, int64_t an, const uint64_t *b, int64_t bn);
  /* r[2 n] = a[n] * a[n], schoolbook; n >= 1; r apart from a */
  void (*sqr_basecase)(uint64_t *r, const uint64_t *a, int64_t n);
  /* The same two for an, bn, n <= CL_VECTOR_LIMBS, in either order: in 52-bit digits where the
   * level has IFMA, else the schoolbook of limbs. */
  void (*mul_vector)(uint64_t *r, const uint64_t *a, int64_t an, const uint64_t *b, int64_t bn);
  void (*sqr_vector)(uint64_t *r, const uint64_t *a, int64_t n);
} LimbPrimitives;

#endif
