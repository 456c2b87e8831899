/* Primitives for x86-64 with AVX-512, and matrix tiles that multiply bfloat16.
 * Written by tools/generate.py. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,adx,avx512bf16,avx512vnni,amx-tile,amx-bf16,amx-int8,prefer-vector-width=512")
#define CL_AVX512
#define CL_BF16
#define CL_VNNI
#define CL_TILES
#define CL_LEVEL amx
#include "level.h"
