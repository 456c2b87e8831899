# Whether an allocation can be had, asked before it is made.
from libc.stdint cimport int64_t

# Raises MemoryError, naming the number of bytes, where the machine has not that many left.
# Small requests return at once: it costs nothing to call it before every allocation.
cdef int check_headroom(int64_t size_bytes) except -1
