# The layers of a model over weights that somebody holds: structs with sizes and places.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport NumberFormat
from crystalline.model.layers.table cimport Layer, Matrix, Norm, Sizes

cdef class Binding:
    cdef readonly object config
    cdef Sizes z
    cdef Layer* layers        # [L]
    cdef Norm final
    cdef Matrix head
    cdef object _rotary       # cosines and sines, which the layers point into
    cdef int describe(self, const NumberFormat* f, int64_t rank) except -1
    cdef int _rotate(self) except -1
    cdef Layer* _layer(self, int64_t layer) except NULL
    # Where a tensor is: a vector, or a matrix as packed both ways (packed_t NULL: one way).
    cdef int place_vector(self, role, int64_t layer, int64_t at, const float* values) except -1
    cdef int place_matrix(self, role, int64_t layer, int64_t at, const float* packed,
                          const float* packed_t) except -1
    cdef Matrix* _matrix(self, role, int64_t layer) except NULL

cdef Sizes sizes_of(config, const NumberFormat* f, int64_t rank) except *

# What crystalline attention knows of the tokens [V, F], checked; [0, F] with standard attention.
cdef const float[:, ::1] expect_features(config, const float[:, ::1] features) except *
