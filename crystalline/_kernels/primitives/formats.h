/* The number formats at a level: one row each.
 *
 * A new format is a name in CL_NUMBER_FORMATS (primitives.h) and a row here; where it trains, users
 * name it by `--precision` once `train/config.py` lists it.  Nobody else knows how many formats
 * there are.
 */
#ifndef CL_FORMATS_H
#define CL_FORMATS_H

#include "primitives.h"

/* What most rows have. */
enum {
  CL_BLOCK_ROWS = 28, /* two tiles with AVX-512; the same at every level */
  CL_PASS_ROWS = 128,
  /* one chain of thousands of float32 additions rounds worse than a few short ones */
  CL_PASS_WORDS = 1024,
  CL_LEFT_WORDS = 128 * 1024,
};

#include "few_rows.h"
#include "gemm.h"
#include "groups.h"
#include "int8.h"

#if defined(CL_TILES)
#include "amx.h"
#elif defined(CL_BF16)
#define CL_BF16_IS_NATIVE 1
#else
#define CL_BF16_IS_NATIVE 0
#endif

static const NumberFormat format_float32 = {
    .name = "float32",
    .native = 1,
    .elements = 1,
    .step = 1,
    .row_group = 1,
    .stride = 1,
    .block_rows = CL_BLOCK_ROWS,
    .query_rows = CL_BLOCK_ROWS,
    .pass_rows = CL_PASS_ROWS,
    .pass_words = CL_PASS_WORDS,
    .left_words = CL_LEFT_WORDS,
    .pack_panel = float32_pack_panel,
    .pack_panel_t = float32_pack_panel_t,
    .product = float32_product,
    .few_rows = CL_FEW_ROWS_OF(float32),
    .product_few = float32_product_few,
    .product_ta = float32_product_ta,
    .peak = float32_peak,
    .take_column = float32_take_column,
};

#if !defined(CL_TILES)
static const NumberFormat format_bf16 = {
    .name = "bf16",
    .native = CL_BF16_IS_NATIVE,
    .elements = 2,
    .step = 1,
    .row_group = 1,
    .stride = 1,
    .block_rows = CL_BLOCK_ROWS,
    .query_rows = CL_BLOCK_ROWS,
    .pass_rows = CL_PASS_ROWS,
    .pass_words = CL_PASS_WORDS,
    .left_words = CL_LEFT_WORDS,
    .pack_panel = bf16_pack_panel,
    .pack_panel_t = bf16_pack_panel_t,
    .to_operand = bf16_to_operand,
    .turn_operand = bf16_turn_operand,
    .product = bf16_product,
    .few_rows = CL_FEW_ROWS_OF(bf16),
    .product_few = bf16_product_few,
    .product_ta = bf16_product_ta,
    .peak = bf16_peak,
    .take_column = bf16_take_column,
};
#endif

#endif
