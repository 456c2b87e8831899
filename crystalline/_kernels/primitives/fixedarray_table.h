/* Primitives on arrays of fixed-width fixed-point numbers.
 *
 * An element is a two's complement integer of L limbs (least significant first) that counts
 * units of 2^-F, 0 <= F < 64 L, 1 <= L <= CL_FA_LIMBS.  n elements lie one after the other; an
 * operand with step 0 is one element that is used n times, otherwise its step is L.  Results are
 * rounded to the nearest unit, ties to even.  A function returns the index of the first element
 * whose result does not fit, or n; what it has written beyond that index means nothing.
 * r may be one of the operands, or apart from them.
 */
#ifndef CL_FIXEDARRAY_TABLE_H
#define CL_FIXEDARRAY_TABLE_H

#include <stdint.h>

#define CL_FA_LIMBS 64 /* the widest element: intermediate results lie on the stack */

typedef struct {
  /* r = a + b, a - b */
  int64_t (*add)(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b, int64_t bs,
                 int64_t n, int L);
  int64_t (*sub)(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b, int64_t bs,
                 int64_t n, int L);
  /* r = a b + c, rounded once; c may be NULL, for zero */
  int64_t (*fma)(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b, int64_t bs,
                 const uint64_t *c, int64_t cs, int64_t n, int L, int F);
  /* r[L] = p[m] / 2^F in two's complement, p destroyed; p has a bit to spare for the rounding;
   * returns whether it fits */
  int (*round)(uint64_t *r, uint64_t *p, int m, int L, int F);
  /* exact += the sum of a b, unrounded: 2 L + 2 limbs, two's complement */
  void (*dot)(uint64_t *exact, const uint64_t *a, const uint64_t *b, int64_t n, int L);
  /* Eight columns of a matrix product: r[M, 8 of N] = a[M, K] b[K, 8 of N] from column j of N, or
   * as many as there are.  `work` is what matmul_work says in bytes, prepared by matmul_begin,
   * aligned to 64 bytes.  Returns the flat index in r[M, N] of the first that does not fit, among
   * these columns, or M N. */
  int64_t (*matmul_work)(int64_t M, int64_t K, int L);
  void (*matmul_begin)(void *work, const uint64_t *a, int64_t M, int64_t K, int L);
  int64_t (*matmul_columns)(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t M,
                            int64_t K, int64_t N, int64_t j, int L, int F, void *work);
} FixedArrayPrimitives;

#endif
