/* exp, log, sin, cos and atan of eight fixed-point numbers at a time, in 52-bit digits (IFMA).
 *
 * Numbers are fractions of D digits, x = sum x[j] 2^(52 (j - D)), least significant first, or have
 * a signed digit D before the point.  One unit is 2^(-52 D).  Each function reduces its argument
 * by a table to below 2^-8 or 2^-16, sums a Taylor series whose high terms are computed with as
 * few digits as they are worth, and ends within FA_ERROR units; fa_finish rounds where that
 * decides, and leaves the element alone otherwise: it is then the caller's, like arguments beyond
 * the range stated at each function.  So no result depends on anything that is computed here.
 */

enum {
  FA_ERROR = 32,      /* units: every function's error bound, below */
  FA_GUARD_BITS = 30, /* below the last bit of a result; one in 2^24 is left undecided */
};

/* r[D] = c +- a b, cut off, for fractions a, b and a result in [0, 1): the error is in (-1, 1)
 * units of the last digit, since what is dropped below the columns summed is less than 2^-40. */
FA_INLINE void fa_high(V *r, const V *a, const V *b, const V *c, const uint64_t *constant,
                       int minus, int D) {
  const V mask = _mm512_set1_epi64(FA_MASK);
  V columns[D + 1]; /* D - 1 and on */
  FA_UNROLL for (int i = 0; i <= D; i++) columns[i] = _mm512_setzero_si512();
  FA_UNROLL for (int i = 0; i < D; i++) {
    FA_UNROLL for (int j = 0; j < D; j++) {
      int at = i + j - (D - 1);
      if (at >= 0)
        columns[at] = _mm512_madd52lo_epu64(columns[at], a[i], b[j]);
      if (at + 1 >= 0)
        columns[at + 1] = _mm512_madd52hi_epu64(columns[at + 1], a[i], b[j]);
    }
  }
  V carry = columns[0];
  if (minus)
    carry = _mm512_sub_epi64(_mm512_setzero_si512(), carry);
  FA_UNROLL for (int j = 0; j < D; j++) {
    V t = _mm512_srai_epi64(carry, 52);
    t = minus ? _mm512_sub_epi64(t, columns[j + 1]) : _mm512_add_epi64(t, columns[j + 1]);
    if (c)
      t = _mm512_add_epi64(t, c[j]);
    if (constant)
      t = _mm512_add_epi64(t, _mm512_set1_epi64((int64_t)constant[j]));
    r[j] = _mm512_and_si512(t, mask);
    carry = t;
  }
}

#define FA_HIGH(D)                                                                          \
  static void fa_high_v##D(V *r, const V *a, const V *b, const V *c) {                      \
    fa_high(r, a, b, c, NULL, 0, D);                                                        \
  }                                                                                         \
  static void fa_high_s##D(V *r, const V *a, const V *b, const V *c) {                      \
    fa_high(r, a, b, c, NULL, 1, D);                                                        \
  }                                                                                         \
  static void fa_high_c##D(V *r, const V *a, const V *b, const uint64_t *c) {               \
    fa_high(r, a, b, NULL, c, 0, D);                                                        \
  }                                                                                         \
  static void fa_high_m##D(V *r, const V *a, const V *b, const uint64_t *c) {               \
    fa_high(r, a, b, NULL, c, 1, D);                                                        \
  }
FA_HIGH(1) FA_HIGH(2) FA_HIGH(3) FA_HIGH(4) FA_HIGH(5) FA_HIGH(6)
FA_HIGH(7) FA_HIGH(8) FA_HIGH(9) FA_HIGH(10) FA_HIGH(11) FA_HIGH(12)
#define FA_ALL(f) {0, f##1, f##2, f##3, f##4, f##5, f##6, f##7, f##8, f##9, f##10, f##11, f##12}

static void (*const fa_add_product[])(V *, const V *, const V *, const V *) = FA_ALL(fa_high_v);
static void (*const fa_sub_product[])(V *, const V *, const V *, const V *) = FA_ALL(fa_high_s);
static void (*const fa_constant_plus[])(V *, const V *, const V *,
                                        const uint64_t *) = FA_ALL(fa_high_c);
static void (*const fa_constant_minus[])(V *, const V *, const V *,
                                         const uint64_t *) = FA_ALL(fa_high_m);

enum { FA_MOST = 12 }; /* the most digits */

static const V fa_zeros[FA_MOST];

/* p[D] = sum over k >= 0 of coefficients[k] (+-x)^k, x < 2^-gain; p is to be multiplied by what is
 * below 2^-weight.  Term k needs 52 D - weight - k gain bits, and 12 more make what each of at most
 * 40 of them loses less than 2^-6 units.  Of the terms, `terms`. */
static void fa_series(V *p, const V *x, const uint64_t (*coefficients)[CL_FA_DIGITS], int terms,
                      int gain, int weight, int alternating, int D) {
  for (int j = 0; j < D; j++)
    p[j] = _mm512_setzero_si512();
  for (int k = terms - 1; k >= 0; k--) {
    int d = (52 * D - weight - k * gain + 12 + 51) / 52;
    d = d < 1 ? 1 : d > D ? D : d;
    (alternating ? fa_constant_minus : fa_constant_plus)[d](
        p + D - d, x + D - d, p + D - d, coefficients[k] + CL_FA_DIGITS - d);
  }
}

/* 52 bits of limbs at bit `at`, which may be below 0, the sign beyond. */
FA_INLINE V fa_bits(const V *limb, V sign, int L, int at) {
  const V mask = _mm512_set1_epi64(FA_MASK);
  if (at <= -52)
    return _mm512_setzero_si512();
  if (at < 0)
    return _mm512_and_si512(_mm512_sll_epi64(limb[0], _mm_cvtsi32_si128(-at)), mask);
  int w = at / 64, o = at % 64;
  V low = w < L ? limb[w] : sign, high = w + 1 < L ? limb[w + 1] : sign;
  return _mm512_and_si512(_mm512_or_si512(_mm512_srl_epi64(low, _mm_cvtsi32_si128(o)),
                                          _mm512_sll_epi64(high, _mm_cvtsi32_si128(64 - o))),
                          mask);
}

/* The integer part of elements, as floor; *good loses the lanes where it is 2^62 or more. */
FA_INLINE V fa_integer(const V *limb, V sign, int L, int F, __mmask8 *good) {
  int w = F / 64, o = F % 64;
  V high = w + 1 < L ? limb[w + 1] : sign;
  V v = _mm512_or_si512(_mm512_srl_epi64(limb[w], _mm_cvtsi32_si128(o)),
                        _mm512_sll_epi64(high, _mm_cvtsi32_si128(64 - o)));
  V beyond = _mm512_xor_si512(_mm512_srai_epi64(v, 62), sign);
  if (w + 1 < L)
    beyond = _mm512_or_si512(
        beyond, _mm512_xor_si512(_mm512_sra_epi64(high, _mm_cvtsi32_si128(o)), sign));
  for (int i = w + 2; i < L; i++)
    beyond = _mm512_or_si512(beyond, _mm512_xor_si512(limb[i], sign));
  *good &= _mm512_testn_epi64_mask(beyond, beyond);
  return v;
}

/* d[D + 1] carried on: each to 52 bits but the last, which is signed. */
FA_INLINE void fa_carry_on(V *d, int D) {
  const V mask = _mm512_set1_epi64(FA_MASK);
  for (int j = 0; j < D; j++) {
    d[j + 1] = _mm512_add_epi64(d[j + 1], _mm512_srai_epi64(d[j], 52));
    d[j] = _mm512_and_si512(d[j], mask);
  }
}

/* d[D + 1] += or -= k c for a constant c[D] < 1 with one more digit, c[-1], and k < 2^51 signed;
 * not carried on.  Below 1.01 units off. */
FA_INLINE void fa_add_multiple(V *d, V k, const uint64_t *c, int plus, int D) {
  V zero = _mm512_setzero_si512(), size = _mm512_abs_epi64(k);
  __mmask8 down = _mm512_movepi64_mask(k);
  if (!plus)
    down = (__mmask8)~down;
  for (int j = 0; j <= D; j++) {
    V t = _mm512_madd52hi_epu64(zero, size, _mm512_set1_epi64((int64_t)c[j - 1]));
    if (j < D)
      t = _mm512_madd52lo_epu64(t, size, _mm512_set1_epi64((int64_t)c[j]));
    V up = _mm512_add_epi64(d[j], t);
    d[j] = _mm512_mask_sub_epi64(up, down, d[j], t);
  }
}

/* r[D + 1] = k a for k < 2^52, carried on. */
FA_INLINE void fa_multiple(V *r, const V *a, V k, int D) {
  V zero = _mm512_setzero_si512(), high = zero;
  for (int j = 0; j < D; j++) {
    V t = _mm512_madd52lo_epu64(high, k, a[j]);
    high = _mm512_madd52hi_epu64(zero, k, a[j]);
    r[j] = t;
  }
  r[D] = high;
  fa_carry_on(r, D);
}

/* r[D] = d[D + 1] 2^-count, 0 < count < 52, where the digit before the point vanishes. */
FA_INLINE void fa_shift_down(V *r, const V *d, V count, int D) {
  const V mask = _mm512_set1_epi64(FA_MASK);
  V back = _mm512_sub_epi64(_mm512_set1_epi64(52), count);
  for (int j = 0; j < D; j++)
    r[j] = _mm512_or_si512(_mm512_srlv_epi64(d[j], count),
                           _mm512_and_si512(_mm512_sllv_epi64(d[j + 1], back), mask));
}

/* t[D] = the entries of a table. */
FA_INLINE void fa_look_up(V *t, const uint64_t (*table)[CL_FA_DIGITS], V index, int D) {
  V at = _mm512_mullo_epi64(index, _mm512_set1_epi64(CL_FA_DIGITS));
  const uint64_t *top = table[0] + CL_FA_DIGITS - D;
  for (int j = 0; j < D; j++)
    t[j] = _mm512_i64gather_epi64(at, (const void *)(top + j), 8);
}

FA_INLINE V fa_floor(__m512d x) {
  return _mm512_cvtpd_epi64(_mm512_roundscale_pd(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
}

/* Rounds the signed number of digits z[8 j], j <= D, times 2^-shift in units of z, to r[L], where
 * an error of FA_ERROR units does not matter and the result fits; returns whether it did. */
static int fa_finish(uint64_t *r, const fa_word *z, int D, int shift, int L) {
  uint64_t p[(52 * FA_MOST + 127) / 64 + 1];
  const int m = (52 * D + 127) / 64 + 1;
  if (shift < 8 || shift > 52 * D + 60)
    return 0;
  memset(p, 0, sizeof p);
  for (int j = 0; j <= D; j++) {
    int w = 52 * j / 64, o = 52 * j % 64;
    uint64_t digit = z[8 * j];
    p[w] |= digit << o;
    if (j == D) {
      p[w + 1] = o ? (uint64_t)((int64_t)digit >> (64 - o)) : fa_sign(digit);
      for (int i = w + 2; i < m; i++)
        p[i] = fa_sign(digit);
    } else if (o > 12) {
      p[w + 1] = digit >> (64 - o);
    }
  }
  /* With half a unit of the result and the error added, the bits below that unit are below twice
   * the error if and only if some number within the error is rounded otherwise, or a tie. */
  fa_increment(p, m, FA_ERROR);
  int half = shift - 1;
  fa_increment(p + half / 64, m - half / 64, (uint64_t)1 << half % 64);
  int w = shift / 64, o = shift % 64;
  uint64_t clear = p[0] & ~(uint64_t)(2 * FA_ERROR - 1);
  if (w == 0) {
    clear &= ((uint64_t)1 << o) - 1;
  } else {
    for (int i = 1; i < w; i++)
      clear |= p[i];
    clear |= o ? p[w] << (64 - o) : 0;
  }
  if (clear == 0)
    return 0;
  uint64_t sign = fa_sign(p[m - 1]), q[CL_FA_LIMBS], outside = 0;
  for (int i = 0; i < L; i++)
    q[i] = fa_limb_at(p, m, w + i, o, sign);
  for (int i = L; w + i < m; i++)
    outside |= fa_limb_at(p, m, w + i, o, sign) ^ sign;
  if (outside || fa_sign(q[L - 1]) != sign)
    return 0;
  memcpy(r, q, 8 * (size_t)L);
  return 1;
}

/* Finishes eight elements of z[D + 1], those of the lanes in `good`. */
FA_INLINE void fa_finish_all(uint64_t *r, const V *z, int D, V shift, __mmask8 good,
                             uint8_t *undecided, int L) {
  const fa_word *digits = (const fa_word *)z, *shifts = (const fa_word *)&shift;
  for (int lane = 0; lane < 8; lane++) {
    int element = L == 4 ? (lane & 4) | (lane & 1) << 1 | (lane >> 1 & 1) : lane;
    undecided[element] =
        !(good >> lane & 1) ||
        !fa_finish(r + element * L, digits + lane, D, (int)(int64_t)shifts[lane], L);
  }
}

/* The constants' top D digits; index -1 is the next one below. */
#define FA_TOP(c, D) ((c) + CL_FA_DIGITS - (D))

static int fa_digits_for(int bits) {
  int D = (bits + FA_GUARD_BITS + 51) / 52;
  return D < 2 ? 2 : D;
}

/* x[D + 1] of limbs, the digit before the point being v. */
FA_INLINE void fa_align(V *x, const V *limb, V sign, V v, int L, int F, int D) {
  for (int j = 0; j < D; j++)
    x[j] = fa_bits(limb, sign, L, 52 * j - (52 * D - F));
  x[D] = v;
}

FA_INLINE __m512d fa_double(const V *limb, V sign, V v, int L, int F) {
  return _mm512_fmadd_pd(_mm512_cvtepi64_pd(fa_bits(limb, sign, L, F - 52)),
                         _mm512_set1_pd(0x1p-52), _mm512_cvtepi64_pd(v));
}

/* exp for |x| < 1024.  x = k ln 2 + r with 0 <= r < 0.6932, r = i / 2^8 + j / 2^16 + h;
 * exp(x) = 2^(k + 2) (exp(i / 2^8) / 4) (1 + (exp(j / 2^16) - 1)) (1 + (exp(h) - 1)).
 * Units: r 1.01; exp(h) - 1: r's, 1 of each of two products and 0.1 of the series; with
 * exp(j / 2^16) - 1: 1 of the table, 1 of the product, 5.2 in all; the last: 1 of its table, 1 of
 * the product, half of 5.2. */
static void fa_exp(uint64_t *r, const uint64_t *a, int L, int F, const FixedArrayConstants *t,
                   uint8_t *undecided) {
  V limb[8], x[FA_MOST + 1], q[FA_MOST], f[FA_MOST];
  __mmask8 good = 0xff;
  fa_load(limb, a, L);
  V sign = _mm512_srai_epi64(limb[L - 1], 63);
  V v = fa_integer(limb, sign, L, F, &good);
  good &= _mm512_cmple_epi64_mask(_mm512_abs_epi64(v), _mm512_set1_epi64(1000));
  v = _mm512_maskz_mov_epi64(good, v);
  V k = fa_floor(_mm512_fmsub_pd(fa_double(limb, sign, v, L, F),
                                 _mm512_set1_pd(0x1.71547652b82fep0), _mm512_set1_pd(0x1p-20)));
  good &= _mm512_cmple_epi64_mask(k, _mm512_set1_epi64(64 * L - F));
  good &= _mm512_cmpge_epi64_mask(k, _mm512_set1_epi64(-F - 8));
  k = _mm512_maskz_mov_epi64(good, k);
  int most = (int)_mm512_reduce_max_epi64(k);
  const int D = fa_digits_for(F + 2 + (most > 0 ? most : 0));
  fa_align(x, limb, sign, v, L, F, D);
  fa_add_multiple(x, k, FA_TOP(t->ln2, D), 0, D);
  fa_carry_on(x, D);
  good &= _mm512_testn_epi64_mask(x[D], x[D]);
  const V byte = _mm512_set1_epi64(255);
  V i = _mm512_srli_epi64(x[D - 1], 44), j = _mm512_and_si512(_mm512_srli_epi64(x[D - 1], 36), byte);
  x[D - 1] = _mm512_and_si512(x[D - 1], _mm512_set1_epi64(0xfffffffffLL));
  int terms = 0;
  for (int bits = 32, n = 3; bits < 52 * D + 6; bits += 16 + (n > 3) + (n > 7) + (n > 15), n++)
    terms++; /* h^n / n! <= 2^-bits */
  fa_series(q, x, t->inverse_factorials, terms, 16, 32, 0, D); /* 1/2! + h/3! + ... */
  fa_add_product[D](q, x, q, fa_zeros);
  fa_add_product[D](q, x, q, x);
  fa_look_up(f, t->exp_low, j, D);
  V sum[FA_MOST];
  for (int n = 0; n < D; n++)
    sum[n] = _mm512_add_epi64(f[n], q[n]);
  fa_add_product[D](q, f, q, sum);
  fa_look_up(f, t->exp_high, i, D);
  fa_add_product[D](x, f, q, f);
  x[D] = _mm512_setzero_si512();
  V shift = _mm512_sub_epi64(_mm512_set1_epi64(52 * D - F - 2), k);
  fa_finish_all(r, x, D, shift, good, undecided, L);
}

/* log for x > 0.  x = 2^e u with 1/2 <= u < 1, u c / 2^15 = 1 - y for the 16 bits c of a table,
 * (1 - y) (1 + j / 2^16) = 1 - z, z < 2^-14; log x = e ln 2 - (log(c / 2^15) + log(1 + j / 2^16)
 * - log(1 - z)).  Units: u 1, times c / 2^15 2, y 3, z 4.1 and 1, its logarithm 2 more; 1 of each
 * table and 1.01 of e ln 2. */
static void fa_log(uint64_t *r, const uint64_t *a, int L, int F, const FixedArrayConstants *t,
                   uint8_t *undecided) {
  const int D = fa_digits_for(F);
  const V zero = _mm512_setzero_si512();
  V x[FA_MOST + 1], y[FA_MOST + 1], z[FA_MOST + 1], s[FA_MOST], exponent = zero;
  fa_word *digits = (fa_word *)x, *exponents = (fa_word *)&exponent;
  __mmask8 good = 0;
  for (int lane = 0; lane < 8; lane++) {
    int element = L == 4 ? (lane & 4) | (lane & 1) << 1 | (lane >> 1 & 1) : lane;
    const uint64_t *b = a + element * L;
    int top = L - 1;
    while (top > 0 && b[top] == 0)
      top--;
    if (b[top] == 0 || b[L - 1] >> 63) {
      for (int j = 0; j < D; j++)
        digits[8 * j + lane] = j == D - 1 ? (uint64_t)1 << 51 : 0;
      continue;
    }
    good |= (__mmask8)(1 << lane);
    int length = 64 * top + 64 - __builtin_clzll(b[top]);
    exponents[lane] = (uint64_t)(int64_t)(length - F);
    for (int j = D - 1; j >= 0; j--) {
      int at = length - 52 * (D - j), w = at >> 6, o = at & 63; /* floor: at may be negative */
      uint64_t low = w >= 0 ? b[w] : 0, high = w + 1 >= 0 && w + 1 <= top ? b[w + 1] : 0;
      digits[8 * j + lane] = (o ? low >> o | high << (64 - o) : low) & FA_MASK;
    }
  }
  V i = _mm512_and_si512(_mm512_srli_epi64(x[D - 1], 43), _mm512_set1_epi64(255));
  V c = _mm512_cvttpd_epi64(_mm512_div_pd(
      _mm512_set1_pd(0x1p24), _mm512_cvtepi64_pd(_mm512_add_epi64(i, _mm512_set1_epi64(257)))));
  fa_multiple(y, x, c, D);
  for (int j = 0; j <= D; j++)
    y[j] = _mm512_sub_epi64(j == D ? _mm512_set1_epi64(1 << 15) : zero, y[j]);
  fa_carry_on(y, D);
  fa_shift_down(x, y, _mm512_set1_epi64(15), D);
  V j2 = _mm512_srli_epi64(x[D - 1], 36);
  fa_multiple(y, x, j2, D);
  fa_shift_down(z, y, _mm512_set1_epi64(16), D);
  x[D - 1] = _mm512_and_si512(x[D - 1], _mm512_set1_epi64(0xfffffffffLL));
  for (int j = 0; j < D; j++)
    z[j] = _mm512_add_epi64(z[j], x[j]);
  z[D] = zero;
  fa_carry_on(z, D);
  int terms = (52 * D + 6) / 14 - 1;
  fa_series(s, z, t->inverses, terms, 14, 28, 0, D); /* 1/2 + z/3 + ... */
  fa_add_product[D](s, z, s, fa_zeros);
  fa_add_product[D](s, z, s, z);
  fa_look_up(x, t->log_high, i, D);
  fa_look_up(y, t->log_low, j2, D);
  for (int j = 0; j < D; j++)
    z[j] = _mm512_sub_epi64(zero, _mm512_add_epi64(s[j], _mm512_add_epi64(x[j], y[j])));
  z[D] = zero;
  fa_add_multiple(z, exponent, FA_TOP(t->ln2, D), 1, D);
  fa_carry_on(z, D);
  fa_finish_all(r, z, D, _mm512_set1_epi64(52 * D - F), good, undecided, L);
}

/* sin, or cos, for |x| < 2^20.  x = k pi/4 + y, or (k + 1) pi/4 - y for odd k, 0 <= y <= pi/4;
 * y = i / 2^8 + h; either function of y is P cos h +- Q sin h with P, Q from one table of halves.
 * Units: y 2.02; h^2 1.02; 1 - cos h 1.6; sin h 4.1; 1 of each table and product, halved: 4.6. */
static void fa_sincos(uint64_t *r, const uint64_t *a, int L, int F, int cosine,
                      const FixedArrayConstants *t, uint8_t *undecided) {
  const int D = fa_digits_for(F + 1);
  const V zero = _mm512_setzero_si512(), one = _mm512_set1_epi64(1);
  V limb[8], x[FA_MOST + 1], y[FA_MOST + 1], h2[FA_MOST], c[FA_MOST], s[FA_MOST], p[FA_MOST],
      q[FA_MOST];
  __mmask8 good = 0xff;
  fa_load(limb, a, L);
  V sign = _mm512_srai_epi64(limb[L - 1], 63);
  V v = fa_integer(limb, sign, L, F, &good);
  good &= _mm512_cmplt_epi64_mask(_mm512_abs_epi64(v), _mm512_set1_epi64(1 << 20));
  v = _mm512_maskz_mov_epi64(good, v);
  /* where the double takes the wrong side of a multiple of pi/4, y is negative and not good */
  V k = fa_floor(_mm512_mul_pd(fa_double(limb, sign, v, L, F),
                               _mm512_set1_pd(0x1.45f306dc9c883p0)));
  fa_align(x, limb, sign, v, L, F, D);
  fa_add_multiple(x, k, FA_TOP(t->quarter_pi, D), 0, D);
  __mmask8 odd = _mm512_test_epi64_mask(k, one);
  for (int j = 0; j <= D; j++) {
    V quarter = j < D ? _mm512_set1_epi64((int64_t)FA_TOP(t->quarter_pi, D)[j]) : zero;
    x[j] = _mm512_mask_sub_epi64(x[j], odd, quarter, x[j]);
  }
  fa_carry_on(x, D);
  good &= _mm512_testn_epi64_mask(x[D], x[D]);
  V turn = _mm512_add_epi64(_mm512_srai_epi64(_mm512_add_epi64(k, one), 1),
                            _mm512_set1_epi64(cosine));
  __mmask8 by_cosine = _mm512_test_epi64_mask(turn, one);
  __mmask8 negative = _mm512_test_epi64_mask(turn, _mm512_set1_epi64(2));
  negative ^= odd & (__mmask8)~by_cosine;

  V i = _mm512_srli_epi64(x[D - 1], 44);
  x[D - 1] = _mm512_and_si512(x[D - 1], _mm512_set1_epi64(0xfffffffffffLL));
  fa_add_product[D](h2, x, x, fa_zeros);
  int terms = 0;
  for (int bits = 16; bits < 52 * D + 6; bits += 16 + 2 * (terms > 1) + 2 * (terms > 2))
    terms++; /* h^(2 n) / (2 n)! <= 2^-bits */
  fa_series(c, h2, t->inverse_even_factorials, terms, 16, 16, 1, D); /* 1/2! - h^2/4! + ... */
  fa_add_product[D](c, h2, c, fa_zeros);
  fa_series(s, h2, t->inverse_odd_factorials, terms, 16, 24, 1, D); /* 1/3! - h^2/5! + ... */
  fa_add_product[D](s, h2, s, fa_zeros);
  fa_sub_product[D](s, x, s, x);
  /* entries: sin and then cos of i / 2^8, halved */
  V at = _mm512_add_epi64(i, i);
  V first = _mm512_mask_add_epi64(at, by_cosine, at, one), second = _mm512_xor_si512(first, one);
  fa_look_up(p, t->sincos, first, D);
  fa_look_up(q, t->sincos, second, D);
  fa_sub_product[D](p, p, c, p);
  fa_add_product[D](q, q, s, fa_zeros);
  for (int j = 0; j < D; j++) {
    V sum = _mm512_add_epi64(p[j], q[j]);
    sum = _mm512_mask_sub_epi64(sum, by_cosine, p[j], q[j]);
    y[j] = _mm512_mask_sub_epi64(sum, negative, zero, sum);
  }
  y[D] = zero;
  fa_carry_on(y, D);
  fa_finish_all(r, y, D, _mm512_set1_epi64(52 * D - F - 1), good, undecided, L);
}

/* y[D] = 1 / (2 d) for 1/2 <= d < 1, from below, within 8 units, D <= 12.  Newton's steps double
 * the digits.  The start is short by 2^-47 of itself, give or take 2^-50, so a step that begins
 * with y short by 2^-b finds e = 1 - 2 d y above 2^-(b + 1) and leaves y short by 2^(-2 b) and a few
 * units.  Three units are taken off e for what the product has lost; e stays positive, since the
 * last step begins with 94, 188 or 376 bits and ends with at least ten more. */
FA_INLINE void fa_reciprocal(V *y, const V *d, int D) {
  const V zero = _mm512_setzero_si512();
  V e[FA_MOST + 1];
  __m512d start = _mm512_fmadd_pd(_mm512_cvtepi64_pd(d[D - 2]), _mm512_set1_pd(0x1p-104),
                                  _mm512_mul_pd(_mm512_cvtepi64_pd(d[D - 1]),
                                                _mm512_set1_pd(0x1p-52)));
  start = _mm512_div_pd(_mm512_set1_pd(0x1p51 * (1 - 0x1p-47)), start);
  for (int j = 0; j < D; j++)
    y[j] = zero;
  y[D - 1] = _mm512_cvttpd_epi64(start);
  for (int digits = 2, bits = 94;; digits *= 2, bits *= 2) {
    int n = digits < D ? digits : D;
    V *top = y + D - n;
    fa_add_product[n](e, d + D - n, top, fa_zeros);
    for (int j = 0; j < n; j++)
      e[j] = _mm512_sub_epi64(zero, _mm512_slli_epi64(e[j], 1));
    e[0] = _mm512_sub_epi64(e[0], _mm512_set1_epi64(3));
    e[n] = _mm512_set1_epi64(1);
    fa_carry_on(e, n);
    fa_add_product[n](top, top, e, top);
    if (bits - 8 >= 52 * D)
      break;
  }
}

/* atan for |x| < 2^20.  With c = i / 2^8 next to |x|, or to 1 / |x| where |x| >= 1, and
 * t = (|x| - c) / (1 + c |x|), or (1 - c |x|) / (|x| + c): atan |x| = atan c + atan t, or
 * pi/2 - (atan c + atan t).  |t| < 2^-8.  Units: numerator and denominator 1 below, t 2 (1 + 1) +
 * 8 |t| + 2; atan t 2 more; 1 of the table, 2 of pi/2. */
static void fa_atan(uint64_t *r, const uint64_t *a, int L, int F, const FixedArrayConstants *t,
                    uint8_t *undecided) {
  const int D = fa_digits_for(F);
  const V zero = _mm512_setzero_si512();
  V limb[8], x[FA_MOST + 1], n[FA_MOST + 1], d[FA_MOST + 1], m[FA_MOST + 1], y[FA_MOST],
      s[FA_MOST];
  __mmask8 good = 0xff;
  fa_load(limb, a, L);
  V sign = _mm512_srai_epi64(limb[L - 1], 63);
  __mmask8 negative = _mm512_movepi64_mask(sign);
  V v = fa_integer(limb, sign, L, F, &good);
  good &= _mm512_cmplt_epi64_mask(_mm512_abs_epi64(v), _mm512_set1_epi64(1 << 20));
  v = _mm512_maskz_mov_epi64(good, v);
  fa_align(x, limb, sign, v, L, F, D);
  for (int j = 0; j <= D; j++)
    x[j] = _mm512_maskz_mov_epi64(good, _mm512_mask_sub_epi64(x[j], negative, zero, x[j]));
  fa_carry_on(x, D);
  __mmask8 large = _mm512_test_epi64_mask(x[D], x[D]);
  __m512d size = _mm512_fmadd_pd(_mm512_cvtepi64_pd(x[D - 1]), _mm512_set1_pd(0x1p-52),
                                 _mm512_cvtepi64_pd(x[D]));
  size = _mm512_mask_div_pd(size, large, _mm512_set1_pd(1), size);
  V i = fa_floor(_mm512_fmadd_pd(size, _mm512_set1_pd(256), _mm512_set1_pd(0.5)));
  /* 256 |x| and i |x|, of which each of n and d takes one and a constant */
  V both[FA_MOST + 1];
  for (int j = 0; j <= D; j++) {
    both[j] = _mm512_slli_epi64(x[j], 8);
    m[j] = zero;
  }
  for (int j = 0; j <= D; j++) {
    m[j] = _mm512_madd52lo_epu64(m[j], x[j], i);
    if (j < D)
      m[j + 1] = _mm512_madd52hi_epu64(m[j + 1], x[j], i);
  }
  for (int j = 0; j <= D; j++) {
    V whole = j == D ? _mm512_set1_epi64(256) : zero, part = j == D ? i : zero;
    n[j] = _mm512_mask_sub_epi64(_mm512_sub_epi64(both[j], part), large, whole, m[j]);
    d[j] = _mm512_mask_add_epi64(_mm512_add_epi64(whole, m[j]), large, both[j], part);
  }
  fa_carry_on(n, D);
  __mmask8 minus = _mm512_movepi64_mask(n[D]);
  for (int j = 0; j <= D; j++)
    n[j] = _mm512_mask_sub_epi64(n[j], minus, zero, n[j]);
  fa_carry_on(n, D);
  fa_carry_on(d, D);
  V count = _mm512_add_epi64( /* the bits before the point, 9 to 29 */
      _mm512_cvtpd_epi64(_mm512_getexp_pd(_mm512_cvtepi64_pd(d[D]))), _mm512_set1_epi64(1));
  fa_shift_down(n, n, count, D);
  fa_shift_down(d, d, count, D);
  fa_reciprocal(y, d, D);
  fa_add_product[D](n, n, y, fa_zeros);
  for (int j = 0; j < D; j++)
    n[j] = _mm512_slli_epi64(n[j], 1);
  n[D] = zero;
  fa_carry_on(n, D);
  fa_add_product[D](m, n, n, fa_zeros);
  fa_series(s, m, t->inverse_odds, (52 * D + 6) / 16, 16, 24, 1, D); /* 1/3 - t^2/5 + ... */
  fa_add_product[D](s, m, s, fa_zeros);
  fa_sub_product[D](s, n, s, n);
  fa_look_up(y, t->atan, i, D);
  for (int j = 0; j <= D; j++) {
    V angle = zero;
    if (j < D) {
      angle = _mm512_add_epi64(y[j], s[j]);
      angle = _mm512_mask_sub_epi64(angle, minus, y[j], s[j]);
    }
    V half = j < D ? _mm512_set1_epi64(2 * (int64_t)FA_TOP(t->quarter_pi, D)[j]) : zero;
    angle = _mm512_mask_sub_epi64(angle, large, half, angle);
    x[j] = _mm512_mask_sub_epi64(angle, negative, zero, angle);
  }
  fa_carry_on(x, D);
  fa_finish_all(r, x, D, _mm512_set1_epi64(52 * D - F), good, undecided, L);
}

static int64_t fa_function(int which, uint64_t *r, const uint64_t *a, int64_t n, int L, int F,
                           const FixedArrayConstants *t, uint8_t *undecided) {
  int64_t e = 0;
  if (L < 2 || L > 8)
    return 0;
  for (; e + 8 <= n; e += 8, r += 8 * L, a += 8 * L, undecided += 8) {
    switch (which) {
    case CL_FA_EXP: fa_exp(r, a, L, F, t, undecided); break;
    case CL_FA_LOG: fa_log(r, a, L, F, t, undecided); break;
    case CL_FA_SIN: fa_sincos(r, a, L, F, 0, t, undecided); break;
    case CL_FA_COS: fa_sincos(r, a, L, F, 1, t, undecided); break;
    case CL_FA_ATAN: fa_atan(r, a, L, F, t, undecided); break;
    }
  }
  return e;
}
