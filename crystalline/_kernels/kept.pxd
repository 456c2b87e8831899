# What lives from one product to the next: kept as float32, or as an operand of the number format.
#
# A `Kept` is a rectangle of such a matrix, from its row and column on.  These functions are the one
# place that knows which of the two it is.  A left-hand side that they return has `lda[0]` words a
# row; it is the matrix itself where that will do, otherwise it is made in `scratch`.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport Activation, Kept, NumberFormat

# 32-bit words of a kept matrix [rows, columns], and of one row of it.
cdef int64_t kept_size(const NumberFormat* f, int64_t rows, int64_t columns) noexcept nogil
cdef int64_t kept_words(const NumberFormat* f, int64_t columns) noexcept nogil

cdef Kept kept(const NumberFormat* f, const float* start, int64_t columns) noexcept nogil
cdef Kept kept_part(const Kept* x, int64_t row, int64_t column) noexcept nogil

# The first element, where float32 is kept.
cdef inline float* float_rows(const Kept* x) noexcept nogil:
    return x.words + x.row * x.ld + x.column


# The operand of x[rows, K], or of whole rows from a group's first on.
cdef const float* left_operand(const NumberFormat* f, int64_t rows, int64_t K, const Kept* x,
                               float* scratch, int64_t* lda) noexcept nogil
cdef const float* row_operand(const NumberFormat* f, int64_t rows, int64_t K, const Kept* x,
                              float* scratch) noexcept nogil
# The floats of x[rows, n], lda[0] apart.
cdef const float* floats(const NumberFormat* f, int64_t rows, int64_t n, const Kept* x,
                         float* scratch, int64_t* lda) noexcept nogil
# As in matmul.pxd: x[rows, N] are rows row .. of a right-hand side [K, N]; and x[N, K] transposed.
cdef void pack_kept(const NumberFormat* f, int64_t K, int64_t N, int64_t row, int64_t rows,
                    const Kept* x, float* packed, float* column_sums) noexcept nogil
cdef void pack_kept_t(const NumberFormat* f, int64_t K, int64_t N, const Kept* x,
                      float* packed) noexcept nogil
# out[M, N] = a[M, K] packed (+ bias)
cdef void multiply_kept(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                        int64_t lda, const float* packed, const float* bias,
                        const Kept* out) noexcept nogil
# The same where the K are the beginning of an inner length `whole`.
cdef void multiply_beginning(const NumberFormat* f, int64_t M, int64_t N, int64_t K, int64_t whole,
                             const float* a, int64_t lda, const float* packed,
                             const Kept* out) noexcept nogil
# pre[M, N] = a[M, K] packed + bias, and act[M, N], an operand of whole rows, is gelu of it.
cdef void multiply_gelu(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                        const float* packed, const float* bias, const Kept* pre, float* strip,
                        float* act) noexcept nogil
# out[M, N] = (a[M, K] packed) gelu'(pre)
cdef void multiply_gelu_slope(const NumberFormat* f, int64_t M, int64_t N, int64_t K,
                              const float* a, const float* packed, const Kept* pre,
                              const Kept* out) noexcept nogil


# A kept matrix over an array of float32, for Python: the array itself where float32 is kept.
cdef class KeptRows:
    cdef Kept all
    cdef const NumberFormat* _format
    cdef float[:, ::1] _floats
    cdef float[::1] _words
    cdef void give_back(self)  # what was computed, to the array


cdef KeptRows kept_rows(const NumberFormat* f, const float[:, ::1] array)
