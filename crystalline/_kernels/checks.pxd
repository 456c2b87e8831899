# Checks that the Python doors of several kernels share; each raises ValueError.

cdef inline int expect_length(str name, Py_ssize_t got, Py_ssize_t wanted) except -1:
    if got != wanted:
        raise ValueError(f"{name} has {got} elements, expected {wanted}")
    return 0
