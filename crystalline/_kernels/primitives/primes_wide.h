/* Elliptic curves modulo odd numbers of up to CL_WIDE_LIMBS words, in Montgomery's form. */
#ifndef CL_PRIMES_WIDE_H
#define CL_PRIMES_WIDE_H

#include <stdint.h>
#include <string.h>

#define CL_WIDE_LIMBS 32

typedef struct {
  int k; /* words of the modulus, its top one not zero */
  uint64_t negative_inverse; /* -n^-1 modulo 2^64 */
  uint64_t n[CL_WIDE_LIMBS];
} EcmWideModulus;

/* r = a - b; returns the borrow */
static inline uint64_t cl_wide_less(uint64_t *r, const uint64_t *a, const uint64_t *b, int k) {
  uint64_t borrow = 0;
  for (int i = 0; i < k; i++) {
    unsigned __int128 d = (unsigned __int128)a[i] - b[i] - borrow;
    r[i] = (uint64_t)d;
    borrow = (uint64_t)(d >> 64) & 1;
  }
  return borrow;
}

static inline uint64_t cl_wide_more(uint64_t *r, const uint64_t *a, const uint64_t *b, int k) {
  uint64_t carry = 0;
  for (int i = 0; i < k; i++) {
    unsigned __int128 s = (unsigned __int128)a[i] + b[i] + carry;
    r[i] = (uint64_t)s;
    carry = (uint64_t)(s >> 64);
  }
  return carry;
}

static inline void cl_wide_add(uint64_t *r, const uint64_t *a, const uint64_t *b,
                               const EcmWideModulus *m) {
  uint64_t less[CL_WIDE_LIMBS];
  if (m->k < 1)
    __builtin_unreachable();
  const uint64_t carry = cl_wide_more(r, a, b, m->k);
  if (carry | !cl_wide_less(less, r, m->n, m->k))
    memcpy(r, less, (size_t)m->k * 8);
}

static inline void cl_wide_sub(uint64_t *r, const uint64_t *a, const uint64_t *b,
                               const EcmWideModulus *m) {
  if (m->k < 1)
    __builtin_unreachable();
  if (cl_wide_less(r, a, b, m->k))
    cl_wide_more(r, r, m->n, m->k);
}

/* r = a b 2^(-64 k) mod n, a word of b at a time with its reduction (Koc, Acar, Kaliski, IEEE
 * Micro 16, 1996: coarsely integrated operand scanning). */
static inline __attribute__((always_inline)) void
cl_wide_mul_k(uint64_t *r, const uint64_t *a, const uint64_t *b, const EcmWideModulus *m,
              const int k) {
  uint64_t t[CL_WIDE_LIMBS + 2];
  for (int i = 0; i < k + 2; i++)
    t[i] = 0;
  for (int i = 0; i < k; i++) {
    unsigned __int128 s;
    uint64_t carry = 0;
    for (int j = 0; j < k; j++) {
      s = (unsigned __int128)a[j] * b[i] + t[j] + carry;
      t[j] = (uint64_t)s;
      carry = (uint64_t)(s >> 64);
    }
    s = (unsigned __int128)t[k] + carry;
    t[k] = (uint64_t)s;
    t[k + 1] = (uint64_t)(s >> 64);
    const uint64_t q = t[0] * m->negative_inverse;
    s = (unsigned __int128)q * m->n[0] + t[0];
    carry = (uint64_t)(s >> 64);
    for (int j = 1; j < k; j++) {
      s = (unsigned __int128)q * m->n[j] + t[j] + carry;
      t[j - 1] = (uint64_t)s;
      carry = (uint64_t)(s >> 64);
    }
    s = (unsigned __int128)t[k] + carry;
    t[k - 1] = (uint64_t)s;
    t[k] = t[k + 1] + (uint64_t)(s >> 64);
  }
  if (cl_wide_less(r, t, m->n, k) > t[k])
    memcpy(r, t, (size_t)k * 8);
}

static void cl_wide_mul(uint64_t *r, const uint64_t *a, const uint64_t *b,
                        const EcmWideModulus *m) {
  switch (m->k) { /* the sizes that factors are looked for in: unrolled */
  case 2: cl_wide_mul_k(r, a, b, m, 2); break;
  case 3: cl_wide_mul_k(r, a, b, m, 3); break;
  case 4: cl_wide_mul_k(r, a, b, m, 4); break;
  case 5: cl_wide_mul_k(r, a, b, m, 5); break;
  case 6: cl_wide_mul_k(r, a, b, m, 6); break;
  default:
    if (m->k < 1)
      __builtin_unreachable();
    cl_wide_mul_k(r, a, b, m, m->k);
  }
}

#define ECM(name) ecm_wide_##name
#define ECM_LIMBS CL_WIDE_LIMBS
#define EcmModulus EcmWideModulus
#define ECM_MUL(r, a, b, m) cl_wide_mul(r, a, b, m)
#define ECM_ADD(r, a, b, m) cl_wide_add(r, a, b, m)
#define ECM_SUB(r, a, b, m) cl_wide_sub(r, a, b, m)
#define ECM_COPY(r, a, m) memcpy(r, a, (size_t)(m)->k * 8)
#include "primes_ecm.h"
#undef ECM
#undef ECM_LIMBS
#undef EcmModulus
#undef ECM_MUL
#undef ECM_ADD
#undef ECM_SUB
#undef ECM_COPY

#endif
