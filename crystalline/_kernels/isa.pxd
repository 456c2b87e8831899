# The chosen table of primitives, for every module that computes.
from libc.stdint cimport int64_t

cdef extern from "primitives.h":
    enum: CL_PANEL
    ctypedef struct Primitives:
        const char* name
        void (*gemm_panel)(int64_t M, int64_t n, int64_t K, const float* a, int64_t lda,
                           const float* panel, float* c, int64_t ldc, const float* bias,
                           const float* residual, int accumulate) noexcept nogil
        void (*gemm_panel_ta)(int64_t M, int64_t n, int64_t K, const float* a, int64_t lda,
                              const float* panel, float* c, int64_t ldc, const float* bias,
                              const float* residual, int accumulate) noexcept nogil
        void (*pack_panel)(int64_t K, int64_t n, const float* b, int64_t ldb, float* panel,
                           float* column_sums) noexcept nogil
        void (*pack_panel_t)(int64_t K, int64_t n, const float* b, int64_t ldb,
                             float* panel) noexcept nogil
        int64_t (*fma_peak)(int64_t rounds, float* sink) noexcept nogil
        void (*softmax_causal)(int64_t rows, int64_t first, int64_t width, float scale, float* s,
                               int64_t lds, float* lse) noexcept nogil
        void (*softmax_causal_again)(int64_t rows, int64_t first, int64_t width, float scale,
                                     float* s, int64_t lds, const float* lse) noexcept nogil
        void (*softmax_backward)(int64_t rows, int64_t width, float scale, const float* p,
                                 float* ds, int64_t ld, const float* delta) noexcept nogil
        void (*row_dots)(int64_t rows, int64_t width, const float* a, int64_t lda,
                         const float* b, int64_t ldb, float* delta) noexcept nogil


cdef const Primitives* primitives() noexcept nogil
