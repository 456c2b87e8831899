/* Primitives for x86-64 with AVX2 and FMA: 8 lanes, 16 registers.
 * Written by tools/generate.py. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt")
#define CL_AVX2
#define CL_LEVEL avx2
#include "level.h"
