/* Matrix tiles of 16 rows of 64 bytes: eight of them, and the product of two in bfloat16 or bytes.
 *
 *   tiles_configure(r0, r1)   16 columns each; r0 rows (1 to 16) in tiles 0, 1 and 4, r1 in 2, 3 and
 *                             5, all in 6 and 7; what they held is lost
 *   tiles_release()           give them back
 *   tile_zero(t)
 *   tile_load(t, p, stride)   row i from p + i stride, in bytes; tile_store likewise
 *   tile_pass(t, p, stride)   the same of what is not read again soon: it leaves the first cache to
 *                             what is
 *   tile_dot_bf16(c, a, b)    c[i][j] += sum over k < 32 of a[i][k] b[k][j]: a row of a holds 16
 *                             words, the pairs (a[i][2 w], a[i][2 w + 1]); b's word [w][j] is the
 *                             pair (b[2 w][j], b[2 w + 1][j])
 *   tile_dot_int8(c, a, b)    c[i][j] += sum over k < 64 of a[i][k] b[k][j], of signed bytes in
 *                             32 bits: a row of a holds 64 bytes; b's word [w][j] is the four bytes
 *                             b[4 w][j] to b[4 w + 3][j]
 *
 * Tile numbers are constants.  There are two bodies: AMX, and with CL_PLAIN_TILES plain C that
 * computes the same bits, as was tried on the machine: for an element of c, the even k and the odd
 * k each make a sum from zero, in order of k, by fused multiply-adds; then even + odd; then c plus
 * that.  Every input, c too, and every sum below 2^-126 is a zero of its sign, whatever MXCSR says.
 * Sums of bytes are exact modulo 2^32, so their order makes no difference.
 */
#ifndef CL_TILES_H
#define CL_TILES_H

#include "vec.h"

enum { TILE_ROWS = 16, TILE_WORDS = 16, TILES = 8 };

#if defined(CL_PLAIN_TILES)

typedef struct {
  int rows[TILES];
  uint32_t words[TILES][TILE_ROWS][TILE_WORDS] __attribute__((aligned(64)));
} Tiles;
static __thread Tiles cl_tiles;

static int tiles_allowed(void) { return 1; }
static void tiles_configure(int r0, int r1) {
  const int rows[TILES] = {r0, r0, r1, r1, r0, r1, TILE_ROWS, TILE_ROWS};
  memset(&cl_tiles, 0, sizeof cl_tiles);
  memcpy(cl_tiles.rows, rows, sizeof rows);
}
static void tiles_release(void) { memset(&cl_tiles, 0, sizeof cl_tiles); }

static void tile_zero(int t) { memset(cl_tiles.words[t], 0, sizeof cl_tiles.words[t]); }
static void tile_load(int t, const void *p, int64_t stride) {
  for (int i = 0; i < cl_tiles.rows[t]; i++)
    memcpy(cl_tiles.words[t][i], (const char *)p + i * stride, sizeof cl_tiles.words[t][i]);
}
#define tile_pass tile_load
static void tile_store(int t, void *p, int64_t stride) {
  for (int i = 0; i < cl_tiles.rows[t]; i++)
    memcpy((char *)p + i * stride, cl_tiles.words[t][i], sizeof cl_tiles.words[t][i]);
}

/* x, its magnitude below 2^-126 made zero */
CL_INLINE vf vflush(vf x) {
  vi small = (vi)(((vi)x & viset1(0x7f800000)) == viset1(0));
  return (vf)((vi)x & ~(small & viset1(0x7fffffff)));
}
static void tile_dot_bf16(int c, int a, int b) {
  for (int i = 0; i < cl_tiles.rows[c]; i++)
    for (int j = 0; j < TILE_WORDS; j += VL) {
      vf even = vzero(), odd = vzero();
      for (int w = 0; w < TILE_WORDS; w++) {
        vi x = viset1((int32_t)cl_tiles.words[a][i][w]);
        vi y = viload((const int32_t *)cl_tiles.words[b][w] + j);
        const vi high = viset1((int32_t)0xffff0000);
        even = vflush(vfma(vflush((vf)(x << 16)), vflush((vf)(y << 16)), even));
        odd = vflush(vfma(vflush((vf)(x & high)), vflush((vf)(y & high)), odd));
      }
      float *sum = (float *)cl_tiles.words[c][i] + j;
      vstore(sum, vflush(vflush(vload(sum)) + vflush(even + odd)));
    }
}
static void tile_dot_int8(int c, int a, int b) {
  for (int i = 0; i < cl_tiles.rows[c]; i++)
    for (int j = 0; j < TILE_WORDS; j += VL) {
      float *sum = (float *)cl_tiles.words[c][i] + j;
      vi total = (vi)vload(sum);
      for (int w = 0; w < TILE_WORDS; w++)
        total = vdot4(viset1((int32_t)cl_tiles.words[a][i][w]),
                      viload((const int32_t *)cl_tiles.words[b][w] + j), total);
      vstore(sum, (vf)total);
    }
}

#else

#include <sys/syscall.h>
#include <unistd.h>

typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} TileConfiguration;

/* The kernel lends the tiles' state to a process that asks, and to its forks; a program that is
 * executed asks again. */
static int tiles_allowed(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
static void tiles_configure(int r0, int r1) {
  const int rows[TILES] = {r0, r0, r1, r1, r0, r1, TILE_ROWS, TILE_ROWS};
  TileConfiguration configuration __attribute__((aligned(64))) = {.palette = 1};
  for (int t = 0; t < TILES; t++) {
    configuration.row_bytes[t] = 4 * TILE_WORDS;
    configuration.rows[t] = (uint8_t)rows[t];
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(configuration));
}
CL_INLINE void tiles_release(void) { __asm__ volatile("tilerelease"); }

/* The compiler's own intrinsics do not say that they read and write memory. */
#define tile_zero(t) __asm__ volatile("tilezero %%tmm" #t ::)
#define tile_load(t, p, stride) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"((int64_t)(stride)) : "memory")
#define tile_pass(t, p, stride) \
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t ::"r"(p), "r"((int64_t)(stride)) : "memory")
#define tile_store(t, p, stride) \
  __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"((int64_t)(stride)) : "memory")
#define tile_dot_bf16(c, a, b) \
  __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
#define tile_dot_int8(c, a, b) \
  __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

#endif
#endif
