/* Products of limb vectors: coefficients of 64 bits modulo three primes, of 128 bits modulo six.
 *
 * With h = 1 or 2 limbs a coefficient and n coefficients in the shorter operand, those of the
 * product are at most n (2^(64 h) - 1)^2, and are recovered where that is below the product of the
 * primes:
 *     three primes, h = 1: n <= NTT_THREE_PRIMES_MAX = 4,189,441 (2.6 * 10^8 bits),
 *     six primes, h = 2: n < 2^43; the roots' order, 2^33 coefficients (10^12 bits), binds first.
 *
 * The cyclic transforms have 2^k, 5/4, 6/4 or 7/4 of that many points: the first pass splits the
 * polynomials into m = 4 .. 7 blocks of B = 2^k coefficients, modulo x^B - e(rev(j)), j < m, the
 * truncated transform of van der Hoeven (2004).  Then one block after the other goes through
 * ntt_node_product, and the last pass interpolates from the m remainders.
 */
#ifndef CL_NTT_H
#define CL_NTT_H

#include <string.h>
#include <sys/mman.h>

#include "ntt_table.h"
#include "ntt_transform.h"

#define NTT_MAX_BLOCKS 7

typedef struct {
  int blocks, log; /* blocks 2^log points */
} NttShape;

/* The smallest shape of at least n points; blocks of one leaf come in pairs, as leaves do. */
static NttShape ntt_shape(int64_t n) {
  int log = NTT_LEAF_LOG;
  while (((int64_t)(log == NTT_LEAF_LOG ? 6 : NTT_MAX_BLOCKS) << log) < n) log++;
  int blocks = (int)((n + ((int64_t)1 << log) - 1) >> log);
  if (blocks < 4) blocks = 4;
  return (NttShape){log == NTT_LEAF_LOG ? blocks + blocks % 2 : blocks, log};
}

/* The power of two that the last pass leaves the coefficients multiplied by. */
static int ntt_shape_doublings(NttShape s) {
  static const int first_pass[NTT_MAX_BLOCKS + 1] = {0, 0, 0, 0, 2, 3, 3, 4};
  return first_pass[s.blocks] + (NTT_W > 1 ? s.log : s.log - NTT_LEAF_LOG);
}

/* NTT_W coefficients of h limbs each, modulo p: at most 0.7. */
NTT_INLINE NttVec ntt_coefficients(const uint64_t *a, int h, NttFactorVec two64,
                                   const NttField *f) {
  if (h == 1) return ntt_from_limbs(a, f);
#if defined(CL_AVX512)
  uint64_t low[8], high[8];
  __m512i x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(a + 8);
  __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
  _mm512_storeu_si512(low, _mm512_permutex2var_epi64(x, even, y));
  _mm512_storeu_si512(high, _mm512_permutex2var_epi64(x, odd, y));
#else
  uint64_t low[NTT_W], high[NTT_W];
  for (int i = 0; i < NTT_W; i++) low[i] = a[2 * i], high[i] = a[2 * i + 1];
#endif
  NttVec y1 = ntt_mulmod(ntt_from_limbs(high, f), two64, f);
  return ntt_reduce(y1 + ntt_from_limbs(low, f), f);
}

typedef struct {
  const uint64_t *block[NTT_MAX_BLOCKS]; /* B coefficients each */
  int given, h;                          /* how many of them: the others are zero */
} NttInput;

/* x[m B] = the remainders of the input modulo x^B - e(rev(j)), j < m: from 0.6 to 2.8; columns
 * from .. to of B. */
NTT_INLINE void ntt_first_pass_m(NttElement *x, const NttInput *in, int m, int64_t B,
                                 const NttRoots *roots, int64_t from, int64_t to) {
  const NttField field = ntt_field(&roots->modulus), *f = &field;
  const NttDirection *way = &roots->forward;
  NttFactorVec i4 = ntt_factor(&way->quarter), i8 = ntt_factor(&way->eighth),
               i38 = ntt_factor(&way->three_eighths);
  NttFactor factor = ntt_as_factor(
      &roots->modulus, (uint64_t)(((unsigned __int128)1 << 64) % roots->modulus.p));
  NttFactorVec two64 = ntt_factor(&factor);
  for (int64_t i = from; i < to; i += NTT_W) {
    NttVec a[8];
    for (int t = 0; t < 8; t++) a[t] = (NttVec){0};
    for (int t = 0; t < m && t < in->given; t++)
      a[t] = ntt_coefficients(in->block[t] + in->h * i, in->h, two64, f);
    NttVec v0 = a[0] - a[4], v1 = a[1] - a[5], v2 = a[2] - a[6], v3 = a[3] - a[7]; /* 1.2 */
    NttVec u0 = a[0] + a[4], u1 = a[1] + a[5], u2 = a[2] + a[6], u3 = a[3] + a[7];
    NttVec e0 = u0 + u2, e1 = u1 + u3, f0 = ntt_reduce(u0 - u2, f), f1 = u1 - u3; /* 2.4 */
    NTT_SPLIT(f0, f1, i4);                                                        /* 1.3 */
    ntt_store(x + i, ntt_reduce(e0 + e1, f));
    ntt_store(x + B + i, ntt_reduce(e0 - e1, f));
    ntt_store(x + 2 * B + i, f0);
    ntt_store(x + 3 * B + i, f1);
    if (m > 4) {
      NTT_SPLIT(v0, v2, i4); /* 1.2 + T(1.2) = 1.85 */
      NTT_SPLIT(v1, v3, i4);
      NTT_SPLIT(v0, v1, i8); /* 1.85 + T(1.85) = 2.6 */
      ntt_store(x + 4 * B + i, v0);
      if (m > 5) ntt_store(x + 5 * B + i, v1);
      if (m > 6) {
        NTT_SPLIT(v2, v3, i38);
        ntt_store(x + 6 * B + i, v2);
      }
    }
  }
}

static int ntt_first_pass(NttElement *x, const NttInput *in, NttShape s, const NttRoots *roots,
                          ExactPoll poll) {
  int64_t B = (int64_t)1 << s.log;
  NTT_IN_SLICES(B, {
    if (s.blocks == 4) ntt_first_pass_m(x, in, 4, B, roots, from, to);
    if (s.blocks == 5) ntt_first_pass_m(x, in, 5, B, roots, from, to);
    if (s.blocks == 6) ntt_first_pass_m(x, in, 6, B, roots, from, to);
    if (s.blocks == 7) ntt_first_pass_m(x, in, 7, B, roots, from, to);
  });
  return 0;
}

/* Back from m remainders, in place, times 4, 8, 8, 16 for m = 4 .. 7: from 1 to at most 4.
 *
 * In capitals four times the value, X = x^B: U is c modulo X^4 - 1, from the first four remainders;
 * the others give D_t, t < 4, of c_t - c_(t + 4), which is U_t where c_(t + 4) = 0. */
NTT_INLINE void ntt_last_pass_m(NttElement *x, int m, int64_t B, const NttRoots *roots,
                                int64_t from, int64_t to) {
  const NttField field = ntt_field(&roots->modulus), *f = &field;
  const NttDirection *way = &roots->forward, *back = &roots->inverse;
  NttFactorVec i4 = ntt_factor(&way->quarter), i8 = ntt_factor(&way->eighth),
               i38 = ntt_factor(&way->three_eighths);
  NttFactorVec j4 = ntt_factor(&back->quarter), j8 = ntt_factor(&back->eighth);
  for (int64_t i = from; i < to; i += NTT_W) {
    NttVec c[NTT_MAX_BLOCKS], y[NTT_MAX_BLOCKS];
    for (int t = 0; t < m; t++) y[t] = ntt_load(x + t * B + i);
    NttVec e0 = y[0] + y[1], e1 = y[0] - y[1], f0 = y[2] + y[3]; /* 2 */
    NttVec f1 = ntt_mulmod(y[2] - y[3], j4, f);                  /* T(2) = 0.75 */
    NttVec u0 = e0 + f0, u2 = e0 - f0, u1 = e1 + f1, u3 = e1 - f1; /* 4 */
    if (m > 4) {
      u0 = ntt_reduce(u0, f);
      u1 = ntt_reduce(u1, f);
      u2 = ntt_reduce(u2, f);
      u3 = ntt_reduce(u3, f);
    }
    if (m == 4) {
      c[0] = u0, c[1] = u1, c[2] = u2, c[3] = u3;
    }
    if (m == 5) { /* y4 = d0 + e(1/8) d1 + e(2/8) d2 + e(3/8) d3 */
      NttVec y4 = y[4] + y[4];
      NttVec rest = ntt_mulmod(u1, i8, f) + ntt_mulmod(u2, i4, f) + ntt_mulmod(u3, i38, f);
      NttVec d0 = ntt_reduce(y4 + y4 - rest, f); /* of 5.7, below 8 */
      c[0] = u0 + d0, c[4] = u0 - d0, c[1] = u1 + u1, c[2] = u2 + u2, c[3] = u3 + u3;
    }
    if (m >= 6) { /* half of node 2: d0 + e(1/4) d2, d1 + e(1/4) d3; g0, g1 are four times that */
      NttVec g0 = y[4] + y[5], g1 = ntt_mulmod(y[4] - y[5], j8, f); /* 2, 0.75 */
      g0 = g0 + g0, g1 = g1 + g1;
      NttVec u3_turned = ntt_mulmod(u3, i4, f);    /* 0.57 */
      NttVec d1 = ntt_reduce(g1 - u3_turned, f);
      if (m == 6) {
        NttVec d0 = ntt_reduce(g0 - ntt_mulmod(u2, i4, f), f);
        c[0] = u0 + d0, c[4] = u0 - d0, c[1] = u1 + d1, c[5] = u1 - d1;
        c[2] = u2 + u2, c[3] = u3 + u3;
      } else { /* y6 = h0 + e(3/8) h1, h0 = d0 - e(1/4) d2, h1 = d1 - e(1/4) d3; d0, d2 doubled */
        NttVec y6 = y[6] + y[6];
        NttVec h0 = ntt_reduce(y6 + y6 - ntt_mulmod(d1 - u3_turned, i38, f), f);
        g0 = ntt_reduce(g0, f);
        NttVec d0 = g0 + h0, d2 = ntt_mulmod(g0 - h0, j4, f); /* 1, 0.63 */
        u0 = u0 + u0, u2 = u2 + u2;
        c[0] = u0 + d0, c[4] = u0 - d0, c[2] = u2 + d2, c[6] = u2 - d2;
        c[1] = u1 + d1, c[5] = u1 - d1, c[3] = u3 + u3;
        c[1] = c[1] + c[1], c[5] = c[5] + c[5], c[3] = c[3] + c[3];
      }
    }
    for (int t = 0; t < m; t++) ntt_store(x + t * B + i, c[t]);
  }
}

static int ntt_last_pass(NttElement *x, NttShape s, const NttRoots *roots, ExactPoll poll) {
  int64_t B = (int64_t)1 << s.log;
  NTT_IN_SLICES(B, {
    if (s.blocks == 4) ntt_last_pass_m(x, 4, B, roots, from, to);
    if (s.blocks == 5) ntt_last_pass_m(x, 5, B, roots, from, to);
    if (s.blocks == 6) ntt_last_pass_m(x, 6, B, roots, from, to);
    if (s.blocks == 7) ntt_last_pass_m(x, 7, B, roots, from, to);
  });
  return 0;
}

/* Each vector of coefficients is a chain of some 150 dependent cycles: this many go abreast. */
#define NTT_ABREAST 8

/* x[u][i] = the digits of NTT_W coefficients whose remainders modulo p_i, times 1 / first[i], are
 * at c + i N + u NTT_W:  x_0 + p_0 (x_1 + p_1 (x_2 + ..)), by Garner's algorithm. */
NTT_INLINE void ntt_digits(NttVec x[NTT_ABREAST][NTT_PRIMES], const NttElement *c, int64_t N,
                           int primes, const NttFactor *first, const NttRoots *const *roots,
                           const NttField *fields) {
  for (int i = 0; i < primes; i++) {
    const NttField *f = &fields[i];
    NttVec v[NTT_ABREAST];
    for (int u = 0; u < NTT_ABREAST; u++)
      v[u] = ntt_mulmod(ntt_load(c + i * N + u * NTT_W), ntt_factor(&first[i]), f);
    for (int j = 0; j < i; j++)
      for (int u = 0; u < NTT_ABREAST; u++) {
        v[u] = v[u] - ntt_mulmod(x[u][j], ntt_factor(&roots[i]->later[j]), f);
        if (j == 2) v[u] = ntt_reduce(v[u], f); /* so that five of them stay below 4 */
      }
    for (int u = 0; u < NTT_ABREAST; u++) x[u][i] = ntt_canonical(v[u], f);
  }
}

/* value[words] = digits of any number of primes, by Horner's rule in limbs */
NTT_INLINE void ntt_value(uint64_t *value, int words, const uint64_t x[][NTT_W], int primes,
                          int lane) {
  for (int k = 0; k < words; k++) value[k] = 0;
  value[0] = x[primes - 1][lane];
  for (int j = primes - 2, size = 1; j >= 0; j--) { /* `size` limbs hold the value so far */
    unsigned __int128 carry = x[j][lane];
    for (int k = 0; k < size; k++) {
      carry += (unsigned __int128)value[k] * ntt_prime[j][0];
      value[k] = (uint64_t)carry;
      carry >>= 64;
    }
    if (size < words) value[size++] = (uint64_t)carry;
  }
}

/* out[h NTT_W] = coefficients of `words` limbs each, h limbs apart, added up through sum[words] */
NTT_INLINE void ntt_add_values(uint64_t *out, uint64_t *sum, int words, int h, const NttVec *x,
                               int primes) {
  uint64_t digits[NTT_PRIMES][NTT_W], value[5];
  for (int i = 0; i < primes; i++) ntt_to_integers(digits[i], x[i]);
  for (int lane = 0; lane < NTT_W; lane++) {
    ntt_value(value, words, digits, primes, lane);
    unsigned __int128 carry = 0;
    for (int k = 0; k < words; k++) {
      carry += (unsigned __int128)sum[k] + value[k];
      sum[k] = (uint64_t)carry;
      carry >>= 64;
    }
    for (int k = 0; k < h; k++) out[h * lane + k] = sum[k];
    for (int k = 0; k < words; k++) sum[k] = k + h < words ? sum[k + h] : 0;
  }
}

#if NTT_W > 1

#if defined(CL_AVX512)
typedef __m512i NttBits;
#else
typedef __m256i NttBits;
#endif
typedef uint64_t NttWords __attribute__((vector_size(8 * NTT_W)));

/* a b = hi 2^52 + lo for integers 0 <= a, b < 2^52 with |lo| <= 2^51: the multiplication that IFMA
 * has, rounded otherwise.  Added to 2^104, the product's bits above 2^52 are a mantissa's; hi comes
 * with the bits of 2^104, lo with those of 3 2^51. */
NTT_INLINE void ntt_multiply_wide(NttWords *hi, NttWords *lo, NttVec a, NttVec b) {
  NttVec two104 = ntt_set(0x1p104);
  NttVec high = ntt_fma(a, b, two104);
  NttVec low = ntt_fma(a, b, two104 - high);
  *hi = (NttWords)high;
  *lo = (NttWords)(low + ntt_set(0x1.8p52));
}

/* The value x_0 + p_0 x_1 + p_0 p_1 x_2 < 2^150 as limbs. */
NTT_INLINE void ntt_three_limbs(NttWords w[3], const NttVec *x) {
  unsigned __int128 q = (unsigned __int128)ntt_prime[0][0] * ntt_prime[1][0];
  const uint64_t mask = ((uint64_t)1 << 52) - 1, bits104 = (uint64_t)(1023 + 104) << 52,
                 bits52 = (uint64_t)(1023 + 52) << 52 | (uint64_t)1 << 51;
  NttWords h0, l0, h1, l1, h2, l2, x0 = (NttWords)(x[0] + ntt_set(0x1p52)) & mask;
  ntt_multiply_wide(&h0, &l0, x[1], ntt_set((double)ntt_prime[0][0]));
  ntt_multiply_wide(&h1, &l1, x[2], ntt_set((double)(uint64_t)(q & mask)));
  ntt_multiply_wide(&h2, &l2, x[2], ntt_set((double)(uint64_t)(q >> 52)));
  /* 52-bit columns; 4 units of the next one are lent so that none is negative */
  NttWords column0 = x0 + l0 + l1 + (((uint64_t)4 << 52) - 2 * bits52);
  NttWords column1 = h0 + h1 + l2 + (column0 >> 52) +
                     (((uint64_t)4 << 52) - 4 - 2 * bits104 - bits52);
  NttWords column2 = h2 + (column1 >> 52) - (4 + bits104);
  column0 &= mask;
  column1 &= mask;
  w[0] = column0 | column1 << 52;
  w[1] = column1 >> 12 | column2 << 40;
  w[2] = column2 >> 24;
}

typedef struct {
  NttWords w1, w2;     /* the upper limbs of the last NTT_W values */
  uint64_t carry1, carry2; /* of the two additions */
} NttCarry;

#if defined(CL_AVX512)

/* a + b + carry over 8 limbs: a lane that overflowed carries into the next, and on through lanes of
 * all ones, which is what adding the masks as numbers does. */
NTT_INLINE NttWords ntt_add_limbs(NttWords a, NttWords b, uint64_t *carry) {
  __m512i sum = (__m512i)(a + b), minus_one = _mm512_set1_epi64(-1);
  unsigned over = _mm512_cmplt_epu64_mask(sum, (__m512i)b);
  unsigned full = _mm512_cmpeq_epu64_mask(sum, minus_one);
  unsigned carried = 2 * over + (unsigned)*carry + full;
  *carry = carried >> 8;
  return (NttWords)_mm512_mask_sub_epi64(sum, (__mmask8)(carried ^ full), sum, minus_one);
}

NTT_INLINE void ntt_add_three(uint64_t *out, const NttWords w[3], NttCarry *c) {
  NttWords w1 = (NttWords)_mm512_alignr_epi64((__m512i)w[1], (__m512i)c->w1, 7);
  NttWords w2 = (NttWords)_mm512_alignr_epi64((__m512i)w[2], (__m512i)c->w2, 6);
  c->w1 = w[1];
  c->w2 = w[2];
  NttWords sum = ntt_add_limbs(ntt_add_limbs(w[0], w1, &c->carry1), w2, &c->carry2);
  _mm512_storeu_si512(out, (__m512i)sum);
}

#else

NTT_INLINE void ntt_add_three(uint64_t *out, const NttWords w[3], NttCarry *c) {
  uint64_t w1[NTT_W + 1], w2[NTT_W + 2], carry = c->carry1;
  w1[0] = c->w1[NTT_W - 1];
  w2[0] = c->w2[NTT_W - 2];
  w2[1] = c->w2[NTT_W - 1];
  memcpy(w1 + 1, &w[1], sizeof w[1]);
  memcpy(w2 + 2, &w[2], sizeof w[2]);
  for (int k = 0; k < NTT_W; k++) {
    unsigned __int128 sum = (unsigned __int128)w[0][k] + w1[k] + w2[k] + carry;
    out[k] = (uint64_t)sum;
    carry = (uint64_t)(sum >> 64);
  }
  c->carry1 = carry;
  c->w1 = w[1];
  c->w2 = w[2];
}

#endif
#endif

/* r[rn] = the coefficients at 64 h bits each, carries propagated; 0, or what `poll` returned. */
NTT_INLINE int ntt_recompose_h(uint64_t *r, int64_t rn, const NttElement *c, int64_t N, int h,
                               int doublings, const NttRoots *const *roots,
                               const NttField *fields, ExactPoll poll) {
  const int primes = 3 * h, words = h == 1 ? 3 : 5;
  NttFactor first[NTT_PRIMES];
  for (int i = 0; i < primes; i++) {
    uint64_t p = roots[i]->modulus.p, w = roots[i]->unit;
    for (int k = 0; k < doublings; k++) w = (w & 1 ? w + p : w) / 2;
    first[i] = ntt_as_factor(&roots[i]->modulus, w);
  }
  uint64_t sum[5] = {0}, out[2 * NTT_ABREAST * NTT_W];
#if NTT_W > 1
  NttCarry carry = {0};
#endif
  for (int64_t i = 0; i * h < rn; i += NTT_ABREAST * NTT_W) {
    NttVec x[NTT_ABREAST][NTT_PRIMES];
    int64_t left = rn - i * h;
    uint64_t *to = left >= NTT_ABREAST * h * NTT_W ? r + i * h : out;
    ntt_digits(x, c + i, N, primes, first, roots, fields);
#if NTT_W > 1
    if (h == 1) {
      NttWords w[NTT_ABREAST][3];
      for (int u = 0; u < NTT_ABREAST; u++) ntt_three_limbs(w[u], x[u]);
      for (int u = 0; u < NTT_ABREAST; u++) ntt_add_three(to + u * NTT_W, w[u], &carry);
    } else
#endif
      for (int u = 0; u < NTT_ABREAST; u++)
        ntt_add_values(to + u * h * NTT_W, sum, words, h, x[u], primes);
    if (to == out) memcpy(r + i * h, out, left * sizeof(uint64_t));
    int status = i && i % NTT_SLICE == 0 ? poll() : 0;
    if (status) return status;
  }
  return 0;
}

/* The blocks of a[n]; the last one, where not full, is padded in pad[h B].  Returns 0, or what
 * `poll` returned. */
static int ntt_input(NttInput *in, const uint64_t *a, int64_t n, int h, NttShape s, uint64_t *pad,
                     ExactPoll poll) {
  int64_t block = (int64_t)h << s.log;
  in->h = h;
  in->given = 0;
  for (; n >= block; n -= block, a += block) in->block[in->given++] = a;
  if (n == 0) return 0;
  in->block[in->given++] = pad;
  NTT_IN_SLICES(n, memcpy(pad + from, a + from, (to - from) * sizeof(uint64_t)));
  pad += n;
  NTT_IN_SLICES(block - n, memset(pad + from, 0, (to - from) * sizeof(uint64_t)));
  return 0;
}

/* Memory for a transform; in huge pages where it is long: fewer faults, and strides of 2^k bytes
 * need one entry of the translation buffer a page. */
static NttElement *ntt_workspace(int64_t bytes) {
  enum { HUGE_PAGE = 1 << 21 };
  if (bytes < 4 * HUGE_PAGE) return aligned_alloc(64, (bytes + 63) / 64 * 64);
  bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  void *memory = aligned_alloc(HUGE_PAGE, bytes);
  if (memory) madvise(memory, bytes, MADV_HUGEPAGE); /* advice: no matter whether it is taken */
  return memory;
}

/* z[N] = the product of the inputs modulo one prime, times a power of two; y[N] is scratch, z where
 * a square is wanted. */
static int ntt_product_modulo(NttElement *z, NttElement *y, const NttInput *a, const NttInput *b,
                              NttShape s, const NttRoots *roots, const NttField *f, ExactPoll poll) {
  int64_t B = (int64_t)1 << s.log;
  int status = ntt_first_pass(z, a, s, roots, poll);
  if (!status && y != z) status = ntt_first_pass(y, b, s, roots, poll);
  for (int j = 0; j < s.blocks && !status; j += s.log == NTT_LEAF_LOG ? 2 : 1) {
    if (s.log == NTT_LEAF_LOG)
      ntt_leaf_products(z + j * B, y + j * B, j, roots, f);
    else
      status = ntt_node_product(z + j * B, y + j * B, s.log, j, roots, f, poll);
  }
  return status ? status : ntt_last_pass(z, s, roots, poll);
}

static int ntt_mul(uint64_t *r, const uint64_t *a, int64_t an, const uint64_t *b, int64_t bn,
                   int h, ExactPoll poll) {
  int primes = 3 * h;
  int square = a == b && an == bn;
  NttShape s = ntt_shape((an + h - 1) / h + (bn + h - 1) / h);
  int64_t B = (int64_t)1 << s.log, N = s.blocks * B;
  if (N > (int64_t)1 << NTT_ORDER) return -1;
  int64_t leaves = NTT_W;
  while (leaves << NTT_LEAF_LOG < N) leaves *= 2;

  const NttRoots *roots[NTT_PRIMES];
  NttField fields[NTT_PRIMES];
  int status = 0;
  for (int i = 0; i < primes; i++) {
    status = ntt_roots(&roots[i], i, leaves, poll);
    if (status) return status;
    fields[i] = ntt_field(&roots[i]->modulus);
  }
  int64_t bytes = (primes + !square) * N * sizeof(NttElement) + 2 * h * B * sizeof(uint64_t);
  NttElement *x = ntt_workspace(bytes), *y = x + primes * N;
  if (!x) return -1;
  uint64_t *pad = (uint64_t *)(square ? y : y + N);
  NttInput a_in, b_in;
  status = ntt_input(&a_in, a, an, h, s, pad, poll);
  if (!status) status = ntt_input(&b_in, b, bn, h, s, pad + h * B, poll);
  for (int i = 0; i < primes && !status; i++) {
    NttElement *z = x + i * N;
    status = ntt_product_modulo(z, square ? z : y, &a_in, &b_in, s, roots[i], &fields[i], poll);
  }
  int doublings = ntt_shape_doublings(s);
  if (h == 1 && !status)
    status = ntt_recompose_h(r, an + bn, x, N, 1, doublings, roots, fields, poll);
  if (h == 2 && !status)
    status = ntt_recompose_h(r, an + bn, x, N, 2, doublings, roots, fields, poll);
  free(x);
  return status;
}

#endif
