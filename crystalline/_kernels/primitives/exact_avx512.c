/* Exact primitives for x86-64 with AVX-512: 8 lanes, 64-bit products of lanes, adcx and adox.
 * Written by tools/generate.py. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,adx,prefer-vector-width=512")
#define CL_AVX512
#define CL_LEVEL avx512
#include "exact_level.h"
