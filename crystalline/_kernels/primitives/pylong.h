/* Python's int and vectors of 64-bit limbs, both ways, in linear time.
 *
 * An int is a vector of PyLong_SHIFT-bit (30) digits.  From Python 3.14 on they are reached by
 * the public PyLong_Export and PyLongWriter; before that, by the layout of each version.
 * Needs the GIL.
 */
#ifndef CL_PYLONG_H
#define CL_PYLONG_H

#include <Python.h>
#include <stdint.h>
#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif

/* r = d[n] packed, without leading zeros; returns its size, at most (30 n + 63) / 64. */
static int64_t cl_limbs_from_digits(uint64_t *r, const digit *d, int64_t n) {
  int64_t out = 0, i = 0;
  for (; i + 32 <= n; i += 32, out += PyLong_SHIFT / 2) { /* 32 digits are 15 limbs */
    uint64_t word = 0;
    int filled = 0, to = 0;
#pragma GCC unroll 32
    for (int j = 0; j < 32; j++) {
      word |= (uint64_t)d[i + j] << filled;
      filled += PyLong_SHIFT;
      if (filled >= 64) {
        r[out + to++] = word;
        filled -= 64;
        word = (uint64_t)d[i + j] >> (PyLong_SHIFT - filled);
      }
    }
  }
  uint64_t word = 0;
  int filled = 0;
  for (; i < n; i++) {
    word |= (uint64_t)d[i] << filled;
    filled += PyLong_SHIFT;
    if (filled >= 64) {
      r[out++] = word;
      filled -= 64;
      word = (uint64_t)d[i] >> (PyLong_SHIFT - filled);
    }
  }
  if (filled)
    r[out++] = word;
  while (out > 0 && r[out - 1] == 0)
    out--;
  return out;
}

/* d[nd] = a[n] in digits; nd digits hold a. */
static void cl_digits_from_limbs(digit *d, int64_t nd, const uint64_t *a, int64_t n) {
  const uint64_t mask = ((uint64_t)1 << PyLong_SHIFT) - 1;
  int64_t i = 0, from = 0;
  for (; i + 32 <= nd && from + PyLong_SHIFT / 2 <= n; i += 32, from += PyLong_SHIFT / 2) {
#pragma GCC unroll 32
    for (int j = 0; j < 32; j++) {
      const int bit = j * PyLong_SHIFT, limb = bit / 64, offset = bit % 64;
      uint64_t word = a[from + limb] >> offset;
      if (offset + PyLong_SHIFT > 64)
        word |= a[from + limb + 1] << (64 - offset);
      d[i + j] = (digit)(word & mask);
    }
  }
  for (int64_t bit = 0; i < nd; i++, bit += PyLong_SHIFT) {
    int64_t limb = from + bit / 64, offset = bit % 64;
    uint64_t word = limb < n ? a[limb] >> offset : 0;
    if (offset + PyLong_SHIFT > 64 && limb + 1 < n)
      word |= a[limb + 1] << (64 - offset);
    d[i] = (digit)(word & mask);
  }
}

#if PY_VERSION_HEX >= 0x030E0000

/* Limbs that suffice for the int x; -1 with an exception set when it cannot be read. */
static inline int64_t cl_pylong_room(PyObject *x) {
  PyLongExport view;
  if (PyLong_Export(x, &view) < 0)
    return -1;
  int64_t room = view.digits ? (view.ndigits * PyLong_SHIFT + 63) / 64 : 1;
  PyLong_FreeExport(&view);
  return room;
}

/* r = |x|; returns its size; *negative is the sign.  Only after cl_pylong_room(x) succeeded. */
static inline int64_t cl_pylong_read(uint64_t *r, PyObject *x, int *negative) {
  PyLongExport view;
  if (PyLong_Export(x, &view) < 0)
    return -1;
  int64_t n;
  if (view.digits) {
    *negative = view.negative;
    n = cl_limbs_from_digits(r, view.digits, view.ndigits);
  } else {
    *negative = view.value < 0;
    r[0] = view.value < 0 ? -(uint64_t)view.value : (uint64_t)view.value;
    n = r[0] != 0;
  }
  PyLong_FreeExport(&view);
  return n;
}

#else

static inline int64_t cl_pylong_size(PyObject *x, int *negative) {
#if PY_VERSION_HEX >= 0x030C0000
  uintptr_t tag = ((PyLongObject *)x)->long_value.lv_tag;
  *negative = (tag & 3) == 2;
  return (int64_t)(tag >> 3);
#else
  Py_ssize_t size = Py_SIZE(x);
  *negative = size < 0;
  return size < 0 ? -size : size;
#endif
}

static inline digit *cl_pylong_digits(PyObject *x) {
#if PY_VERSION_HEX >= 0x030C0000
  return ((PyLongObject *)x)->long_value.ob_digit;
#else
  return ((PyLongObject *)x)->ob_digit;
#endif
}

static inline int64_t cl_pylong_room(PyObject *x) {
  int negative;
  return (cl_pylong_size(x, &negative) * PyLong_SHIFT + 63) / 64;
}

static inline int64_t cl_pylong_read(uint64_t *r, PyObject *x, int *negative) {
  int64_t n = cl_pylong_size(x, negative);
  const digit *d = cl_pylong_digits(x);
  if (n == 1) {
    r[0] = d[0];
    return d[0] != 0;
  }
  if (n == 2) {
    r[0] = (uint64_t)d[1] << PyLong_SHIFT | d[0];
    return 1;
  }
  return cl_limbs_from_digits(r, d, n);
}

#endif

/* The int of a[n], normalized, and a sign. */
static PyObject *cl_pylong_new(const uint64_t *a, int64_t n, int negative) {
  if (n == 0)
    return PyLong_FromLong(0);
  if (n == 1 && a[0] >> 63 == 0)
    return PyLong_FromLongLong(negative ? -(long long)a[0] : (long long)a[0]);
  int64_t bits = 64 * n - __builtin_clzll(a[n - 1]);
  int64_t digits = (bits + PyLong_SHIFT - 1) / PyLong_SHIFT;
#if PY_VERSION_HEX >= 0x030E0000
  void *d;
  PyLongWriter *writer = PyLongWriter_Create(negative, digits, &d);
  if (writer == NULL)
    return NULL;
  cl_digits_from_limbs(d, digits, a, n);
  return PyLongWriter_Finish(writer);
#else
  PyLongObject *x = _PyLong_New(digits);
  if (x == NULL)
    return NULL;
  cl_digits_from_limbs(cl_pylong_digits((PyObject *)x), digits, a, n);
  if (negative) {
#if PY_VERSION_HEX >= 0x030C0000
    x->long_value.lv_tag = (uintptr_t)digits << 3 | 2;
#else
    Py_SET_SIZE(x, -digits);
#endif
  }
  return (PyObject *)x;
#endif
}

#endif
