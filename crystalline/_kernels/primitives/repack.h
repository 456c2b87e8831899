/* Both packed forms of some rows of a matrix, right after the optimizer has changed them.
 *
 * The rows are in L2 then and are taken in pieces of PANEL rows by CL_REPACK_COLUMNS columns, for
 * both forms together.  Panels that no cache will hold until they are read are made in a small
 * buffer and go past the cache from there: the places where they belong are far apart, and would
 * be read first only to be overwritten.
 */
#ifndef CL_REPACK_H
#define CL_REPACK_H

#include "primitives.h"
#include "vec.h"

enum { CL_REPACK_COLUMNS = 128 };

CL_INLINE int64_t cl_words(const NumberFormat *f, int64_t K) {
  int64_t unit = f->elements * f->step;
  return (K + unit - 1) / unit * f->step;
}

CL_INLINE void cl_past_cache(int64_t n, const float *x, float *out) {
  for (int64_t i = 0; i < n; i += VL) vstream(out + i, vload(x + i));
}

static void repack(const NumberFormat *f, int64_t rows, int64_t N, const float *w, float *panels,
                   int64_t height, float *panels_t, int64_t height_t, StoreMode store) {
  float made[CL_PANEL * CL_REPACK_COLUMNS] __attribute__((aligned(64)));
  const int past = store == CL_STREAM;
  for (int64_t i = 0; i < rows; i += CL_PANEL) {
    int64_t strip = rows - i < CL_PANEL ? rows - i : CL_PANEL;
    int64_t strip_words = cl_words(f, strip) * CL_PANEL;
    for (int64_t k = 0; k < N; k += CL_REPACK_COLUMNS) {
      int64_t columns = N - k < CL_REPACK_COLUMNS ? N - k : CL_REPACK_COLUMNS;
      const float *piece = w + i * N + k;
      for (int64_t j = 0; j < columns; j += CL_PANEL) {
        int64_t n = columns - j < CL_PANEL ? columns - j : CL_PANEL;
        float *panel = panels + (k + j) * height + i / f->elements * CL_PANEL;
        f->pack_panel(strip, n, piece + j, N, past ? made : panel, NULL);
        if (past) cl_past_cache(strip_words, made, panel);
      }
      float *panel_t = panels_t + i * height_t + k / f->elements * CL_PANEL;
      f->pack_panel_t(columns, strip, piece, N, past ? made : panel_t);
      if (past) cl_past_cache(cl_words(f, columns) * CL_PANEL, made, panel_t);
    }
  }
  if (past) CL_STREAM_FENCE;
}

#endif
