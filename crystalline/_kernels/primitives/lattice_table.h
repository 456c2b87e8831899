/* Primitives on the rows of an integer lattice basis and on its floating Gram-Schmidt data.
 *
 * d rows of n entries; a packed row has w limbs an entry, two's complement, least significant
 * first.  Floating matrices are padded to ld columns, a multiple of 8; k8 is k rounded up to one.
 */
#ifndef CL_LATTICE_TABLE_H
#define CL_LATTICE_TABLE_H

#include <stdint.h>

typedef struct {
  /* r[n] of wr limbs -= (add: +=) x 2^(64 q) a[n] of wa limbs, modulo 2^(64 wr); 0 <= q < wr */
  void (*row_submul)(uint64_t *r, int64_t wr, const uint64_t *a, int64_t wa, int64_t n, uint64_t x,
                     int add, int64_t q);
  /* r[n] -= x a[n] for rows of one limb, modulo 2^64 */
  void (*row_submul_64)(int64_t *r, const int64_t *a, int64_t n, int64_t x);
  /* the smallest k with every |entry| of a row of one limb below 2^k, or k + 1 */
  int (*row_bits_64)(const int64_t *a, int64_t n);
  /* g[k8] = sum over c < n of bt[c][k8] b[c]: the inner products of one vector with k others */
  void (*gram_row)(double *g, const double *bt, int64_t ld, const double *b, int64_t n, int64_t k);
  /* r[k]: inner products of row k in, r_kj = <b_k, b*_j> out; mu[k] = r_kj / |b*_j|^2.
   * mut[j][i] = mu_ij for i > j, zero for i <= j; rinv[j] = 1 / |b*_j|^2. */
  void (*cholesky_row)(double *r, double *mu, const double *mut, int64_t ld, const double *rinv,
                       int64_t k);
  /* y[k8] -= x a[k8] */
  void (*axpy)(double *y, const double *a, int64_t k, double x);
} LatticePrimitives;

#endif
