/* Exact primitives for any x86-64 (SSE2) or aarch64.
 * Written by tools/generate.py. */
#include <stdint.h>
#include <string.h>
#define CL_LEVEL base
#include "exact_level.h"
