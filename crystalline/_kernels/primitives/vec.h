/* One vector vocabulary over every instruction-set level.
 *
 * A level's translation unit defines exactly one of CL_AVX512, CL_AVX2, CL_BASE
 * and includes this file after its `#pragma GCC target`.  Everything above this
 * file is written once in these words.  VL is the number of float32 lanes.
 *
 * vf, vi   vector of VL float / int32 (masks are vi of 0 or -1)
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
typedef float vf_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));

CL_INLINE vf vload(const float *p) { return *(const vf_unaligned *)p; }
CL_INLINE void vstore(float *p, vf x) { *(vf_unaligned *)p = x; }
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
CL_INLINE vf vabs(vf x) { return (vf)((vi)x & viset1(0x7fffffff)); }

#if defined(CL_AVX512)

CL_INLINE vf vfma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
CL_INLINE vf vfnma(vf a, vf b, vf c) { return (vf)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c); }
CL_INLINE vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
CL_INLINE vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
CL_INLINE vf vsqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
CL_INLINE vi vround(vf a) { return (vi)_mm512_cvtps_epi32((__m512)a); } /* nearest even */
CL_INLINE vf vfloat(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }
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
CL_INLINE vf vfloat(vi a) { return (vf)_mm256_cvtepi32_ps((__m256i)a); }

#elif defined(__SSE2__)

CL_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
CL_INLINE vf vfnma(vf a, vf b, vf c) { return c - a * b; }
CL_INLINE vf vmax(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
CL_INLINE vf vmin(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
CL_INLINE vf vsqrt(vf a) { return (vf)_mm_sqrt_ps((__m128)a); }
CL_INLINE vi vround(vf a) { return (vi)_mm_cvtps_epi32((__m128)a); }
CL_INLINE vf vfloat(vi a) { return (vf)_mm_cvtepi32_ps((__m128i)a); }

#elif defined(__aarch64__)

CL_INLINE vf vfma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
CL_INLINE vf vfnma(vf a, vf b, vf c) { return (vf)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
/* x86 semantics: the second operand when either is NaN */
CL_INLINE vf vmax(vf a, vf b) { return vselect((vi)(a > b), a, b); }
CL_INLINE vf vmin(vf a, vf b) { return vselect((vi)(a < b), a, b); }
CL_INLINE vf vsqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
CL_INLINE vi vround(vf a) { return (vi)vcvtnq_s32_f32((float32x4_t)a); }
CL_INLINE vf vfloat(vi a) { return (vf)vcvtq_f32_s32((int32x4_t)a); }

#else
#error "no vector vocabulary for this architecture"
#endif

CL_INLINE vf vloadn(const float *p, int64_t n) {
  float t[VL] = {0};
  for (int64_t i = 0; i < n; i++) t[i] = p[i];
  return vload(t);
}
CL_INLINE void vstoren(float *p, vf x, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = x[i];
}

#endif

/* Horizontal sum and maximum in one fixed tree. */
CL_INLINE float vsum(vf x) {
  float t[VL];
  vstore(t, x);
  for (int w = VL / 2; w; w /= 2)
    for (int i = 0; i < w; i++) t[i] += t[i + w];
  return t[0];
}
CL_INLINE float vhmax(vf x) {
  float t[VL];
  vstore(t, x);
  for (int w = VL / 2; w; w /= 2)
    for (int i = 0; i < w; i++) t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
  return t[0];
}

#endif
