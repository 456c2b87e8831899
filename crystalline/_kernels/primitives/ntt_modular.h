/* Arithmetic modulo a prime p < 2^50 in NTT_W lanes: what the transforms are written in.
 *
 * AVX2, AVX-512: residues are doubles with integer values, signed and not reduced to the end.
 * With h = fl(a w), n = round(h / p) and l = a w - h, both products fused, a w - n p =
 * (h - n p) + l is an integer below 2^53, so every step after the choice of n is exact.  That
 * choice is off by at most |a w / p| 2^-52 beyond 1/2.  In units of p, for |a| <= A, |w| <= W:
 *     |a w mod p| <= T(A, W) = 1/2 + A W / 4,        provided A W <= 2   (so that n < 2^51)
 * and the bounds beside the transforms are stated in these units.  A residue that is multiplied is
 * never above 4 (2^52) and none above 8, so sums and differences are exact too.  The primes are
 * below 2^50 (1 - 2^-13): that covers the 2^-50 or so by which a reduction may miss 1/2.
 * Another way of computing the same integers gives the same product, so all levels agree bit for
 * bit.
 *
 * Without vector FMA: signed 64-bit integers, one lane, a factor w with round(w 2^64 / p)
 * (Shoup).  There T is below 1.5 for every |a| < 2^63, so the same bounds hold with room to spare.
 *
 * The 52-bit multiply-adds (IFMA) are not used: a butterfly would take three of them, a mask, three
 * additions and more reductions (unsigned residues double sooner), against the four multiplications
 * and four additions here, as many in all for the same ports.  By count, not by measurement.
 */
#ifndef CL_NTT_MODULAR_H
#define CL_NTT_MODULAR_H

#include <stdint.h>

#define NTT_INLINE static inline __attribute__((always_inline))

typedef struct {
  uint64_t p;
  double inverse; /* fl(1 / p) */
} NttModulus;

#if defined(CL_AVX512) || defined(CL_AVX2)

typedef double NttElement;
typedef double NttFactor; /* a constant to multiply by, |w| <= p / 2 */

#if defined(CL_AVX512)
#define NTT_W 8
typedef __m512d NttVec;
NTT_INLINE NttVec ntt_set(double x) { return _mm512_set1_pd(x); }
NTT_INLINE NttVec ntt_load(const double *x) { return _mm512_load_pd(x); }
NTT_INLINE void ntt_store(double *x, NttVec v) { _mm512_store_pd(x, v); }
NTT_INLINE NttVec ntt_fma(NttVec a, NttVec b, NttVec c) { return _mm512_fmadd_pd(a, b, c); }
NTT_INLINE NttVec ntt_fms(NttVec a, NttVec b, NttVec c) { return _mm512_fmsub_pd(a, b, c); }
NTT_INLINE NttVec ntt_fnma(NttVec a, NttVec b, NttVec c) { return _mm512_fnmadd_pd(a, b, c); }
#else
#define NTT_W 4
typedef __m256d NttVec;
NTT_INLINE NttVec ntt_set(double x) { return _mm256_set1_pd(x); }
NTT_INLINE NttVec ntt_load(const double *x) { return _mm256_load_pd(x); }
NTT_INLINE void ntt_store(double *x, NttVec v) { _mm256_store_pd(x, v); }
NTT_INLINE NttVec ntt_fma(NttVec a, NttVec b, NttVec c) { return _mm256_fmadd_pd(a, b, c); }
NTT_INLINE NttVec ntt_fms(NttVec a, NttVec b, NttVec c) { return _mm256_fmsub_pd(a, b, c); }
NTT_INLINE NttVec ntt_fnma(NttVec a, NttVec b, NttVec c) { return _mm256_fnmadd_pd(a, b, c); }
#endif

typedef NttVec NttFactorVec;

typedef struct {
  NttVec p, inverse, magic; /* x + magic - magic rounds |x| < 2^51 to the nearest integer */
} NttField;

NTT_INLINE NttField ntt_field(const NttModulus *m) {
  return (NttField){ntt_set((double)m->p), ntt_set(m->inverse), ntt_set(0x1.8p52)};
}

NTT_INLINE NttFactorVec ntt_factor(const NttFactor *w) { return ntt_set(*w); }

static NttFactor ntt_as_factor(const NttModulus *m, uint64_t w) {
  return w > m->p / 2 ? -(double)(m->p - w) : (double)w;
}

/* x mod p, at most 1/2 (and 2^-50) */
NTT_INLINE NttVec ntt_reduce(NttVec x, const NttField *f) {
  NttVec n = ntt_fma(x, f->inverse, f->magic) - f->magic;
  return ntt_fnma(n, f->p, x);
}

NTT_INLINE NttVec ntt_mulmod(NttVec a, NttFactorVec w, const NttField *f) {
  NttVec h = a * w, l = ntt_fms(a, w, h);
  NttVec n = ntt_fma(h, f->inverse, f->magic) - f->magic;
  return ntt_fnma(n, f->p, h) + l;
}

/* the product of two residues, |a b| <= 2 */
NTT_INLINE NttVec ntt_mulmod_residues(NttVec a, NttVec b, const NttField *f) {
  return ntt_mulmod(a, b, f);
}

/* limbs mod p, at most 1/2 + 2^-17: the upper half is reduced, the lower added */
NTT_INLINE NttVec ntt_from_limbs(const uint64_t *a, const NttField *f) {
#if defined(CL_AVX512)
  __m512i x = _mm512_loadu_si512(a), low = _mm512_set1_epi64(0xffffffff);
  NttVec lo = _mm512_cvtepu64_pd(_mm512_and_si512(x, low));
  NttVec hi = _mm512_cvtepu64_pd(_mm512_andnot_si512(low, x));
#else
  __m256i x = _mm256_loadu_si256((const __m256i *)a);
  __m256d two52 = _mm256_set1_pd(0x1p52), two84 = _mm256_set1_pd(0x1p84);
  __m256i lo_bits = _mm256_blend_epi32(x, _mm256_castpd_si256(two52), 0xaa);
  __m256i hi_bits = _mm256_or_si256(_mm256_srli_epi64(x, 32), _mm256_castpd_si256(two84));
  NttVec lo = _mm256_castsi256_pd(lo_bits) - two52, hi = _mm256_castsi256_pd(hi_bits) - two84;
#endif
  return ntt_reduce(hi, f) + lo;
}

/* x mod p in [0, p) as integers, for |x| <= 4 */
NTT_INLINE NttVec ntt_canonical(NttVec x, const NttField *f) {
  x = ntt_reduce(x, f);
#if defined(CL_AVX512)
  return x + (NttVec)((__m512i)f->p & _mm512_srai_epi64((__m512i)x, 63));
#else
  return x + _mm256_and_pd(_mm256_cmp_pd(x, _mm256_setzero_pd(), _CMP_LT_OQ), f->p);
#endif
}

NTT_INLINE void ntt_to_integers(uint64_t *r, NttVec x) { /* 0 <= x < 2^52 */
#if defined(CL_AVX512)
  _mm512_storeu_si512(r, _mm512_cvtpd_epi64(x));
#else
  __m256d two52 = _mm256_set1_pd(0x1p52);
  _mm256_storeu_si256((__m256i *)r, _mm256_castpd_si256(_mm256_xor_pd(x + two52, two52)));
#endif
}

#else /* no vector FMA */

#define NTT_W 1
typedef int64_t NttElement;
typedef int64_t NttVec;
typedef struct {
  int64_t w, quotient; /* |w| <= p / 2, round(w 2^64 / p) */
} NttFactor;
typedef NttFactor NttFactorVec;

typedef struct {
  int64_t p, inverse;   /* floor(2^64 / p) */
  int64_t wide_inverse; /* floor(2^104 / p) */
} NttField;

NTT_INLINE int64_t ntt_high(int64_t a, int64_t b) { return (int64_t)(((__int128)a * b) >> 64); }

/* The low half of a b - n p, whose value is known to fit: wrapping products. */
NTT_INLINE int64_t ntt_remainder(int64_t a, int64_t b, int64_t n, int64_t p) {
  return (int64_t)((uint64_t)a * (uint64_t)b - (uint64_t)n * (uint64_t)p);
}

NTT_INLINE NttField ntt_field(const NttModulus *m) {
  return (NttField){(int64_t)m->p, (int64_t)(((unsigned __int128)1 << 64) / m->p),
                    (int64_t)(((unsigned __int128)1 << 104) / m->p)};
}

NTT_INLINE NttFactorVec ntt_factor(const NttFactor *w) { return *w; }
NTT_INLINE NttVec ntt_load(const int64_t *x) { return *x; }
NTT_INLINE void ntt_store(int64_t *x, NttVec v) { *x = v; }

static NttFactor ntt_as_factor(const NttModulus *m, uint64_t w) {
  uint64_t size = w > m->p / 2 ? m->p - w : w;
  int64_t quotient = (int64_t)((((unsigned __int128)size << 64) + m->p / 2) / m->p);
  return w > m->p / 2 ? (NttFactor){-(int64_t)size, -quotient}
                      : (NttFactor){(int64_t)size, quotient};
}

NTT_INLINE NttVec ntt_reduce(NttVec x, const NttField *f) {
  return x - ntt_high(x, f->inverse) * f->p;
}

NTT_INLINE NttVec ntt_mulmod(NttVec a, NttFactorVec w, const NttField *f) {
  return ntt_remainder(a, w.w, ntt_high(a, w.quotient), f->p);
}

/* A sum of up to four products of residues below 2^51: |x| < 2^104. */
NTT_INLINE NttVec ntt_reduce_wide(__int128 x, const NttField *f) {
  int64_t n = ntt_high((int64_t)(x >> 40), f->wide_inverse);
  return (int64_t)((uint64_t)x - (uint64_t)n * (uint64_t)f->p);
}

NTT_INLINE NttVec ntt_mulmod_residues(NttVec a, NttVec b, const NttField *f) {
  return ntt_reduce_wide((__int128)ntt_reduce(a, f) * ntt_reduce(b, f), f);
}

NTT_INLINE NttVec ntt_from_limbs(const uint64_t *a, const NttField *f) {
  uint64_t n = (uint64_t)(((unsigned __int128)*a * (uint64_t)f->inverse) >> 64);
  return (int64_t)(*a - n * (uint64_t)f->p);
}

NTT_INLINE NttVec ntt_canonical(NttVec x, const NttField *f) {
  x = ntt_reduce(x, f); /* within [-1, p + p 2^-13] */
  x += f->p & (x >> 63);
  return x >= f->p ? x - f->p : x;
}

NTT_INLINE void ntt_to_integers(uint64_t *r, NttVec x) { *r = (uint64_t)x; }

#endif
#endif
