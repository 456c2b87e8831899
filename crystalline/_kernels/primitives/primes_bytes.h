/* What is done with whole sieve buffers: pre-sieve patterns put together, primes counted and
 * written out.  The byte map is in primes_table.h. */
#include "primes_table.h"

static void sieve_and_3(uint8_t *r, const uint8_t *x, const uint8_t *y, const uint8_t *z,
                        int64_t n) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) { /* whole words first, so that the compiler sees vectors */
    uint64_t a[8], b[8], c[8];
    memcpy(a, x + i, 64);
    memcpy(b, y + i, 64);
    memcpy(c, z + i, 64);
    for (int j = 0; j < 8; j++)
      a[j] &= b[j] & c[j];
    memcpy(r + i, a, 64);
  }
  for (; i < n; i++)
    r[i] = x[i] & y[i] & z[i];
}

static int64_t sieve_popcount(const uint8_t *s, int64_t n) {
  int64_t count = 0, i = 0;
  uint64_t word;
  for (; i + 8 <= n; i += 8) {
    memcpy(&word, s + i, 8);
    count += __builtin_popcountll(word);
  }
  for (; i < n; i++)
    count += __builtin_popcountll(s[i]);
  return count;
}

#if defined(CL_AVX512)

static int64_t sieve_numbers_64(uint64_t *out, const uint8_t *s, int64_t n, uint64_t first) {
  __m512i numbers = _mm512_add_epi64(_mm512_set1_epi64((int64_t)(30 * first)),
                                     _mm512_setr_epi64(1, 7, 11, 13, 17, 19, 23, 29));
  const __m512i thirty = _mm512_set1_epi64(30);
  uint64_t *at = out;
  for (int64_t i = 0; i < n; i++) {
    /* To a register and then stored: the form that compresses to memory is slow on Zen. */
    _mm512_storeu_si512(at, _mm512_maskz_compress_epi64(s[i], numbers));
    at += __builtin_popcount(s[i]);
    numbers = _mm512_add_epi64(numbers, thirty);
  }
  return at - out;
}

static int64_t sieve_numbers_32(uint32_t *out, const uint8_t *s, int64_t n, uint64_t first) {
  __m256i numbers = _mm256_add_epi32(_mm256_set1_epi32((int32_t)(uint32_t)(30 * first)),
                                     _mm256_setr_epi32(1, 7, 11, 13, 17, 19, 23, 29));
  const __m256i thirty = _mm256_set1_epi32(30);
  uint32_t *at = out;
  for (int64_t i = 0; i < n; i++) {
    _mm256_storeu_si256((__m256i *)at, _mm256_maskz_compress_epi32(s[i], numbers));
    at += __builtin_popcount(s[i]);
    numbers = _mm256_add_epi32(numbers, thirty);
  }
  return at - out;
}

#else

/* For each byte the residues of its set bits, in order, as bytes of one word. */
typedef struct {
  uint64_t residues;
} SieveRow;

static inline SieveRow sieve_row(unsigned byte) {
  static const uint8_t wheel[8] = {1, 7, 11, 13, 17, 19, 23, 29};
  SieveRow row = {0};
  int found = 0;
  for (int bit = 0; bit < 8; bit++)
    if (byte >> bit & 1)
      row.residues |= (uint64_t)wheel[bit] << 8 * found++;
  return row;
}

#define SIEVE_NUMBERS(name, type)                                                              \
  static int64_t name(type *out, const uint8_t *s, int64_t n, uint64_t first) {                \
    uint64_t rows[256]; /* 1,024 steps: nothing beside the segment that follows */             \
    for (unsigned byte = 0; byte < 256; byte++)                                                \
      rows[byte] = sieve_row(byte).residues;                                                   \
    type *at = out;                                                                            \
    for (int64_t i = 0; i < n; i++) {                                                          \
      uint64_t base = 30 * (first + (uint64_t)i), row = rows[s[i]];                            \
      for (int j = 0; j < 8; j++)                                                              \
        at[j] = (type)(base + (row >> 8 * j & 255));                                           \
      at += __builtin_popcount(s[i]);                                                          \
    }                                                                                          \
    return at - out;                                                                           \
  }

SIEVE_NUMBERS(sieve_numbers_64, uint64_t)
SIEVE_NUMBERS(sieve_numbers_32, uint32_t)
#endif
