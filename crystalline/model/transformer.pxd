# The transformer in training, for the optimizer.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from crystalline._kernels.attention cimport Crystal
from crystalline._kernels.isa cimport Kept, StoreMode
from crystalline._kernels.marks cimport Marks, MarkRow
from crystalline.model.layers.bind cimport Binding
from crystalline.model.layers.buffers cimport Buffer, Buffers
from crystalline.model.layers.table cimport Dropping, Gradients, Layer, Matrix, Norm, Sizes

# A segment of the flat buffer (see `params.Segment`): rows of a matrix [K, N], or a run of vectors.
cdef struct Segment:
    int64_t start, stop        # in floats
    int64_t is_matrix
    int64_t row, rows, K, N
    int64_t packed, packed_t   # where it and its transpose are packed, in words; -1: nowhere

cdef class Transformer:
    cdef readonly object config
    cdef readonly object adapter       # AdapterConfig, or None
    cdef readonly str precision        # the number format of products; sums are float32
    cdef public bint freeze_lambda     # the gradient of crystalline attention's lambdas stays 0
    cdef readonly double smoothed_loss  # of the last `compute`, against the soft targets
    cdef Binding _binding
    cdef Sizes z
    cdef const Layer* layers
    cdef const Norm* final
    cdef const Matrix* head
    cdef float[::1] _weights
    cdef float[::1] _trained           # the adapters, or the weights themselves
    cdef float[::1] _packed
    cdef float[::1] _unread            # gradients of vectors that are not trained
    cdef unsigned char[::1] _workspace
    cdef const float[:, ::1] _features  # [V, F]; [0, F] with standard attention
    cdef int64_t[:, ::1] _segments     # [segments, words of a Segment] of what is trained
    cdef int64_t[:, ::1] _frozen       # of weights that are not
    cdef int64_t _tokens, _positions, _head
    cdef int64_t _vectors, _vectors_size  # in the weights
    cdef int64_t _size                 # of what is trained
    cdef int64_t _rows
    cdef bint _lean                    # only the layers' inputs are kept, the rest is recomputed
    cdef MarkRow _mark_row             # of a profiled run, or None
    cdef Marks* _marks                 # ... or NULL
    cdef uint32_t _threshold  # of dropout, in units of 2^-32; 0: none
    cdef float _keep_scale
    cdef const int32_t[:, ::1] _neighbor_ids      # [V, k], or None
    cdef const float[:, ::1] _neighbor_weights    # [V, k]
    cdef void pack_segment_nogil(self, const Segment* s, const float* flat) noexcept nogil
    cdef void matrix_gradient(self, int64_t layer, int64_t R, const Matrix* m, Buffer operand,
                              Buffer low, Buffer packed, Buffer low_packed, const Gradients* g,
                              StoreMode store, const Buffers* b) noexcept nogil
    cdef Dropping dropping(self, uint64_t key, uint64_t first_sequence, int64_t t) noexcept nogil
    cdef Crystal crystal(self, const int32_t* ids, int64_t layer) noexcept nogil
    cdef void forward(self, const int32_t* ids, int64_t n, int64_t t, const Dropping* d,
                      const Buffers* b) noexcept nogil
    cdef void layer_forward(self, const int32_t* ids, int64_t n, int64_t t, int64_t layer,
                            bint again, const Dropping* d, const Buffers* b) noexcept nogil
    cdef void after_attention(self, int64_t layer, int64_t row, int64_t rows, const Dropping* d,
                              const Buffers* b) noexcept nogil
    cdef void add_branch(self, int64_t layer, int site, int64_t row, int64_t rows,
                         const float* operand, const float* x, float* out, const Dropping* d,
                         const Buffers* b) noexcept nogil
    cdef void attention_gradient(self, int64_t layer, int64_t R, int64_t row, int64_t rows,
                                 const float* left, const Kept* datt,
                                 const Buffers* b) noexcept nogil
    cdef void backward(self, const int32_t* ids, int64_t n, int64_t t, const Gradients* g,
                       StoreMode store, const Dropping* d, const Buffers* all) noexcept nogil
    cdef const float* branch_gradient(self, int64_t layer, int site, int64_t R, int64_t row,
                                      int64_t rows, const Gradients* g, const Dropping* d,
                                      const Buffers* b) noexcept nogil
