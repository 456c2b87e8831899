/* The levels of crystalline/machine/levels.py, written by tools/generate.py. */
#ifndef CL_LEVELS_H
#define CL_LEVELS_H

#define CL_CPU_FEATURES(X) \
  X("avx2") X("fma") X("bmi") X("bmi2") X("popcnt") X("lzcnt") X("avx512f") X("avx512bw") \
  X("avx512dq") X("avx512vl") X("adx") X("avx512bf16") X("avx512vnni") X("amx-tile") \
  X("amx-bf16") X("amx-int8") X("avx512ifma")

#if defined(__x86_64__)
#define CL_LEVELS(X) X(base) X(avx2) X(avx512) X(avx512bf16) X(amx)
#define CL_EXACT_LEVELS(X) X(base) X(avx2) X(avx512) X(avx512ifma)
#else
#define CL_LEVELS(X) X(base)
#define CL_EXACT_LEVELS(X) X(base)
#endif

#endif
