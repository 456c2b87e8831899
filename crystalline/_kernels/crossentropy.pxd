# Checks of soft targets, for every door that takes a table of neighbors.
from libc.stdint cimport int32_t, int64_t

cdef int expect_epsilon(double epsilon) except -1
cdef int expect_neighbors(int64_t V, const int32_t[:, ::1] ids,
                          const float[:, ::1] weights) except -1
cdef int expect_neighbors_of(int32_t token, const int32_t[:, ::1] ids,
                             const float[:, ::1] weights) except -1
