# C doors to atomic words; `Words` in atomics.pyx is the Python door.

from libc.stdint cimport int64_t

cdef extern from "atomics.h" nogil:
    int64_t word_load(const int64_t *w)
    int64_t word_load_relaxed(const int64_t *w)
    void word_store(int64_t *w, int64_t value)
    void word_store_relaxed(int64_t *w, int64_t value)
    int word_compare_exchange(int64_t *w, int64_t expected, int64_t value)
    int64_t word_fetch_add(int64_t *w, int64_t amount)
    int64_t monotonic_ns_now()
    int word_futex_wait(int64_t *w, int64_t expected, int64_t timeout_ns)
    long word_futex_wake(int64_t *w, int count)
    int word_spin_until_not_equal(const int64_t *w, int64_t value, int64_t max_ns)
    int64_t words_first_below(const int64_t *w, int64_t start, int64_t stop, int64_t bound)
    int64_t words_claim_below(int64_t *w, int64_t start, int64_t stop, int64_t stride,
                              int64_t bound, int64_t value)

cdef class Words:
    cdef int64_t[::1] view  # keeps the memory alive
    cdef int64_t *words__n
    cdef readonly Py_ssize_t size
    cdef int64_t *at(self, Py_ssize_t index) except NULL
    cdef int _check_range(self, Py_ssize_t start, Py_ssize_t stop) except -1
