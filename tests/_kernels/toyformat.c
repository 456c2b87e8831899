/* A number format that exists in tests only: float32 cut off after four bits of the significand.
 *
 * All that a format needs is in this file.  It differs from the others wherever a row can differ:
 * rows are padded to four words, and a turned operand lies row by row.
 */
#include <stdint.h>
#include <string.h>

#include "primitives.h"

enum { STEP = 4 };

static int64_t words(int64_t K) { return (K + STEP - 1) / STEP * STEP; }

static float cut(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  bits &= 0xfff80000u;
  memcpy(&x, &bits, 4);
  return x;
}

static void pack_panel(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                       float *column_sums) {
  for (int64_t k = 0; k < words(K); k++)
    for (int64_t j = 0; j < CL_PANEL; j++) {
      int inside = k < K && j < n;
      panel[k * CL_PANEL + j] = inside ? cut(b[k * ldb + j]) : 0.0f;
      if (inside && column_sums) column_sums[j] += b[k * ldb + j];
    }
}

static void pack_panel_t(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel) {
  for (int64_t k = 0; k < words(K); k++)
    for (int64_t j = 0; j < CL_PANEL; j++)
      panel[k * CL_PANEL + j] = k < K && j < n ? cut(b[j * ldb + k]) : 0.0f;
}

static void to_operand(int64_t rows, int64_t K, const float *x, int64_t ldx, float *out) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < words(K); k++)
      out[i * words(K) + k] = k < K ? cut(x[i * ldx + k]) : 0.0f;
}

static void turn_operand(int64_t rows, int64_t K, const float *operand, float *out) {
  for (int64_t k = 0; k < K; k++)
    for (int64_t i = 0; i < words(rows); i++)
      out[k * words(rows) + i] = i < rows ? operand[i * words(K) + k] : 0.0f;
}

static void product(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                    const float *panel, int64_t next, float *c, int64_t ldc, const float *bias,
                    const float *residual, StoreMode store) {
  (void)next;
  for (int64_t i = 0; i < M; i++)
    for (int64_t j = 0; j < n; j++) {
      float sum = 0.0f;
      for (int64_t k = 0; k < K; k++) sum += a[i * lda + k] * panel[k * CL_PANEL + j];
      if (bias) sum += bias[j];
      if (residual) sum += residual[i * ldc + j];
      c[i * ldc + j] = store == CL_ADD ? c[i * ldc + j] + sum : sum;
    }
}

static int64_t peak(int64_t rounds, float *sink) {
  *sink += 1.0f;
  return rounds;
}

const NumberFormat toy_format = {
    .name = "toy",
    .elements = 1,
    .step = STEP,
    .row_group = 1,
    .stride = 1,
    .block_rows = 7,
    .query_rows = 14,
    .pass_rows = 100,
    .pass_words = 1024,
    .left_words = 4096,
    .pack_panel = pack_panel,
    .pack_panel_t = pack_panel_t,
    .to_operand = to_operand,
    .turn_operand = turn_operand,
    .turned_by_rows = 1,
    .product = product,
    .product_few = product,
    .product_ta = product,
    .peak = peak,
};
