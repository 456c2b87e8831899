/* Keys for counter-based random numbers. */
#ifndef CL_MIX64_H
#define CL_MIX64_H

#include <stdint.h>

/* The finalizer of SplitMix64 (Steele, Lea and Flood 2014; constants: Stafford's variant 13). */
static inline uint64_t cl_finish64(uint64_t z) {
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/* One key from two words; not symmetric; for a fixed word, a bijection of the other. */
static inline uint64_t cl_mix64(uint64_t a, uint64_t b) {
  return cl_finish64(cl_finish64(a + UINT64_C(0x9e3779b97f4a7c15)) ^ b);
}

#endif
