/* Arithmetic modulo an odd 64-bit n in Montgomery's form, and the tests of primality built on it.
 *
 * Residues are x 2^64 mod n, below n.  `inverse` is n^-1 modulo 2^64 (Montgomery, Math. Comp. 44,
 * 1985; the subtracting form, with the positive inverse, needs no carry).
 */
#ifndef CL_PRIMES_MODULAR_H
#define CL_PRIMES_MODULAR_H

#include <stdint.h>

static inline uint64_t cl_inverse_64(uint64_t n) {
  uint64_t x = 3 * n ^ 2; /* 5 bits */
  x *= 2 - n * x;
  x *= 2 - n * x;
  x *= 2 - n * x;
  return x * (2 - n * x);
}

static inline uint64_t cl_high_64(uint64_t a, uint64_t b) {
  return (uint64_t)((unsigned __int128)a * b >> 64);
}

static inline uint64_t cl_mul_mod(uint64_t a, uint64_t b, uint64_t n, uint64_t inverse) {
  unsigned __int128 product = (unsigned __int128)a * b;
  uint64_t high = (uint64_t)(product >> 64);
  uint64_t less = cl_high_64((uint64_t)product * inverse, n);
  uint64_t r = high - less;
  return high < less ? r + n : r;
}

static inline uint64_t cl_add_mod(uint64_t a, uint64_t b, uint64_t n) {
  uint64_t r = a - (n - b);
  return a < n - b ? r + n : r;
}

static inline uint64_t cl_sub_mod(uint64_t a, uint64_t b, uint64_t n) {
  uint64_t r = a - b;
  return a < b ? r + n : r;
}

static inline uint64_t cl_half_mod(uint64_t a, uint64_t n) {
  return a & 1 ? (a >> 1) + (n >> 1) + 1 : a >> 1;
}

/* 1 in Montgomery's form: 2^64 mod n */
static inline uint64_t cl_one_mod(uint64_t n) { return -n % n; }

/* The odd primes by which every odd number is tried first: n is a multiple of p where
 * n p^-1 mod 2^64 is at most (2^64 - 1) / p. */
#define CL_TRIALS 24
static const uint64_t cl_trial[CL_TRIALS][3] = {
#define CL_TRIAL(p, inverse) {p, inverse, UINT64_MAX / p}
    CL_TRIAL(3, 0xaaaaaaaaaaaaaaab),  CL_TRIAL(5, 0xcccccccccccccccd),
    CL_TRIAL(7, 0x6db6db6db6db6db7),  CL_TRIAL(11, 0x2e8ba2e8ba2e8ba3),
    CL_TRIAL(13, 0x4ec4ec4ec4ec4ec5), CL_TRIAL(17, 0xf0f0f0f0f0f0f0f1),
    CL_TRIAL(19, 0x86bca1af286bca1b), CL_TRIAL(23, 0xd37a6f4de9bd37a7),
    CL_TRIAL(29, 0x34f72c234f72c235), CL_TRIAL(31, 0xef7bdef7bdef7bdf),
    CL_TRIAL(37, 0x14c1bacf914c1bad), CL_TRIAL(41, 0x8f9c18f9c18f9c19),
    CL_TRIAL(43, 0x82fa0be82fa0be83), CL_TRIAL(47, 0x51b3bea3677d46cf),
    CL_TRIAL(53, 0x21cfb2b78c13521d), CL_TRIAL(59, 0xcbeea4e1a08ad8f3),
    CL_TRIAL(61, 0x4fbcda3ac10c9715), CL_TRIAL(67, 0xf0b7672a07a44c6b),
    CL_TRIAL(71, 0x193d4bb7e327a977), CL_TRIAL(73, 0x7e3f1f8fc7e3f1f9),
    CL_TRIAL(79, 0x9b8b577e613716af), CL_TRIAL(83, 0xa3784a062b2e43db),
    CL_TRIAL(89, 0xf47e8fd1fa3f47e9), CL_TRIAL(97, 0xa3a0fd5c5f02a3a1),
#undef CL_TRIAL
};

/* Whether the odd n has a divisor among the first `count` trial primes. */
static inline int cl_has_small_divisor(uint64_t n, int count) {
  int divisible = 0;
  for (int i = 0; i < count; i++)
    divisible |= n * cl_trial[i][1] <= cl_trial[i][2];
  return divisible;
}

/* Strong probable prime to base 2 after x = 2^d mod n, n - 1 = d 2^twos. */
static inline int cl_strong_end(uint64_t x, int twos, uint64_t n, uint64_t inverse,
                                uint64_t one) {
  const uint64_t minus_one = n - one;
  if (x == one || x == minus_one)
    return 1;
  for (int i = 1; i < twos; i++) {
    x = cl_mul_mod(x, x, n, inverse);
    if (x == minus_one)
      return 1;
    if (x == one)
      return 0;
  }
  return 0;
}

/* Whether each of four odd n >= 3 is a strong probable prime to base 2; a bit each.  Four chains
 * of dependent multiplications run side by side. */
static inline unsigned cl_strong_base_2_four(const uint64_t n[4]) {
  uint64_t inverse[4], one[4], x[4], d[4], any = 0;
  int twos[4];
  for (int i = 0; i < 4; i++) {
    inverse[i] = cl_inverse_64(n[i]);
    one[i] = cl_one_mod(n[i]);
    twos[i] = __builtin_ctzll(n[i] - 1);
    d[i] = (n[i] - 1) >> twos[i];
    any |= d[i];
    x[i] = one[i];
  }
  for (int bit = 63 - __builtin_clzll(any); bit >= 0; bit--) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      uint64_t square = cl_mul_mod(x[i], x[i], n[i], inverse[i]);
      uint64_t twice = cl_add_mod(square, square, n[i]);
      x[i] = d[i] >> bit & 1 ? twice : square;
    }
  }
  unsigned passed = 0;
  for (int i = 0; i < 4; i++)
    passed |= (unsigned)cl_strong_end(x[i], twos[i], n[i], inverse[i], one[i]) << i;
  return passed;
}

static inline int cl_strong_base_2(uint64_t n) {
  const uint64_t inverse = cl_inverse_64(n), one = cl_one_mod(n);
  const int twos = __builtin_ctzll(n - 1);
  const uint64_t d = (n - 1) >> twos;
  uint64_t x = cl_add_mod(one, one, n);
  for (int bit = 62 - __builtin_clzll(d); bit >= 0; bit--) {
    uint64_t square = cl_mul_mod(x, x, n, inverse);
    uint64_t twice = cl_add_mod(square, square, n);
    x = d >> bit & 1 ? twice : square;
  }
  return cl_strong_end(x, twos, n, inverse, one);
}

/* Jacobi symbol (a / n), n odd */
static inline int cl_jacobi(uint64_t a, uint64_t n) {
  int sign = 1;
  a %= n;
  while (a) {
    int twos = __builtin_ctzll(a);
    a >>= twos;
    if (twos & 1 && ((n & 7) == 3 || (n & 7) == 5))
      sign = -sign;
    uint64_t rest = n;
    if ((a & 3) == 3 && (n & 3) == 3)
      sign = -sign;
    n = a;
    a = rest % a;
  }
  return n == 1 ? sign : 0;
}

static inline uint64_t cl_root_64(uint64_t n) {
  uint64_t r = (uint64_t)__builtin_sqrt((double)n);
  if (r > 4294967295u)
    r = 4294967295u;
  while (r * r > n)
    r--;
  while (r < 4294967295u && (r + 1) * (r + 1) <= n)
    r++;
  return r;
}

/* Whether the odd n > 1 is a strong Lucas probable prime with Selfridge's parameters (method A:
 * the first D of 5, -7, 9, -11, ... with (D / n) = -1, P = 1, Q = (1 - D) / 4). */
static inline int cl_strong_lucas(uint64_t n) {
  int64_t D = 5;
  for (;; D = D > 0 ? -(D + 2) : -(D - 2)) {
    const uint64_t size = (uint64_t)(D > 0 ? D : -D);
    int symbol = cl_jacobi(D > 0 ? size % n : n - size % n, n);
    if (symbol < 0)
      break;
    if (symbol == 0 && size % n)
      return 0; /* a common factor below n */
    if (size == 21) {
      const uint64_t root = cl_root_64(n);
      if (root * root == n)
        return 0; /* a square has no such D */
    }
  }
  const uint64_t inverse = cl_inverse_64(n), one = cl_one_mod(n);
  const int64_t Q = (1 - D) / 4;
  const uint64_t squared = (uint64_t)((unsigned __int128)one * one % n); /* 2^128 mod n */
  const uint64_t d_form =
      cl_mul_mod(D > 0 ? (uint64_t)D % n : n - (uint64_t)-D % n, squared, n, inverse);
  const uint64_t q_form =
      cl_mul_mod(Q > 0 ? (uint64_t)Q % n : n - (uint64_t)-Q % n, squared, n, inverse);
  if (n == UINT64_MAX)
    return 0; /* 3 * 5 * 17 * ..., and n + 1 does not fit */
  const int twos = __builtin_ctzll(n + 1);
  const uint64_t d = (n + 1) >> twos;
  uint64_t u = one, v = one, q = q_form;
  for (int bit = 62 - __builtin_clzll(d); bit >= 0; bit--) {
    u = cl_mul_mod(u, v, n, inverse);
    v = cl_sub_mod(cl_mul_mod(v, v, n, inverse), cl_add_mod(q, q, n), n);
    q = cl_mul_mod(q, q, n, inverse);
    if (d >> bit & 1) {
      uint64_t next = cl_half_mod(cl_add_mod(u, v, n), n);
      v = cl_half_mod(cl_add_mod(cl_mul_mod(d_form, u, n, inverse), v, n), n);
      u = next;
      q = cl_mul_mod(q, q_form, n, inverse);
    }
  }
  if (u == 0 || v == 0)
    return 1;
  for (int i = 1; i < twos; i++) {
    v = cl_sub_mod(cl_mul_mod(v, v, n, inverse), cl_add_mod(q, q, n), n);
    if (v == 0)
      return 1;
    q = cl_mul_mod(q, q, n, inverse);
  }
  return 0;
}

/* Whether n is prime: trial division, then the test of Baillie, Pomerance, Selfridge and Wagstaff,
 * which no composite below 2^64 passes (checked over all strong pseudoprimes to base 2 that Feitsma
 * listed; Baillie, Fiori, Wagstaff, Math. Comp. 90, 2021). */
static inline int cl_is_prime_64(uint64_t n) {
  if (n < 128) {
    static const uint64_t small[2] = {0x28208a20a08a28acULL, 0x800228a202088288ULL};
    return small[n >> 6] >> (n & 63) & 1;
  }
  if (!(n & 1) || cl_has_small_divisor(n, 8) || cl_has_small_divisor(n, CL_TRIALS))
    return 0;
  return n < 97 * 97 || (cl_strong_base_2(n) && cl_strong_lucas(n));
}

#endif
