/* Primitives for any CPU of the architecture: SSE2 on x86-64, NEON on aarch64; 4 lanes.
 * Written by tools/generate.py. */
#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>
#define CL_BASE
#define CL_LEVEL base
#include "level.h"
