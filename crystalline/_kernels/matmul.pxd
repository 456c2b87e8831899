# Matrix products on packed panels, for nogil callers.  Shapes as in matmul.pyx.
from libc.stdint cimport int64_t

# With bf16, a left-hand side and packed panels hold pairs (see primitives/gemm.h): `inner` words of
# 32 bits stand for K elements; lda counts these words.  All other matrices stay float32.
cdef int64_t padded(int64_t N) noexcept nogil  # columns rounded up to whole panels
cdef int64_t inner(int64_t K, bint bf16) noexcept nogil
cdef int64_t packed_floats(int64_t K, int64_t N, bint bf16) noexcept nogil
cdef void pack(int64_t K, int64_t N, const float* b, int64_t ldb, float* packed,
               float* column_sums, bint bf16) noexcept nogil
# Only rows row .. row + rows of the K (row even with bf16); b points at the first of them.
cdef void pack_rows(int64_t K, int64_t N, int64_t row, int64_t rows, const float* b, int64_t ldb,
                    float* packed, float* column_sums, bint bf16) noexcept nogil
cdef void pack_t(int64_t K, int64_t N, const float* b, int64_t ldb, float* packed,
                 bint bf16) noexcept nogil
cdef void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t lda,
                   const float* packed, float* c, int64_t ldc, const float* bias,
                   const float* residual, bint accumulate, bint bf16) noexcept nogil
cdef void multiply_ta(int64_t M, int64_t N, int64_t K, const float* a, int64_t lda,
                      const float* packed, float* c, int64_t ldc, bint accumulate,
                      bint bf16) noexcept nogil
