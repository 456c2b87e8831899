/* Vectors of 64-bit limbs: carries, single-limb products, shifts, the schoolbook product. */
#include "limbs_table.h"

typedef unsigned __int128 u128;

static uint64_t add_n(uint64_t *r, const uint64_t *a, const uint64_t *b, int64_t n) {
  unsigned long long carry = 0;
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

static uint64_t mul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  uint64_t carry = 0;
  for (int64_t i = 0; i < n; i++) {
    u128 product = (u128)a[i] * b + carry;
    r[i] = (uint64_t)product;
    carry = (uint64_t)(product >> 64);
  }
  return carry;
}

static uint64_t addmul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  uint64_t carry = 0;
  for (int64_t i = 0; i < n; i++) {
    u128 product = (u128)a[i] * b + r[i] + carry;
    r[i] = (uint64_t)product;
    carry = (uint64_t)(product >> 64);
  }
  return carry;
}

static uint64_t submul_1(uint64_t *r, const uint64_t *a, int64_t n, uint64_t b) {
  uint64_t borrow = 0;
  for (int64_t i = 0; i < n; i++) {
    u128 product = (u128)a[i] * b + borrow;
    uint64_t low = (uint64_t)product;
    borrow = (uint64_t)(product >> 64) + (r[i] < low);
    r[i] -= low;
  }
  return borrow;
}

static uint64_t lshift(uint64_t *r, const uint64_t *a, int64_t n, int count) {
  uint64_t out = a[n - 1] >> (64 - count);
  for (int64_t i = n - 1; i > 0; i--)
    r[i] = a[i] << count | a[i - 1] >> (64 - count);
  r[0] = a[0] << count;
  return out;
}

static uint64_t rshift(uint64_t *r, const uint64_t *a, int64_t n, int count) {
  uint64_t out = a[0] << (64 - count);
  for (int64_t i = 0; i + 1 < n; i++)
    r[i] = a[i] >> count | a[i + 1] << (64 - count);
  r[n - 1] = a[n - 1] >> count;
  return out;
}

static void mul_basecase(uint64_t *r, const uint64_t *a, int64_t an, const uint64_t *b,
                         int64_t bn) {
  r[an] = mul_1(r, a, an, b[0]);
  for (int64_t j = 1; j < bn; j++)
    r[an + j] = addmul_1(r + j, a, an, b[j]);
}
