/* Vectors of 64-bit limbs: carries, single-limb products, shifts, the schoolbook product.
 *
 * Plain C at the base level; carry chains in assembly on x86-64 (gcc loses the carry flag between
 * iterations), two of them at once where the level has ADX.  Products in 52-bit digits are in
 * limbs_ifma.h.
 */
#include "limbs_table.h"

typedef unsigned __int128 u128;

#if defined(CL_AVX512)
#define CL_ADX
#endif

/* Sums and differences */

#if defined(__x86_64__)

/* Four limbs an iteration; dec and lea leave the carry flag alone. */
#define CL_CARRY_LOOP(op)                                                                        \
  uint64_t carry, t0, t1, t2, t3;                                                                \
  int64_t blocks = n >> 2, rest = n & 3;                                                         \
  __asm__ volatile(                                                                              \
      "xor %k[carry], %k[carry]\n\t" /* clears the flag */                                       \
      "test %[blocks], %[blocks]\n\t"                                                            \
      "jz 2f\n\t"                                                                                \
      ".p2align 4\n"                                                                             \
      "1:\n\t"                                                                                   \
      "mov (%[a]), %[t0]\n\t"                                                                    \
      "mov 8(%[a]), %[t1]\n\t"                                                                   \
      "mov 16(%[a]), %[t2]\n\t"                                                                  \
      "mov 24(%[a]), %[t3]\n\t"                                                                  \
      "lea 32(%[a]), %[a]\n\t" op " (%[b]), %[t0]\n\t" op " 8(%[b]), %[t1]\n\t" op               \
      " 16(%[b]), %[t2]\n\t" op " 24(%[b]), %[t3]\n\t"                                           \
      "lea 32(%[b]), %[b]\n\t"                                                                   \
      "mov %[t0], (%[r])\n\t"                                                                    \
      "mov %[t1], 8(%[r])\n\t"                                                                   \
      "mov %[t2], 16(%[r])\n\t"                                                                  \
      "mov %[t3], 24(%[r])\n\t"                                                                  \
      "lea 32(%[r]), %[r]\n\t"                                                                   \
      "dec %[blocks]\n\t"                                                                        \
      "jnz 1b\n"                                                                                 \
      "2:\n\t"                                                                                   \
      "inc %[rest]\n\t"                                                                          \
      "dec %[rest]\n\t"                                                                          \
      "jz 4f\n"                                                                                  \
      "3:\n\t"                                                                                   \
      "mov (%[a]), %[t0]\n\t"                                                                    \
      "lea 8(%[a]), %[a]\n\t" op " (%[b]), %[t0]\n\t"                                            \
      "lea 8(%[b]), %[b]\n\t"                                                                    \
      "mov %[t0], (%[r])\n\t"                                                                    \
      "lea 8(%[r]), %[r]\n\t"                                                                    \
      "dec %[rest]\n\t"                                                                          \
      "jnz 3b\n"                                                                                 \
      "4:\n\t"                                                                                   \
      "adc %[carry], %[carry]\n\t"                                                               \
      : [carry] "=&r"(carry), [t0] "=&r"(t0), [t1] "=&r"(t1), [t2] "=&r"(t2), [t3] "=&r"(t3),    \
        [r] "+r"(r), [a] "+r"(a), [b] "+r"(b), [blocks] "+r"(blocks), [rest] "+r"(rest)          \
      :                                                                                          \
      : "cc", "memory");                                                                         \
  return carry

static uint64_t add_n(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t n) {
  CL_CARRY_LOOP("adc");
}

static uint64_t sub_n(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t n) {
  CL_CARRY_LOOP("sbb");
}

#else

static uint64_t add_n(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t n) {
  uint64_t carry = 0;
  for (int64_t i = 0; i < n; i++) {
    u128 sum = (u128)a[i] + b[i] + carry;
    r[i] = (uint64_t)sum;
    carry = (uint64_t)(sum >> 64);
  }
  return carry;
}

static uint64_t sub_n(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t n) {
  uint64_t borrow = 0;
  for (int64_t i = 0; i < n; i++) {
    u128 difference = (u128)a[i] - b[i] - borrow;
    r[i] = (uint64_t)difference;
    borrow = (uint64_t)(difference >> 64) & 1;
  }
  return borrow;
}

#endif

/* Products by one limb */

#if defined(CL_ADX)

/* One limb: the low half takes the high half before it by the carry flag (adcx) and the limb of r
 * by the overflow flag (adox); mov, lea, not and jrcxz leave both alone.  submul runs on the
 * complement: r - p = ~(~r + p). */
#define CL_ROW_MUL(at, from, to)                                                                 \
  "mulx " at "(%[a]), %[lo], %[" to "]\n\t"                                                      \
  "adcx %[" from "], %[lo]\n\t"                                                                  \
  "mov %[lo], " at "(%[r])\n\t"
#define CL_ROW_ADDMUL(at, from, to)                                                              \
  "mulx " at "(%[a]), %[lo], %[" to "]\n\t"                                                      \
  "adcx %[" from "], %[lo]\n\t"                                                                  \
  "adox " at "(%[r]), %[lo]\n\t"                                                                 \
  "mov %[lo], " at "(%[r])\n\t"
#define CL_ROW_SUBMUL(at, from, to)                                                              \
  "mov " at "(%[r]), %[t]\n\t"                                                                   \
  "mulx " at "(%[a]), %[lo], %[" to "]\n\t"                                                      \
  "not %[t]\n\t"                                                                                 \
  "adcx %[" from "], %[lo]\n\t"                                                                  \
  "adox %[t], %[lo]\n\t"                                                                         \
  "not %[lo]\n\t"                                                                                \
  "mov %[lo], " at "(%[r])\n\t"

/* n = 8 blocks + rest; the rest first, an odd limb and pairs, then eight limbs an iteration. */
#define CL_ROW_LOOP(ROW)                                                                         \
  uint64_t h0 = 0, h1 = 0, lo, t;                                                                \
  int64_t blocks = n >> 3, pairs = (n & 7) >> 1;                                                 \
  __asm__ volatile(                                                                              \
      "test $1, %[n]\n\t" /* clears both flags */                                                \
      "jz 1f\n\t" ROW("0", "h0", "h1")                                                           \
      "mov %[h1], %[h0]\n\t"                                                                     \
      "lea 8(%[a]), %[a]\n\t"                                                                    \
      "lea 8(%[r]), %[r]\n"                                                                      \
      "1:\n\t"                                                                                   \
      "jrcxz 3f\n"                                                                               \
      "2:\n\t" ROW("0", "h0", "h1") ROW("8", "h1", "h0")                                         \
      "lea 16(%[a]), %[a]\n\t"                                                                   \
      "lea 16(%[r]), %[r]\n\t"                                                                   \
      "lea -1(%%rcx), %%rcx\n\t"                                                                 \
      "jrcxz 3f\n\t"                                                                             \
      "jmp 2b\n"                                                                                 \
      "3:\n\t"                                                                                   \
      "mov %[blocks], %%rcx\n\t"                                                                 \
      "jrcxz 6f\n\t" /* which reaches 127 bytes only */                                         \
      "jmp 4f\n"                                                                                 \
      "6:\n\t"                                                                                   \
      "jmp 5f\n\t"                                                                               \
      ".p2align 5\n"                                                                             \
      "4:\n\t" ROW("0", "h0", "h1") ROW("8", "h1", "h0") ROW("16", "h0", "h1")                   \
          ROW("24", "h1", "h0") ROW("32", "h0", "h1") ROW("40", "h1", "h0")                      \
              ROW("48", "h0", "h1") ROW("56", "h1", "h0")                                        \
      "lea 64(%[a]), %[a]\n\t"                                                                   \
      "lea 64(%[r]), %[r]\n\t"                                                                   \
      "lea -1(%%rcx), %%rcx\n\t"                                                                 \
      "jrcxz 5f\n\t"                                                                             \
      "jmp 4b\n"                                                                                 \
      "5:\n\t"                                                                                   \
      "mov $0, %k[lo]\n\t"                                                                       \
      "adcx %[lo], %[h0]\n\t"                                                                    \
      "adox %[lo], %[h0]\n\t"                                                                    \
      : [h0] "+&r"(h0), [h1] "+&r"(h1), [lo] "=&r"(lo), [t] "=&r"(t), [r] "+&r"(r), [a] "+&r"(a), \
        "+&c"(pairs)                                                                              \
      : [n] "r"(n), [blocks] "r"(blocks), "d"(b)                                                 \
      : "cc", "memory");                                                                         \
  return h0

static uint64_t mul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  CL_ROW_LOOP(CL_ROW_MUL);
}

static uint64_t addmul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  CL_ROW_LOOP(CL_ROW_ADDMUL);
}

static uint64_t submul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  CL_ROW_LOOP(CL_ROW_SUBMUL);
}

#else

static uint64_t mul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  uint64_t carry = 0;
#pragma GCC unroll 4
  for (int64_t i = 0; i < n; i++) {
    u128 product = (u128)a[i] * b + carry;
    r[i] = (uint64_t)product;
    carry = (uint64_t)(product >> 64);
  }
  return carry;
}

static uint64_t addmul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  uint64_t carry = 0;
#pragma GCC unroll 4
  for (int64_t i = 0; i < n; i++) {
    u128 product = (u128)a[i] * b + r[i] + carry;
    r[i] = (uint64_t)product;
    carry = (uint64_t)(product >> 64);
  }
  return carry;
}

static uint64_t submul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  uint64_t borrow = 0;
#pragma GCC unroll 4
  for (int64_t i = 0; i < n; i++) {
    u128 product = (u128)a[i] * b + borrow;
    uint64_t low = (uint64_t)product, limb = r[i];
    borrow = (uint64_t)(product >> 64) + (limb < low);
    r[i] = limb - low;
  }
  return borrow;
}

#endif

/* Shifts: whole vectors from the end that in-place work may overwrite first */

static uint64_t lshift(uint64_t *r, const uint64_t *a, int64_t n, int count) {
  uint64_t out = a[n - 1] >> (64 - count);
  int64_t i = n - 1; /* r[i + 1 ..] is done */
#if defined(CL_AVX512)
  __m128i left = _mm_cvtsi32_si128(count), right = _mm_cvtsi32_si128(64 - count);
  for (; i >= 8; i -= 8) {
    __m512i high = _mm512_loadu_si512(a + i - 7), low = _mm512_loadu_si512(a + i - 8);
    _mm512_storeu_si512(r + i - 7, _mm512_or_si512(_mm512_sll_epi64(high, left),
                                                   _mm512_srl_epi64(low, right)));
  }
#elif defined(CL_AVX2)
  __m128i left = _mm_cvtsi32_si128(count), right = _mm_cvtsi32_si128(64 - count);
  for (; i >= 4; i -= 4) {
    __m256i high = _mm256_loadu_si256((const __m256i *)(a + i - 3));
    __m256i low = _mm256_loadu_si256((const __m256i *)(a + i - 4));
    _mm256_storeu_si256((__m256i *)(r + i - 3), _mm256_or_si256(_mm256_sll_epi64(high, left),
                                                                _mm256_srl_epi64(low, right)));
  }
#endif
  for (; i > 0; i--)
    r[i] = a[i] << count | a[i - 1] >> (64 - count);
  r[0] = a[0] << count;
  return out;
}

static uint64_t rshift(uint64_t *r, const uint64_t *a, int64_t n, int count) {
  uint64_t out = a[0] << (64 - count);
  int64_t i = 0; /* r[.. i] is done */
#if defined(CL_AVX512)
  __m128i left = _mm_cvtsi32_si128(64 - count), right = _mm_cvtsi32_si128(count);
  for (; i + 8 < n; i += 8) {
    __m512i low = _mm512_loadu_si512(a + i), high = _mm512_loadu_si512(a + i + 1);
    _mm512_storeu_si512(r + i, _mm512_or_si512(_mm512_srl_epi64(low, right),
                                               _mm512_sll_epi64(high, left)));
  }
#elif defined(CL_AVX2)
  __m128i left = _mm_cvtsi32_si128(64 - count), right = _mm_cvtsi32_si128(count);
  for (; i + 4 < n; i += 4) {
    __m256i low = _mm256_loadu_si256((const __m256i *)(a + i));
    __m256i high = _mm256_loadu_si256((const __m256i *)(a + i + 1));
    _mm256_storeu_si256((__m256i *)(r + i), _mm256_or_si256(_mm256_srl_epi64(low, right),
                                                            _mm256_sll_epi64(high, left)));
  }
#endif
  for (; i + 1 < n; i++)
    r[i] = a[i] >> count | a[i + 1] << (64 - count);
  r[n - 1] = a[n - 1] >> count;
  return out;
}

/* Schoolbook products */

#if defined(CL_ADX)

/* Rows of a fixed length N: the N + 1 limbs of the sum that a row may change stay in registers. */
#define CL_WINDOW(at, low, high)                                                                 \
  "mulx " #at "(%[a]), %[lo], %[hi]\n\t"                                                         \
  "adcx %[lo], %[w" #low "]\n\t"                                                                 \
  "adox %[hi], %[w" #high "]\n\t"
#define CL_REG(k) [w##k] "+&r"(w##k)
#define CL_WINDOWS_1 CL_WINDOW(0, 0, 1)
#define CL_WINDOWS_2 CL_WINDOWS_1 CL_WINDOW(8, 1, 2)
#define CL_WINDOWS_3 CL_WINDOWS_2 CL_WINDOW(16, 2, 3)
#define CL_WINDOWS_4 CL_WINDOWS_3 CL_WINDOW(24, 3, 4)
#define CL_WINDOWS_5 CL_WINDOWS_4 CL_WINDOW(32, 4, 5)
#define CL_WINDOWS_6 CL_WINDOWS_5 CL_WINDOW(40, 5, 6)
#define CL_WINDOWS_7 CL_WINDOWS_6 CL_WINDOW(48, 6, 7)
#define CL_WINDOWS_8 CL_WINDOWS_7 CL_WINDOW(56, 7, 8)
#define CL_REGS_1 CL_REG(0), CL_REG(1)
#define CL_REGS_2 CL_REGS_1, CL_REG(2)
#define CL_REGS_3 CL_REGS_2, CL_REG(3)
#define CL_REGS_4 CL_REGS_3, CL_REG(4)
#define CL_REGS_5 CL_REGS_4, CL_REG(5)
#define CL_REGS_6 CL_REGS_5, CL_REG(6)
#define CL_REGS_7 CL_REGS_6, CL_REG(7)
#define CL_REGS_8 CL_REGS_7, CL_REG(8)
#define CL_DOWN_1 w0 = w1;
#define CL_DOWN_2 CL_DOWN_1 w1 = w2;
#define CL_DOWN_3 CL_DOWN_2 w2 = w3;
#define CL_DOWN_4 CL_DOWN_3 w3 = w4;
#define CL_DOWN_5 CL_DOWN_4 w4 = w5;
#define CL_DOWN_6 CL_DOWN_5 w5 = w6;
#define CL_DOWN_7 CL_DOWN_6 w6 = w7;
#define CL_DOWN_8 CL_DOWN_7 w7 = w8;

/* r[N + bn] = a[N] * b[bn] */
#define CL_FIXED(N)                                                                              \
  static void mul_fixed_##N(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t bn) {     \
    uint64_t w0 = 0, w1 = 0, w2 = 0, w3 = 0, w4 = 0, w5 = 0, w6 = 0, w7 = 0, lo, hi;             \
    uint64_t w8 __attribute__((unused)) = 0;                                                     \
    int64_t j = 0;                                                                               \
    for (;;) {                                                                                   \
      __asm__("test %%eax, %%eax\n\t" CL_WINDOWS_##N                                             \
              "mov $0, %k[lo]\n\t"                                                               \
              "adcx %[lo], %[w" #N "]\n\t"                                                       \
              : CL_REGS_##N, [lo] "=&r"(lo), [hi] "=&r"(hi)                                      \
              : [a] "r"(a), "d"(b[j]), "m"(*(const uint64_t(*)[N])a)                             \
              : "cc");                                                                           \
      r[j] = w0;                                                                                 \
      CL_DOWN_##N;                                                                               \
      if (++j == bn)                                                                             \
        break;                                                                                   \
      w##N = 0;                                                                                  \
    }                                                                                            \
    const uint64_t top[8] = {w0, w1, w2, w3, w4, w5, w6, w7};                                    \
    for (int k = 0; k < N; k++)                                                                  \
      r[bn + k] = top[k];                                                                        \
  }

#else

#define CL_FIXED(N)                                                                              \
  static void mul_fixed_##N(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t bn) {     \
    uint64_t w[N] = {0};                                                                         \
    for (int64_t j = 0; j < bn; j++) {                                                           \
      u128 t = (u128)a[0] * b[j] + w[0];                                                         \
      r[j] = (uint64_t)t;                                                                        \
      _Pragma("GCC unroll 8") for (int k = 1; k < N; k++) {                                      \
        t = (u128)a[k] * b[j] + w[k] + (uint64_t)(t >> 64);                                      \
        w[k - 1] = (uint64_t)t;                                                                  \
      }                                                                                          \
      w[N - 1] = (uint64_t)(t >> 64);                                                            \
    }                                                                                            \
    for (int k = 0; k < N; k++)                                                                  \
      r[bn + k] = w[k];                                                                          \
  }

#endif

CL_FIXED(1)
CL_FIXED(2)
CL_FIXED(3)
CL_FIXED(4)
CL_FIXED(5)
CL_FIXED(6)
CL_FIXED(7)
CL_FIXED(8)

static void mul_basecase(uint64_t *r, const uint64_t *a, int64_t an, const uint64_t *b,
                         int64_t bn) {
  switch (an) {
  case 1: mul_fixed_1(r, a, b, bn); return;
  case 2: mul_fixed_2(r, a, b, bn); return;
  case 3: mul_fixed_3(r, a, b, bn); return;
  case 4: mul_fixed_4(r, a, b, bn); return;
  case 5: mul_fixed_5(r, a, b, bn); return;
  case 6: mul_fixed_6(r, a, b, bn); return;
  case 7: mul_fixed_7(r, a, b, bn); return;
  case 8: mul_fixed_8(r, a, b, bn); return;
  }
  r[an] = mul_1(r, a, an, b[0]);
  for (int64_t j = 1; j < bn; j++)
    r[an + j] = addmul_1(r + j, a, an, b[j]);
}

/* r[2 n] = a[n] * a[n]: the products above the diagonal once, doubled, and the diagonal added. */
static void sqr_basecase(uint64_t *r, const uint64_t *a, int64_t n) {
  if (n <= 8) {
    mul_basecase(r, a, n, a, n);
    return;
  }
  r[0] = 0;
  r[n] = mul_1(r + 1, a + 1, n - 1, a[0]);
  for (int64_t j = 1; j < n - 1; j++)
    r[n + j] = addmul_1(r + 2 * j + 1, a + j + 1, n - 1 - j, a[j]);
  r[2 * n - 1] = 0;
  uint64_t top = 0, carry = 0;
  for (int64_t i = 0; i < n; i++) {
    u128 square = (u128)a[i] * a[i];
    uint64_t low = r[2 * i], high = r[2 * i + 1];
    u128 sum = (u128)(low << 1 | top) + (uint64_t)square + carry;
    top = high >> 63;
    r[2 * i] = (uint64_t)sum;
    sum = (u128)(high << 1 | low >> 63) + (uint64_t)(square >> 64) + (uint64_t)(sum >> 64);
    r[2 * i + 1] = (uint64_t)sum;
    carry = (uint64_t)(sum >> 64);
  }
}
