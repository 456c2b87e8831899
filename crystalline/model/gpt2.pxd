# The transformer's compiled class, for the optimizer and the decoder.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from crystalline._kernels.attention cimport AttentionDropout, Crystal
from crystalline._kernels.isa cimport Kept, NumberFormat, SoftTargets, StoreMode

# The tensors of a layer, in the order of `Gpt2._offsets`.
cdef enum:
    W_QKV, W_OUT, W_FC, W_PROJ, LN1_GAMMA, LN1_BETA, B_QKV, B_OUT, LN2_GAMMA, LN2_BETA, B_FC, B_PROJ
    TENSORS
    MATRICES = 4

# Kinds of segment besides a layer's matrix.
cdef enum:
    WTE = -1
    WPE = -2
    VECTORS = -3

cdef struct Sizes:
    int64_t V, T, L, H, C, D
    const NumberFormat* f  # of the operands of products

# Where gradients go; matrices and vectors are bases of the tensors' offsets.
cdef struct Gradients:
    float* matrices    # of the layers
    float* tokens      # wte
    float* positions   # wpe
    float* vectors     # biases and LayerNorms

cdef class Gpt2:
    cdef readonly object config
    cdef readonly str precision        # the number format of products; sums are float32
    cdef public bint freeze_lambda     # the gradient of crystalline attention's lambdas stays 0
    cdef readonly double smoothed_loss  # of the last `compute`, against the soft targets
    cdef Sizes z
    cdef float[::1] _weights
    cdef float[::1] _packed
    cdef unsigned char[::1] _workspace
    cdef const float[:, ::1] _features  # [V, F]; [0, F] with standard attention
    cdef int64_t[::1] _lambdas         # [L] in floats; [0] with standard attention
    cdef int64_t[:, ::1] _offsets      # [L, TENSORS] in floats
    cdef int64_t[:, :, ::1] _packs     # [L, MATRICES, 2]: packed, packed transposed
    cdef int64_t[:, ::1] _segments     # [segments, 6]: layer/kind, matrix, row, rows, start, stop
    cdef int64_t _wte, _wpe, _ln_f, _vectors, _size, _wte_head, _wte_back
    cdef int64_t _rows
    cdef uint32_t _threshold  # of dropout, in units of 2^-32; 0: none
    cdef float _keep_scale
    cdef const int32_t[:, ::1] _neighbor_ids      # [V, k], or None
    cdef const float[:, ::1] _neighbor_weights    # [V, k]
    cdef void pack_segment_nogil(self, int64_t index) noexcept nogil
    cdef void forward(self, const int32_t* ids, int64_t n, int64_t t, uint64_t key,
                      uint64_t first_sequence, bint dropping) noexcept nogil
    cdef double head(self, const int32_t* targets, int64_t rows, float scale, float* grads,
                     StoreMode store, const SoftTargets* soft, double* smoothed) noexcept nogil
    cdef void backward(self, const int32_t* ids, int64_t n, int64_t t, const Gradients* g,
                       StoreMode store, uint64_t key, uint64_t first_sequence) noexcept nogil
    # What the last `forward` left in the workspace: a layer's qkv [rows, 3C] (where float32 is
    # kept), the final LayerNorm's last row [C].
    cdef const float* qkv(self, int64_t layer, int64_t rows) noexcept nogil
    cdef const float* last_hidden(self, int64_t rows) noexcept nogil
    cdef int64_t ln_f_beta(self) noexcept nogil  # offset in floats
    cdef void norm(self, int64_t rows, const float* x__rc, const float* gamma, const float* beta,
                   float* narrow, float* out, float* mean, float* rstd) noexcept nogil
    cdef void linear(self, int64_t rows, int64_t K, int64_t N, const float* operand, int64_t layer,
                     int matrix, int bias, const float* residual__rn, float* y__rn) noexcept nogil
    cdef void head_logits(self, int64_t rows, const float* operand,
                          float* logits__rv) noexcept nogil
    cdef const float* float_gradient(self, int64_t R, int64_t row, int64_t rows, int64_t N,
                                     const float* dy__rn, float* dbias, float* dy_packed,
                                     float* operand) noexcept nogil
    cdef void input_gradient(self, int64_t R, int64_t row, int64_t rows, int64_t K, int64_t N,
                             const Kept* dy, int64_t layer, int matrix, float* dbias,
                             float* dy_packed, float* operand, float* dx__rk) noexcept nogil
    cdef void weight_gradient(self, int64_t R, int64_t K, int64_t N, const float* operand,
                              float* turned, const float* dy_packed, float* dw__kn,
                              StoreMode store) noexcept nogil
    cdef Crystal crystal(self, const int32_t* ids, int64_t layer) noexcept nogil
    cdef AttentionDropout attention_dropout(self, uint64_t key, int64_t layer,
                                            uint64_t first_sequence, bint dropping) noexcept nogil
    cdef void drop(self, int64_t n, const float* x, float* out, uint64_t key, int site,
                   int64_t layer, uint64_t first) noexcept nogil
