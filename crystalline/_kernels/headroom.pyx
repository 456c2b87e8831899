"""How much memory is left, asked before a large allocation is made.

Linux lends more memory than there is and kills the process that uses it, so an absurd size has
to be refused beforehand.  What counts is the machine and the control group of the process.
"""
from libc.stdint cimport int64_t

cdef enum:
    UNASKED_BYTES = 1 << 26  # below this the answer is not worth the question

_GROUP = "/sys/fs/cgroup/memory"


def available_bytes() -> int:
    """Return the bytes that this process can still get, of the machine and of its group.

    >>> available_bytes() > 1 << 20
    True
    """
    with open("/proc/meminfo", "rb") as file:
        fields = dict(line.split(b":", 1) for line in file)
    available = int(fields[b"MemAvailable"].split()[0]) << 10
    try:
        with open(_GROUP + ".max", "rb") as file:
            limit = file.read().strip()
        with open(_GROUP + ".current", "rb") as file:
            used = int(file.read())
    except FileNotFoundError:  # no group, or one without a limit of its own
        return available
    return available if limit == b"max" else max(0, min(available, int(limit) - used))


cdef int check_headroom(int64_t size_bytes) except -1:
    if 0 <= size_bytes < UNASKED_BYTES:
        return 0
    if size_bytes < 0 or size_bytes > available_bytes():
        raise MemoryError(f"{size_bytes} bytes are needed, more than this machine has left")
    return 0
