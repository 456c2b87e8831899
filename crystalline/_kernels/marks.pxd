# Marks in a lane: what its passes are called, and the door for layers.  See primitives/marks.h.

from libc.stdint cimport int64_t

cdef extern from "marks.h" nogil:
    enum:
        MARK_KINDS, MARK_WORDS, MARK_HEADER
    ctypedef struct Marks:
        const int64_t* on
        int64_t* written
        int64_t* sums
        int64_t* ring
        int64_t mask
        int64_t last
        int64_t unit
    void mark_begin(Marks* m)
    void mark(Marks* m, int kind)
    void mark_span(Marks* m, int64_t begin, int64_t end, int kind, int64_t unit)

# In the order of `PASSES` in marks.pyx.
cdef enum Pass:
    EMBED, NORM, QKV_PASS, ATTENTION, OUT, UP_PASS, ACTIVATION, DOWN, HEAD
    D_NORM, PACKING, D_DOWN, D_ACTIVATION, D_UP, W_DOWN, W_UP
    D_OUT, W_OUT, D_ATTENTION, D_QKV, W_QKV, D_EMBED
    LANE_PASSES

cdef class MarkRow:
    cdef int64_t[::1] _words
    cdef int64_t[::1] _on
    cdef Marks marks
