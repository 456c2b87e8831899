/* What every level's translation unit contains: all primitives, and their table. */
#include "gemm.h"
#include "primitives.h"
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
    .fma_peak = fma_peak,
    .softmax_causal = softmax_causal,
    .softmax_causal_again = softmax_causal_again,
    .softmax_backward = softmax_backward,
    .row_dots = row_dots,
};
