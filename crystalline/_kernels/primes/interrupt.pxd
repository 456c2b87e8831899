# Ctrl-C inside long calls: a kernel that may run for a second or more asks every few milliseconds.

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1


cdef inline int check_signals() except -1 nogil:
    """Run pending signal handlers; -1 and the exception set when one of them raised."""
    with gil:
        return PyErr_CheckSignals()
