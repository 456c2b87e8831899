/* Primitives on batches of 64-bit integers and on sieve bytes.
 *
 * Sieve byte i of a buffer stands for the eight numbers 30 (first + i) + {1, 7, 11, 13, 17, 19,
 * 23, 29}, least significant bit first: a set bit is a number that may still be prime.
 */
#ifndef CL_PRIMES_TABLE_H
#define CL_PRIMES_TABLE_H

#include <stdint.h>

typedef struct {
  /* out[n] = gcd(a[n], b[n]), gcd(x, 0) = x; out may be a or b */
  void (*gcd)(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t n);
  /* out[n] = gcd(a[n], b) for one b; out may be a */
  void (*gcd_1)(uint64_t *out, const uint64_t *a, uint64_t b, int64_t n);
  /* r[n] = x[n] & y[n] & z[n] bytes; r may be x */
  void (*and_3)(uint8_t *r, const uint8_t *x, const uint8_t *y, const uint8_t *z, int64_t n);
  /* the number of set bits of s[n] */
  int64_t (*popcount)(const uint8_t *s, int64_t n);
  /* The numbers of the set bits of s[n], whose first byte is 30 * first, in order; returns how
   * many.  Eight elements are written at a time: out needs room for seven more than are found. */
  int64_t (*numbers_64)(uint64_t *out, const uint8_t *s, int64_t n, uint64_t first);
  int64_t (*numbers_32)(uint32_t *out, const uint8_t *s, int64_t n, uint64_t first);
} PrimePrimitives;

#endif
