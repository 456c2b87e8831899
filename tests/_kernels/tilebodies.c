/* The tile operations and the products on them for a test, compiled once with each body. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,adx,avx512bf16,avx512vnni,amx-tile,amx-bf16,amx-int8,prefer-vector-width=512")
#define CL_AVX512
#define CL_BF16
#define CL_VNNI
#define CL_TILES
#define CL_LEVEL amx
#include "formats.h"

/* c[count][r0][16] += a[count][r0][16 words] b[count][16 words][16], tile by tile */
int dots(int64_t count, int r0, float *c, const uint32_t *a, const uint32_t *b) {
  if (!tiles_allowed()) return 0;
  tiles_configure(r0, TILE_ROWS);
  for (int64_t i = 0; i < count; i++) {
    tile_load(0, c + i * r0 * TILE_WORDS, 4 * TILE_WORDS);
    tile_load(4, a + i * r0 * TILE_WORDS, 4 * TILE_WORDS);
    tile_load(6, b + i * TILE_ROWS * TILE_WORDS, 4 * TILE_WORDS);
    tile_dot_bf16(0, 4, 6);
    tile_store(0, c + i * r0 * TILE_WORDS, 4 * TILE_WORDS);
  }
  tiles_release();
  return 1;
}

/* c[count][r0][16] += a[count][r0][64 bytes] b[count][16 words][16], tile by tile */
int dots_int8(int64_t count, int r0, int32_t *c, const uint32_t *a, const uint32_t *b) {
  if (!tiles_allowed()) return 0;
  tiles_configure(r0, TILE_ROWS);
  for (int64_t i = 0; i < count; i++) {
    tile_load(0, c + i * r0 * TILE_WORDS, 4 * TILE_WORDS);
    tile_load(4, a + i * r0 * TILE_WORDS, 4 * TILE_WORDS);
    tile_load(6, b + i * TILE_ROWS * TILE_WORDS, 4 * TILE_WORDS);
    tile_dot_int8(0, 4, 6);
    tile_store(0, c + i * r0 * TILE_WORDS, 4 * TILE_WORDS);
  }
  tiles_release();
  return 1;
}

/* whether this thread's tiles hold anything: what a context switch has to save */
int in_use(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
  return low >> 17 & 3; /* their configuration, and their data */
}

/* takes the tiles and keeps them */
void take(void) { tiles_begin_thread(); }
void give_back(void) { tiles_end_thread(); }

int product(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda, const float *panel,
            float *c, int64_t ldc, const float *bias, const float *residual, int store) {
  if (!tiles_allowed()) return 0;
  tiles_product(M, n, K, a, lda, panel, 0, c, ldc, bias, residual, (StoreMode)store);
  tiles_end_thread();
  return 1;
}

int product_int8(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda, const float *panel,
                 float *c, int64_t ldc, const float *bias, const float *residual, int store) {
  if (!tiles_allowed()) return 0;
  int8_tiles_product(M, n, K, a, lda, panel, 0, c, ldc, bias, residual, (StoreMode)store);
  tiles_end_thread();
  return 1;
}
