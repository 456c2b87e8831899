/* Fixed-width fixed-point numbers, eight at a time, by 52-bit multiply-adds (AVX-512 IFMA).
 *
 * Eight elements are transposed in registers (limb i of all eight in one register), cut into
 * D = ceil(W / 52) digits of 52 bits continued by the sign, and multiplied digit by digit into
 * 2 D columns of 64 bits; 12 bits to spare leave the carries for the end.  The shift by F bits is
 * the same for all, so digits are read back from memory at the place where the result begins.
 * Widths of 2 to 8 limbs; others, tails, and the search for an overflowing element go to
 * fixedarray.h.
 */

typedef __m512i V;
typedef uint64_t fa_word __attribute__((may_alias)); /* one lane of a vector in memory */

#define FA_DIGITS(L) ((64 * (L) + 51) / 52)
#define FA_UNROLL _Pragma("GCC unroll 32")
#define FA_MASK 0xfffffffffffffLL

FA_INLINE V fa_pairs(const uint64_t *a, int L) { /* 128 bits of elements 0, 2, 4 and 6 */
  V v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)a));
  v = _mm512_inserti64x2(v, _mm_loadu_si128((const __m128i *)(a + 2 * L)), 1);
  v = _mm512_inserti64x2(v, _mm_loadu_si128((const __m128i *)(a + 4 * L)), 2);
  return _mm512_inserti64x2(v, _mm_loadu_si128((const __m128i *)(a + 6 * L)), 3);
}

FA_INLINE void fa_store_pairs(uint64_t *r, V v, int L) {
  _mm_storeu_si128((__m128i *)r, _mm512_castsi512_si128(v));
  _mm_storeu_si128((__m128i *)(r + 2 * L), _mm512_extracti64x2_epi64(v, 1));
  _mm_storeu_si128((__m128i *)(r + 4 * L), _mm512_extracti64x2_epi64(v, 2));
  _mm_storeu_si128((__m128i *)(r + 6 * L), _mm512_extracti64x2_epi64(v, 3));
}

/* x[i] = limb i of eight elements.  Four limbs have an order of lanes of their own, which
 * fa_store undoes; nothing between depends on the order. */
FA_INLINE void fa_load(V *x, const uint64_t *a, int L) {
  if (L == 4) {
    V z0 = _mm512_loadu_si512(a), z1 = _mm512_loadu_si512(a + 8);
    V z2 = _mm512_loadu_si512(a + 16), z3 = _mm512_loadu_si512(a + 24);
    V even01 = _mm512_unpacklo_epi64(z0, z1), odd01 = _mm512_unpackhi_epi64(z0, z1);
    V even23 = _mm512_unpacklo_epi64(z2, z3), odd23 = _mm512_unpackhi_epi64(z2, z3);
    x[0] = _mm512_shuffle_i64x2(even01, even23, 0x88);
    x[1] = _mm512_shuffle_i64x2(odd01, odd23, 0x88);
    x[2] = _mm512_shuffle_i64x2(even01, even23, 0xdd);
    x[3] = _mm512_shuffle_i64x2(odd01, odd23, 0xdd);
    return;
  }
  FA_UNROLL for (int i = 0; i + 1 < L; i += 2) {
    V even = fa_pairs(a + i, L), odd = fa_pairs(a + L + i, L);
    x[i] = _mm512_unpacklo_epi64(even, odd);
    x[i + 1] = _mm512_unpackhi_epi64(even, odd);
  }
  if (L & 1) /* the last pair overlaps the one before it */
    x[L - 1] = _mm512_unpackhi_epi64(fa_pairs(a + L - 2, L), fa_pairs(a + 2 * L - 2, L));
}

FA_INLINE void fa_store(uint64_t *r, const V *x, int L) {
  if (L == 4) {
    const V low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const V high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    V a01 = _mm512_unpacklo_epi64(x[0], x[1]), b01 = _mm512_unpackhi_epi64(x[0], x[1]);
    V a23 = _mm512_unpacklo_epi64(x[2], x[3]), b23 = _mm512_unpackhi_epi64(x[2], x[3]);
    _mm512_storeu_si512(r, _mm512_permutex2var_epi64(a01, low, a23));
    _mm512_storeu_si512(r + 8, _mm512_permutex2var_epi64(b01, low, b23));
    _mm512_storeu_si512(r + 16, _mm512_permutex2var_epi64(a01, high, a23));
    _mm512_storeu_si512(r + 24, _mm512_permutex2var_epi64(b01, high, b23));
    return;
  }
  FA_UNROLL for (int i = 0; i + 1 < L; i += 2) {
    fa_store_pairs(r + i, _mm512_unpacklo_epi64(x[i], x[i + 1]), L);
    fa_store_pairs(r + L + i, _mm512_unpackhi_epi64(x[i], x[i + 1]), L);
  }
  if (L & 1) {
    fa_store_pairs(r + L - 2, _mm512_unpacklo_epi64(x[L - 2], x[L - 1]), L);
    fa_store_pairs(r + 2 * L - 2, _mm512_unpackhi_epi64(x[L - 2], x[L - 1]), L);
  }
}

FA_INLINE void fa_load_step(V *x, const uint64_t *a, int64_t step, int L) {
  if (step)
    fa_load(x, a, L);
  else
    FA_UNROLL for (int i = 0; i < L; i++) x[i] = _mm512_set1_epi64((int64_t)a[i]);
}

/* d[D] = the digits of x[L], the top one continued by `above`. */
FA_INLINE void fa_cut(V *d, const V *x, V above, int L) {
  const V mask = _mm512_set1_epi64(FA_MASK);
  FA_UNROLL for (int j = 0; j < FA_DIGITS(L); j++) {
    int w = 52 * j / 64, o = 52 * j % 64;
    V digit = _mm512_srli_epi64(x[w], o);
    if (o > 12)
      digit = _mm512_or_si512(digit, _mm512_slli_epi64(w + 1 < L ? x[w + 1] : above, 64 - o));
    d[j] = _mm512_and_si512(digit, mask);
  }
}

FA_INLINE void fa_multiply_add(V *columns, const V *a, const V *b, int D) {
  FA_UNROLL for (int i = 0; i < D; i++) {
    FA_UNROLL for (int j = 0; j < D; j++) {
      columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], a[i], b[j]);
      columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], a[i], b[j]);
    }
  }
}

/* The 64 bits at o of the digits d, `above` beyond them. */
FA_INLINE V fa_limb_from(const V *d, __m128i o, __m128i middle, __m128i high) {
  return _mm512_or_si512(_mm512_srl_epi64(d[0], o),
                         _mm512_or_si512(_mm512_sll_epi64(d[1], middle),
                                         _mm512_sll_epi64(d[2], high)));
}

/* The bits of digits d below bit F. */
FA_INLINE V fa_below(const V *d, int F) {
  V below = _mm512_and_si512(d[F / 52], _mm512_set1_epi64(((int64_t)1 << (F % 52)) - 1));
  for (int i = 0; i < F / 52; i++)
    below = _mm512_or_si512(below, d[i]);
  return below;
}

/* q[L + 1] = the limbs from bit F on of digits d[count], the last signed, with `sign` at eight
 * places beyond; returns what is not zero where the number has more limbs. */
FA_INLINE V fa_take(V *q, const V *d, V sign, int count, int F, int L) {
  const V mask = _mm512_set1_epi64(FA_MASK);
  const int outside = F + 64 * (L + 1);
  FA_UNROLL for (int i = 0; i <= L; i++) {
    int bit = F + 64 * i, o = bit % 52;
    q[i] = fa_limb_from(d + bit / 52, _mm_cvtsi32_si128(o), _mm_cvtsi32_si128(52 - o),
                        _mm_cvtsi32_si128(104 - o));
  }
  V wrong = _mm512_xor_si512(_mm512_srai_epi64(q[L], 63), sign);
  for (int i = outside / 52; i < count; i++) {
    V t = _mm512_xor_si512(d[i], sign);
    if (i < count - 1)
      t = _mm512_and_si512(t, mask);
    if (i == outside / 52)
      t = _mm512_srl_epi64(t, _mm_cvtsi32_si128(outside % 52));
    wrong = _mm512_or_si512(wrong, t);
  }
  return wrong;
}

enum { FA_PAD = 8 };

FA_INLINE int64_t fa_fma_vector(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b,
                                int64_t bs, const uint64_t *c, int64_t cs, int64_t n, int F,
                                int with_c, int L) {
  const int D = FA_DIGITS(L);
  const V mask = _mm512_set1_epi64(FA_MASK);
  uint64_t half[2 * D];
  memset(half, 0, sizeof half);
  if (F > 0)
    half[(F - 1) / 52] = (uint64_t)1 << ((F - 1) % 52);
  const V one = _mm512_set1_epi64(F > 0);
  int64_t e = 0;
  for (; e + 8 <= n; e += 8, r += 8 * L, a += 8 * as, b += 8 * bs, c += 8 * cs) {
    V x[L], ad[D], bd[D], columns[2 * D], d[2 * D + FA_PAD], q[L + 1];
    fa_load_step(x, a, as, L);
    V a_sign = _mm512_srai_epi64(x[L - 1], 63);
    fa_cut(ad, x, a_sign, L);
    fa_load_step(x, b, bs, L);
    V b_sign = _mm512_srai_epi64(x[L - 1], 63);
    fa_cut(bd, x, b_sign, L);
    FA_UNROLL for (int i = 0; i < 2 * D; i++) columns[i] = _mm512_set1_epi64((int64_t)half[i]);
    fa_multiply_add(columns, ad, bd, D);
    __mmask8 a_negative = _mm512_movepi64_mask(a_sign), b_negative = _mm512_movepi64_mask(b_sign);
    FA_UNROLL for (int i = 0; i < D; i++) {
      V t = _mm512_mask_sub_epi64(columns[D + i], a_negative, columns[D + i], bd[i]);
      columns[D + i] = _mm512_mask_sub_epi64(t, b_negative, t, ad[i]);
    }
    V carry = columns[0];
    FA_UNROLL for (int i = 0; i + 1 < 2 * D; i++) {
      d[i] = _mm512_and_si512(carry, mask);
      carry = _mm512_add_epi64(columns[i + 1], _mm512_srai_epi64(carry, 52));
    }
    carry = _mm512_srai_epi64(_mm512_slli_epi64(carry, 12), 12); /* modulo 2^(104 D) */
    V sign = _mm512_srai_epi64(carry, 63);
    d[2 * D - 1] = carry;
    FA_UNROLL for (int i = 0; i < FA_PAD; i++) d[2 * D + i] = sign;

    V below = fa_below(d, F), wrong = fa_take(q, d, sign, 2 * D, F, L);
    if (with_c) {
      const V ones = _mm512_set1_epi64(-1);
      __mmask8 carried = 0;
      fa_load_step(x, c, cs, L);
      V c_sign = _mm512_srai_epi64(x[L - 1], 63), top = _mm512_srai_epi64(q[L], 63);
      FA_UNROLL for (int i = 0; i <= L; i++) {
        V addend = i < L ? x[i] : c_sign, sum = _mm512_add_epi64(q[i], addend);
        __mmask8 out = _mm512_cmplt_epu64_mask(sum, addend);
        __mmask8 through = _mm512_mask_cmpeq_epi64_mask(carried, sum, ones);
        q[i] = _mm512_mask_sub_epi64(sum, carried, sum, ones);
        carried = out | through;
      }
      V changed = _mm512_andnot_si512(_mm512_xor_si512(top, c_sign),
                                      _mm512_xor_si512(top, _mm512_srai_epi64(q[L], 63)));
      wrong = _mm512_or_si512(wrong, changed);
    }
    __mmask8 tie = _mm512_testn_epi64_mask(below, below);
    q[0] = _mm512_mask_andnot_epi64(q[0], tie, one, q[0]);
    wrong = _mm512_or_si512(wrong, _mm512_xor_si512(q[L], _mm512_srai_epi64(q[L - 1], 63)));
    if (_mm512_test_epi64_mask(wrong, wrong))
      return e + fa_fma_scalar(r, a, as, b, bs, with_c ? c : NULL, cs, 8, L, F);
    fa_store(r, q, L);
  }
  return e + fa_fma_scalar(r, a, as, b, bs, with_c ? c : NULL, cs, n - e, L, F);
}

#define FA_IFMA_BY_LIMBS(f, otherwise, ...)   \
  switch (L) {                                \
  case 2: return f(__VA_ARGS__, 2);           \
  case 3: return f(__VA_ARGS__, 3);           \
  case 4: return f(__VA_ARGS__, 4);           \
  case 5: return f(__VA_ARGS__, 5);           \
  case 6: return f(__VA_ARGS__, 6);           \
  case 7: return f(__VA_ARGS__, 7);           \
  case 8: return f(__VA_ARGS__, 8);           \
  default: return otherwise;                  \
  }

static int64_t fa_fma(uint64_t *r, const uint64_t *a, int64_t as, const uint64_t *b, int64_t bs,
                      const uint64_t *c, int64_t cs, int64_t n, int L, int F) {
  if (c == NULL) {
    FA_IFMA_BY_LIMBS(fa_fma_vector, fa_fma_scalar(r, a, as, b, bs, c, cs, n, L, F), r, a, as, b,
                     bs, a, 0, n, F, 0)
  }
  FA_IFMA_BY_LIMBS(fa_fma_vector, fa_fma_scalar(r, a, as, b, bs, c, cs, n, L, F), r, a, as, b, bs,
                   c, cs, n, F, 1)
}

/* Sums of products take A' = a + 2^(W-1) instead of a, so that no digit needs a sign:
 * sum a b = sum A' B' - 2^(W-1) sum (A' + B') + n 2^(2W-2). */

enum { FA_LAZY = 128 }; /* products between carries: 128 2 D < 2^12 for D <= 10 */

/* columns[count] carried on, each to 52 bits; the last keeps all of its 64. */
FA_INLINE void fa_settle(V *columns, int count) {
  const V mask = _mm512_set1_epi64(FA_MASK);
  FA_UNROLL for (int i = 0; i + 1 < count; i++) {
    columns[i + 1] = _mm512_add_epi64(columns[i + 1], _mm512_srli_epi64(columns[i], 52));
    columns[i] = _mm512_and_si512(columns[i], mask);
  }
}

FA_INLINE void fa_settle_one(uint64_t *columns, int count) {
  for (int i = 0; i + 1 < count; i++) {
    columns[i + 1] += columns[i] >> 52;
    columns[i] &= FA_MASK;
  }
}

/* p[m] = the sum of columns[i] 2^(52 i + shift). */
static void fa_from_columns(uint64_t *p, int m, const uint64_t *columns, int count, int shift) {
  memset(p, 0, 8 * (size_t)m);
  for (int i = 0; i < count; i++) {
    int bit = 52 * i + shift, w = bit / 64;
    u128 t = (u128)columns[i] << bit % 64;
    if (w >= m)
      break;
    uint64_t high = (uint64_t)(t >> 64);
    p[w] += (uint64_t)t;
    high += p[w] < (uint64_t)t;
    fa_increment(p + w + 1, m - w - 1, high);
  }
}

/* exact[2 L + 2] += products - 2^(W-1) sums + n 2^(2W-2). */
static void fa_unbias(uint64_t *exact, const uint64_t *products, const uint64_t *sums, uint64_t n,
                      int L) {
  const int D = FA_DIGITS(L), m = 2 * L + 2;
  uint64_t p[m];
  fa_from_columns(p, m, products, 2 * D + 1, 0);
  add_n(exact, exact, p, m);
  fa_from_columns(p, m, sums, D + 1, 64 * L - 1);
  sub_n(exact, exact, p, m);
  fa_from_columns(p, m, &n, 1, 128 * L - 2);
  add_n(exact, exact, p, m);
}

FA_INLINE void fa_biased_digits(V *d, const uint64_t *a, int L) {
  V x[L];
  fa_load(x, a, L);
  x[L - 1] = _mm512_xor_si512(x[L - 1], _mm512_set1_epi64(INT64_MIN));
  fa_cut(d, x, _mm512_setzero_si512(), L);
}

FA_INLINE void fa_dot_vector(uint64_t *exact, const uint64_t *a, const uint64_t *b, int64_t n,
                             int L) {
  const int D = FA_DIGITS(L);
  V columns[2 * D + 1], sums[D + 1];
  for (int i = 0; i <= 2 * D; i++)
    columns[i] = _mm512_setzero_si512();
  for (int i = 0; i <= D; i++)
    sums[i] = _mm512_setzero_si512();
  int64_t e = 0;
  while (e + 8 <= n) {
    int64_t end = e + 8 * FA_LAZY < n ? e + 8 * FA_LAZY : n;
    for (; e + 8 <= end; e += 8) {
      V ad[D], bd[D];
      fa_biased_digits(ad, a + e * L, L);
      fa_biased_digits(bd, b + e * L, L);
      fa_multiply_add(columns, ad, bd, D);
      FA_UNROLL for (int i = 0; i < D; i++) {
        sums[i] = _mm512_add_epi64(sums[i], _mm512_add_epi64(ad[i], bd[i]));
      }
    }
    fa_settle(columns, 2 * D + 1);
    fa_settle(sums, D + 1);
  }
  uint64_t products[2 * D + 1], totals[D + 1];
  for (int i = 0; i <= 2 * D; i++)
    products[i] = (uint64_t)_mm512_reduce_add_epi64(columns[i]);
  for (int i = 0; i <= D; i++)
    totals[i] = (uint64_t)_mm512_reduce_add_epi64(sums[i]);
  fa_unbias(exact, products, totals, (uint64_t)e, L);
  fa_dot_scalar(exact, a + e * L, b + e * L, n - e, L);
}

static void fa_dot(uint64_t *exact, const uint64_t *a, const uint64_t *b, int64_t n, int L) {
  FA_IFMA_BY_LIMBS(fa_dot_vector, fa_dot_scalar(exact, a, b, n, L), exact, a, b, n)
}

/* The work of a matrix product: the digits of eight columns of b [K][D][8], those of all of
 * a [M][K][D], and the sums of each row of a [M][D + 1]. */
static int64_t fa_matmul_work(int64_t M, int64_t K, int L) {
  const int64_t D = FA_DIGITS(L);
  if (L < 2 || L > 8)
    return 0;
  return 8 * (8 * K * D + M * K * D + M * (D + 1));
}

static int fa_matmul_begin(void *work, const uint64_t *a, int64_t M, int64_t K, int L,
                           ExactPoll poll) {
  const int D = FA_DIGITS(L);
  int64_t since = 0;
  if (L < 2 || L > 8)
    return 0;
  uint64_t *digits = (uint64_t *)work + 8 * K * D, *sums = digits + M * K * D;
  memset(sums, 0, 8 * (size_t)(M * (D + 1)));
  for (int64_t i = 0; i < M; i++, sums += D + 1)
    for (int64_t k = 0; k < K; k++, digits += D, a += L) {
      for (int j = 0; j < D; j++) {
        int w = 52 * j / 64, o = 52 * j % 64;
        uint64_t low = w == L - 1 ? a[w] ^ (uint64_t)1 << 63 : a[w], high = 0;
        if (w + 1 < L)
          high = w + 1 == L - 1 ? a[w + 1] ^ (uint64_t)1 << 63 : a[w + 1];
        digits[j] = (uint64_t)(((u128)high << 64 | low) >> o) & FA_MASK;
        sums[j] += digits[j];
      }
      if (k % 1024 == 1023)
        fa_settle_one(sums, D + 1);
      if ((since += D) > FA_SLICE) {
        int status = poll();
        if (status) return status;
        since = 0;
      }
    }
  return 0;
}

FA_INLINE int64_t fa_columns_vector(uint64_t *r, const uint64_t *b, int64_t M, int64_t K,
                                    int64_t N, int64_t j, int F, void *work, ExactPoll poll,
                                    int L) {
  static const int lane_order[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 2, 1, 3, 4, 6, 5, 7}};
  const int *element = lane_order[L == 4];
  const int D = FA_DIGITS(L);
  const int64_t width = N - j < 8 ? N - j : 8;
  V *bd = (V *)work, b_sums[D + 1];
  uint64_t edge[8 * L];
  memset(edge, 0, sizeof edge);
  for (int i = 0; i <= D; i++)
    b_sums[i] = _mm512_setzero_si512();
  for (int64_t k = 0; k < K; k++) {
    const uint64_t *row = b + (k * N + j) * L;
    if (width < 8)
      row = memcpy(edge, row, 8 * (size_t)(width * L));
    fa_biased_digits(bd + k * D, row, L);
    FA_UNROLL for (int i = 0; i < D; i++) b_sums[i] = _mm512_add_epi64(b_sums[i], bd[k * D + i]);
    if (k % 1024 == 1023)
      fa_settle(b_sums, D + 1);
    if (k % 8192 == 8191) {
      int status = poll();
      if (status) return status;
    }
  }
  /* half a unit, and K 2^(2W-2) */
  uint64_t constant[2 * D + 1];
  memset(constant, 0, sizeof constant);
  if (F > 0)
    constant[(F - 1) / 52] = (uint64_t)1 << (F - 1) % 52;
  constant[(128 * L - 2) / 52] += (uint64_t)K << (128 * L - 2) % 52 & FA_MASK;
  constant[(128 * L - 2) / 52 + 1] += (uint64_t)K >> (52 - (128 * L - 2) % 52);
  const V mask = _mm512_set1_epi64(FA_MASK), one = _mm512_set1_epi64(F > 0);
  const uint64_t *ad = (const uint64_t *)work + 8 * K * D, *a_sums = ad + M * K * D;
  int64_t since = K * D;
  for (int64_t i = 0; i < M; i++, a_sums += D + 1) {
    V columns[2 * D + 1];
    if ((since += (K + D) * D) > FA_SLICE) {
      int status = poll();
      if (status) return status;
      since = 0;
    }
    for (int c = 0; c <= 2 * D; c++)
      columns[c] = _mm512_setzero_si512();
    for (int64_t k = 0; k < K;) {
      int64_t end = k + FA_LAZY < K ? k + FA_LAZY : K;
      for (; k < end; k++, ad += D) {
        V row[D];
        FA_UNROLL for (int c = 0; c < D; c++) row[c] = _mm512_set1_epi64((int64_t)ad[c]);
        fa_multiply_add(columns, row, bd + k * D, D);
      }
      fa_settle(columns, 2 * D + 1);
    }
    V sums[D + 1], d[2 * D + 1 + FA_PAD], q[L + 1];
    FA_UNROLL for (int c = 0; c <= D; c++) {
      sums[c] = _mm512_add_epi64(b_sums[c], _mm512_set1_epi64((int64_t)a_sums[c]));
    }
    fa_settle(sums, D + 1);
    FA_UNROLL for (int c = 0; c <= D; c++) { /* less 2^(W-1) times the sums */
      V low = _mm512_and_si512(_mm512_slli_epi64(sums[c], (64 * L - 1) % 52), mask);
      V high = _mm512_srli_epi64(sums[c], 52 - (64 * L - 1) % 52);
      int at = (64 * L - 1) / 52 + c;
      columns[at] = _mm512_sub_epi64(columns[at], low);
      columns[at + 1] = _mm512_sub_epi64(columns[at + 1], high);
    }
    V carry = _mm512_setzero_si512();
    FA_UNROLL for (int c = 0; c < 2 * D; c++) {
      carry = _mm512_add_epi64(_mm512_srai_epi64(carry, 52), columns[c]);
      carry = _mm512_add_epi64(carry, _mm512_set1_epi64((int64_t)constant[c]));
      d[c] = _mm512_and_si512(carry, mask);
    }
    d[2 * D] = _mm512_add_epi64(_mm512_srai_epi64(carry, 52), columns[2 * D]);
    d[2 * D] = _mm512_add_epi64(d[2 * D], _mm512_set1_epi64((int64_t)constant[2 * D]));
    V sign = _mm512_srai_epi64(d[2 * D], 63);
    FA_UNROLL for (int c = 0; c < FA_PAD; c++) d[2 * D + 1 + c] = sign;
    V below = fa_below(d, F), wrong = fa_take(q, d, sign, 2 * D + 1, F, L);
    q[0] = _mm512_mask_andnot_epi64(q[0], _mm512_testn_epi64_mask(below, below), one, q[0]);
    wrong = _mm512_or_si512(wrong, _mm512_xor_si512(q[L], _mm512_srai_epi64(q[L - 1], 63)));
    __mmask8 bad = _mm512_test_epi64_mask(wrong, wrong);
    fa_store(edge, q, L);
    memcpy(r + (i * N + j) * L, edge, 8 * (size_t)(width * L));
    int first = 8;
    for (int lane = 0; lane < 8; lane++)
      if (bad >> lane & 1 && element[lane] < first)
        first = element[lane];
    if (first < width)
      return i * N + j + first;
  }
  return M * N;
}

static int64_t fa_matmul_columns(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t M,
                                 int64_t K, int64_t N, int64_t j, int L, int F, void *work,
                                 ExactPoll poll) {
  FA_IFMA_BY_LIMBS(fa_columns_vector,
                   fa_matmul_columns_scalar(r, a, b, M, K, N, j, L, F, work, poll), r, b, M, K, N,
                   j, F, work, poll)
}

#define fa_add fa_add_scalar
#define fa_sub fa_sub_scalar
