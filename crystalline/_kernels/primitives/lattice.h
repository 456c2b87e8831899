/* Rows of a lattice basis: exact row operations, and the sums of floating Gram-Schmidt.
 *
 * Every floating sum runs in one order, lane by lane, without fused multiply-adds, so that every
 * level gives the same bits.
 */
#include "lattice_table.h"

static void row_submul(uint64_t *r, int64_t wr, const uint64_t *a, int64_t wa, int64_t n,
                       uint64_t x, int add, int64_t q) {
  if (wr == 2 && q == 0) {
    u128 factor = add ? x : -(u128)x;
    for (int64_t c = 0; c < n; c++, r += 2, a += wa) {
      u128 entry = wa == 1 ? (u128)(__int128)(int64_t)a[0] : (u128)a[1] << 64 | a[0];
      u128 sum = ((u128)r[1] << 64 | r[0]) + factor * entry;
      r[0] = (uint64_t)sum;
      r[1] = (uint64_t)(sum >> 64);
    }
    return;
  }
  int64_t room = wr - q, common = wa < room ? wa : room;
  r += q;
  for (int64_t c = 0; c < n; c++, r += wr, a += wa) {
    uint64_t sign = (uint64_t)((int64_t)a[wa - 1] >> 63), carry = 0;
    for (int64_t i = 0; i < room; i++) {
      u128 product = (u128)(i < common ? a[i] : sign) * x + carry;
      uint64_t low = (uint64_t)product, old = r[i];
      carry = (uint64_t)(product >> 64);
      if (add) {
        r[i] = old + low;
        carry += r[i] < low;
      } else {
        r[i] = old - low;
        carry += old < low;
      }
    }
  }
}

static void row_submul_64(int64_t *r, const int64_t *a, int64_t n, int64_t x) {
  for (int64_t c = 0; c < n; c++)
    r[c] = (int64_t)((uint64_t)r[c] - (uint64_t)x * (uint64_t)a[c]);
}

static int row_bits_64(const int64_t *a, int64_t n) {
  uint64_t any = 0;
  for (int64_t c = 0; c < n; c++)
    any |= (uint64_t)(a[c] ^ a[c] >> 63);
  if (any)
    return 65 - __builtin_clzll(any); /* -2^k is below 2^(k + 1) only */
  for (int64_t c = 0; c < n; c++)
    if (a[c])
      return 1; /* entries 0 and -1 */
  return 0;
}

#define CL_LANES 8

static void gram_row(double *g, const double *bt, int64_t ld, const double *b, int64_t n,
                     int64_t k) {
  int64_t j = 0;
  for (; j + 4 * CL_LANES <= ld && j < k; j += 4 * CL_LANES) {
    double sum[4 * CL_LANES] = {0};
    for (int64_t c = 0; c < n; c++)
      for (int i = 0; i < 4 * CL_LANES; i++)
        sum[i] += bt[c * ld + j + i] * b[c];
    for (int i = 0; i < 4 * CL_LANES; i++)
      g[j + i] = sum[i];
  }
  for (; j < k; j += CL_LANES) {
    double sum[CL_LANES] = {0};
    for (int64_t c = 0; c < n; c++)
      for (int i = 0; i < CL_LANES; i++)
        sum[i] += bt[c * ld + j + i] * b[c];
    for (int i = 0; i < CL_LANES; i++)
      g[j + i] = sum[i];
  }
}

static void cholesky_row(double *r, double *mu, const double *mut, int64_t ld, const double *rinv,
                         int64_t k) {
  for (int64_t j = 0; j < k; j += CL_LANES) {
    double t[CL_LANES];
    const double *m = mut + j * ld;
    for (int i = 0; i < CL_LANES; i++)
      t[i] = r[j + i];
    int64_t rows = k - j < CL_LANES ? k - j : CL_LANES;
    for (int64_t a = 0; a < rows; a++)
      for (int i = 0; i < CL_LANES; i++)
        t[i] -= m[a * ld + j + i] * t[a];
    for (int i = 0; i < CL_LANES; i++) {
      r[j + i] = t[i];
      mu[j + i] = t[i] * rinv[j + i];
    }
    if (rows < CL_LANES)
      return;
    for (int64_t i = j + CL_LANES; i < k; i += CL_LANES) {
      double sum[CL_LANES];
      for (int l = 0; l < CL_LANES; l++)
        sum[l] = r[i + l];
      for (int a = 0; a < CL_LANES; a++)
        for (int l = 0; l < CL_LANES; l++)
          sum[l] -= m[a * ld + i + l] * t[a];
      for (int l = 0; l < CL_LANES; l++)
        r[i + l] = sum[l];
    }
  }
}

static void axpy(double *y, const double *a, int64_t k, double x) {
  for (int64_t j = 0; j < k; j += CL_LANES)
    for (int i = 0; i < CL_LANES; i++)
      y[j + i] -= x * a[j + i];
}
