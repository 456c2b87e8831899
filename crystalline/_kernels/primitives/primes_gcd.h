/* Batched greatest common divisors: Stein's binary algorithm, four vectors of lanes interleaved
 * (two numbers where there are no vectors).
 *
 * Both operands are kept odd: the larger becomes their difference without its factors of two.
 * A lane is done when its operands are equal, and stays so.  A lane with a zero runs on ones and
 * gets the other operand at the end.
 */
#include "primes_table.h"

/* One step for odd a and b without a branch; a stays b when they are equal. */
static inline void gcd_step_1(uint64_t *a, uint64_t *b) {
  const uint64_t difference = *a - *b, below = -(uint64_t)(*a < *b);
  const int twos = __builtin_ctzll(difference | (uint64_t)1 << 63);
  const uint64_t distance = (difference ^ below) - below;
  *b += difference & below;
  *a = difference ? distance >> twos : *b;
}

static inline uint64_t gcd_odd(uint64_t a, uint64_t b) {
  while (a != b)
    gcd_step_1(&a, &b);
  return a;
}

static inline uint64_t gcd_pair(uint64_t a, uint64_t b) {
  if (!a || !b)
    return a | b;
  int shared = __builtin_ctzll(a | b);
  return gcd_odd(a >> __builtin_ctzll(a), b >> __builtin_ctzll(b)) << shared;
}

#if defined(CL_AVX512)
#define GCD_LANES 8
typedef __m512i GcdVector;
typedef __mmask8 GcdMask;

/* The exponent field of the lowest set bit as a double: its place + 1023; garbage for 0. */
static inline __m512i gcd_place(__m512i low) {
  return _mm512_srli_epi64(_mm512_castpd_si512(_mm512_cvtepu64_pd(low)), 52);
}

static inline __m512i gcd_make_odd(__m512i x) {
  __m512i low = _mm512_and_si512(x, _mm512_sub_epi64(_mm512_setzero_si512(), x));
  __m512i place = _mm512_sub_epi64(gcd_place(low), _mm512_set1_epi64(1023));
  return _mm512_srlv_epi64(x, place);
}

static inline void gcd_begin(__m512i *a, __m512i *b, __m512i *shared, __mmask8 *zero,
                             __m512i *other) {
  const __m512i one = _mm512_set1_epi64(1);
  *zero = _mm512_testn_epi64_mask(*a, *a) | _mm512_testn_epi64_mask(*b, *b);
  *other = _mm512_or_si512(*a, *b);
  *a = _mm512_mask_mov_epi64(*a, *zero, one);
  *b = _mm512_mask_mov_epi64(*b, *zero, one);
  __m512i either = _mm512_or_si512(*a, *b);
  __m512i low = _mm512_and_si512(either, _mm512_sub_epi64(_mm512_setzero_si512(), either));
  *shared = _mm512_sub_epi64(gcd_place(low), _mm512_set1_epi64(1023));
  *a = gcd_make_odd(*a);
  *b = gcd_make_odd(*b);
}

static inline __mmask8 gcd_step(__m512i *a, __m512i *b) {
  __mmask8 active = _mm512_cmpneq_epi64_mask(*a, *b);
  __m512i smaller = _mm512_min_epu64(*a, *b), larger = _mm512_max_epu64(*a, *b);
  __m512i low = _mm512_and_si512(_mm512_sub_epi64(*a, *b), _mm512_sub_epi64(*b, *a));
  /* The difference is even; rotation counts modulo 64, and 1023 is -1 modulo 64. */
  __m512i half = _mm512_srli_epi64(_mm512_sub_epi64(larger, smaller), 1);
  *b = _mm512_mask_rorv_epi64(*b, active, half, gcd_place(low));
  *a = smaller;
  return active;
}

static inline __m512i gcd_end(__m512i a, __m512i shared, __mmask8 zero, __m512i other) {
  return _mm512_mask_mov_epi64(_mm512_sllv_epi64(a, shared), zero, other);
}

static inline __m512i gcd_load(const uint64_t *x) { return _mm512_loadu_si512(x); }
static inline void gcd_store(uint64_t *x, __m512i v) { _mm512_storeu_si512(x, v); }

#elif defined(CL_AVX2)
#define GCD_LANES 4
typedef __m256i GcdVector;
typedef __m256i GcdMask;

/* The place of the only set bit of each lane: the exponents of its halves as floats. */
static inline __m256i gcd_place(__m256i low) {
  __m256i exponent = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(low)), 23);
  exponent = _mm256_and_si256(exponent, _mm256_set1_epi32(255)); /* 2^31 converts to -2^31 */
  __m256i place = _mm256_subs_epu16(exponent, _mm256_set1_epi64x(95LL << 32 | 127));
  place = _mm256_or_si256(place, _mm256_srli_epi64(place, 32));
  return _mm256_and_si256(place, _mm256_set1_epi64x(63));
}

static inline __m256i gcd_low(__m256i x) {
  return _mm256_and_si256(x, _mm256_sub_epi64(_mm256_setzero_si256(), x));
}

static inline void gcd_begin(__m256i *a, __m256i *b, __m256i *shared, __m256i *zero,
                             __m256i *other) {
  const __m256i one = _mm256_set1_epi64x(1), none = _mm256_setzero_si256();
  *zero = _mm256_or_si256(_mm256_cmpeq_epi64(*a, none), _mm256_cmpeq_epi64(*b, none));
  *other = _mm256_or_si256(*a, *b);
  *a = _mm256_blendv_epi8(*a, one, *zero);
  *b = _mm256_blendv_epi8(*b, one, *zero);
  *shared = gcd_place(gcd_low(_mm256_or_si256(*a, *b)));
  *a = _mm256_srlv_epi64(*a, gcd_place(gcd_low(*a)));
  *b = _mm256_srlv_epi64(*b, gcd_place(gcd_low(*b)));
}

static inline __m256i gcd_step(__m256i *a, __m256i *b) {
  const __m256i sign = _mm256_set1_epi64x((int64_t)1 << 63);
  __m256i done = _mm256_cmpeq_epi64(*a, *b);
  __m256i above = _mm256_cmpgt_epi64(_mm256_xor_si256(*a, sign), _mm256_xor_si256(*b, sign));
  __m256i difference = _mm256_sub_epi64(*a, *b), opposite = _mm256_sub_epi64(*b, *a);
  __m256i distance = _mm256_blendv_epi8(opposite, difference, above);
  __m256i smaller = _mm256_blendv_epi8(*a, *b, above);
  __m256i place = gcd_place(_mm256_and_si256(difference, opposite));
  *b = _mm256_blendv_epi8(_mm256_srlv_epi64(distance, place), *b, done);
  *a = smaller;
  return _mm256_xor_si256(done, _mm256_set1_epi64x(-1));
}

static inline __m256i gcd_end(__m256i a, __m256i shared, __m256i zero, __m256i other) {
  return _mm256_blendv_epi8(_mm256_sllv_epi64(a, shared), other, zero);
}

static inline __m256i gcd_load(const uint64_t *x) {
  return _mm256_loadu_si256((const __m256i *)x);
}
static inline void gcd_store(uint64_t *x, __m256i v) { _mm256_storeu_si256((__m256i *)x, v); }
#endif

#if defined(GCD_LANES)
#if defined(CL_AVX512)
#define GCD_ANY(w, x, y, z) ((w) | (x) | (y) | (z))
#else
#define GCD_ANY(w, x, y, z) \
  (!_mm256_testz_si256(_mm256_or_si256(_mm256_or_si256(w, x), _mm256_or_si256(y, z)), \
                       _mm256_set1_epi64x(-1)))
#endif

static inline void gcd_four_vectors(uint64_t *out, const uint64_t *x, const uint64_t *y) {
  GcdVector a[4], b[4], shared[4], other[4];
  GcdMask zero[4], active[4];
  for (int v = 0; v < 4; v++) {
    a[v] = gcd_load(x + v * GCD_LANES);
    b[v] = gcd_load(y + v * GCD_LANES);
    gcd_begin(&a[v], &b[v], &shared[v], &zero[v], &other[v]);
  }
  do { /* written out: the vectors must stay in registers */
    active[0] = gcd_step(&a[0], &b[0]);
    active[1] = gcd_step(&a[1], &b[1]);
    active[2] = gcd_step(&a[2], &b[2]);
    active[3] = gcd_step(&a[3], &b[3]);
  } while (GCD_ANY(active[0], active[1], active[2], active[3]));
  for (int v = 0; v < 4; v++)
    gcd_store(out + v * GCD_LANES, gcd_end(a[v], shared[v], zero[v], other[v]));
}

static void gcd_batch(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t n) {
  int64_t i = 0;
  for (; i + 4 * GCD_LANES <= n; i += 4 * GCD_LANES)
    gcd_four_vectors(out + i, a + i, b + i);
  for (; i < n; i++)
    out[i] = gcd_pair(a[i], b[i]);
}

static void gcd_batch_1(uint64_t *out, const uint64_t *a, uint64_t b, int64_t n) {
  uint64_t copies[4 * GCD_LANES];
  for (int j = 0; j < 4 * GCD_LANES; j++)
    copies[j] = b;
  int64_t i = 0;
  for (; i + 4 * GCD_LANES <= n; i += 4 * GCD_LANES)
    gcd_four_vectors(out + i, a + i, copies);
  for (; i < n; i++)
    out[i] = gcd_pair(a[i], b);
}

#else

static inline void gcd_two_pairs(uint64_t *out, const uint64_t *x, uint64_t b0, uint64_t b1) {
  uint64_t a0 = x[0], a1 = x[1];
  if (!a0 || !b0 || !a1 || !b1) {
    out[0] = gcd_pair(a0, b0);
    out[1] = gcd_pair(a1, b1);
    return;
  }
  const int shared_0 = __builtin_ctzll(a0 | b0), shared_1 = __builtin_ctzll(a1 | b1);
  a0 >>= __builtin_ctzll(a0), b0 >>= __builtin_ctzll(b0);
  a1 >>= __builtin_ctzll(a1), b1 >>= __builtin_ctzll(b1);
  while ((a0 != b0) | (a1 != b1)) {
    gcd_step_1(&a0, &b0);
    gcd_step_1(&a1, &b1);
  }
  out[0] = a0 << shared_0;
  out[1] = a1 << shared_1;
}

static void gcd_batch(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t n) {
  int64_t i = 0;
  for (; i + 2 <= n; i += 2)
    gcd_two_pairs(out + i, a + i, b[i], b[i + 1]);
  if (i < n)
    out[i] = gcd_pair(a[i], b[i]);
}

static void gcd_batch_1(uint64_t *out, const uint64_t *a, uint64_t b, int64_t n) {
  int64_t i = 0;
  for (; i + 2 <= n; i += 2)
    gcd_two_pairs(out + i, a + i, b, b);
  if (i < n)
    out[i] = gcd_pair(a[i], b);
}
#endif
