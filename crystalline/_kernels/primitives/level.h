/* What every level's translation unit contains: all primitives, and their table. */
#include "crossentropy.h"
#include "gemm.h"
#include "optimizer.h"
#include "primitives.h"
#include "random.h"
#include "rows.h"
#include "softmax.h"
#include "vec.h"
#include "vecmath.h"

#define CL_TABLE_(level) cl_primitives_##level
#define CL_TABLE(level) CL_TABLE_(level)
#define CL_STRING_(x) #x
#define CL_STRING(x) CL_STRING_(x)

__attribute__((visibility("hidden"))) const Primitives CL_TABLE(CL_LEVEL) = {
    .name = CL_STRING(CL_LEVEL),
    .gemm_panel = gemm_panel,
    .gemm_panel_ta = gemm_panel_ta,
    .pack_panel = pack_panel,
    .pack_panel_t = pack_panel_t,
    .gemm_panel_bf16 = gemm_panel_bf16,
    .gemm_panel_ta_bf16 = gemm_panel_ta_bf16,
    .pack_panel_bf16 = pack_panel_bf16,
    .pack_panel_t_bf16 = pack_panel_t_bf16,
    .to_pairs = to_pairs,
    .pair_rows = pair_rows,
    .fma_peak = fma_peak,
    .bf16_peak = bf16_peak,
    .softmax_causal = softmax_causal,
    .softmax_causal_again = softmax_causal_again,
    .softmax_backward = softmax_backward,
    .row_dots = row_dots,
    .weighted_rows = weighted_rows,
    .vec_exp = vec_exp,
    .vec_log = vec_log,
    .vec_tanh = vec_tanh,
    .vec_erf = vec_erf,
    .layernorm = layernorm,
    .layernorm_backward = layernorm_backward,
    .gelu = gelu,
    .gelu_backward = gelu_backward,
    .add = add,
    .sum_squares = sum_squares,
    .embed = embed,
    .embed_backward = embed_backward,
    .cross_entropy = cross_entropy,
    .adamw = adamw,
    .sgd = sgd,
    .tree_sum = tree_sum,
    .dropout = dropout,
};
