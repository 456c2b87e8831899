# The undo area of a permit: what a block was before work in place changes it.  All words 64-bit,
# then floats:
#
#     word 0   mark: step + 1 while the copy below is valid, else 0
#     word 1   what is changed: a segment of the update, or -1 - number of a merge
#     word 2   block
#     floats   the block before the change
#
# The work voids the mark, copies, writes words 1 and 2, sets the mark, changes the block, and then
# adds one to the blocks that the work's progress word counts as done.

from libc.stdint cimport int64_t

cdef extern from *:
    """
    static inline void cl_store_release(int64_t *p, int64_t x) {
      __atomic_store_n(p, x, __ATOMIC_RELEASE);
      __atomic_thread_fence(__ATOMIC_SEQ_CST); /* nothing below may be seen before the mark */
    }
    """
    void cl_store_release(int64_t* p, int64_t x) noexcept nogil

cdef enum:
    HEADER = 8          # words before the floats, a cache line
