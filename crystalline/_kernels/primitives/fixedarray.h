/* Fixed-width fixed-point numbers, one at a time: any width, unrolled for those up to eight limbs.
 *
 * This is what every level without 52-bit multiply-adds runs, and what finishes the tails of the
 * one with them (fixedarray_ifma.h).  A product is taken as unsigned and corrected: with
 * A = a + 2^W [a < 0], a b = A B - 2^W ([a < 0] B + [b < 0] A) modulo 2^(2W).
 */
#include "fixedarray_table.h"

#define FA_INLINE static inline __attribute__((always_inline))

/* Calls f with L as a constant where L is small, so that its loops unroll. */
#define FA_BY_LIMBS(f, ...)                 \
  switch (L) {                              \
  case 2: return f(__VA_ARGS__, 2);         \
  case 3: return f(__VA_ARGS__, 3);         \
  case 4: return f(__VA_ARGS__, 4);         \
  case 5: return f(__VA_ARGS__, 5);         \
  case 6: return f(__VA_ARGS__, 6);         \
  case 7: return f(__VA_ARGS__, 7);         \
  case 8: return f(__VA_ARGS__, 8);         \
  default: return f(__VA_ARGS__, L);        \
  }

FA_INLINE uint64_t fa_carry(uint64_t *r, uint64_t a, uint64_t b, uint64_t carry) {
#if defined(CL_AVX2) || defined(CL_AVX512)
  unsigned long long sum;
  carry = _addcarry_u64((unsigned char)carry, a, b, &sum);
  *r = sum;
  return carry;
#else
  u128 sum = (u128)a + b + carry;
  *r = (uint64_t)sum;
  return (uint64_t)(sum >> 64);
#endif
}

FA_INLINE uint64_t fa_borrow(uint64_t *r, uint64_t a, uint64_t b, uint64_t borrow) {
#if defined(CL_AVX2) || defined(CL_AVX512)
  unsigned long long difference;
  borrow = _subborrow_u64((unsigned char)borrow, a, b, &difference);
  *r = difference;
  return borrow;
#else
  u128 difference = (u128)a - b - borrow;
  *r = (uint64_t)difference;
  return (uint64_t)(difference >> 64) & 1;
#endif
}

/* All ones where the number with this top limb is negative. */
FA_INLINE uint64_t fa_sign(uint64_t top) { return (uint64_t)((int64_t)top >> 63); }

/* r[n] += b, carried on. */
FA_INLINE void fa_increment(uint64_t *r, int n, uint64_t b) {
  for (int i = 0; i < n; i++) {
    r[i] += b;
    b = r[i] < b;
  }
}

FA_INLINE int64_t fa_add_all(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b,
                             int64_t bs, int64_t n, int L) {
  for (int64_t e = 0; e < n; e++, r += L, a += as, b += bs) {
    uint64_t carry = 0, a_top = a[L - 1], b_top = b[L - 1];
    for (int i = 0; i < L; i++)
      carry = fa_carry(r + i, a[i], b[i], carry);
    if (((a_top ^ r[L - 1]) & (b_top ^ r[L - 1])) >> 63)
      return e;
  }
  return n;
}

FA_INLINE int64_t fa_sub_all(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b,
                             int64_t bs, int64_t n, int L) {
  for (int64_t e = 0; e < n; e++, r += L, a += as, b += bs) {
    uint64_t borrow = 0, a_top = a[L - 1], b_top = b[L - 1];
    for (int i = 0; i < L; i++)
      borrow = fa_borrow(r + i, a[i], b[i], borrow);
    if (((a_top ^ b_top) & (a_top ^ r[L - 1])) >> 63)
      return e;
  }
  return n;
}

static int64_t fa_add_scalar(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b,
                             int64_t bs, int64_t n, int L) {
  FA_BY_LIMBS(fa_add_all, r, a, as, b, bs, n)
}

static int64_t fa_sub_scalar(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b,
                             int64_t bs, int64_t n, int L) {
  FA_BY_LIMBS(fa_sub_all, r, a, as, b, bs, n)
}

/* The limb of p[m], two's complement, at bit 64 w + o, continued by its sign. */
FA_INLINE uint64_t fa_limb_at(const uint64_t *p, int m, int w, int o, uint64_t sign) {
  uint64_t low = w < m ? p[w] : sign, high = w + 1 < m ? p[w + 1] : sign;
  return o ? low >> o | high << (64 - o) : low;
}

/* r[L] = p[m] / 2^F + c[L], rounded once; p is destroyed; c may be NULL.  Half a unit is added
 * and the floor taken; a tie has then left no bit below the unit, and the odd one goes down. */
FA_INLINE int fa_round(uint64_t *r, uint64_t *p, int m, const uint64_t *c, int L, int F) {
  int w = F >> 6, o = F & 63;
  uint64_t below = 1;
  if (F > 0) {
    uint64_t half = (uint64_t)1 << ((F - 1) & 63);
    for (int i = (F - 1) >> 6; i < m && half; i++) {
      p[i] += half;
      half = p[i] < half;
    }
    below = o ? p[w] << (64 - o) : 0;
    for (int i = 0; i < w; i++)
      below |= p[i];
  }
  uint64_t sign = fa_sign(p[m - 1]);
  uint64_t top = fa_limb_at(p, m, w + L, o, sign), outside = 0;
  for (int i = L + 1; w + i < m; i++)
    outside |= fa_limb_at(p, m, w + i, o, sign) ^ fa_sign(top);
  if (fa_sign(top) != sign)
    outside = 1;
  if (c) {
    uint64_t carry = 0, c_sign = fa_sign(c[L - 1]); /* r may be c */
    for (int i = 0; i < L; i++)
      carry = fa_carry(r + i, fa_limb_at(p, m, w + i, o, sign), c[i], carry);
    uint64_t sum;
    fa_carry(&sum, top, c_sign, carry);
    /* a sum that leaves even L + 1 limbs has the wrong sign there */
    if (fa_sign(top) == c_sign && fa_sign(sum) != fa_sign(top))
      outside = 1;
    top = sum;
  } else {
    for (int i = 0; i < L; i++)
      r[i] = fa_limb_at(p, m, w + i, o, sign);
  }
  if (below == 0)
    r[0] &= ~(uint64_t)1;
  return outside == 0 && top == fa_sign(r[L - 1]);
}

static int fa_round_one(uint64_t *r, uint64_t *p, int m, int L, int F) {
  return fa_round(r, p, m, NULL, L, F);
}

/* p[2 L] = a[L] b[L], two's complement. */
FA_INLINE void fa_product(uint64_t *p, const uint64_t *a, const uint64_t *b, int L) {
  for (int i = 0; i < L; i++)
    p[i] = 0;
  for (int j = 0; j < L; j++) {
    uint64_t carry = 0;
    for (int i = 0; i < L; i++) {
      u128 t = (u128)a[i] * b[j] + p[i + j] + carry;
      p[i + j] = (uint64_t)t;
      carry = (uint64_t)(t >> 64);
    }
    p[j + L] = carry;
  }
  uint64_t a_sign = fa_sign(a[L - 1]), b_sign = fa_sign(b[L - 1]);
  uint64_t borrow = 0;
  for (int i = 0; i < L; i++)
    borrow = fa_borrow(p + L + i, p[L + i], b[i] & a_sign, borrow);
  borrow = 0;
  for (int i = 0; i < L; i++)
    borrow = fa_borrow(p + L + i, p[L + i], a[i] & b_sign, borrow);
}

FA_INLINE int64_t fa_mul_all(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b,
                             int64_t bs, int64_t n, int F, int L) {
  uint64_t p[2 * L];
  for (int64_t e = 0; e < n; e++, r += L, a += as, b += bs) {
    fa_product(p, a, b, L);
    if (!fa_round(r, p, 2 * L, NULL, L, F))
      return e;
  }
  return n;
}

FA_INLINE int64_t fa_fma_all(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b,
                             int64_t bs, const uint64_t *c, int64_t cs, int64_t n, int F, int L) {
  uint64_t p[2 * L];
  for (int64_t e = 0; e < n; e++, r += L, a += as, b += bs, c += cs) {
    fa_product(p, a, b, L);
    if (!fa_round(r, p, 2 * L, c, L, F))
      return e;
  }
  return n;
}

static int64_t fa_fma_scalar(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b,
                             int64_t bs, const uint64_t *c, int64_t cs, int64_t n, int L, int F) {
  if (c == NULL) {
    FA_BY_LIMBS(fa_mul_all, r, a, as, b, bs, n, F)
  }
  FA_BY_LIMBS(fa_fma_all, r, a, as, b, bs, c, cs, n, F)
}

/* exact[2 L + 2] += p[m], two's complement. */
FA_INLINE void fa_accumulate(uint64_t *exact, const uint64_t *p, int m, int L) {
  uint64_t carry = 0, sign = fa_sign(p[m - 1]);
  for (int i = 0; i < m; i++)
    carry = fa_carry(exact + i, exact[i], p[i], carry);
  for (int i = m; i < 2 * L + 2; i++)
    carry = fa_carry(exact + i, exact[i], sign, carry);
}

FA_INLINE void fa_dot_all(uint64_t *exact, const uint64_t *a, const uint64_t *b, int64_t bs,
                          int64_t n, int L) {
  uint64_t p[2 * L];
  for (int64_t e = 0; e < n; e++, a += L, b += bs) {
    fa_product(p, a, b, L);
    fa_accumulate(exact, p, 2 * L, L);
  }
}

static void fa_dot_steps(uint64_t *exact, const uint64_t *a, const uint64_t *b, int64_t bs,
                         int64_t n, int L) {
  FA_BY_LIMBS(fa_dot_all, exact, a, b, bs, n)
}

static void fa_dot_scalar(uint64_t *exact, const uint64_t *a, const uint64_t *b, int64_t n,
                          int L) {
  fa_dot_steps(exact, a, b, L, n, L);
}

enum { FA_SLICE = 1 << 18 }; /* products of limbs between two looks at the signals */

static int64_t fa_matmul_work_scalar(int64_t M, int64_t K, int L) {
  (void)M, (void)K, (void)L;
  return 0;
}

static int fa_matmul_begin_scalar(void *work, const uint64_t *a, int64_t M, int64_t K, int L,
                                  ExactPoll poll) {
  (void)work, (void)a, (void)M, (void)K, (void)L, (void)poll;
  return 0;
}

static int64_t fa_matmul_columns_scalar(uint64_t *r, const uint64_t *a, const uint64_t *b,
                                        int64_t M, int64_t K, int64_t N, int64_t j, int L, int F,
                                        void *work, ExactPoll poll) {
  (void)work;
  int64_t end = j + 8 < N ? j + 8 : N, most = FA_SLICE / (L * L) + 1, since = 0;
  uint64_t exact[2 * L + 2];
  for (int64_t i = 0; i < M; i++)
    for (int64_t k = j; k < end; k++) {
      memset(exact, 0, sizeof exact);
      for (int64_t at = 0; at < K; at += most) {
        int64_t n = K - at < most ? K - at : most;
        fa_dot_steps(exact, a + (i * K + at) * L, b + (at * N + k) * L, N * L, n, L);
        if ((since += n) >= most) {
          int status = poll();
          if (status) return status;
          since = 0;
        }
      }
      if (!fa_round(r + (i * N + k) * L, exact, 2 * L + 2, NULL, L, F))
        return i * N + k;
    }
  return M * N;
}

static int64_t fa_no_function(int which, uint64_t *r, const uint64_t *a, int64_t n, int L, int F,
                              const FixedArrayConstants *constants, uint8_t *undecided) {
  (void)which, (void)r, (void)a, (void)n, (void)L, (void)F, (void)constants, (void)undecided;
  return 0;
}

#ifdef CL_IFMA
#include "fixedarray_ifma.h"
#include "fixedarray_functions.h"
#else
#define fa_add fa_add_scalar
#define fa_sub fa_sub_scalar
#define fa_fma fa_fma_scalar
#define fa_dot fa_dot_scalar
#define fa_matmul_work fa_matmul_work_scalar
#define fa_matmul_begin fa_matmul_begin_scalar
#define fa_matmul_columns fa_matmul_columns_scalar
#define fa_function fa_no_function
#endif
