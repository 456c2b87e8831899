# Ctrl-C in the middle of a long exact computation.
#
# A kernel that can take longer than a second calls `poll` in an outer loop and returns what it
# returns as soon as that is not OK; its face calls `check` on the status once it has the GIL:
#
#     with nogil:
#         status = limbs_gcd(...)
#     check(status)

# OK, or INTERRUPTED when a signal's handler raised (its exception is then set in this thread).
# Costs 10 ns but every 5 ms, when it takes the GIL and runs what handlers are due; may be called
# with or without the GIL.
cdef int poll() noexcept nogil

# Raises what a status stands for: MemoryError for NO_MEMORY, the handler's exception for
# INTERRUPTED.
cdef int check(int status) except -1
