"""Ctrl-C in the middle of a long exact computation: asked for every few milliseconds."""

from crystalline._kernels.bigint.limbs cimport INTERRUPTED, NO_MEMORY, OK

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept

cdef extern from *:
    """
    #include <stdint.h>
    #include <time.h>
    #define CL_POLL_NS 5000000
    static __thread int64_t cl_polled_ns; /* per thread: only the main one runs handlers */
    static int cl_poll_due(void) {
      struct timespec now;
      clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
      int64_t now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
      if (now_ns - cl_polled_ns < CL_POLL_NS) return 0;
      cl_polled_ns = now_ns;
      return 1;
    }
    """
    int cl_poll_due() noexcept nogil


cdef int _run_handlers() noexcept with gil:
    return INTERRUPTED if PyErr_CheckSignals() else OK


cdef int poll() noexcept nogil:
    return _run_handlers() if cl_poll_due() else OK


cdef int check(int status) except -1:
    if status == NO_MEMORY:
        raise MemoryError("no memory for the intermediate results of exact arithmetic")
    if status == INTERRUPTED:
        return -1  # with the handler's exception
    return 0
