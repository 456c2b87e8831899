"""Atomic 64-bit words in shared memory, futexes on them, and process-death signals.

`Words` is the door for Python: an array of int64 whose elements are C atomics
(sequentially consistent).  What the words mean is left to `crystalline.ipc`.
Waiting releases the GIL and returns on a signal, so that Python's handlers run.
"""

from libc.errno cimport ETIMEDOUT, errno
from libc.signal cimport SIG_DFL, SIG_IGN, SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGTERM, signal
from libc.stdint cimport int64_t, uintptr_t
from libc.stdio cimport snprintf

import os

cdef extern from "atomics.h":
    int PR_SET_PDEATHSIG
    int PR_SET_NAME
    int PR_SET_CHILD_SUBREAPER
    int PR_GET_CHILD_SUBREAPER
    int prctl(int option, ...)

cdef extern from "<unistd.h>" nogil:
    int fork()
    int getpid()
    int getppid()
    void _exit(int)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int SIG_UNBLOCK
    int sigemptyset(sigset_t *)
    int sigaddset(sigset_t *, int)
    int sigprocmask(int, const sigset_t *, sigset_t *)


cdef class Words:
    """Atomic doors to a contiguous, writable array of int64.

    An index outside the array raises `IndexError`; negative ones do not wrap.

    >>> import numpy as np
    >>> words = Words(np.zeros(4, np.int64))
    >>> words.fetch_add(2, 5), words.load(2), words.compare_exchange(2, 5, 7), words.load(2)
    (0, 5, True, 7)
    """

    def __cinit__(self, int64_t[::1] view not None):
        self.view = view
        self.size = view.shape[0]
        self.words__n = &view[0] if self.size else NULL
        if <uintptr_t>self.words__n % sizeof(int64_t):
            raise ValueError("atomic words must be aligned to 8 bytes")

    cdef int64_t *at(self, Py_ssize_t index) except NULL:
        if index < 0 or index >= self.size:
            raise IndexError(f"word {index} of {self.size}")
        return self.words__n + index

    def load(self, Py_ssize_t index):
        """Return a word."""
        return word_load(self.at(index))

    def store(self, Py_ssize_t index, int64_t value):
        """Set a word."""
        word_store(self.at(index), value)

    def put(self, Py_ssize_t index, int64_t value):
        """Set a word whole, in no order with others: for statistics."""
        word_store_relaxed(self.at(index), value)

    def bump(self, Py_ssize_t index, int64_t amount):
        """Add to a word that only the caller writes: for statistics."""
        cdef int64_t *w = self.at(index)
        word_store_relaxed(w, word_load_relaxed(w) + amount)

    def compare_exchange(self, Py_ssize_t index, int64_t expected, int64_t value):
        """Set a word to `value` if it holds `expected`; return whether it did."""
        return bool(word_compare_exchange(self.at(index), expected, value))

    def fetch_add(self, Py_ssize_t index, int64_t amount):
        """Add to a word; return what it held before."""
        return word_fetch_add(self.at(index), amount)

    def first_below(self, Py_ssize_t start, Py_ssize_t stop, int64_t bound):
        """Return the index of the first word of [start, stop) below `bound`, or -1."""
        self._check_range(start, stop)
        return words_first_below(self.words__n, start, stop, bound)

    def claim_below(self, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t stride,
                    int64_t bound, int64_t value):
        """Set the first word below `bound` among start, start + stride, … < stop to `value`.

        Returns its index, or -1.  The exchange is atomic: of several callers, one gets it.
        """
        self._check_range(start, stop)
        if stride < 1:
            raise ValueError(f"stride is {stride}")
        return words_claim_below(self.words__n, start, stop, stride, bound, value)

    def spin(self, Py_ssize_t index, int64_t value, int64_t max_ns):
        """Spin until a word differs from `value`; return False when `max_ns` pass first."""
        cdef int64_t *w = self.at(index)
        cdef int changed
        with nogil:
            changed = word_spin_until_not_equal(w, value, max_ns)
        return bool(changed)

    def wait(self, Py_ssize_t index, int64_t value, int64_t timeout_ns):
        """Sleep on a word while its low half equals that of `value`.

        Returns False on a timeout; True when woken, when the word differs, or on a
        signal (so look again at what was waited for).
        """
        cdef int64_t *w = self.at(index)
        cdef int rc
        if timeout_ns < 0:
            raise ValueError(f"timeout_ns is {timeout_ns}")
        with nogil:
            rc = word_futex_wait(w, value, timeout_ns)
        return rc != ETIMEDOUT

    def wake(self, Py_ssize_t index, int count):
        """Wake at most `count` processes that sleep on a word, in the order they lay down.

        Returns how many were woken.
        """
        return word_futex_wake(self.at(index), count)

    cdef int _check_range(self, Py_ssize_t start, Py_ssize_t stop) except -1:
        if start < 0 or stop > self.size:
            raise IndexError(f"words {start} to {stop} of {self.size}")
        return 0


def monotonic_ns():
    """Return CLOCK_MONOTONIC in nanoseconds: the same clock in all processes."""
    return monotonic_ns_now()


def die_with_parent(int signal_number):
    """Ask for `signal_number` when the thread that started this process ends (0: ask no more).

    The parent may have died before the call: compare `os.getppid()` afterwards.
    """
    _prctl(PR_SET_PDEATHSIG, signal_number)


def adopt_orphans(bint adopt):
    """Become the parent of descendants whose own parent dies, or stop being it.

    Returns whether this process was so before.
    """
    cdef int before = 0
    if prctl(PR_GET_CHILD_SUBREAPER, <unsigned long><uintptr_t>&before, 0UL, 0UL, 0UL) != 0:
        raise OSError(errno, os.strerror(errno))
    _prctl(PR_SET_CHILD_SUBREAPER, adopt)
    return bool(before)


def set_process_name(str name):
    """Name this process for `ps` and `top` (15 bytes are kept)."""
    cdef bytes raw = name.encode()
    cdef const char *text = raw
    _prctl(PR_SET_NAME, <unsigned long><uintptr_t>text)


def fork_workers(str name, const int[::1] numbers not None, int[::1] pids not None,
                 bint die_with_parent):
    """Fork once per element and write the child's pid there; return the place in each child.

    Child i is called `name`-`numbers[i]`, dies with its parent if so wanted, ignores SIGINT,
    SIGTERM and SIGHUP, and blocks none of them.  In the parent it returns -1 minus the number of
    children; where that is less than asked, a fork has failed, and its errno is in the next
    element.

    Nothing of Python runs between two forks nor in a child before the return (no hooks of
    `os.register_at_fork` either): every page that is written in between is copied once per child.
    So there must be no other thread, which could hold a lock that the children then wait for.
    """
    cdef bytes raw = name.encode()
    cdef const char *text = raw
    cdef char called[16]
    cdef sigset_t signals
    cdef int i, pid, parent = getpid()
    if numbers.shape[0] != pids.shape[0]:
        raise ValueError(f"{numbers.shape[0]} numbers for {pids.shape[0]} processes")
    for i in range(<int>pids.shape[0]):
        pid = fork()
        if pid > 0:
            pids[i] = pid
            continue
        if pid < 0:
            pids[i] = errno
            return -1 - i
        signal(SIGINT, SIG_IGN)
        signal(SIGTERM, SIG_IGN)
        signal(SIGHUP, SIG_IGN)
        sigemptyset(&signals)
        sigaddset(&signals, SIGINT)
        sigaddset(&signals, SIGTERM)
        sigaddset(&signals, SIGHUP)
        sigprocmask(SIG_UNBLOCK, &signals, NULL)
        signal(SIGCHLD, SIG_DFL)
        if die_with_parent:
            prctl(PR_SET_PDEATHSIG, <unsigned long>SIGKILL, 0UL, 0UL, 0UL)
            if getppid() != parent:
                _exit(1)
        snprintf(called, sizeof(called), "%s-%d", text, numbers[i])
        prctl(PR_SET_NAME, <unsigned long><uintptr_t>called, 0UL, 0UL, 0UL)
        return i
    return -1 - pids.shape[0]


cdef int _prctl(int option, unsigned long argument) except -1:
    if prctl(option, argument, <unsigned long>0, <unsigned long>0, <unsigned long>0) != 0:
        raise OSError(errno, os.strerror(errno))
    return 0
