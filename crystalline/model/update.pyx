"""Reduction of the lanes' gradients and the optimizer's step, segment by segment.

Both are the units of work of a step's second half.  `reduce` only reads the lanes and writes a
buffer of its own, so it can be done again at any time.  `update` works in place on weights and
moments, block by block: before a block changes, it is copied to the undo area of the caller's
permit, and the segment's progress word says how many blocks are done, so that an update cut off
anywhere can be taken up again and ends in the same bits.

Undo area of a permit (see `undo.pxd`): its word 1 is the segment, its floats are 3 x BLOCK: the
block's weights, first and second moments before the change (SGD has no second moments).

Progress word of a segment: (step + 1) << 20 | blocks done in that step.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from crystalline._kernels.atomics cimport word_load
from crystalline._kernels.isa cimport OptimizerStep, Primitives, primitives
from crystalline._kernels.optimizer cimport store_of
from crystalline.model.transformer cimport Segment, Transformer
from crystalline.model.undo cimport HEADER, cl_store_release

cdef enum:
    BLOCK = 256         # floats that change between two marks: with their copy they stay in L1
    PROGRESS_BITS = 20

UNDO_WORDS = HEADER + 3 * BLOCK // 2


cdef class SegmentUpdate:
    """Reduce and update the segments of one model.

    Parameters
    ----------
    model : Transformer, bound to the shared weights and panels
    lanes : float32 [lanes, size], the lanes' gradients (IN)
    grads : float32 [size], their sum (OUT of `reduce`, IN of `update`); may be the only lane
    m, v : float32 [size], the moments (INOUT); SGD uses m only
    undo : int64 [permits, UNDO_WORDS], zero at the start
    progress : int64 [segments], zero at the start
    group : the lanes that a tree of their own is taken over, before that over the groups
    """

    cdef readonly Transformer model
    cdef readonly bint is_adamw
    cdef float[:, ::1] _lanes
    cdef float[::1] _grads, _m, _v
    cdef int64_t[:, ::1] _undo
    cdef int64_t[::1] _progress
    cdef double _beta1, _beta2, _weight_decay, _epsilon
    cdef int64_t _group

    def __init__(self, Transformer model, float[:, ::1] lanes, float[::1] grads, float[::1] m,
                 float[::1] v, int64_t[:, ::1] undo, int64_t[::1] progress, *, str optimizer,
                 double beta1, double beta2, double weight_decay, double epsilon=1e-8,
                 int64_t group=12):
        size = model._size
        for name, have, need in (
            ("lanes", lanes.shape[1], size), ("grads", grads.shape[0], size),
            ("m", m.shape[0], size), ("v", v.shape[0], size),
            ("undo", undo.shape[1], UNDO_WORDS),
            ("progress", progress.shape[0], model.segment_count),
        ):
            if have != need:
                raise ValueError(f"{name} has {have} elements, the model needs {need}")
        if optimizer not in ("adamw", "sgd"):
            raise ValueError(f"optimizer is {optimizer!r}, expected 'adamw' or 'sgd'")
        self.model = model
        self.is_adamw = optimizer == "adamw"
        self._lanes, self._grads, self._m, self._v = lanes, grads, m, v
        self._undo, self._progress = undo, progress
        self._beta1, self._beta2 = beta1, beta2
        self._weight_decay, self._epsilon = weight_decay, epsilon
        if not 1 <= group <= 12:
            raise ValueError(f"a group has 1 to 12 lanes, not {group}")
        self._group = group

    def reduce(self, int64_t segment) -> float:
        """Sum the lanes over one segment in the fixed tree order; return its squared norm."""
        self._check(segment)
        cdef const Segment* s = self._segment(segment)
        cdef double squares
        with nogil:
            squares = primitives().tree_sum(s.stop - s.start, self._lanes.shape[0], self._group,
                                            &self._lanes[0, s.start], self._lanes.shape[1],
                                            &self._grads[s.start],
                                            store_of(self._grads.shape[0], &self._grads[s.start]))
        return squares

    def update(self, int64_t segment, int64_t permit, int64_t step, double lr, double clip) -> None:
        """Take optimizer step number `step` (from 0) on one segment and repack its panels.

        Gradients are multiplied by `clip`; `lr` is the learning rate.
        """
        self._check(segment)
        cdef const Segment* s = self._segment(segment)
        cdef OptimizerStep o
        o.lr, o.clip = <float>lr, <float>clip
        o.beta1, o.beta2, o.epsilon = <float>self._beta1, <float>self._beta2, <float>self._epsilon
        o.weight_decay = <float>self._weight_decay if s.is_matrix else 0.0
        o.correction1 = <float>(1.0 / (1.0 - self._beta1 ** (step + 1)))
        o.correction2 = <float>(1.0 / (1.0 - self._beta2 ** (step + 1)))
        cdef int64_t* undo = &self._undo[permit, 0]
        with nogil:
            self._update(segment, undo, step, &o)
            self.model.pack_segment_nogil(s, &self.model._trained[0])

    def recover(self, int64_t permit, int64_t segment, int64_t step) -> None:
        """Restore the block that a dead process was changing in `update` of this segment."""
        self._check(segment)
        cdef int64_t* undo = &self._undo[permit, 0]
        cdef int64_t done = self._done(segment, step)
        cdef int64_t start, n
        if word_load(undo) == step + 1 and undo[1] == segment and undo[2] == done:
            start = self._segment(segment).start + done * BLOCK
            n = min(<int64_t>BLOCK, self._segment(segment).stop - start)
            copy = <float*>(undo + HEADER)
            memcpy(&self.model._trained[start], copy, n * sizeof(float))
            memcpy(&self._m[start], copy + BLOCK, n * sizeof(float))
            if self.is_adamw:
                memcpy(&self._v[start], copy + 2 * BLOCK, n * sizeof(float))
        cl_store_release(undo, 0)

    cdef const Segment* _segment(self, int64_t segment) noexcept nogil:
        return <const Segment*>&self.model._segments[segment, 0]

    cdef int64_t _done(self, int64_t segment, int64_t step) noexcept nogil:
        cdef int64_t word = word_load(&self._progress[segment])
        return word & ((1 << PROGRESS_BITS) - 1) if word >> PROGRESS_BITS == step + 1 else 0

    cdef void _update(self, int64_t segment, int64_t* undo, int64_t step,
                      const OptimizerStep* o) noexcept nogil:
        cdef const Primitives* p = primitives()
        cdef int64_t start = self._segment(segment).start
        cdef int64_t stop = self._segment(segment).stop
        cdef int64_t block = self._done(segment, step), n
        cdef float* copy = <float*>(undo + HEADER)
        start += block * BLOCK
        while start < stop:
            n = min(<int64_t>BLOCK, stop - start)
            cl_store_release(undo, 0)
            p.keep_state(n, &self.model._trained[start], &self._m[start],
                         &self._v[start] if self.is_adamw else NULL, &self._grads[start], copy,
                         BLOCK)
            undo[1], undo[2] = segment, block
            cl_store_release(undo, step + 1)
            if self.is_adamw:
                p.adamw(n, &self.model._trained[start], &self._m[start], &self._v[start],
                        &self._grads[start], o)
            else:
                p.sgd(n, &self.model._trained[start], &self._m[start], &self._grads[start], o)
            block += 1
            cl_store_release(&self._progress[segment], (step + 1) << PROGRESS_BITS | block)
            start += n
        cl_store_release(undo, 0)

    def _check(self, int64_t segment):
        if not 0 <= segment < self.model._segments.shape[0]:
            raise IndexError(f"segment {segment} of {self.model._segments.shape[0]}")
