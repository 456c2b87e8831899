"""Sums of gradients in place, while lanes are still computed: buffer += buffer, block by block.

A merge is a node of the tree of sums (see `crystalline.train.sums`), or a part of one: a slice of
two buffers.  The left one becomes the sum, the right one is then free for another lane.  As in
`update`, a block is copied to the undo area of the permit before it changes, and the merge's
progress word says how many blocks are done, so that a merge cut off anywhere is taken up again by
whoever claims it next, and ends in the same bits.

    progress word of a merge   (step + 1) << 32 | blocks done in that step
        written by the merge's claimant; Node Zero only reads it, when the claimant is dead
    undo area of a permit      see `undo.pxd`; word 1 is -1 - the merge's number
        written by the permit's holder; voided by whoever buries it
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from crystalline._kernels.atomics cimport word_load
from crystalline._kernels.isa cimport primitives
from crystalline.model.undo cimport HEADER, cl_store_release

cdef enum:
    BLOCK = 512         # floats that change between two marks: with their copy they stay in L1
    PROGRESS_BITS = 32


cdef class Merges:
    """The merges of a run.

    Parameters
    ----------
    buffers : float32 [buffers, size], gradients and sums of them (INOUT)
    undo : int64 [permits, words], zero at the start
    progress : int64 [merges], zero at the start

    >>> import numpy as np
    >>> buffers = np.float32([[1, 2, 3], [10, 20, 30]])
    >>> merges = Merges(buffers, np.zeros((1, 264), np.int64), np.zeros(1, np.int64))
    >>> merges.merge(0, 0, 1, 1, 3, 0, 0)
    >>> buffers[0].tolist()
    [1.0, 22.0, 33.0]
    """

    cdef float[:, ::1] _buffers
    cdef int64_t[:, ::1] _undo
    cdef int64_t[::1] _progress

    def __init__(self, float[:, ::1] buffers, int64_t[:, ::1] undo, int64_t[::1] progress):
        if undo.shape[1] < HEADER + BLOCK // 2:
            raise ValueError(f"undo has {undo.shape[1]} words, a merge needs {HEADER + BLOCK // 2}")
        self._buffers, self._undo, self._progress = buffers, undo, progress

    def merge(self, int64_t number, int64_t left, int64_t right, int64_t start, int64_t stop,
              int64_t permit, int64_t step) -> None:
        """Add floats start to stop of buffer `right` to those of `left`, from where it was left."""
        self._check(number, left, start, stop, permit)
        self._check(number, right, start, stop, permit)
        cdef int64_t* undo = &self._undo[permit, 0]
        cdef float* copy = <float*>(undo + HEADER)
        cdef float* into = &self._buffers[left, 0]
        cdef const float* other = &self._buffers[right, 0]
        cdef int64_t* progress = &self._progress[number]
        cdef int64_t block, n
        with nogil:
            block = self._done(number, step)
            start += block * BLOCK
            while start < stop:
                n = min(<int64_t>BLOCK, stop - start)
                cl_store_release(undo, 0)
                memcpy(copy, into + start, n * sizeof(float))
                undo[1], undo[2] = -1 - number, block
                cl_store_release(undo, step + 1)
                primitives().add(n, copy, other + start, into + start)
                block += 1
                cl_store_release(progress, (step + 1) << PROGRESS_BITS | block)
                start += n
            cl_store_release(undo, 0)

    def recover(self, int64_t number, int64_t left, int64_t start, int64_t stop, int64_t permit,
                int64_t step) -> None:
        """Put back the block that a dead process was changing in this merge."""
        self._check(number, left, start, stop, permit)
        cdef int64_t* undo = &self._undo[permit, 0]
        cdef int64_t done = self._done(number, step)
        if word_load(undo) == step + 1 and undo[1] == -1 - number and undo[2] == done:
            start += done * BLOCK
            memcpy(&self._buffers[left, start], undo + HEADER,
                   min(<int64_t>BLOCK, stop - start) * sizeof(float))
        cl_store_release(undo, 0)

    cdef int64_t _done(self, int64_t number, int64_t step) noexcept nogil:
        cdef int64_t word = word_load(&self._progress[number])
        if word >> PROGRESS_BITS != step + 1:
            return 0
        return word & ((<int64_t>1 << PROGRESS_BITS) - 1)

    def _check(self, number, buffer, start, stop, permit):
        if not 0 <= number < self._progress.shape[0]:
            raise IndexError(f"merge {number} of {self._progress.shape[0]}")
        if not 0 <= permit < self._undo.shape[0]:
            raise IndexError(f"permit {permit} of {self._undo.shape[0]}")
        if not 0 <= buffer < self._buffers.shape[0]:
            raise IndexError(f"buffer {buffer} of {self._buffers.shape[0]}")
        if not 0 <= start <= stop <= self._buffers.shape[1]:
            raise IndexError(f"floats {start} to {stop} of {self._buffers.shape[1]}")
