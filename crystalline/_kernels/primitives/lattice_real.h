/* Entries of a packed row as floating numbers: double, and 113-bit quad (software, IEEE).
 *
 * An entry is rounded with a relative error of at most 2^-51 (double) or 2^-111 (quad).
 */
#ifndef CL_LATTICE_REAL_H
#define CL_LATTICE_REAL_H

#include <math.h>
#include <stdint.h>

typedef _Float128 cl_quad;

static inline double cl_ldexp(double x, int64_t e) {
  return ldexp(x, e > 20000 ? 20000 : e < -20000 ? -20000 : (int)e);
}

static inline cl_quad cl_quad_ldexp(cl_quad x, int64_t e) {
  for (; e >= 1000; e -= 1000)
    x *= (cl_quad)0x1p1000;
  for (; e <= -1000; e += 1000)
    x *= (cl_quad)0x1p-1000;
  return x * (cl_quad)ldexp(1.0, (int)e);
}

/* The top three limbs of |a[w]|, highest first, and the power of 2^64 of the third. */
static inline int cl_top(const uint64_t *a, int64_t w, uint64_t top[3], int64_t *power) {
  uint64_t sign = (uint64_t)((int64_t)a[w - 1] >> 63);
  int64_t t = w - 1;
  while (t > 0 && a[t] == sign)
    t--;
  for (int i = 0; i < 3; i++)
    top[i] = t - i >= 0 ? a[t - i] ^ sign : 0;
  if (sign && t <= 2) { /* the one of the two's complement still shows */
    int low = (int)t;
    for (int i = low; i >= 0; i--)
      if (++top[i])
        break;
    if (!top[0]) { /* -2^(64 (t + 1)) */
      top[0] = 1;
      t++;
    }
  }
  *power = t - 2;
  return (int)(sign & 1);
}

static inline double cl_entry_double(const uint64_t *a, int64_t w, int64_t e) {
  if (w == 1) {
    double x = (double)(int64_t)a[0];
    return e ? cl_ldexp(x, -e) : x;
  }
  uint64_t top[3];
  int64_t power;
  int negative = cl_top(a, w, top, &power);
  double x = (double)top[0] * 0x1p64 + (double)top[1];
  x = cl_ldexp(x, 64 * (power + 1) - e);
  return negative ? -x : x;
}

static inline cl_quad cl_entry_quad(const uint64_t *a, int64_t w, int64_t e) {
  uint64_t top[3];
  int64_t power;
  int negative = cl_top(a, w, top, &power);
  cl_quad x = ((cl_quad)top[0] * (cl_quad)0x1p64 + (cl_quad)top[1]) * (cl_quad)0x1p64 +
              (cl_quad)top[2];
  x = cl_quad_ldexp(x, 64 * power - e);
  return negative ? -x : x;
}

#endif
