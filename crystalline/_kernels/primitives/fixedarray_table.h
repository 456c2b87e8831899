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

#include "exact_poll.h"

#define CL_FA_LIMBS 64 /* the widest element: intermediate results lie on the stack */

enum { CL_FA_DIGITS = 13 }; /* of 52 bits: the most that a function works with, and one */

/* The functions. */
enum { CL_FA_EXP, CL_FA_LOG, CL_FA_SIN, CL_FA_COS, CL_FA_ATAN };

/* What they start from: fractions of CL_FA_DIGITS digits, least significant first, cut off. */
typedef struct {
  uint64_t ln2[CL_FA_DIGITS], quarter_pi[CL_FA_DIGITS];
  uint64_t inverse_factorials[48][CL_FA_DIGITS];      /* 1 / (k + 2)! */
  uint64_t inverse_even_factorials[48][CL_FA_DIGITS]; /* 1 / (2 k + 2)! */
  uint64_t inverse_odd_factorials[48][CL_FA_DIGITS];  /* 1 / (2 k + 3)! */
  uint64_t inverses[48][CL_FA_DIGITS];                /* 1 / (k + 2) */
  uint64_t inverse_odds[48][CL_FA_DIGITS];            /* 1 / (2 k + 3) */
  uint64_t exp_high[256][CL_FA_DIGITS];               /* exp(i / 2^8) / 4 */
  uint64_t exp_low[256][CL_FA_DIGITS];                /* exp(i / 2^16) - 1 */
  uint64_t log_high[256][CL_FA_DIGITS];               /* log(floor(2^24 / (257 + i)) / 2^15) */
  uint64_t log_low[260][CL_FA_DIGITS];                /* log(1 + i / 2^16) */
  uint64_t sincos[512][CL_FA_DIGITS];                 /* sin(i / 2^8) / 2, cos(i / 2^8) / 2 */
  uint64_t atan[260][CL_FA_DIGITS];                   /* atan(i / 2^8) */
} FixedArrayConstants;

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
   * these columns, or M N; matmul_begin returns 0.  Either returns what `poll` returned, which is
   * negative, where that is not 0. */
  int64_t (*matmul_work)(int64_t M, int64_t K, int L);
  int (*matmul_begin)(void *work, const uint64_t *a, int64_t M, int64_t K, int L, ExactPoll poll);
  int64_t (*matmul_columns)(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t M,
                            int64_t K, int64_t N, int64_t j, int L, int F, void *work,
                            ExactPoll poll);
  /* r = the function of a, for the first elements; returns for how many of the n.  Where
   * undecided[i] is then set, r[i] is as it was, and left to the caller. */
  int64_t (*function)(int which, uint64_t *r, const uint64_t *a, int64_t n, int L, int F,
                      const FixedArrayConstants *constants, uint8_t *undecided);
} FixedArrayPrimitives;

#endif
