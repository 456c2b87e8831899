# Matrix products on packed panels, for nogil callers.  Shapes as in matmul.pyx.
from libc.stdint cimport int64_t

from crystalline._kernels.isa cimport NumberFormat, StoreMode

# A left-hand side is an operand of the format, packed panels are the format's, and lda counts words
# (see `NumberFormat`).  All other matrices are float32.
cdef void pack(const NumberFormat* f, int64_t K, int64_t N, const float* b, int64_t ldb,
               float* packed, float* column_sums) noexcept nogil
# Only rows row .. row + rows of the K, row at the start of a step; b points at the first of them.
# Formats with extra words have no parts: row = 0 and rows = K.
cdef void pack_rows(const NumberFormat* f, int64_t K, int64_t N, int64_t row, int64_t rows,
                    const float* b, int64_t ldb, float* packed, float* column_sums) noexcept nogil
cdef void pack_t(const NumberFormat* f, int64_t K, int64_t N, const float* b, int64_t ldb,
                 float* packed) noexcept nogil
cdef void multiply(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                   int64_t lda, const float* packed, float* c, int64_t ldc, const float* bias,
                   const float* residual, StoreMode store) noexcept nogil
# The same for the panels first .. stop - 1 alone, so for columns 32 first .. 32 stop - 1 (or N):
# what one of several threads computes of a product.  An element has the same bits however panels
# are shared out, and however many rows there are.  Pointers are those of the whole matrices.
cdef void multiply_panels(const NumberFormat* f, int64_t first, int64_t stop, int64_t M, int64_t N,
                          int64_t K, const float* a, int64_t lda, const float* packed, float* c,
                          int64_t ldc, const float* bias, const float* residual,
                          StoreMode store) noexcept nogil
# How many panels a matrix of N columns has.
cdef int64_t panel_count(int64_t N) noexcept nogil
# a is a turned operand; CL_STORE may go past the cache.
cdef void multiply_ta(const NumberFormat* f, int64_t M, int64_t N, int64_t K, const float* a,
                      const float* packed, float* c, int64_t ldc, StoreMode store) noexcept nogil
