/* BigInt's memory: one block a value, and blocks of a few limbs kept for the next value.
 *
 * Cython has no classes of variable size, so the slots that make and free objects are these;
 * cl_bigint_install sets them.  Needs the GIL.
 */
#ifndef CL_BIGINT_OBJECT_H
#define CL_BIGINT_OBJECT_H

#include <Python.h>
#include <stdint.h>

typedef struct {
  PyObject_HEAD
  Py_ssize_t size;
  uint64_t *limbs;
} cl_bigint;

/* Blocks by size class, the least of 1, 3, 5, 9 and 17 limbs that holds n.  A block kept for a
 * class has at least its room. */
#define CL_CLASSES 5
#define CL_SMALL 17
#define CL_KEPT 64
static const unsigned char cl_class_of[CL_SMALL + 1] = {0, 0, 1, 1, 2, 2, 3, 3, 3,
                                                        3, 4, 4, 4, 4, 4, 4, 4, 4};
static const unsigned char cl_class_limbs[CL_CLASSES] = {1, 3, 5, 9, 17};
static PyObject *cl_kept[CL_CLASSES][CL_KEPT];
static int cl_kept_count[CL_CLASSES];

/* An object of size n with room for n limbs behind it. */
static PyObject *cl_bigint_take(PyTypeObject *type, Py_ssize_t n) {
  PyObject *x;
  if (n <= CL_SMALL) {
    int class = cl_class_of[n];
    if (cl_kept_count[class])
      x = cl_kept[class][--cl_kept_count[class]];
    else
      x = PyObject_Malloc(sizeof(cl_bigint) + 8 * cl_class_limbs[class]);
  } else {
    x = PyObject_Malloc(sizeof(cl_bigint) + 8 * (size_t)n);
  }
  if (x == NULL)
    return PyErr_NoMemory();
  (void)PyObject_INIT(x, type);
  ((cl_bigint *)x)->size = n;
  ((cl_bigint *)x)->limbs = (uint64_t *)((cl_bigint *)x + 1);
  return x;
}

static void cl_bigint_free(PyObject *x) {
  Py_ssize_t size = ((cl_bigint *)x)->size;
  size_t n = size < 0 ? -size : size;
  if (n <= CL_SMALL) {
    int class = cl_class_of[n];
    if (cl_kept_count[class] < CL_KEPT) {
      cl_kept[class][cl_kept_count[class]++] = x;
      return;
    }
  }
  PyObject_Free(x);
}

/* Sets the slots: construction, its fast form, destruction, and the ternary power, which has to
 * answer where only the modulus is ours.  Returns -1 where Cython laid the type out otherwise. */
static int cl_bigint_install(PyTypeObject *type, newfunc construct,
                             PyObject *(*call)(PyObject *, PyObject **, size_t, PyObject *),
                             ternaryfunc power) {
  if (type->tp_basicsize != sizeof(cl_bigint) ||
      type->tp_flags & (Py_TPFLAGS_HEAPTYPE | Py_TPFLAGS_HAVE_GC)) {
    PyErr_SetString(PyExc_SystemError, "BigInt was not compiled as a static type of plain data");
    return -1;
  }
  type->tp_new = construct;
  type->tp_vectorcall = (vectorcallfunc)call;
  type->tp_dealloc = cl_bigint_free;
  type->tp_as_number->nb_power = power;
  PyType_Modified(type);
  return 0;
}

#endif
