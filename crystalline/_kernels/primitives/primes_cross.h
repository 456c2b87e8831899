/* Crossing off multiples in a sieve buffer (its byte map is in primes_table.h), and pre-sieve
 * patterns.  Plain byte operations: the same at every instruction-set level.
 *
 * A prime p = 30 q + r meets the numbers p m with m prime to 30.  Along the eight residues w of
 * m the byte moves by q times the gap of m plus a constant of r and w, and the bit is a constant
 * of both, so for each of the eight r a loop of eight stores crosses off p bytes at a time.
 */
#ifndef CL_PRIMES_CROSS_H
#define CL_PRIMES_CROSS_H

#include <stdint.h>
#include <string.h>

/* The place of the next multiple, in bytes from the start of the buffer, and its w's number. */
typedef struct {
  uint32_t q;
  uint32_t at; /* byte << 3 | number of w */
} SievePrime;

#define CL_INLINE static inline __attribute__((always_inline))

static const uint8_t cl_wheel[8] = {1, 7, 11, 13, 17, 19, 23, 29};
/* For a residue modulo 30: the number of the first wheel residue that is not below it. */
static const uint8_t cl_wheel_index[30] = {0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4,
                                           4, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7};

CL_INLINE int cl_residue(const int j) {
  return j == 0 ? 1 : j == 1 ? 7 : j == 2 ? 11 : j == 3 ? 13 : j == 4 ? 17 : j == 5 ? 19 : j == 6 ? 23 : j == 7 ? 29 : 31;
}

/* All bits but that of residue r w modulo 30. */
CL_INLINE uint8_t cl_mask(const int r, const int j) {
  const int residue = r * cl_residue(j) % 30;
  return (uint8_t)~(residue == 1    ? 1
                    : residue == 7  ? 2
                    : residue == 11 ? 4
                    : residue == 13 ? 8
                    : residue == 17 ? 16
                    : residue == 19 ? 32
                    : residue == 23 ? 64
                                    : 128);
}

/* Bytes from the multiple of w = 1 to that of number j. */
CL_INLINE int64_t cl_offset(int64_t q, const int r, const int j) {
  return q * (cl_residue(j) - 1) + r * cl_residue(j) / 30 - r / 30;
}

/* Bytes from the multiple of number j to the next. */
CL_INLINE int64_t cl_stride(int64_t q, const int r, const int j) {
  return cl_offset(q, r, j + 1) - cl_offset(q, r, j);
}

#define CL_CROSS_ONE(j)                                                                        \
  __attribute__((fallthrough));                                                                \
  case j:                                                                                      \
    if (at >= n) {                                                                             \
      next = j;                                                                                \
      goto done;                                                                               \
    }                                                                                          \
    s[at] &= cl_mask(r, j);                                                                    \
    at += cl_stride(q, r, j);

CL_INLINE void cl_cross_class(uint8_t *s, int64_t n, SievePrime *primes, int64_t count,
                              const int r) {
  for (int64_t k = 0; k < count; k++) {
    const int64_t q = primes[k].q, p = 30 * q + r;
    int64_t at = primes[k].at >> 3;
    unsigned next = primes[k].at & 7;
    const int64_t o1 = cl_offset(q, r, 1), o2 = cl_offset(q, r, 2), o3 = cl_offset(q, r, 3),
                  o4 = cl_offset(q, r, 4), o5 = cl_offset(q, r, 5), o6 = cl_offset(q, r, 6),
                  o7 = cl_offset(q, r, 7);
    switch (next)
      for (;;) {
      case 0:
        for (; at + o7 < n; at += p) {
          uint8_t *x = s + at;
          x[0] &= cl_mask(r, 0);
          x[o1] &= cl_mask(r, 1);
          x[o2] &= cl_mask(r, 2);
          x[o3] &= cl_mask(r, 3);
          x[o4] &= cl_mask(r, 4);
          x[o5] &= cl_mask(r, 5);
          x[o6] &= cl_mask(r, 6);
          x[o7] &= cl_mask(r, 7);
        }
        if (at >= n) {
          next = 0;
          goto done;
        }
        s[at] &= cl_mask(r, 0);
        at += cl_stride(q, r, 0);
        CL_CROSS_ONE(1)
        CL_CROSS_ONE(2)
        CL_CROSS_ONE(3)
        CL_CROSS_ONE(4)
        CL_CROSS_ONE(5)
        CL_CROSS_ONE(6)
        CL_CROSS_ONE(7)
      }
  done:
    primes[k].at = (uint32_t)(at - n) << 3 | next;
  }
}

/* Cross the multiples of `count` primes of residue class number c (q and place each) off s[n]
 * and move their places to the buffer that follows. */
static inline void cl_cross_off(uint8_t *s, int64_t n, SievePrime *primes, int64_t count, int c) {
  switch (c) {
  case 0: cl_cross_class(s, n, primes, count, 1); break;
  case 1: cl_cross_class(s, n, primes, count, 7); break;
  case 2: cl_cross_class(s, n, primes, count, 11); break;
  case 3: cl_cross_class(s, n, primes, count, 13); break;
  case 4: cl_cross_class(s, n, primes, count, 17); break;
  case 5: cl_cross_class(s, n, primes, count, 19); break;
  case 6: cl_cross_class(s, n, primes, count, 23); break;
  case 7: cl_cross_class(s, n, primes, count, 29); break;
  }
}

/* The first multiple p m of p with m >= p prime to 30 in or after byte `first`: its byte counted
 * from `first`, and the number of m's residue; UINT64_MAX when it is beyond 2^64. */
static inline uint64_t cl_first_multiple(uint64_t p, uint64_t first, unsigned *number) {
  uint64_t m = first ? (first * 30 - 1) / p + 1 : 0;
  if (m < p)
    m = p;
  unsigned rest = (unsigned)(m % 30);
  *number = cl_wheel_index[rest];
  m += cl_wheel[*number] - rest;
  unsigned __int128 multiple = (unsigned __int128)p * m;
  if (multiple >> 64)
    return UINT64_MAX;
  return (uint64_t)multiple / 30 - first;
}

/* Cross all multiples of p that start at byte `at` with number j off s[n]; for primes that meet
 * a buffer a few times at most. */
static inline void cl_cross_sparse(uint8_t *s, uint64_t n, uint64_t p, uint64_t at, unsigned j) {
  static const uint8_t gaps[8] = {6, 4, 2, 4, 2, 4, 6, 2};
  const uint64_t q = p / 30;
  const unsigned r = (unsigned)(p % 30);
  while (at < n) {
    const unsigned w = cl_wheel[j], product = r * w, gap = gaps[j];
    s[at] &= (uint8_t)~(1u << cl_wheel_index[product % 30]);
    at += q * gap + r * (w + gap) / 30 - product / 30;
    j = (j + 1) & 7;
  }
}

/* Pre-sieve patterns: for each group of primes the sieve bytes of one period (the product of the
 * primes), from byte 0 on, with all their multiples and themselves crossed off. */
#define CL_GROUPS 15
static const uint16_t cl_groups[CL_GROUPS][3] = {
    {7, 67, 71},  {11, 41, 73}, {13, 43, 59}, {17, 37, 53}, {19, 29, 61},
    {23, 31, 47}, {79, 163, 1}, {83, 157, 1}, {89, 151, 1}, {97, 149, 1},
    {101, 139, 1}, {103, 137, 1}, {107, 131, 1}, {109, 127, 1}, {113, 1, 1},
};
#define CL_LAST_PRESIEVED 163
#define CL_SHORTEST_PATTERN 4096 /* short periods are repeated to at least this length */

static inline int64_t cl_pattern_size(int group) {
  const int64_t period = (int64_t)cl_groups[group][0] * cl_groups[group][1] * cl_groups[group][2];
  return (CL_SHORTEST_PATTERN + period - 1) / period * period;
}

static inline void cl_make_pattern(uint8_t *s, int group) {
  const int64_t n = cl_pattern_size(group);
  memset(s, 255, n);
  for (int i = 0; i < 3; i++) {
    const int64_t p = cl_groups[group][i];
    if (p == 1)
      continue;
    for (int64_t m = p; m < 30 * n; m += 2 * p) {
      const unsigned rest = (unsigned)(m % 30), index = cl_wheel_index[rest];
      if (cl_wheel[index] == rest)
        s[m / 30] &= (uint8_t)~(1u << index);
    }
  }
}

#endif
