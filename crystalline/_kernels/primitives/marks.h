/* Marks: what a process did from one moment to the next, for `--profile`.
 *
 * `mark(m, kind)` says that all since the last mark was of a kind.  Where m is NULL, which it is
 * unless a run is profiled, it is a test of a register.  A ring keeps the newest marks, and sums are
 * over all.  One process writes a row of them, and another reads it when the first has stopped.
 */
#ifndef CL_MARKS_H
#define CL_MARKS_H

#include "atomics.h"

enum { MARK_KINDS = 64, MARK_WORDS = 3, MARK_HEADER = 8 };

typedef struct {
  const int64_t *on; /* a word that all rows share: 0 while nothing is recorded */
  int64_t *written;  /* marks ever */
  int64_t *sums;     /* [MARK_KINDS, 2]: nanoseconds, marks */
  int64_t *ring;     /* [mask + 1, MARK_WORDS]: begin, end, unit << 8 | kind */
  int64_t mask;
  int64_t last; /* 0: nothing to count from */
  int64_t unit;
} Marks;

static inline void mark_span(Marks *m, int64_t begin, int64_t end, int kind, int64_t unit) {
  if (!m || !word_load_relaxed(m->on)) return;
  int64_t *row = m->ring + (*m->written & m->mask) * MARK_WORDS;
  row[0] = begin;
  row[1] = end;
  row[2] = unit << 8 | kind;
  word_store_relaxed(m->written, *m->written + 1);
  m->sums[2 * kind] += end - begin;
  m->sums[2 * kind + 1] += 1;
}

static inline void mark_begin(Marks *m) {
  if (m) m->last = word_load_relaxed(m->on) ? monotonic_ns_now() : 0;
}

/* Apart, so that a pass that is not profiled carries a test and nothing else. */
static __attribute__((noinline, cold, unused)) void mark_now(Marks *m, int kind) {
  if (!m->last) return;
  int64_t now = monotonic_ns_now();
  mark_span(m, m->last, now, kind, m->unit);
  m->last = now;
}

static inline void mark(Marks *m, int kind) {
  if (__builtin_expect(m != 0, 0)) mark_now(m, kind);
}

#endif
