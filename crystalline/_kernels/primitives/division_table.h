/* Primitives of division: one-limb divisors, the schoolbook quotient, Montgomery's reduction. */
#ifndef CL_DIVISION_TABLE_H
#define CL_DIVISION_TABLE_H

#include <stdint.h>

#define CL_MONTGOMERY_SMALL 6

typedef struct {
  /* floor((B^2 - 1) / d) - B for d with its top bit set, B = 2^64 */
  uint64_t (*reciprocal_1)(uint64_t d);
  /* floor((B^3 - 1) / (d1 B + d0)) - B for d1 with its top bit set */
  uint64_t (*reciprocal_2)(uint64_t d1, uint64_t d0);
  /* q[n] = a[n] / d for d > 0; returns the remainder; q may be a */
  uint64_t (*divrem_1)(uint64_t *q, const uint64_t *a, int64_t n, uint64_t d);
  /* a[n] mod d, d > 0 */
  uint64_t (*mod_1)(const uint64_t *a, int64_t n, uint64_t d);
  /* q[un - vn] = the low limbs of u[un] / v[vn], whose next limb, 0 or 1, is returned; the
   * remainder is left in u[vn].  un >= vn >= 2; v has its top bit set and `reciprocal` is
   * reciprocal_2 of its two top limbs; q apart from u and v. */
  uint64_t (*div_basecase)(uint64_t *q, uint64_t *u, int64_t un, const uint64_t *v, int64_t vn,
                           uint64_t reciprocal);
  /* r[n] = u[2 n] / B^n mod m[n], below B^n, and below m where u < m B^n; inverse = -1 / m mod B;
   * m odd; u is destroyed; r may be u + n, else apart from u */
  void (*redc)(uint64_t *r, uint64_t *u, const uint64_t *m, int64_t n, uint64_t inverse);
  /* r[n] = a[n] * b[n] / B^n mod m[n], below m where a and b are; 1 <= n <= CL_MONTGOMERY_SMALL;
   * r may be a or b */
  void (*montgomery_small)(uint64_t *r, const uint64_t *a, const uint64_t *b, const uint64_t *m,
                           int64_t n, uint64_t inverse);
} DivisionPrimitives;

#endif
