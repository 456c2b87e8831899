/* Euclid's algorithm by the two top limbs (Lehmer; the stopping rule of Moller, "On Schonhage's
 * algorithm and subquadratic integer GCD computation", Math. Comp. 77, 2008) and what a step does
 * to a Jacobi symbol. */
#include "euclid_table.h"

typedef __int128 i128;

/* (x / y) with x -= q y never changes for odd y.  Where y, even, is to be subtracted from the odd
 * denominator x: (y / x) has period y in x for y = 0 mod 4; for y = 2 mod 4 the parts (2 / x) and
 * the reciprocity of y / 2 with x change with x modulo 8. */
static inline void jacobi_step(JacobiState *state, int which, uint64_t q) {
  unsigned x = state->low[which], y = state->low[1 - which];
  unsigned next = (x - (unsigned)q * y) & 7;
  if (state->denominator == which) {
    if (y & 1) {
      state->negative ^= (x & y) >> 1 & 1;
      state->denominator = 1 - which;
    } else if (y & 2) {
      unsigned two = (x >> 1 ^ x >> 2 ^ next >> 1 ^ next >> 2) & 1; /* 3 and 5 modulo 8 */
      state->negative ^= two ^ ((y >> 2) & (x ^ next) >> 1 & 1);
    }
  }
  state->low[which] = next;
}

static inline __attribute__((always_inline)) int reduce_2_with(uint64_t *m, uint64_t a1,
                                                               uint64_t a0, uint64_t b1,
                                                               uint64_t b0, JacobiState *state) {
  const u128 least = (u128)2 << 64;
  const uint64_t least_short = (uint64_t)3 << 32; /* covers what the low halves can subtract */
  u128 a = (u128)a1 << 64 | a0, b = (u128)b1 << 64 | b0, rest;
  uint64_t m0 = 1, m1 = 0, m2 = 0, m3 = 1, q, x, y;
  if (a < least || b < least)
    return 0;
  if (a < b)
    goto reduce_b;
  for (;;) { /* b <= a: two limbs, while a has bits above 2^96 */
    if (!(a >> 96)) {
      x = (uint64_t)(a >> 32), y = (uint64_t)(b >> 32);
      goto reduce_x;
    }
    if (b >> 96) {
      q = (uint64_t)(a >> 64) / (uint64_t)(b >> 64); /* right or one too large */
      rest = a - b * q;
      if (rest >> 127) {
        rest += b;
        q--;
      }
    } else {
      q = (uint64_t)(a / b);
      rest = a % b;
    }
    if (rest < least)
      goto last_a;
    a = rest;
    m1 += q * m0;
    m3 += q * m2;
    if (state)
      jacobi_step(state, 0, q);
  reduce_b:
    if (!(b >> 96)) {
      x = (uint64_t)(a >> 32), y = (uint64_t)(b >> 32);
      goto reduce_y;
    }
    if (a >> 96) {
      q = (uint64_t)(b >> 64) / (uint64_t)(a >> 64);
      rest = b - a * q;
      if (rest >> 127) {
        rest += a;
        q--;
      }
    } else {
      q = (uint64_t)(b / a);
      rest = b % a;
    }
    if (rest < least)
      goto last_b;
    b = rest;
    m0 += q * m1;
    m2 += q * m3;
    if (state)
      jacobi_step(state, 1, q);
  }
  for (;;) { /* one limb: a = 2^32 x and b = 2^32 y, less than 2^32 off */
    uint64_t left;
  reduce_x:
    q = x / y;
    left = x - q * y;
    if (left < least_short)
      goto last_a;
    x = left;
    m1 += q * m0;
    m3 += q * m2;
    if (state)
      jacobi_step(state, 0, q);
  reduce_y:
    q = y / x;
    left = y - q * x;
    if (left < least_short)
      goto last_b;
    y = left;
    m0 += q * m1;
    m2 += q * m3;
    if (state)
      jacobi_step(state, 1, q);
  }
last_a: /* one subtraction less leaves more than the other number */
  if (q > 1) {
    q--;
    m1 += q * m0;
    m3 += q * m2;
    if (state)
      jacobi_step(state, 0, q);
  }
  goto done;
last_b:
  if (q > 1) {
    q--;
    m0 += q * m1;
    m2 += q * m3;
    if (state)
      jacobi_step(state, 1, q);
  }
done:
  m[0] = m0, m[1] = m1, m[2] = m2, m[3] = m3;
  return (m1 | m2) != 0;
}

static int reduce_2(uint64_t *m, uint64_t a1, uint64_t a0, uint64_t b1, uint64_t b0,
                    JacobiState *state) {
  if (state)
    return reduce_2_with(m, a1, a0, b1, b0, state);
  return reduce_2_with(m, a1, a0, b1, b0, 0);
}

static int finish_2(uint64_t *m, uint64_t *pa, uint64_t *pb, JacobiState *state) {
  u128 number[2] = {(u128)pa[1] << 64 | pa[0], (u128)pb[1] << 64 | pb[0]};
  uint64_t column[2][2] = {{1, 0}, {0, 1}}; /* column[j][i] = m_ij */
  int which = number[0] < number[1], steps = 0; /* the larger one */
  while (number[1 - which]) {
    u128 quotient, x = number[which], y = number[1 - which];
    if (x >> 64)
      quotient = x / y;
    else
      quotient = (uint64_t)x / (uint64_t)y;
    if (quotient >> 63)
      break;
    uint64_t q = (uint64_t)quotient, *to = column[1 - which], *from = column[which];
    u128 top = (u128)q * from[0] + to[0], bottom = (u128)q * from[1] + to[1];
    if ((top | bottom) >> 63)
      break;
    to[0] = (uint64_t)top;
    to[1] = (uint64_t)bottom;
    number[which] = x - y * q;
    if (state)
      jacobi_step(state, which, q);
    which = 1 - which;
    steps++;
  }
  pa[0] = (uint64_t)number[0], pa[1] = (uint64_t)(number[0] >> 64);
  pb[0] = (uint64_t)number[1], pb[1] = (uint64_t)(number[1] >> 64);
  m[0] = column[0][0], m[1] = column[1][0], m[2] = column[0][1], m[3] = column[1][1];
  return steps > 0;
}

/* The entries are at most B / 2, so the difference of two products and a carry fits in 128 bits. */
static void apply_inverse(uint64_t *a, uint64_t *b, int64_t n, const uint64_t *m) {
  uint64_t m0 = m[0], m1 = m[1], m2 = m[2], m3 = m[3];
  i128 high = 0, low = 0;
  for (int64_t i = 0; i < n; i++) {
    uint64_t x = a[i], y = b[i];
    high += (i128)((u128)m3 * x) - (i128)((u128)m1 * y);
    low += (i128)((u128)m0 * y) - (i128)((u128)m2 * x);
    a[i] = (uint64_t)high;
    b[i] = (uint64_t)low;
    high >>= 64;
    low >>= 64;
  }
}

static int64_t apply_row(uint64_t *x, uint64_t *y, int64_t n, const uint64_t *m) {
  uint64_t m0 = m[0], m1 = m[1], m2 = m[2], m3 = m[3];
  uint64_t left = 0, right = 0;
  for (int64_t i = 0; i < n; i++) {
    u128 p = (u128)m0 * x[i] + (u128)m2 * y[i] + left;
    u128 r = (u128)m1 * x[i] + (u128)m3 * y[i] + right;
    x[i] = (uint64_t)p;
    y[i] = (uint64_t)r;
    left = (uint64_t)(p >> 64);
    right = (uint64_t)(r >> 64);
  }
  if (left | right) {
    x[n] = left;
    y[n] = right;
    n++;
  }
  return n;
}

static int zeros_2(u128 x) {
  return (uint64_t)x ? __builtin_ctzll((uint64_t)x) : 64 + __builtin_ctzll((uint64_t)(x >> 64));
}

/* Binary: the smaller is taken from the larger, and the zeros below are shifted out. */
static void gcd_2(uint64_t *pa, const uint64_t *pb) {
  u128 a = (u128)pa[1] << 64 | pa[0], b = (u128)pb[1] << 64 | pb[0];
  int twos = zeros_2(a | b);
  a >>= zeros_2(a);
  b >>= zeros_2(b);
  while ((a | b) >> 64 && a != b) {
    if (a > b) {
      a -= b;
      a >>= zeros_2(a);
    } else {
      b -= a;
      b >>= zeros_2(b);
    }
  }
  uint64_t x = (uint64_t)a, y = (uint64_t)b;
  if (!((a | b) >> 64)) {
    while (x != y) {
      uint64_t difference = x - y, smaller = x < y ? x : y;
      x = (x < y ? y - x : difference) >> __builtin_ctzll(difference);
      y = smaller;
    }
    a = x;
  }
  a <<= twos;
  pa[0] = (uint64_t)a;
  pa[1] = (uint64_t)(a >> 64);
}
