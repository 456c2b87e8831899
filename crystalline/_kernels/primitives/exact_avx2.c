/* Exact primitives for x86-64 with AVX2 and BMI2: 4 lanes, mulx.
 * Written by tools/generate.py. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt")
#define CL_AVX2
#define CL_LEVEL avx2
#include "exact_level.h"
