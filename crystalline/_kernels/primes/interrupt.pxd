# Ctrl-C inside long calls, as an exception of nogil functions declared `except -1 nogil`.
from crystalline._kernels.bigint.interrupt cimport poll
from crystalline._kernels.bigint.limbs cimport OK


cdef inline int check_signals() except -1 nogil:
    """Run pending signal handlers when the last look is long ago; -1 when one of them raised."""
    return -1 if poll() != OK else 0
