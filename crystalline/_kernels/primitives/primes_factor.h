/* Factors of 64-bit integers: trial division, then elliptic curves on machine words. */
#ifndef CL_PRIMES_FACTOR_H
#define CL_PRIMES_FACTOR_H

#include "primes_modular.h"

typedef struct {
  uint64_t n, inverse;
} EcmWordModulus;

#define ECM(name) ecm_word_##name
#define ECM_LIMBS 1
#define EcmModulus EcmWordModulus
#define ECM_MUL(r, a, b, m) ((r)[0] = cl_mul_mod((a)[0], (b)[0], (m)->n, (m)->inverse))
#define ECM_ADD(r, a, b, m) ((r)[0] = cl_add_mod((a)[0], (b)[0], (m)->n))
#define ECM_SUB(r, a, b, m) ((r)[0] = cl_sub_mod((a)[0], (b)[0], (m)->n))
#define ECM_COPY(r, a, m) ((r)[0] = (a)[0])
#include "primes_ecm.h"
#undef ECM
#undef ECM_LIMBS
#undef EcmModulus
#undef ECM_MUL
#undef ECM_ADD
#undef ECM_SUB
#undef ECM_COPY

static inline uint64_t cl_gcd_64(uint64_t a, uint64_t b) {
  if (!a || !b)
    return a | b;
  const int shared = __builtin_ctzll(a | b);
  a >>= __builtin_ctzll(a);
  b >>= __builtin_ctzll(b);
  while (a != b) {
    const uint64_t difference = a - b;
    const int twos = __builtin_ctzll(difference);
    const uint64_t distance = a > b ? difference : -difference;
    b = a > b ? b : a;
    a = distance >> twos;
  }
  return a << shared;
}

/* The inverse of a modulo n, 0 < a < n, or 0 with *common = gcd(a, n) > 1. */
static inline uint64_t cl_invert_64(uint64_t a, uint64_t n, uint64_t *common) {
  uint64_t r0 = n, r1 = a, t0 = 0, t1 = 1;
  int negative = 0; /* the sign of t1, of which t0's is the opposite */
  while (r1) {
    const uint64_t q = r0 / r1, r2 = r0 - q * r1, t2 = t0 + q * t1;
    r0 = r1, r1 = r2, t0 = t1, t1 = t2;
    negative ^= 1;
  }
  *common = r0;
  if (r0 != 1)
    return 0;
  return negative ? t0 : n - t0;
}

/* Products of all prime powers up to a bound, in words; bounds and giant steps measured. */
static const uint64_t cl_powers_30[1] = {2329089562800};
static const uint64_t cl_powers_70[2] = {0xd59f35340b51de8f, 0x132b8d340};
static const uint64_t cl_powers_150[4] = {0xb1db96993da73916, 0xc653133d53e4e296,
                                          0xa5d4a5e39b55c1d1, 0x229b60};

#define CL_GIANT 210
#define CL_UNITS 24

/* A factor of n by the curve of Suyama's parameter sigma, or 1, or n. */
static uint64_t cl_curve_64(const EcmWordModulus *m, uint64_t one, uint64_t squared,
                            uint64_t sigma, const uint64_t *powers, int count, uint64_t bound,
                            int giants) {
  static const uint8_t units[CL_GIANT / 2] = {
      [1] = 1,  [11] = 1, [13] = 1, [17] = 1, [19] = 1, [23] = 1, [29] = 1,  [31] = 1,
      [37] = 1, [41] = 1, [43] = 1, [47] = 1, [53] = 1, [59] = 1, [61] = 1,  [67] = 1,
      [71] = 1, [73] = 1, [79] = 1, [83] = 1, [89] = 1, [97] = 1, [101] = 1, [103] = 1,
  };
  const uint64_t n = m->n, inverse = m->inverse;
#define MUL(a, b) cl_mul_mod(a, b, n, inverse)
#define ADD(a, b) cl_add_mod(a, b, n)
#define SUB(a, b) cl_sub_mod(a, b, n)
  /* u = sigma^2 - 5, v = 4 sigma, X : Z = u^3 : v^3, s = (v - u)^3 (3 u + v) / (16 u^3 v) */
  const uint64_t u = MUL((sigma * sigma - 5) % n, squared), v = MUL(4 * sigma % n, squared);
  const uint64_t cube_u = MUL(MUL(u, u), u), cube_v = MUL(MUL(v, v), v), less = SUB(v, u);
  uint64_t below = MUL(cube_u, v), common;
  below = ADD(below, below), below = ADD(below, below);
  below = ADD(below, below), below = ADD(below, below);
  const uint64_t inverted = cl_invert_64(MUL(below, 1), n, &common);
  if (!inverted)
    return common;
  const uint64_t above = MUL(MUL(MUL(less, less), less), ADD(ADD(ADD(u, u), u), v));
  const uint64_t s[1] = {MUL(above, MUL(inverted, squared))};
  ecm_word_Point p = {{cube_u}, {cube_v}}, babies[CL_UNITS], points[CL_GIANT / 2];
  ecm_word_Element products[CL_UNITS];
  ecm_word_first_stage(&p, s, powers, count, m);
  uint64_t found = cl_gcd_64(p.z[0], n);
  if (found != 1)
    return found;
  ecm_word_Second second = {.acc = {one}, .babies = babies, .products = products};
  uint64_t g = (bound + CL_GIANT / 2) / CL_GIANT;
  ecm_word_second_begin(&second, &p, s, CL_GIANT, g < 2 ? 2 : g, units, points, m);
  for (int i = 0; i < giants; i++)
    ecm_word_second_step(&second, 0, m);
  return cl_gcd_64(second.acc[0], n);
#undef MUL
#undef ADD
#undef SUB
}

/* A divisor of the odd composite n that has no factor below 256, by Brent's form of Pollard's
 * rho (BIT 20, 1980): x^2 + c, differences multiplied up in blocks; 1 or n when it failed. */
static uint64_t cl_rho_64(uint64_t n, uint64_t c, int64_t limit) {
  enum { BLOCK = 64 };
  const uint64_t inverse = cl_inverse_64(n);
  uint64_t y = 2 % n, x = y, saved = y, product = cl_one_mod(n), divisor = 1;
  for (int64_t run = 1, done = 0; divisor == 1 && done < limit; run *= 2) {
    x = y;
    for (int64_t i = 0; i < run; i++)
      y = cl_add_mod(cl_mul_mod(y, y, n, inverse), c, n);
    for (int64_t i = 0; i < run && divisor == 1; i += BLOCK) {
      saved = y;
      for (int64_t j = i; j < run && j < i + BLOCK; j++) {
        y = cl_add_mod(cl_mul_mod(y, y, n, inverse), c, n);
        product = cl_mul_mod(product, cl_sub_mod(x, y, n), n, inverse);
      }
      divisor = cl_gcd_64(product, n);
      done += BLOCK;
    }
  }
  if (divisor == n) /* both factors within one block: one step at a time */
    do {
      saved = cl_add_mod(cl_mul_mod(saved, saved, n, inverse), c, n);
      divisor = cl_gcd_64(cl_sub_mod(x, saved, n), n);
    } while (divisor == 1);
  return divisor;
}

#define CL_RHO_BITS 34 /* below, rho is quicker than curves */

/* A proper divisor of the odd composite n without factors below 256. */
static uint64_t cl_divisor_64(uint64_t n) {
  const uint64_t root = cl_root_64(n);
  if (root * root == n)
    return root;
  uint64_t found;
  if (n >> CL_RHO_BITS == 0)
    for (uint64_t c = 1; c < 20; c++) {
      found = cl_rho_64(n, c, (int64_t)1 << 20);
      if (found != 1 && found != n)
        return found;
    }
  const EcmWordModulus m = {n, cl_inverse_64(n)};
  const uint64_t one = cl_one_mod(n);
  const uint64_t squared = (uint64_t)((unsigned __int128)one * one % n);
  const int bits = 64 - __builtin_clzll(n);
  for (uint64_t sigma = 6;; sigma++) { /* without end: every n has curves that split it */
    if (bits <= 42)
      found = cl_curve_64(&m, one, squared, sigma, cl_powers_30, 1, 30, 8);
    else if (bits <= 54)
      found = cl_curve_64(&m, one, squared, sigma, cl_powers_70, 2, 70, 13);
    else
      found = cl_curve_64(&m, one, squared, sigma, cl_powers_150, 4, 150, bits <= 60 ? 20 : 31);
    if (found != 1 && found != n)
      return found;
  }
}

/* The odd primes below 256 for trial division: p, p^-1 modulo 2^64, (2^64 - 1) / p. */
#define CL_TRIAL_PRIMES 53
static uint64_t cl_trial_primes[CL_TRIAL_PRIMES][3];

static inline void cl_fill_trial_primes(void) {
  int count = 0;
  for (uint64_t p = 3; p < 256; p += 2) {
    int composite = 0;
    for (uint64_t d = 3; d * d <= p; d += 2)
      composite |= p % d == 0;
    if (!composite) {
      cl_trial_primes[count][0] = p;
      cl_trial_primes[count][1] = cl_inverse_64(p);
      cl_trial_primes[count++][2] = UINT64_MAX / p;
    }
  }
}

#define CL_MOST_PRIMES 15 /* 2 * 3 * ... * 53 is above 2^64 */

typedef struct {
  uint64_t prime[CL_MOST_PRIMES + 1];
  uint8_t exponent[CL_MOST_PRIMES + 1];
  int count;
} Factors64;

static inline void cl_put_prime(Factors64 *f, uint64_t p, int exponent) {
  int i = f->count;
  for (int j = 0; j < f->count; j++)
    if (f->prime[j] == p) {
      f->exponent[j] += (uint8_t)exponent;
      return;
    }
  for (; i > 0 && f->prime[i - 1] > p; i--) {
    f->prime[i] = f->prime[i - 1];
    f->exponent[i] = f->exponent[i - 1];
  }
  f->prime[i] = p;
  f->exponent[i] = (uint8_t)exponent;
  f->count++;
}

static void cl_split_64(Factors64 *f, uint64_t n) {
  /* Without factors below 256 a number below 257^2 is prime. */
  if (n < 257 * 257 || (cl_strong_base_2(n) && cl_strong_lucas(n))) {
    cl_put_prime(f, n, 1);
    return;
  }
  const uint64_t divisor = cl_divisor_64(n);
  cl_split_64(f, divisor);
  cl_split_64(f, n / divisor);
}

/* The primes of n > 0 in ascending order with their exponents. */
static inline void cl_factor_64(Factors64 *f, uint64_t n) {
  f->count = 0;
  if (!(n & 1)) {
    const int twos = __builtin_ctzll(n);
    cl_put_prime(f, 2, twos);
    n >>= twos;
  }
  for (int i = 0; i < CL_TRIAL_PRIMES; i++) {
    const uint64_t p = cl_trial_primes[i][0];
    if (p * p > n)
      break;
    uint64_t q = n * cl_trial_primes[i][1];
    if (q > cl_trial_primes[i][2])
      continue;
    int exponent = 0;
    do {
      n = q;
      exponent++;
      q = n * cl_trial_primes[i][1];
    } while (q <= cl_trial_primes[i][2]);
    cl_put_prime(f, p, exponent);
  }
  if (n == 1)
    return;
  if (n < 257 * 257)
    cl_put_prime(f, n, 1);
  else
    cl_split_64(f, n);
}

#endif
