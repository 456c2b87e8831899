/* Up to how many rows of activations a format's own kernel for few rows is the faster one.
 *
 * One line a format: its name and the number at base, avx2, avx512, avx512bf16 and amx; 0: it has no
 * such kernel.  Measured by
 *
 *     python bench/few_rows.py --crossover
 *
 * at each level (CRYSTALLINE_ISA), on Granite Rapids, 2026-11: the largest number of rows up to which
 * `product_few` takes no more time than `product` over weights that come from memory.  Both give the
 * same bits.  The column amx is measured; the others are a tile's rows, or where both kernels
 * differ in what they fetch only, as many as memory keeps waiting.
 */
#ifndef CL_FEW_ROWS_H
#define CL_FEW_ROWS_H

/* clang-format off */
#define CL_FEW_ROWS(X)            \
  X(float32, 2, 2, 8, 8, 8)       \
  X(bf16,    2, 2, 8, 8, 32)      \
  X(int8,    4, 4, 12, 12, 32)    \
  X(int8g32, 4, 4, 16, 16, 4)     \
  X(int4,    4, 4, 16, 16, 5)
/* clang-format on */

#define CL_FEW(name, base, avx2, avx512, avx512bf16, amx)                                  \
  enum {                                                                                   \
    few_##name##_base = base, few_##name##_avx2 = avx2, few_##name##_avx512 = avx512,      \
    few_##name##_avx512bf16 = avx512bf16, few_##name##_amx = amx                           \
  };
CL_FEW_ROWS(CL_FEW)
#undef CL_FEW

#define CL_FEW_OF_(name, level) few_##name##_##level
#define CL_FEW_OF(name, level) CL_FEW_OF_(name, level)
#define CL_FEW_ROWS_OF(name) CL_FEW_OF(name, CL_LEVEL)

#endif
