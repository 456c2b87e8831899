# Pi, e, ln 2 and ln 10 as fractions of any length, kept for the life of the process.
from libc.stdint cimport int64_t, uint64_t

from crystalline._kernels.bigfixed.splitting cimport E, LN2, LN10, PI  # noqa: F401

# *r points to n + 1 limbs: the constant in units of 2^(-64 n), cut off, so at most 1.01 units
# below.  They stay where they are for ever.  Any thread may ask, without the GIL.
cdef int constant(const uint64_t** r, int which, int64_t n) noexcept nogil
