/* Primitives for x86-64 with AVX2 and FMA: 8 lanes, 16 registers. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2")
#define CL_AVX2
#define CL_LEVEL avx2
#include "level.h"
