/* Primitives for x86-64 with AVX-512 and its bfloat16 instructions: 16 lanes, pairs in one step.
 * Written by tools/generate.py. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,adx,avx512bf16,prefer-vector-width=512")
#define CL_AVX512
#define CL_BF16
#define CL_LEVEL avx512bf16
#include "level.h"
