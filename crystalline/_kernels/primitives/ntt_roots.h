/* The primes of the transforms and their powers of roots of unity, computed once and kept.
 *
 * e(x) is the primitive root of order 2^33 to the power 2^33 x, for each prime.  rev(j) is the
 * number below 1 whose binary digits are j's mirrored at the point: rev(1) = 1/2, rev(6) = 3/8.
 * A transform's node j holds a polynomial modulo x^M - e(rev(j)); its two halves are nodes 2 j and
 * 2 j + 1, modulo x^(M/2) -+ e(rev(j) / 2).
 */
#ifndef CL_NTT_ROOTS_H
#define CL_NTT_ROOTS_H

#include <stdlib.h>

#include "exact_poll.h"
#include "ntt_modular.h"

#define NTT_PRIMES 6
#define NTT_ORDER 33 /* every prime is 1 modulo 2^33 */

/* The six largest primes below 2^50 of that form, and a root of order 2^33 of each. */
static const uint64_t ntt_prime[NTT_PRIMES][2] = {
    {1125625028935681, 211273955539224},  {1125487589982209, 61426181581577},
    {1125281431552001, 609862166956351},  {1125178352336897, 962854224176500},
    {1124903474429953, 59813683942540},   {1124877704626177, 1123066984552258},
};

#if NTT_W == 8
#define NTT_LANE_LEVELS 3
#elif NTT_W == 4
#define NTT_LANE_LEVELS 2
#else
#define NTT_LANE_LEVELS 0
#endif

/* A leaf is the smallest node that a transform descends to: NTT_W vectors; 4 elements of 1 lane. */
#if NTT_W > 1
#define NTT_LEAF_LOG (2 * NTT_LANE_LEVELS)
#define NTT_ROOTS_PER_LEAF (NTT_W / 2)
#else
#define NTT_LEAF_LOG 2
#define NTT_ROOTS_PER_LEAF 1
#endif

/* Roots in one direction: e(x) as written, or its inverse. */
typedef struct {
  NttFactor quarter, eighth, three_eighths; /* e(1/4), e(1/8), e(3/8) */
  NttFactor *half;                          /* e(rev(j) / 2), j < NTT_ROOTS_PER_LEAF leaves */
#if NTT_W > 1
  /* Lane l of leaf j needs e(rev(NTT_W j + l) / 2^k), the product of the two below, k = 1, 2, .. */
  NttFactor lane[NTT_LANE_LEVELS][NTT_W] __attribute__((aligned(64))); /* e(rev(l) / 2^k) */
  NttFactor *leaf[NTT_LANE_LEVELS];                          /* e(rev(j) / (NTT_W 2^k)) */
#endif
} NttDirection;

typedef struct NttRoots {
  const struct NttRoots *smaller; /* kept: another thread may still use it */
  int64_t leaves;                 /* a power of two */
  NttModulus modulus;
  NttDirection forward, inverse;
  uint64_t unit;              /* 1 / (product of the primes before this one) modulo this one, */
  NttFactor later[NTT_PRIMES]; /* and of those from j on: Garner's constants */
} NttRoots;

static uint64_t ntt_product(uint64_t a, uint64_t b, uint64_t p) {
  return (uint64_t)((unsigned __int128)a * b % p);
}

static uint64_t ntt_power(uint64_t a, uint64_t exponent, uint64_t p) {
  uint64_t r = 1;
  for (; exponent; exponent >>= 1, a = ntt_product(a, a, p))
    if (exponent & 1) r = ntt_product(r, a, p);
  return r;
}

/* Do `call` for the slices [from, to) of [0, n), with a look at the signals after each full one. */
enum { NTT_SLICE = 1 << 16, NTT_POLL_LOG = 18 }; /* columns, a node: about a millisecond */
#define NTT_IN_SLICES(n, call)                                                 \
  for (int64_t from = 0, to; from < (n); from = to) {                          \
    to = (n) - from > NTT_SLICE ? from + NTT_SLICE : (n);                      \
    call;                                                                      \
    int status_ = to - from == NTT_SLICE ? poll() : 0;                         \
    if (status_) return status_;                                               \
  }

/* r[half + i] = step r[i] for from <= i < to, at most half. */
static void ntt_fill_stretch(NttFactor *r, int64_t half, int64_t from, int64_t to, uint64_t step,
                             const NttModulus *m) {
  uint64_t p = m->p;
  int64_t i = from;
#if NTT_W > 1
  NttField f = ntt_field(m);
  NttVec s = ntt_set(ntt_as_factor(m, step));
  for (; half >= NTT_W && i < to; i += NTT_W)
    ntt_store(r + half + i, ntt_reduce(ntt_mulmod(ntt_load(r + i), s, &f), &f));
  for (; i < to; i++) {
    uint64_t residue = (uint64_t)(int64_t)(r[i] < 0 ? r[i] + (double)p : r[i]);
    r[half + i] = ntt_as_factor(m, ntt_product(residue, step, p));
  }
#else
  for (; i < to; i++) {
    uint64_t residue = (uint64_t)(r[i].w < 0 ? r[i].w + (int64_t)p : r[i].w);
    r[half + i] = ntt_as_factor(m, ntt_product(residue, step, p));
  }
#endif
}

/* r[j] = e(+-rev(j) / 2^shift), j < n, n a power of two; unit[k] = e(+-2^-k).  Bit d of j
 * multiplies by e(+-2^-(d + 1 + shift)).  Returns 0, or what `poll` returned. */
static int ntt_fill_roots(NttFactor *r, int64_t n, int shift, const uint64_t *unit,
                          const NttModulus *m, ExactPoll poll) {
  r[0] = ntt_as_factor(m, 1);
  int d = 0;
  for (int64_t half = 1; half < n; half *= 2, d++) {
    uint64_t step = unit[d + 1 + shift];
    NTT_IN_SLICES(half, ntt_fill_stretch(r, half, from, to, step, m));
  }
  return 0;
}

/* Fills `way`, whose tables begin at *memory, and moves *memory behind them. */
static int ntt_fill_direction(NttDirection *way, NttFactor **memory, int64_t leaves, uint64_t root,
                              const NttModulus *m, ExactPoll poll) {
  uint64_t unit[NTT_ORDER + 1];
  unit[NTT_ORDER] = root;
  for (int k = NTT_ORDER; k > 0; k--) unit[k - 1] = ntt_product(unit[k], unit[k], m->p);
  way->quarter = ntt_as_factor(m, unit[2]);
  way->eighth = ntt_as_factor(m, unit[3]);
  way->three_eighths = ntt_as_factor(m, ntt_product(unit[2], unit[3], m->p));
  way->half = *memory;
  int status = ntt_fill_roots(way->half, leaves * NTT_ROOTS_PER_LEAF, 1, unit, m, poll);
  *memory += leaves * NTT_ROOTS_PER_LEAF;
#if NTT_W > 1
  for (int k = 0; k < NTT_LANE_LEVELS && !status; k++, *memory += leaves) {
    ntt_fill_roots(way->lane[k], NTT_W, k + 1, unit, m, poll);
    way->leaf[k] = *memory;
    status = ntt_fill_roots(way->leaf[k], leaves, NTT_LANE_LEVELS + k + 1, unit, m, poll);
  }
#endif
  return status;
}

/* *found = the roots of prime `index` for at least `leaves` leaves, a power of two >= NTT_W.
 * Returns 0, -1 where memory does not suffice, or what `poll` returned.
 *
 * Published by compare-and-swap without a lock, so that a fork at any moment leaves a child with a
 * whole table; two threads that meet here may compute the same one, and one of them drops its own.
 * All that is ever kept is below twice the largest. */
static int ntt_roots(const NttRoots **found, int index, int64_t leaves, ExactPoll poll) {
  static const NttRoots *published[NTT_PRIMES];
  const NttRoots *current = __atomic_load_n(&published[index], __ATOMIC_ACQUIRE);
  *found = current;
  if (current && current->leaves >= leaves) return 0;

  uint64_t p = ntt_prime[index][0], root = ntt_prime[index][1];
  int64_t entries = leaves * (NTT_ROOTS_PER_LEAF + NTT_LANE_LEVELS);
  int64_t header = (sizeof(NttRoots) + 63) / 64 * 64;
  NttRoots *roots = aligned_alloc(64, header + (2 * entries * sizeof(NttFactor) + 63) / 64 * 64);
  if (!roots) return -1;
  roots->leaves = leaves;
  roots->modulus = (NttModulus){p, 1.0 / (double)p};
  uint64_t product = 1;
  for (int j = index; j-- > 0;) {
    product = ntt_product(product, ntt_prime[j][0] % p, p);
    roots->later[j] = ntt_as_factor(&roots->modulus, ntt_power(product, p - 2, p));
  }
  roots->unit = ntt_power(product, p - 2, p);
  NttFactor *memory = (NttFactor *)((char *)roots + header);
  int status =
      ntt_fill_direction(&roots->forward, &memory, leaves, root, &roots->modulus, poll);
  if (!status)
    status = ntt_fill_direction(&roots->inverse, &memory, leaves, ntt_power(root, p - 2, p),
                                &roots->modulus, poll);
  if (status) {
    free(roots);
    return status;
  }
  *found = roots;
  while (!current || current->leaves < leaves) {
    roots->smaller = current;
    if (__atomic_compare_exchange_n(&published[index], &current, roots, 0, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
      return 0;
  }
  free(roots);
  *found = current;
  return 0;
}

#endif
