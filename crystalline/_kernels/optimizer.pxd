# How passes over whole arrays write, for nogil callers.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport StoreMode

# CL_STREAM where an array of `floats` is too large to stay in the cache until it is read again; the
# part that is written starts at `first`.
cdef StoreMode store_of(int64_t floats, const float* first) noexcept nogil
