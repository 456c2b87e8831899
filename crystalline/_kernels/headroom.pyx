"""Refuses an absurd size before it is allocated.

Linux lends more memory than there is and kills the process that uses it, so what is too much has
to be refused beforehand.  What counts is the machine and the control group of the process.
"""
from crystalline.machine.memory import available_bytes

from libc.stdint cimport int64_t

cdef enum:
    UNASKED_BYTES = 1 << 26  # below this the answer is not worth the question


cdef int check_headroom(int64_t size_bytes) except -1:
    if 0 <= size_bytes < UNASKED_BYTES:
        return 0
    if size_bytes < 0 or size_bytes > available_bytes():
        raise MemoryError(f"{size_bytes} bytes are needed, more than this machine has left")
    return 0
