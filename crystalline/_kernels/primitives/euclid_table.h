/* Primitives of Euclid's algorithm on limb vectors: Lehmer's steps on two limbs, 2 x 2 matrices. */
#ifndef CL_EUCLID_TABLE_H
#define CL_EUCLID_TABLE_H

#include <stdint.h>

/* What is left of a Jacobi symbol (x / y) while Euclid's algorithm runs on two numbers. */
typedef struct {
  unsigned low[2]; /* the numbers modulo 8 */
  int denominator; /* which of the two is y, always odd */
  int negative;    /* whether the sign changed so far */
} JacobiState;

typedef struct {
  /* m, a matrix m0 m1 / m2 m3 of determinant 1, no entry negative or above B / 2, such that the
   * numbers a' and b' of (a; b) = m (a'; b') are at least 2 B, for a = a1 B + a0 and b below B^2;
   * returns whether m is not the identity.  `state` may be NULL. */
  int (*reduce_2)(uint64_t *m, uint64_t a1, uint64_t a0, uint64_t b1, uint64_t b0,
                  JacobiState *state);
  /* Euclid's algorithm on a[2] and b[2] until one is 0 or m's entries reach B / 2; the same m;
   * returns whether a step was made, as it is unless the first quotient is B / 2 or more */
  int (*finish_2)(uint64_t *m, uint64_t *a, uint64_t *b, JacobiState *state);
  /* (a; b) = m^-1 (a; b), a and b [n], where neither becomes negative */
  void (*apply_inverse)(uint64_t *a, uint64_t *b, int64_t n, const uint64_t *m);
  /* (x, y) = (x, y) m, x and y [n], with one limb more where a carry needs it; returns the size */
  int64_t (*apply_row)(uint64_t *x, uint64_t *y, int64_t n, const uint64_t *m);
  /* a[2] = gcd(a[2], b[2]), neither 0 */
  void (*gcd_2)(uint64_t *a, const uint64_t *b);
  /* the change of `state` by number[which] -= q number[1 - which], from q modulo 8 */
  void (*jacobi_step)(JacobiState *state, int which, uint64_t q);
} EuclidPrimitives;

#endif
