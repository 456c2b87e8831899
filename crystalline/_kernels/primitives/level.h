/* What every level's translation unit contains: all primitives, and their table. */
#include "bandwidth.h"
#include "cache.h"
#include "crossentropy.h"
#include "formats.h"
#include "optimizer.h"
#include "primitives.h"
#include "random.h"
#include "repack.h"
#include "rows.h"
#include "softmax.h"
#include "vec.h"
#include "vecmath.h"

#ifndef CL_HOOKS
#define CL_HOOKS {0}
#endif

#define CL_TABLE_(level) cl_primitives_##level
#define CL_TABLE(level) CL_TABLE_(level)
#define CL_STRING_(x) #x
#define CL_STRING(x) CL_STRING_(x)

__attribute__((visibility("hidden"))) const Primitives CL_TABLE(CL_LEVEL) = {
    .name = CL_STRING(CL_LEVEL),
#include "level_table.h"
#define CL_ROW(name) &format_##name,
    .formats = {CL_NUMBER_FORMATS(CL_ROW)},
#undef CL_ROW
    .hooks = CL_HOOKS,
};
