/* The schoolbook product and square in digits of 52 bits: eight digit products an instruction.
 *
 * Column k of a product is the sum of a[i] b[k - i]: eight neighbouring columns are one vector, to
 * which each digit of b, broadcast, adds eight neighbouring digits of a, one digit lower each
 * time.  Low and high halves are summed apart (each term is below 2^52, so 4,096 of them fit);
 * carries run once, at the end, and eight digits are 52 bytes of the result.
 */

#include "limbs_table.h"

#if defined(CL_IFMA)

/* Operands are short enough for scratch on the stack and for sums of columns below 2^64. */
enum { CL_VECTOR_DIGITS = (CL_VECTOR_LIMBS * 64 + 415) / 416 * 8 };

/* How many digits, a multiple of eight, hold n limbs. */
static inline int64_t digits_of(int64_t n) { return (n * 64 + 415) / 416 * 8; }

/* d[digits_of(n)] = a[n]; digit i starts at bit 52 i: four words of 16 bits hold it. */
static inline void split_digits(uint64_t *d, const uint64_t *a, int64_t n) {
#define CL_WORDS(w) ((uint64_t)((w) + 3) << 48 | (uint64_t)((w) + 2) << 32 | ((w) + 1) << 16 | (w))
  const __m512i words = _mm512_setr_epi64(CL_WORDS(0L), CL_WORDS(3L), CL_WORDS(6L), CL_WORDS(9L),
                                          CL_WORDS(13L), CL_WORDS(16L), CL_WORDS(19L),
                                          CL_WORDS(22L));
#undef CL_WORDS
  const __m512i shifts = _mm512_setr_epi64(0, 4, 8, 12, 0, 4, 8, 12);
  const __m512i mask = _mm512_set1_epi64((1LL << 52) - 1);
  const unsigned char *bytes = (const unsigned char *)a;
  for (int64_t left = 8 * n; left > 0; left -= 52, bytes += 52, d += 8) {
    __mmask64 there = left >= 64 ? ~0ULL : (1ULL << left) - 1;
    __m512i v = _mm512_maskz_loadu_epi8(there, bytes);
    v = _mm512_srlv_epi64(_mm512_permutexvar_epi16(words, v), shifts);
    _mm512_store_si512(d, _mm512_and_si512(v, mask));
  }
}

/* What runs from one vector of columns to the next. */
typedef struct {
  __m512i high; /* the high halves before */
  __m512i top;  /* what exceeded 52 bits in the columns before */
  unsigned carry;
} Columns;

/* Eight columns, low and high halves, become 52 bytes at r, of which `left` belong to the result. */
static inline __attribute__((always_inline)) void
store_columns(Columns *state, unsigned char *r, int64_t left, __m512i low, __m512i high) {
  const __m512i mask = _mm512_set1_epi64((1LL << 52) - 1);
  __m512i sum = _mm512_add_epi64(low, _mm512_alignr_epi64(high, state->high, 7));
  __m512i top = _mm512_srli_epi64(sum, 52);
  sum = _mm512_add_epi64(_mm512_and_si512(sum, mask), _mm512_alignr_epi64(top, state->top, 7));
  state->high = high;
  state->top = top;
  /* Carries of one: lanes above the mask send one on, lanes equal to it pass one on. */
  unsigned send = _mm512_cmpgt_epu64_mask(sum, mask), pass = _mm512_cmpeq_epi64_mask(sum, mask);
  unsigned ripple = (send << 1 | state->carry) + pass;
  state->carry = ripple >> 8;
  sum = _mm512_mask_sub_epi64(sum, (__mmask8)(ripple ^ pass), sum, _mm512_set1_epi64(-1));
  sum = _mm512_and_si512(sum, mask);
  /* Limb i of the 6.5 is bits 64 i ..: the rest of one digit, the next, and for limb 4 a third. */
  __m512i packed = _mm512_or_si512(
      _mm512_srlv_epi64(
          _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 6, 7, 0), sum),
          _mm512_setr_epi64(0, 12, 24, 36, 48, 8, 20, 64)),
      _mm512_sllv_epi64(
          _mm512_permutexvar_epi64(_mm512_setr_epi64(1, 2, 3, 4, 5, 7, 0, 0), sum),
          _mm512_setr_epi64(52, 40, 28, 16, 4, 44, 64, 64)));
  packed = _mm512_or_si512(packed, _mm512_maskz_slli_epi64(
                                       1 << 4, _mm512_alignr_epi64(sum, sum, 2), 56));
  if (left >= 64)
    _mm512_storeu_si512(r, packed);
  else if (left > 0)
    _mm512_mask_storeu_epi8(r, (1ULL << left) - 1, packed);
}

/* Digits j0 <= j < j1 of b for vectors first .. last of four; `a` points at the digit that meets
 * digit 0 of b in the first of the 32 columns. */
static inline __attribute__((always_inline)) void
add_rows(__m512i low[4], __m512i high[4], const uint64_t *a, const uint64_t *b, int64_t j0,
         int64_t j1, const int first, const int last) {
  for (int64_t j = j0; j < j1; j++) {
    __m512i digit = _mm512_set1_epi64(b[j]);
#pragma GCC unroll 4
    for (int v = first; v <= last; v++) {
      __m512i row = _mm512_loadu_si512(a + 8 * v - j);
      low[v] = _mm512_madd52lo_epu64(low[v], row, digit);
      high[v] = _mm512_madd52hi_epu64(high[v], row, digit);
    }
  }
}

/* The same for vector v in rows start[v] <= j < end[v]; both ascend with v. */
static inline __attribute__((always_inline)) void
add_trapezium(__m512i low[4], __m512i high[4], const uint64_t *a, const uint64_t *b,
              const int64_t start[4], const int64_t end[4]) {
  if (start[3] <= end[0]) {
    add_rows(low, high, a, b, start[0], start[1], 0, 0);
    add_rows(low, high, a, b, start[1], start[2], 0, 1);
    add_rows(low, high, a, b, start[2], start[3], 0, 2);
    add_rows(low, high, a, b, start[3], end[0], 0, 3);
    add_rows(low, high, a, b, end[0], end[1], 1, 3);
    add_rows(low, high, a, b, end[1], end[2], 2, 3);
    add_rows(low, high, a, b, end[2], end[3], 3, 3);
  } else { /* narrower than three vectors */
    add_rows(low, high, a, b, start[0], end[0], 0, 0);
    add_rows(low, high, a, b, start[1], end[1], 1, 1);
    add_rows(low, high, a, b, start[2], end[2], 2, 2);
    add_rows(low, high, a, b, start[3], end[3], 3, 3);
  }
}

static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Digits with a vector of zeros below and four above, where rows begin and end inside vectors. */
typedef struct {
  uint64_t below[8];
  uint64_t digits[CL_VECTOR_DIGITS + 32];
} __attribute__((aligned(64))) PaddedDigits;

static inline int64_t split_padded(PaddedDigits *d, const uint64_t *a, int64_t n) {
  int64_t count = digits_of(n);
  _mm512_store_si512(d->below, _mm512_setzero_si512());
  split_digits(d->digits, a, n);
  for (int v = 0; v < 4; v++)
    _mm512_store_si512(d->digits + count + 8 * v, _mm512_setzero_si512());
  return count;
}

/* r[an + bn] = a[an] * b[bn] for an, bn <= CL_VECTOR_LIMBS */
static void mul_vector(uint64_t *r, const uint64_t *a, int64_t an, const uint64_t *b, int64_t bn) {
  PaddedDigits padded;
  uint64_t b_digits[CL_VECTOR_DIGITS] __attribute__((aligned(64)));
  int64_t ad = split_padded(&padded, a, an), bd = digits_of(bn);
  split_digits(b_digits, b, bn);

  Columns state = {_mm512_setzero_si512(), _mm512_setzero_si512(), 0};
  unsigned char *out = (unsigned char *)r;
  int64_t left = 8 * (an + bn);
  for (int64_t column = 0; left > 0; column += 32) {
    __m512i low[4], high[4];
    int64_t start[4], end[4];
    for (int v = 0; v < 4; v++) {
      low[v] = high[v] = _mm512_setzero_si512();
      start[v] = smaller(larger(column + 8 * v - ad + 1, 0), bd);
      end[v] = smaller(column + 8 * v + 8, bd);
    }
    add_trapezium(low, high, padded.digits + column, b_digits, start, end);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++, out += 52, left -= 52)
      store_columns(&state, out, left, low[v], high[v]);
  }
}

/* r[2 n] = a[n] * a[n] for n <= CL_VECTOR_LIMBS: rows j below the diagonal, j < k - j, doubled,
 * and the squares of the digits in the even columns. */
static void sqr_vector(uint64_t *r, const uint64_t *a, int64_t n) {
  PaddedDigits padded;
  const uint64_t *digits = padded.digits;
  int64_t count = split_padded(&padded, a, n);

  Columns state = {_mm512_setzero_si512(), _mm512_setzero_si512(), 0};
  unsigned char *out = (unsigned char *)r;
  int64_t left = 16 * n;
  for (int64_t column = 0; left > 0; column += 32) {
    __m512i low[4], high[4];
    int64_t start[4], end[4];
    for (int v = 0; v < 4; v++) {
      low[v] = high[v] = _mm512_setzero_si512();
      start[v] = larger(column + 8 * v - count + 1, 0);
      end[v] = column / 2 + 4 * v; /* from here on only some lanes are below the diagonal */
    }
    add_trapezium(low, high, digits + column, digits, start, end);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++, out += 52, left -= 52) {
      if (left <= 0)
        break;
      int64_t half = column / 2 + 4 * v;
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        __m512i row = _mm512_maskz_loadu_epi64((__mmask8)(0xfe << 2 * i), digits + half - i);
        __m512i digit = _mm512_set1_epi64(digits[half + i]);
        low[v] = _mm512_madd52lo_epu64(low[v], row, digit);
        high[v] = _mm512_madd52hi_epu64(high[v], row, digit);
      }
      __m512i own = _mm512_maskz_expandloadu_epi64(0x55, digits + half);
      low[v] = _mm512_madd52lo_epu64(_mm512_add_epi64(low[v], low[v]), own, own);
      high[v] = _mm512_madd52hi_epu64(_mm512_add_epi64(high[v], high[v]), own, own);
      store_columns(&state, out, left, low[v], high[v]);
    }
  }
}

#else

static void mul_vector(uint64_t *r, const uint64_t *a, int64_t an, const uint64_t *b, int64_t bn) {
  mul_basecase(r, a, an, b, bn);
}

static void sqr_vector(uint64_t *r, const uint64_t *a, int64_t n) { sqr_basecase(r, a, n); }

#endif
