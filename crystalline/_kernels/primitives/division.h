/* Division of limb vectors with precomputed reciprocals (Moller and Granlund, "Improved division
 * by invariant integers", IEEE Trans. Computers 60, 2011), the schoolbook quotient over them
 * (Knuth, TAOCP 2, 4.3.1 D) and Montgomery's reduction (Math. Comp. 44, 1985).
 *
 * Uses submul_1, addmul_1, add_n and sub_n of limbs.h, which is included before. */
#include "division_table.h"

/* The quotient of high:low by d, for high < d. */
static inline uint64_t divide_2_by_1(uint64_t high, uint64_t low, uint64_t d,
                                     uint64_t *remainder) {
#if defined(__x86_64__)
  uint64_t quotient, rest;
  __asm__("divq %4" : "=a"(quotient), "=d"(rest) : "0"(low), "1"(high), "r"(d) : "cc");
  *remainder = rest;
  return quotient;
#else
  u128 a = (u128)high << 64 | low;
  *remainder = (uint64_t)(a % d);
  return (uint64_t)(a / d);
#endif
}

static uint64_t reciprocal_1(uint64_t d) {
  uint64_t rest;
  return divide_2_by_1(~d, ~(uint64_t)0, d, &rest);
}

/* Algorithm 6: the reciprocal of d1 alone, lowered until d0 is accounted for. */
static uint64_t reciprocal_2(uint64_t d1, uint64_t d0) {
  uint64_t v = reciprocal_1(d1), p = d1 * v + d0;
  if (p < d0) {
    v--;
    if (p >= d1) {
      v--;
      p -= d1;
    }
    p -= d1;
  }
  u128 t = (u128)v * d0;
  uint64_t high = (uint64_t)(t >> 64), low = (uint64_t)t;
  p += high;
  if (p < high) {
    v--;
    if (p > d1 || (p == d1 && low >= d0))
      v--;
  }
  return v;
}

/* Algorithm 4: the quotient of u1:u0 by d, u1 < d, v = reciprocal_1(d). */
static inline uint64_t divide_by_reciprocal(uint64_t u1, uint64_t u0, uint64_t d, uint64_t v,
                                            uint64_t *remainder) {
  u128 q = (u128)v * u1 + ((u128)(u1 + 1) << 64 | u0);
  uint64_t digit = (uint64_t)(q >> 64), low = (uint64_t)q;
  uint64_t rest = u0 - digit * d;
  uint64_t over = -(uint64_t)(rest > low);
  digit += over;
  rest += over & d;
  if (__builtin_expect(rest >= d, 0)) {
    rest -= d;
    digit++;
  }
  *remainder = rest;
  return digit;
}

/* Algorithm 5: the quotient of u2:u1:u0 by d1:d0, u2:u1 < d1:d0; the remainder is r1:r0. */
static inline uint64_t divide_3_by_2(uint64_t u2, uint64_t u1, uint64_t u0, uint64_t d1,
                                     uint64_t d0, uint64_t v, uint64_t *r1, uint64_t *r0) {
  u128 q = (u128)v * u2 + ((u128)u2 << 64 | u1), d = (u128)d1 << 64 | d0;
  uint64_t digit = (uint64_t)(q >> 64), low = (uint64_t)q;
  u128 rest = ((u128)(u1 - digit * d1) << 64 | u0) - d - (u128)d0 * digit;
  digit++;
  uint64_t over = -(uint64_t)((uint64_t)(rest >> 64) >= low);
  digit += over;
  rest += (u128)(over & d1) << 64 | (over & d0);
  if (__builtin_expect(rest >= d, 0)) {
    rest -= d;
    digit++;
  }
  *r1 = (uint64_t)(rest >> 64);
  *r0 = (uint64_t)rest;
  return digit;
}

static uint64_t divrem_1(uint64_t *q, const uint64_t *a, int64_t n, uint64_t d) {
  uint64_t rest = 0;
  if (n <= 2) { /* too short to pay for a reciprocal */
    for (int64_t i = n - 1; i >= 0; i--)
      q[i] = divide_2_by_1(rest, a[i], d, &rest);
    return rest;
  }
  int shift = __builtin_clzll(d);
  d <<= shift;
  uint64_t v = reciprocal_1(d);
  if (shift == 0) {
    for (int64_t i = n - 1; i >= 0; i--)
      q[i] = divide_by_reciprocal(rest, a[i], d, v, &rest);
    return rest;
  }
  uint64_t limb = a[n - 1];
  rest = limb >> (64 - shift);
  for (int64_t i = n - 1; i > 0; i--) {
    uint64_t next = a[i - 1];
    q[i] = divide_by_reciprocal(rest, limb << shift | next >> (64 - shift), d, v, &rest);
    limb = next;
  }
  q[0] = divide_by_reciprocal(rest, limb << shift, d, v, &rest);
  return rest >> shift;
}

static uint64_t mod_1(const uint64_t *a, int64_t n, uint64_t d) {
  uint64_t rest = 0;
  if (n <= 2) {
    for (int64_t i = n - 1; i >= 0; i--)
      divide_2_by_1(rest, a[i], d, &rest);
    return rest;
  }
  int shift = __builtin_clzll(d);
  d <<= shift;
  uint64_t v = reciprocal_1(d);
  uint64_t limb = a[n - 1];
  rest = shift ? limb >> (64 - shift) : 0;
  for (int64_t i = n - 1; i > 0; i--) {
    uint64_t next = a[i - 1];
    divide_by_reciprocal(rest, shift ? limb << shift | next >> (64 - shift) : limb, d, v, &rest);
    limb = next;
  }
  divide_by_reciprocal(rest, limb << shift, d, v, &rest);
  return rest >> shift;
}

static uint64_t div_basecase(uint64_t *q, uint64_t *u, int64_t un, const uint64_t *v, int64_t vn,
                             uint64_t reciprocal) {
  uint64_t d1 = v[vn - 1], d0 = v[vn - 2];
  uint64_t *top = u + un - vn;
  int64_t k = vn - 1;
  while (k > 0 && top[k] == v[k])
    k--;
  uint64_t first = top[k] >= v[k];
  if (first)
    sub_n(top, top, v, vn);
  uint64_t u2 = u[un - 1];
  for (int64_t i = un - vn - 1; i >= 0; i--) {
    uint64_t *w = u + i, digit, r1, r0;
    uint64_t u1 = w[vn - 1];
    if (__builtin_expect(u2 == d1 && u1 == d0, 0)) {
      digit = ~(uint64_t)0; /* the quotient by the two top limbs alone would be B */
      submul_1(w, v, vn, digit);
      u2 = w[vn - 1];
    } else {
      digit = divide_3_by_2(u2, u1, w[vn - 2], d1, d0, reciprocal, &r1, &r0);
      uint64_t borrow = vn > 2 ? submul_1(w, v, vn - 2, digit) : 0;
      uint64_t from1 = r0 < borrow;
      r0 -= borrow;
      borrow = r1 < from1;
      r1 -= from1;
      w[vn - 2] = r0;
      if (__builtin_expect(borrow, 0)) {
        digit--;
        r1 += d1 + add_n(w, w, v, vn - 1);
      }
      u2 = r1;
    }
    q[i] = digit;
  }
  u[vn - 1] = u2;
  return first;
}

static void redc(uint64_t *r, uint64_t *u, const uint64_t *m, int64_t n, uint64_t inverse) {
  /* Each carry is kept in the limb that its row has made zero, and added at the end. */
  for (int64_t i = 0; i < n; i++)
    u[i] = addmul_1(u + i, m, n, u[i] * inverse);
  uint64_t carry = add_n(r, u + n, u, n);
  int64_t k = n - 1;
  if (!carry) {
    while (k > 0 && r[k] == m[k])
      k--;
    carry = r[k] >= m[k];
  }
  if (carry)
    sub_n(r, r, m, n);
}

/* Product and reduction digit by digit, interleaved, in n registers: for a constant n, unrolled. */
static inline __attribute__((always_inline)) void montgomery_of(uint64_t *r, const uint64_t *a,
                                                                const uint64_t *b,
                                                                const uint64_t *m, int n,
                                                                uint64_t inverse) {
  uint64_t t[CL_MONTGOMERY_SMALL] = {0}, top = 0;
#pragma GCC unroll 8
  for (int i = 0; i < n; i++) {
    u128 x = (u128)a[0] * b[i] + t[0];
    uint64_t q = (uint64_t)x * inverse;
    u128 y = (u128)q * m[0] + (uint64_t)x;
#pragma GCC unroll 8
    for (int j = 1; j < n; j++) {
      x = (u128)a[j] * b[i] + t[j] + (uint64_t)(x >> 64);
      y = (u128)q * m[j] + (uint64_t)x + (uint64_t)(y >> 64);
      t[j - 1] = (uint64_t)y;
    }
    u128 end = (u128)(uint64_t)(x >> 64) + (uint64_t)(y >> 64) + top;
    t[n - 1] = (uint64_t)end;
    top = (uint64_t)(end >> 64);
  }
  uint64_t less[CL_MONTGOMERY_SMALL], borrow = 0;
#pragma GCC unroll 8
  for (int j = 0; j < n; j++) {
    u128 difference = (u128)t[j] - m[j] - borrow;
    less[j] = (uint64_t)difference;
    borrow = (uint64_t)(difference >> 64) & 1;
  }
  uint64_t keep = -(uint64_t)(borrow > top);
#pragma GCC unroll 8
  for (int j = 0; j < n; j++)
    r[j] = (t[j] & keep) | (less[j] & ~keep);
}

static void montgomery_small(uint64_t *r, const uint64_t *a, const uint64_t *b, const uint64_t *m,
                             int64_t n, uint64_t inverse) {
  switch (n) {
    case 1: montgomery_of(r, a, b, m, 1, inverse); break;
    case 2: montgomery_of(r, a, b, m, 2, inverse); break;
    case 3: montgomery_of(r, a, b, m, 3, inverse); break;
    case 4: montgomery_of(r, a, b, m, 4, inverse); break;
    case 5: montgomery_of(r, a, b, m, 5, inverse); break;
    default: montgomery_of(r, a, b, m, CL_MONTGOMERY_SMALL, inverse); break;
  }
}
