/* The sizes from which one exact algorithm beats another, per instruction-set level.
 *
 * One line a threshold: its name and its value at base, avx2, avx512 and avx512ifma.  The lines
 * are written by tools/tune_bigint.py, which measures neighbouring algorithms against each other:
 *
 *     python -m tools.tune_bigint --write
 *
 * Measured on: nothing yet; estimates.
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
  X(vector, 1000000000, 1000000000, 1000000000, 10)                                              \
  X(karatsuba, 28, 28, 28, 256)                                                                  \
  X(toom3, 100, 100, 100, 500)                                                                   \
  X(ntt, 1000000000, 1000000000, 1000000000, 1000000000)                                         \
  /* squares: limbs */                                                                           \
  X(sqr_vector, 1000000000, 1000000000, 1000000000, 9)                                           \
  X(sqr_karatsuba, 36, 36, 36, 320)                                                              \
  X(sqr_toom3, 120, 120, 120, 700)                                                               \
  X(sqr_ntt, 1000000000, 1000000000, 1000000000, 1000000000)                                     \
  /* division: limbs of the quotient or the divisor, whichever are fewer */                      \
  X(div_recursive, 50, 50, 50, 50)                                                               \
  X(div_newton, 3000, 3000, 3000, 3000)                                                          \
  /* greatest common divisors: limbs of the larger number */                                     \
  X(hgcd, 120, 120, 120, 120)                                                                    \
  X(gcd_hgcd, 400, 400, 400, 400)                                                                \
  /* conversion to and from digits: limbs */                                                     \
  X(to_digits, 30, 30, 30, 30)                                                                   \
  X(from_digits, 60, 60, 60, 60)                                                                 \
  X(to_digits_reciprocal, 300, 300, 300, 300)
/* clang-format on */

#define CL_MEMBER(name, base, avx2, avx512, avx512ifma) int64_t name;
typedef struct {
  CL_THRESHOLDS(CL_MEMBER)
} Thresholds;
#undef CL_MEMBER

#endif
