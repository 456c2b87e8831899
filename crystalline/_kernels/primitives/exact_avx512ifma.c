/* Exact primitives for x86-64 with AVX-512 IFMA: 52-bit multiply-adds in 8 lanes.
 * Written by tools/generate.py. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,adx,avx512ifma,prefer-vector-width=512")
#define CL_AVX512
#define CL_IFMA
#define CL_LEVEL avx512ifma
#include "exact_level.h"
