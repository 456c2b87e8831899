/* One vector vocabulary over every instruction-set level.
 *
 * A level's translation unit defines exactly one of CL_AVX512, CL_AVX2, CL_BASE
 * and includes this file after its `#pragma GCC target`.  Everything above this
 * file is written once in these words.  VL is the number of float32 lanes.
 *
 * vf, vi   vector of VL float / int32 (masks are vi of 0 or -1); vu unsigned
 * vd       vector of VL / 2 doubles
 * ..n      only the first n (0 <= n <= VL) lanes are touched; others load as 0
 *
 * Fused multiply-adds are written with vfma; the build turns contraction off, so
 * the bits of a level depend on this text only.
 */
#ifndef CL_VEC_H
#define CL_VEC_H

#include <stdint.h>
#include <string.h>

#define CL_INLINE static inline __attribute__((always_inline))

#if defined(CL_AVX512)
#define VL 16
#elif defined(CL_AVX2)
#define VL 8
#elif defined(CL_BASE)
#define VL 4
#else
#error "a level must be chosen before vec.h is included"
#endif

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint32_t vu __attribute__((vector_size(4 * VL)));
typedef double vd __attribute__((vector_size(4 * VL)));
typedef float vf_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));

CL_INLINE vf vload(const float *p) { return *(const vf_unaligned *)p; }
CL_INLINE void vstore(float *p, vf x) { *(vf_unaligned *)p = x; }
/* A store past the cache, p aligned to the vector; CL_STREAM_FENCE orders it before later stores. */
#if defined(CL_AVX512)
CL_INLINE void vstream(float *p, vf x) { _mm512_stream_ps(p, (__m512)x); }
#define CL_STREAM_FENCE _mm_sfence()
#elif defined(CL_AVX2)
CL_INLINE void vstream(float *p, vf x) { _mm256_stream_ps(p, (__m256)x); }
#define CL_STREAM_FENCE _mm_sfence()
#else
CL_INLINE void vstream(float *p, vf x) { vstore(p, x); }
#define CL_STREAM_FENCE (void)0
#endif
CL_INLINE vi viload(const int32_t *p) { return *(const vi_unaligned *)p; }
#if defined(CL_AVX512)
CL_INLINE vf vset1(float x) { return (vf)_mm512_set1_ps(x); }
CL_INLINE vi viset1(int32_t x) { return (vi)_mm512_set1_epi32(x); }
#elif defined(CL_AVX2)
CL_INLINE vf vset1(float x) { return (vf)_mm256_set1_ps(x); }
CL_INLINE vi viset1(int32_t x) { return (vi)_mm256_set1_epi32(x); }
#else
CL_INLINE vf vset1(float x) { return (vf){x, x, x, x}; }
CL_INLINE vi viset1(int32_t x) { return (vi){x, x, x, x}; }
#endif
CL_INLINE vf vzero(void) { return (vf){0}; }
CL_INLINE vf vbits(vi x) { return (vf)x; }
CL_INLINE vi vibits(vf x) { return (vi)x; }
/* mask ? a : b, lane by lane */
CL_INLINE vf vselect(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
/* 0, 1, 2, .. */
CL_INLINE vi viota(void) {
#if VL == 16
  return (vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif VL == 8
  return (vi){0, 1, 2, 3, 4, 5, 6, 7};
#else
  return (vi){0, 1, 2, 3};
#endif
}
/* the mask of the first n lanes; the first n lanes of x, zeros after them */
CL_INLINE vi vlanes(int64_t n) { return (vi)(viota() < viset1((int32_t)n)); }
CL_INLINE vf vkeepn(vf x, int64_t n) { return (vf)((vi)x & vlanes(n)); }
CL_INLINE vf vabs(vf x) { return (vf)((vi)x & viset1(0x7fffffff)); }

#if defined(CL_AVX512)

CL_INLINE vf vfma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
CL_INLINE vf vfnma(vf a, vf b, vf c) { return (vf)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c); }
CL_INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
CL_INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
CL_INLINE vf vsqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
CL_INLINE vi vround(vf a) { return (vi)_mm512_cvtps_epi32((__m512)a); } /* nearest even */
CL_INLINE vi vimax(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
CL_INLINE vf vfloat(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }
CL_INLINE vd vlow(vf x) { return (vd)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)x)); }
CL_INLINE vd vhigh(vf x) { return (vd)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)x, 1)); }
CL_INLINE __mmask16 cl_mask(int64_t n) { return (__mmask16)((1u << n) - 1u); }
CL_INLINE vf vloadn(const float *p, int64_t n) { return (vf)_mm512_maskz_loadu_ps(cl_mask(n), p); }
CL_INLINE void vstoren(float *p, vf x, int64_t n) { _mm512_mask_storeu_ps(p, cl_mask(n), (__m512)x); }

#else

#if defined(CL_AVX2)

CL_INLINE vf vfma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
CL_INLINE vf vfnma(vf a, vf b, vf c) { return (vf)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c); }
CL_INLINE vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
CL_INLINE vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
CL_INLINE vf vsqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
CL_INLINE vi vround(vf a) { return (vi)_mm256_cvtps_epi32((__m256)a); }
CL_INLINE vi vimax(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }
CL_INLINE vf vfloat(vi a) { return (vf)_mm256_cvtepi32_ps((__m256i)a); }
CL_INLINE vd vlow(vf x) { return (vd)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)x)); }
CL_INLINE vd vhigh(vf x) { return (vd)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x, 1)); }

#elif defined(__SSE2__)

CL_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
CL_INLINE vf vfnma(vf a, vf b, vf c) { return c - a * b; }
CL_INLINE vf vmax(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
CL_INLINE vf vmin(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
CL_INLINE vf vsqrt(vf a) { return (vf)_mm_sqrt_ps((__m128)a); }
CL_INLINE vi vround(vf a) { return (vi)_mm_cvtps_epi32((__m128)a); }
CL_INLINE vf vfloat(vi a) { return (vf)_mm_cvtepi32_ps((__m128i)a); }
CL_INLINE vd vlow(vf x) { return (vd)_mm_cvtps_pd((__m128)x); }
CL_INLINE vd vhigh(vf x) { return (vd)_mm_cvtps_pd(_mm_movehl_ps((__m128)x, (__m128)x)); }

#elif defined(__aarch64__)

CL_INLINE vf vfma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
CL_INLINE vf vfnma(vf a, vf b, vf c) { return (vf)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
/* x86 semantics: the second operand when either is NaN */
CL_INLINE vf vmax(vf a, vf b) { return vselect((vi)(a > b), a, b); }
CL_INLINE vf vmin(vf a, vf b) { return vselect((vi)(a < b), a, b); }
CL_INLINE vf vsqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
CL_INLINE vi vround(vf a) { return (vi)vcvtnq_s32_f32((float32x4_t)a); }
CL_INLINE vf vfloat(vi a) { return (vf)vcvtq_f32_s32((int32x4_t)a); }
CL_INLINE vd vlow(vf x) { return (vd)vcvt_f64_f32(vget_low_f32((float32x4_t)x)); }
CL_INLINE vd vhigh(vf x) { return (vd)vcvt_high_f64_f32((float32x4_t)x); }

#else
#error "no vector vocabulary for this architecture"
#endif

#if defined(CL_BASE)
CL_INLINE vi vimax(vi a, vi b) { return (vi)vselect((vi)(a > b), (vf)a, (vf)b); }
#endif

#if defined(CL_AVX2)

CL_INLINE vf vloadn(const float *p, int64_t n) { return (vf)_mm256_maskload_ps(p, (__m256i)vlanes(n)); }
CL_INLINE void vstoren(float *p, vf x, int64_t n) { _mm256_maskstore_ps(p, (__m256i)vlanes(n), (__m256)x); }

#else

CL_INLINE vf vloadn(const float *p, int64_t n) {
  float t[VL] = {0};
  for (int64_t i = 0; i < n; i++) t[i] = p[i];
  return vload(t);
}
CL_INLINE void vstoren(float *p, vf x, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = x[i];
}

#endif
#endif

/* Horizontal sum and maximum in one fixed tree: halves are folded until one lane is left. */
#define CL_ROTATED(x, by) __builtin_shuffle(x, (viota() + (by)) & (VL - 1))
CL_INLINE float vsum(vf x) {
#if VL >= 16
  x += CL_ROTATED(x, 8);
#endif
#if VL >= 8
  x += CL_ROTATED(x, 4);
#endif
  x += CL_ROTATED(x, 2);
  return (x + CL_ROTATED(x, 1))[0];
}
CL_INLINE float vhmax(vf x) {
#if VL >= 16
  x = vmax(x, CL_ROTATED(x, 8));
#endif
#if VL >= 8
  x = vmax(x, CL_ROTATED(x, 4));
#endif
  x = vmax(x, CL_ROTATED(x, 2));
  return vmax(x, CL_ROTATED(x, 1))[0];
}
CL_INLINE int32_t vihmax(vi x) {
#if VL >= 16
  x = vimax(x, CL_ROTATED(x, 8));
#endif
#if VL >= 8
  x = vimax(x, CL_ROTATED(x, 4));
#endif
  x = vimax(x, CL_ROTATED(x, 2));
  return vimax(x, CL_ROTATED(x, 1))[0];
}
/* a rotation by 2 n floats is one by n doubles */
#define CL_ROTATED_D(x, by) (vd)CL_ROTATED((vf)(x), 2 * (by))
CL_INLINE double vdsum(vd x) {
#if VL >= 16
  x += CL_ROTATED_D(x, 4);
#endif
#if VL >= 8
  x += CL_ROTATED_D(x, 2);
#endif
  return (x + CL_ROTATED_D(x, 1))[0];
}

/* Transpose the VL x VL block in r, by log2(VL) rounds of exchanges at distance S. */
#if VL == 16
#define CL_LANES(F, S) \
  (vi) {F(0, S), F(1, S), F(2, S),  F(3, S),  F(4, S),  F(5, S),  F(6, S),  F(7, S), \
        F(8, S), F(9, S), F(10, S), F(11, S), F(12, S), F(13, S), F(14, S), F(15, S)}
#elif VL == 8
#define CL_LANES(F, S) (vi) {F(0, S), F(1, S), F(2, S), F(3, S), F(4, S), F(5, S), F(6, S), F(7, S)}
#else
#define CL_LANES(F, S) (vi) {F(0, S), F(1, S), F(2, S), F(3, S)}
#endif
#define CL_LOW(j, S) ((j) & (S) ? (j) - (S) + VL : (j))
#define CL_HIGH(j, S) ((j) & (S) ? (j) + VL : (j) + (S))
#define CL_EXCHANGE(S) \
  _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) if (!(i & (S))) { \
    vf a = r[i], b = r[i + (S)]; \
    r[i] = __builtin_shuffle(a, b, CL_LANES(CL_LOW, S)); \
    r[i + (S)] = __builtin_shuffle(a, b, CL_LANES(CL_HIGH, S)); \
  }
CL_INLINE void vtranspose(vf r[VL]) {
#if VL == 16
  CL_EXCHANGE(8)
#endif
#if VL >= 8
  CL_EXCHANGE(4)
#endif
  CL_EXCHANGE(2)
  CL_EXCHANGE(1)
}

/* Two halves a[0], b[0], a[1], b[1], … of the interleaved sequence. */
#define CL_LOW_HALF(j, S) ((j) / 2 + ((j) & 1) * VL)
#define CL_HIGH_HALF(j, S) (VL / 2 + (j) / 2 + ((j) & 1) * VL)
CL_INLINE void vinterleave(vf a, vf b, vf *low, vf *high) {
  *low = __builtin_shuffle(a, b, CL_LANES(CL_LOW_HALF, 0));
  *high = __builtin_shuffle(a, b, CL_LANES(CL_HIGH_HALF, 0));
}

/* bfloat16: the upper half of a float32, rounded to nearest, ties to even.
 *
 * vbf16    the bits of each lane's bfloat16 in the low half of 32 bits
 * vbf16x2  pairs of neighbors: lane i holds elements 2 i (low half) and 2 i + 1 of the 2 VL in a, b
 * vdot2    c + a.low * b.low + a.high * b.high, lane by lane, summed in float32
 */
CL_INLINE vu vbf16_bits(vf x) { /* in the upper half; NaN stays a NaN */
  vu bits = (vu)x;
  vu up = bits + 0x7fff + ((bits >> 16) & 1);
  vi nan = (vi)(x != x);
  return (((vu)nan & (bits | 0x400000)) | (~(vu)nan & up)) & 0xffff0000u;
}
#if defined(CL_BF16)
CL_INLINE vu vbf16(vf x) {
  return (vu)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)x));
}
CL_INLINE vu vbf16x2(vf a, vf b) {
  return (vu)(__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
}
CL_INLINE vf vdot2(vf a, vf b, vf c) {
  return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}
#else
#define CL_EVEN(j, S) (2 * (j))
#define CL_ODD(j, S) (2 * (j) + 1)
CL_INLINE vu vbf16(vf x) { return vbf16_bits(x) >> 16; }
CL_INLINE vu vbf16x2(vf a, vf b) {
  vf even = __builtin_shuffle(a, b, CL_LANES(CL_EVEN, 0));
  vf odd = __builtin_shuffle(a, b, CL_LANES(CL_ODD, 0));
  return (vbf16_bits(even) >> 16) | vbf16_bits(odd);
}
CL_INLINE vf vdot2(vf a, vf b, vf c) {
  c = vfma((vf)((vu)a << 16), (vf)((vu)b << 16), c);
  return vfma((vf)((vu)a & 0xffff0000u), (vf)((vu)b & 0xffff0000u), c);
}
#endif

/* Signed bytes, four to a lane.
 *
 * vbytes  stores the lanes of a to d, from -127 to 127, as 4 VL bytes from p on
 * vdot4   c + the products of the four bytes of a by those of b, lane by lane, modulo 2^32
 * vdot4u  the same where the bytes of u count as unsigned: with CL_VNNI all of them, else below 128
 */
#if defined(CL_AVX512)
CL_INLINE void vbytes(int8_t *p, vi a, vi b, vi c, vi d) {
  __m512i low = _mm512_packs_epi32((__m512i)a, (__m512i)b); /* in each quarter of its own */
  __m512i high = _mm512_packs_epi32((__m512i)c, (__m512i)d);
  const __m512i order = (__m512i)(vi){0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high)));
}
#elif defined(CL_AVX2)
CL_INLINE void vbytes(int8_t *p, vi a, vi b, vi c, vi d) {
  __m256i low = _mm256_packs_epi32((__m256i)a, (__m256i)b);
  __m256i high = _mm256_packs_epi32((__m256i)c, (__m256i)d);
  const __m256i order = (__m256i)(vi){0, 4, 1, 5, 2, 6, 3, 7};
  __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
  _mm256_storeu_si256((__m256i *)p, bytes);
}
#elif defined(__SSE2__)
CL_INLINE void vbytes(int8_t *p, vi a, vi b, vi c, vi d) {
  __m128i low = _mm_packs_epi32((__m128i)a, (__m128i)b);
  __m128i high = _mm_packs_epi32((__m128i)c, (__m128i)d);
  _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(low, high));
}
#else
CL_INLINE void vbytes(int8_t *p, vi a, vi b, vi c, vi d) {
  const vi lanes[4] = {a, b, c, d};
  for (int i = 0; i < 4 * VL; i++) p[i] = (int8_t)lanes[i / VL][i % VL];
}
#endif
#if defined(__x86_64__)
/* The even and the odd bytes, as pairs of 16 bits: one instruction multiplies and adds a pair. */
typedef int16_t vs __attribute__((vector_size(4 * VL)));
CL_INLINE vs veven_bytes(vi x) { return (vs)x << 8 >> 8; }
CL_INLINE vs vodd_bytes(vi x) { return (vs)x >> 8; }
#if defined(CL_AVX512)
CL_INLINE vu vmadd16(vs a, vs b) { return (vu)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
#elif defined(CL_AVX2)
CL_INLINE vu vmadd16(vs a, vs b) { return (vu)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
#else
CL_INLINE vu vmadd16(vs a, vs b) { return (vu)_mm_madd_epi16((__m128i)a, (__m128i)b); }
#endif
CL_INLINE vi vdot4(vi a, vi b, vi c) {
  vu even = vmadd16(veven_bytes(a), veven_bytes(b)), odd = vmadd16(vodd_bytes(a), vodd_bytes(b));
  return (vi)((vu)c + even + odd);
}
#else
CL_INLINE vi vdot4(vi a, vi b, vi c) {
  vu sum = (vu)c;
#pragma GCC unroll 4
  for (int shift = 0; shift < 32; shift += 8) /* of a byte to the top of its lane */
    sum += (vu)((vi)((vu)a << shift) >> 24) * (vu)((vi)((vu)b << shift) >> 24);
  return (vi)sum;
}
#endif

#if defined(CL_VNNI)
CL_INLINE vi vdot4u(vi u, vi b, vi c) {
  return (vi)_mm512_dpbusd_epi32((__m512i)c, (__m512i)u, (__m512i)b);
}
#else
CL_INLINE vi vdot4u(vi u, vi b, vi c) { return vdot4(u, b, c); }
#endif

/* VL numbers of float16, exactly; a NaN stays one. */
#if defined(CL_AVX512)
CL_INLINE vf vhalf(const uint16_t *p) {
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
#else
CL_INLINE vf vhalf(const uint16_t *p) {
  vu bits = {0};
#pragma GCC unroll 8
  for (int i = 0; i < VL; i++) bits[i] = p[i];
  const vi exponent = (vi)(bits & 0x7c00u), fraction = (vi)(bits & 0x3ffu);
  const vf normal = (vf)(((bits & 0x7fffu) << 13) + (112u << 23));
  const vf small = vfloat(fraction) * vset1(0x1p-24f);
  vf x = vselect((vi)(exponent == viset1(0)), small, normal);
  x = vselect((vi)(exponent == viset1(0x7c00)), (vf)((vu)normal | 0x7f800000u), x);
  return (vf)((vu)x | (bits & 0x8000u) << 16);
}
#endif

#endif
