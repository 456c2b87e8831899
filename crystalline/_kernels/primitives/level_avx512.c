/* Primitives for x86-64 with AVX-512 F, BW, DQ, VL and FMA: 16 lanes, 32 registers.
 * Written by tools/generate.py. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,adx,prefer-vector-width=512")
#define CL_AVX512
#define CL_LEVEL avx512
#include "level.h"
