/* Exact primitives for x86-64 with AVX-512 IFMA: 52-bit multiply-adds in 8 lanes. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,lzcnt,popcnt,adx,avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,prefer-vector-width=512")
#define CL_AVX512
#define CL_IFMA
#define CL_LEVEL avx512ifma
#include "exact_level.h"
