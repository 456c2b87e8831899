/* The table of primitives that a level exports: storey 1 of the kernels.
 *
 * One struct for all levels; Cython algorithms (storey 2) call through the one
 * table that was chosen at import.  Sizes: M rows, N columns, K inner length;
 * strides (ld*) in floats; a panel is PANEL columns of a packed matrix.
 *
 * This is the one list of primitives: what Cython declares (isa.pxd) and a level's table
 * (level_table.h) are written from it by tools/generate.py.
 */
#ifndef CL_PRIMITIVES_H
#define CL_PRIMITIVES_H

#include <stdint.h>

#include "levels.h"

enum { CL_PANEL = 32, CL_CACHE_BLOCK = 512 };

/* The number formats, in the order of their rows; `name` is what users call them. */
#define CL_NUMBER_FORMATS(X) X(float32) X(bf16) X(int8) X(int8g32) X(int4)
#define CL_NUMBER(name) CL_FORMAT_##name,
enum { CL_NUMBER_FORMATS(CL_NUMBER) CL_FORMATS };
#undef CL_NUMBER

/* What an optimizer step needs; correction = 1 / (1 - beta^t) with t counted from 1. */
typedef struct {
  float lr, beta1, beta2, epsilon, weight_decay, clip, correction1, correction2;
} OptimizerStep;

/* Targets spread over neighbors: that of token t is (1 - epsilon) at t and epsilon weights[t, j] at
 * ids[t, j].  A row of weights sums to 1, or is all 0: then t has no neighbors and epsilon is 0. */
typedef struct {
  int64_t k;
  const int32_t *ids;    /* [V, k], each from 0 to V - 1 */
  const float *weights;  /* [V, k], none below 0 */
  double epsilon;        /* above 0, below 1 */
} SoftTargets;

/* What a product does with its result. */
typedef enum {
  CL_STORE,  /* c = */
  CL_ADD,    /* c += */
  CL_STREAM, /* c =, past the cache: every row of n is whole, aligned cache lines */
} StoreMode;

/* What is done to a product before it is kept. */
typedef enum {
  CL_LINEAR,     /* nothing */
  CL_GELU,       /* `other` keeps it, and gelu of it goes on */
  CL_GELU_SLOPE, /* it is multiplied by the derivative of gelu at what `other` keeps */
} Activation;

/* A rectangle of a kept matrix: from this row and column on.  A row has `columns` elements in ld
 * words. */
typedef struct {
  float *words;
  int64_t ld, row, column, columns;
} Kept;

/* What a format does with matrices that it keeps as operands; the pointers never alias. */
typedef struct {
  /* out[rows, n] = the floats of x */
  void (*expand)(int64_t rows, int64_t n, const Kept *x, float *out, int64_t ldo);
  /* out = x[rows, n] */
  void (*keep)(int64_t rows, int64_t n, const float *x, int64_t ldx, const Kept *out);
  /* out[rows, words(K)] = the operand of x */
  void (*take_operand)(int64_t rows, int64_t K, const Kept *x, float *out);
  /* pack_panel and pack_panel_t of x[K, n] and x[n, K] */
  void (*pack_panel)(int64_t K, int64_t n, const Kept *x, float *panel, float *column_sums);
  void (*pack_panel_t)(int64_t K, int64_t n, const Kept *x, float *panel);
  /* out[M, n] = a[M, K] panel[K, n] (+ bias[n]), n <= PANEL, then the activation */
  void (*product)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda, const float *panel,
                  int64_t next, const float *bias, Activation activation, const Kept *out,
                  const Kept *other);
} KeptFunctions;

/* The keys and values of one head that are kept of a sequence (cache.h has the layout). */
typedef struct {
  int64_t narrow; /* whether they are bfloat16, two to a word; else float32 */
  int64_t D;
  int64_t stride; /* words from one row of values to the next */
  float *keys;
  float *values;
} CacheHead;

/* A row of queries on its way through the blocks of keys. */
typedef struct {
  int64_t begin, end;   /* the positions that it sees: begin .. end - 1 */
  const float *similar; /* what it adds by position, times strength; not read where strength is 0 */
  float strength, scale;
  float top, sum; /* OUT, of a block: the largest score, and the sum of exp(score - top) */
} CacheRow;

/* What `move_floats` does with floats. */
typedef enum {
  CL_READ,
  CL_WRITE,
  CL_WRITE_PAST, /* past the cache */
  CL_COPY,
  CL_CHANGE, /* read, and written back where they were */
} Traffic;

/* A number format of products: a row of the table in formats.h, which says how to add one.
 *
 * The inner length K of a product lies in words of 32 bits, `elements` of it in a word: a row of
 * the left-hand side, its operand, takes words(K) = K / elements words, rounded up to a multiple of
 * `step` and filled with zeros, and so does a column of a panel, laid out [words(K)][PANEL].
 * `extra` words follow, a multiple of `step`, for what the format keeps of a whole row or column (its
 * scale); where there are any, a matrix is packed and multiplied over the whole of K at once, not in
 * parts of it.
 *
 * Where weights are narrower than what they multiply, `unit` elements take `step` words of an operand
 * and `panel_step` words of a panel's column.  Both 0: panels are as high as operands are long, and
 * `unit` is elements * step.  Such a format, too, takes the whole of K at once.
 *
 * c, bias and residual are float32 in every format.
 *
 * An operand is row_group rows side by side: row r begins at r words(K) where r is a multiple of
 * row_group, and from one step of the inner length to the next it is step * stride words.
 *
 * What lives from one product to the next, and from forward to backward, is kept: as float32, or
 * where `keeps` is not NULL, as an operand. */
typedef struct {
  const char *name;
  int native; /* whether this level multiplies two words in one instruction */
  int64_t elements, step, extra;
  int64_t unit, panel_step;
  int64_t longest; /* the largest K whose sums are right; 0: any */
  int64_t row_group, stride;
  int64_t block_rows; /* rows of a left-hand side that fill whole register tiles; at most 32 */
  int64_t query_rows; /* of attention's blocks of scores: whole blocks, at most 128 */
  int64_t pass_rows;  /* rows that go through a layer's products together, whole groups */
  int64_t pass_words; /* the longest inner length of one pass: longer ones add up in memory */
  int64_t left_words; /* of a left-hand side that one sweep over the panels uses: it stays in L2 */
  int64_t few_rows;   /* up to as many rows product_few is the faster one: few_rows.h */
  const KeptFunctions *keeps; /* NULL: float32 is kept */
  /* panel = b[K, n], zero-filled; column_sums[n] += sums of b itself over K when not NULL */
  void (*pack_panel)(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel,
                     float *column_sums);
  /* panel = b[n, K]^T, zero-filled */
  void (*pack_panel_t)(int64_t K, int64_t n, const float *b, int64_t ldb, float *panel);
  /* out[rows, words(K)] = the operand of x[rows, K]; out may be x where words(K) <= K = ldx.
   * NULL: x itself is the operand. */
  void (*to_operand)(int64_t rows, int64_t K, const float *x, int64_t ldx, float *out);
  /* out = the left-hand side of x^T out of x's operand, for product_ta: [words(rows), K], or with
   * turned_by_rows [K, words(rows)].  NULL: x's operand itself. */
  void (*turn_operand)(int64_t rows, int64_t K, const float *operand, float *out);
  int turned_by_rows;
  /* c[M, n] (+)= a[M, K] panel[K, n] (+ bias[n]) (+ residual[M, n]); n <= PANEL.  K and lda count
   * words.  bias, residual may be NULL; residual has stride ldc.  The panel of the next call lies
   * at panel + next and is fetched ahead; 0: nothing is known of it. */
  void (*product)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda, const float *panel,
                  int64_t next, float *c, int64_t ldc, const float *bias, const float *residual,
                  StoreMode store);
  /* the same for M <= few_rows, where reading the panel from memory is what takes the time: it is
   * read from end to end, and so is what follows it.  The bits of a row are those of `product`: they
   * do not depend on how many rows there are. */
  void (*product_few)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                      const float *panel, int64_t next, float *c, int64_t ldc, const float *bias,
                      const float *residual, StoreMode store);
  /* the same for a turned left-hand side, whose rows or columns are lda words apart.  NULL: there
   * is none; the format multiplies by weights but does not train them. */
  void (*product_ta)(int64_t M, int64_t n, int64_t K, const float *a, int64_t lda,
                     const float *panel, int64_t next, float *c, int64_t ldc, const float *bias,
                     const float *residual, StoreMode store);
  /* sink += a chain-free stream of multiply-adds; returns the FLOPs done */
  int64_t (*peak)(int64_t rounds, float *sink);
  /* out[K] = the values that a panel holds in one of its columns; NULL where nothing infers */
  void (*take_column)(int64_t K, const float *panel, int64_t column, float *out);
} NumberFormat;

/* What a level needs to be told; NULL: nothing. */
typedef struct {
  /* Once in a process, before it computes: returns whether the operating system allows the level. */
  int (*begin_process)(void);
  /* Around what a thread computes: registers that only some programs use are taken and given back.
   * A product takes them by itself where nobody did. */
  void (*begin_thread)(void);
  void (*end_thread)(void);
} LevelHooks;

typedef struct {
  const char *name;

  /* ---- formats.h ---- */
  const NumberFormat *formats[CL_FORMATS];
  LevelHooks hooks;

  /* ---- softmax.h ---- */
  /* s[i, 0..first+i] = softmax(scale * s[i, ..]), zeros to width; lse[i] = log sum exp.
   * Row i of the block sees first + i + 1 columns. */
  void (*softmax_causal)(int64_t rows, int64_t first, int64_t width, float scale, float *s,
                         int64_t lds, float *lse);
  /* s[i, j] = exp(scale * s[i, j] - lse[i]) for j <= first + i, zeros to width */
  void (*softmax_causal_again)(int64_t rows, int64_t first, int64_t width, float scale, float *s,
                               int64_t lds, const float *lse);
  /* ds[i, j] = scale * p[i, j] * (ds[i, j] - delta[i]) */
  void (*softmax_backward)(int64_t rows, int64_t width, float scale, const float *p, float *ds,
                           int64_t ld, const float *delta);
  /* delta[i] = sum_j a[i, j] b[i, j] */
  void (*row_dots)(int64_t rows, int64_t width, const float *a, int64_t lda, const float *b,
                   int64_t ldb, float *delta);

  /* ---- cache.h ---- */
  /* Keeps k and v, n rows of D, ld floats apart, as the positions first .. first + n - 1. */
  void (*cache_append)(const CacheHead *head, int64_t first, int64_t n, const float *k,
                       const float *v, int64_t ld);
  /* Rows of queries over the block of CL_CACHE_BLOCK positions from `start` on: top and sum of each
   * row, and out[rows, D] = the sum of exp(score - top) times value.  A row that sees nothing of the
   * block has a sum of 0.  begin and end must not decrease from row to row.  q and out have rows ld
   * floats apart, a multiple of 16 that is D at least; out begins on a cache line. */
  void (*cache_block)(const CacheHead *head, int64_t start, int64_t rows, CacheRow *row,
                      const float *q, float *out, int64_t ld);
  /* Joins a row's next block, `part` and values[D], to what it has: *top, from -inf on, *sum and
   * out[D], from 0 on. */
  void (*cache_merge)(int64_t D, const CacheRow *part, const float *values, float *top, float *sum,
                      float *out);
  /* out[D] = x / sum */
  void (*cache_finish)(int64_t D, float sum, const float *x, float *out);

  /* ---- vecmath.h ---- elementwise; out may be x */
  void (*vec_exp)(int64_t n, const float *x, float *out);
  void (*vec_log)(int64_t n, const float *x, float *out);
  void (*vec_tanh)(int64_t n, const float *x, float *out);
  void (*vec_erf)(int64_t n, const float *x, float *out);

  /* ---- rows.h ---- */
  /* out = (x - mean) rstd gamma + beta for every row of x[rows, C]; mean[rows], rstd[rows] */
  void (*layernorm)(int64_t rows, int64_t C, const float *x, const float *gamma,
                    const float *beta, float epsilon, float *out, float *mean, float *rstd);
  /* dx = or, with accumulate, +=; dgamma[C], dbeta[C] += sums over rows in row order.
   * dx may be dy. */
  void (*layernorm_backward)(int64_t rows, int64_t C, const float *dy, const float *x,
                             const float *gamma, const float *mean, const float *rstd, float *dx,
                             int accumulate, float *dgamma, float *dbeta);
  /* out = x rstd gamma for every row of x[rows, C]; rstd[rows] */
  void (*rmsnorm)(int64_t rows, int64_t C, const float *x, const float *gamma, float epsilon,
                  float *out, float *rstd);
  /* dx = or, with accumulate, +=; dgamma[C] += sums over rows in row order.  dx may be dy. */
  void (*rmsnorm_backward)(int64_t rows, int64_t C, const float *dy, const float *x,
                           const float *gamma, const float *rstd, float *dx, int accumulate,
                           float *dgamma);
  /* out[rows, F] = silu(gate) up of rows gate[F], up[F], ld apart; d(gate), d(up) likewise, 2 F
   * apart; dgate_up may be gate_up where ld is 2 F. */
  void (*swiglu)(int64_t rows, int64_t F, const float *gate_up, int64_t ld, float *out);
  void (*swiglu_backward)(int64_t rows, int64_t F, const float *gate_up, int64_t ld,
                          const float *dy, float *dgate_up);
  /* max(0, x)^2; out may be x, dx may be dy */
  void (*relu2)(int64_t n, const float *x, float *out);
  void (*relu2_backward)(int64_t n, const float *x, const float *dy, float *dx);
  /* x[heads, D], D even: channels i and i + D/2 turn by the angle of cosines[i], sines[i]; with
   * back by its negative. */
  void (*rotate)(int64_t heads, int64_t D, const float *cosines, const float *sines, int back,
                 float *x);
  /* tanh form; out may be x, dx may be dy */
  void (*gelu)(int64_t n, const float *x, float *out);
  void (*gelu_backward)(int64_t n, const float *x, const float *dy, float *dx);
  void (*add)(int64_t n, const float *a, const float *b, float *out);
  /* the sum of x[i]^2 in float64, in a fixed order */
  double (*sum_squares)(int64_t n, const float *x);
  /* out[i] = wte[ids[i]] + wpe[i % T], rows of C; wpe may be NULL */
  void (*embed)(int64_t rows, int64_t T, int64_t C, const int32_t *ids, const float *wte,
                const float *wpe, float *out);
  /* dwte[ids[i]] += dx[i], dwpe[i % T] += dx[i], in row order; dwpe may be NULL */
  void (*embed_backward)(int64_t rows, int64_t T, int64_t C, const int32_t *ids, const float *dx,
                         float *dwte, float *dwpe);

  /* ---- crossentropy.h ---- */
  /* Returns the sum of -log softmax(logits[i])[targets[i]]; with backward, logits become
   * scale (softmax - target).  A row's columns V..ld-1 are not touched.  soft NULL: the target is
   * onehot(targets[i]); otherwise it is as above, and *smoothed becomes the sum of the
   * cross-entropies against it. */
  double (*cross_entropy)(int64_t rows, int64_t V, float *logits, int64_t ld,
                          const int32_t *targets, float scale, int backward,
                          const SoftTargets *soft, double *smoothed);

  /* ---- optimizer.h ---- */
  void (*adamw)(int64_t n, float *w, float *m, float *v, const float *g,
                const OptimizerStep *step);
  void (*sgd)(int64_t n, float *w, float *m, const float *g, const OptimizerStep *step);
  /* kept[0..n-1] = w, kept[stride..] = m and, unless v is NULL, kept[2 stride..] = v; fetches what
   * follows in w, m, v and g, which a step over the next floats will need. */
  void (*keep_state)(int64_t n, const float *w, const float *m, const float *v, const float *g,
                     float *kept, int64_t stride);
  /* out[i] = the sum over lanes of first[lane * stride + i] in one fixed binary tree (neighbors
   * first, an odd one moves up) within each `group` lanes, from 1 to 12, and then over the groups,
   * lanes >= 1; returns the sum of out[i]^2.  out may be lane 0.  store: CL_STORE, or CL_STREAM for
   * an `out` that starts on a cache line. */
  double (*tree_sum)(int64_t n, int64_t lanes, int64_t group, const float *first, int64_t stride,
                     float *out, StoreMode store);

  /* ---- repack.h ---- */
  /* Both packed forms of `rows` rows w[rows, N] of a matrix [K, N]: the panels of the matrix, each
   * `height` words high, from the word on where these rows begin, and the panels of its transpose,
   * each height_t words high.  store: CL_STORE, or CL_STREAM for panels on cache lines. */
  void (*repack)(const NumberFormat *f, int64_t rows, int64_t N, const float *w, float *panels,
                 int64_t height, float *panels_t, int64_t height_t, StoreMode store);

  /* ---- bandwidth.h ---- */
  /* Reads from a, writes to, changes or copies to b n floats, `rounds` times, and nothing else.  n is a
   * multiple of 64; a and b start on cache lines. */
  void (*move_floats)(Traffic traffic, int64_t n, int64_t rounds, const float *a, float *b);

  /* ---- random.h ---- */
  /* out[i] = x[i] * scale where hash(key, first + i) >= threshold, else 0; threshold = p 2^32.
   * The same bits at every level and for any split of the range; out may be x. */
  void (*dropout)(int64_t n, const float *x, float *out, uint64_t key, uint64_t first,
                  uint32_t threshold, float scale);
} Primitives;

#define CL_DECLARE(level) extern const Primitives cl_primitives_##level;
CL_LEVELS(CL_DECLARE)
#undef CL_DECLARE

#endif
