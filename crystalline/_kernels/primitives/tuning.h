/* The sizes from which one exact algorithm beats another, per instruction-set level.
 *
 * One line a threshold: its name and its value at base, avx2, avx512 and avx512ifma.  The lines
 * are written by tools/tune_bigint.py, which measures neighbouring algorithms against each other:
 *
 *     python3 tools/tune_bigint.py --write
 *
 * Measured on: AMD EPYC (family 26, model 2), 2026-11.
 *
 * A new threshold is one line here with the comment that says what it counts (limbs, unless told
 * otherwise), one member in bigint/tuning.pxd, and one entry of MEASURES in tools/tune_bigint.py.
 */
#ifndef CL_TUNING_H
#define CL_TUNING_H

#include <stdint.h>

/* clang-format off */
#define CL_THRESHOLDS(X)                                                                         \
  /* products: limbs of the shorter operand from which the named algorithm is taken */           \
  X(vector, 1000000000, 1000000000, 1000000000, 11)                                              \
  X(karatsuba, 22, 22, 30, 182)                                                                  \
  X(toom3, 87, 87, 87, 309)                                                                      \
  X(ntt, 1018, 126, 87, 448)                                                                     \
  /* the same where both operands together have twice the limbs of ntt */                        \
  X(ntt_long, 365, 51, 30, 182)                                                                  \
  /* squares: limbs */                                                                           \
  X(sqr_vector, 1000000000, 1000000000, 1000000000, 10)                                          \
  X(sqr_karatsuba, 46, 46, 64, 365)                                                              \
  X(sqr_toom3, 137, 78, 109, 553)                                                                \
  X(sqr_ntt, 1449, 199, 87, 504)                                                                 \
  /* division: limbs of the quotient or the divisor, whichever are fewer */                      \
  X(div_recursive, 24, 24, 64, 37)                                                               \
  X(div_newton, 5991, 642, 253, 1155)                                                            \
  /* greatest common divisors: limbs of the larger number */                                     \
  X(hgcd, 120, 110, 110, 60)                                                                     \
  X(gcd_hgcd, 800, 800, 600, 100)                                                                \
  /* conversion to and from digits: limbs */                                                     \
  X(to_digits, 9, 8, 22, 22)                                                                     \
  X(from_digits, 57, 57, 57, 51)                                                                 \
  X(to_digits_reciprocal, 7337, 4073, 7337, 2862)                                                \
  /* Montgomery's reduction: limbs of the modulus */                                             \
  X(redc_products, 150, 120, 100, 20)
/* clang-format on */

#define CL_MEMBER(name, base, avx2, avx512, avx512ifma) int64_t name;
typedef struct {
  CL_THRESHOLDS(CL_MEMBER)
} Thresholds;
#undef CL_MEMBER

#endif
