# The chosen table of primitives, for every module that computes.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from "primitives.h":
    enum:
        CL_PANEL
        CL_CACHE_BLOCK
        CL_FORMAT_float32
        CL_FORMATS
    ctypedef enum StoreMode:
        CL_STORE
        CL_ADD
        CL_STREAM
    ctypedef enum Activation:
        CL_LINEAR
        CL_GELU
        CL_GELU_SLOPE
    ctypedef enum Traffic:
        CL_READ
        CL_WRITE
        CL_WRITE_PAST
        CL_COPY
        CL_CHANGE
    # written by tools/generate.py
    ctypedef struct OptimizerStep:
        float lr, beta1, beta2, epsilon, weight_decay, clip, correction1, correction2
    ctypedef struct SoftTargets:
        int64_t k
        const int32_t* ids
        const float* weights
        double epsilon
    ctypedef struct Kept:
        float* words
        int64_t ld, row, column, columns
    ctypedef struct KeptFunctions:
        void (*expand)(int64_t rows, int64_t n, const Kept* x, float* out,
                       int64_t ldo) noexcept nogil
        void (*keep)(int64_t rows, int64_t n, const float* x, int64_t ldx,
                     const Kept* out) noexcept nogil
        void (*take_operand)(int64_t rows, int64_t K, const Kept* x, float* out) noexcept nogil
        void (*pack_panel)(int64_t K, int64_t n, const Kept* x, float* panel,
                           float* column_sums) noexcept nogil
        void (*pack_panel_t)(int64_t K, int64_t n, const Kept* x, float* panel) noexcept nogil
        void (*product)(int64_t M, int64_t n, int64_t K, const float* a, int64_t lda,
                        const float* panel, int64_t next, const float* bias, Activation activation,
                        const Kept* out, const Kept* other) noexcept nogil
    ctypedef struct CacheHead:
        int64_t narrow
        int64_t D
        int64_t stride
        float* keys
        float* values
    ctypedef struct CacheRow:
        int64_t begin, end
        const float* similar
        float strength, scale
        float top, sum
    ctypedef struct NumberFormat:
        const char* name
        int native
        int64_t elements, step, extra
        int64_t unit, panel_step
        int64_t longest
        int64_t row_group, stride
        int64_t block_rows
        int64_t query_rows
        int64_t pass_rows
        int64_t pass_words
        int64_t left_words
        int64_t few_rows
        const KeptFunctions* keeps
        void (*pack_panel)(int64_t K, int64_t n, const float* b, int64_t ldb, float* panel,
                           float* column_sums) noexcept nogil
        void (*pack_panel_t)(int64_t K, int64_t n, const float* b, int64_t ldb,
                             float* panel) noexcept nogil
        void (*to_operand)(int64_t rows, int64_t K, const float* x, int64_t ldx,
                           float* out) noexcept nogil
        void (*turn_operand)(int64_t rows, int64_t K, const float* operand,
                             float* out) noexcept nogil
        int turned_by_rows
        void (*product)(int64_t M, int64_t n, int64_t K, const float* a, int64_t lda,
                        const float* panel, int64_t next, float* c, int64_t ldc, const float* bias,
                        const float* residual, StoreMode store) noexcept nogil
        void (*product_few)(int64_t M, int64_t n, int64_t K, const float* a, int64_t lda,
                            const float* panel, int64_t next, float* c, int64_t ldc,
                            const float* bias, const float* residual,
                            StoreMode store) noexcept nogil
        void (*product_ta)(int64_t M, int64_t n, int64_t K, const float* a, int64_t lda,
                           const float* panel, int64_t next, float* c, int64_t ldc,
                           const float* bias, const float* residual, StoreMode store) noexcept nogil
        int64_t (*peak)(int64_t rounds, float* sink) noexcept nogil
        void (*take_column)(int64_t K, const float* panel, int64_t column,
                            float* out) noexcept nogil
    ctypedef struct LevelHooks:
        int (*begin_process)() noexcept nogil
        void (*begin_thread)() noexcept nogil
        void (*end_thread)() noexcept nogil
    ctypedef struct Primitives:
        const char* name
        const NumberFormat* formats[CL_FORMATS]
        LevelHooks hooks
        void (*softmax_causal)(int64_t rows, int64_t first, int64_t width, float scale, float* s,
                               int64_t lds, float* lse) noexcept nogil
        void (*softmax_causal_again)(int64_t rows, int64_t first, int64_t width, float scale,
                                     float* s, int64_t lds, const float* lse) noexcept nogil
        void (*softmax_backward)(int64_t rows, int64_t width, float scale, const float* p,
                                 float* ds, int64_t ld, const float* delta) noexcept nogil
        void (*row_dots)(int64_t rows, int64_t width, const float* a, int64_t lda, const float* b,
                         int64_t ldb, float* delta) noexcept nogil
        void (*cache_append)(const CacheHead* head, int64_t first, int64_t n, const float* k,
                             const float* v, int64_t ld) noexcept nogil
        void (*cache_block)(const CacheHead* head, int64_t start, int64_t rows, CacheRow* row,
                            const float* q, float* out, int64_t ld) noexcept nogil
        void (*cache_merge)(int64_t D, const CacheRow* part, const float* values, float* top,
                            float* sum, float* out) noexcept nogil
        void (*cache_finish)(int64_t D, float sum, const float* x, float* out) noexcept nogil
        void (*vec_exp)(int64_t n, const float* x, float* out) noexcept nogil
        void (*vec_log)(int64_t n, const float* x, float* out) noexcept nogil
        void (*vec_tanh)(int64_t n, const float* x, float* out) noexcept nogil
        void (*vec_erf)(int64_t n, const float* x, float* out) noexcept nogil
        void (*layernorm)(int64_t rows, int64_t C, const float* x, const float* gamma,
                          const float* beta, float epsilon, float* out, float* mean,
                          float* rstd) noexcept nogil
        void (*layernorm_backward)(int64_t rows, int64_t C, const float* dy, const float* x,
                                   const float* gamma, const float* mean, const float* rstd,
                                   float* dx, int accumulate, float* dgamma,
                                   float* dbeta) noexcept nogil
        void (*rmsnorm)(int64_t rows, int64_t C, const float* x, const float* gamma, float epsilon,
                        float* out, float* rstd) noexcept nogil
        void (*rmsnorm_backward)(int64_t rows, int64_t C, const float* dy, const float* x,
                                 const float* gamma, const float* rstd, float* dx, int accumulate,
                                 float* dgamma) noexcept nogil
        void (*swiglu)(int64_t rows, int64_t F, const float* gate_up, int64_t ld,
                       float* out) noexcept nogil
        void (*swiglu_backward)(int64_t rows, int64_t F, const float* gate_up, int64_t ld,
                                const float* dy, float* dgate_up) noexcept nogil
        void (*relu2)(int64_t n, const float* x, float* out) noexcept nogil
        void (*relu2_backward)(int64_t n, const float* x, const float* dy, float* dx) noexcept nogil
        void (*rotate)(int64_t heads, int64_t D, const float* cosines, const float* sines, int back,
                       float* x) noexcept nogil
        void (*gelu)(int64_t n, const float* x, float* out) noexcept nogil
        void (*gelu_backward)(int64_t n, const float* x, const float* dy, float* dx) noexcept nogil
        void (*add)(int64_t n, const float* a, const float* b, float* out) noexcept nogil
        double (*sum_squares)(int64_t n, const float* x) noexcept nogil
        void (*embed)(int64_t rows, int64_t T, int64_t C, const int32_t* ids, const float* wte,
                      const float* wpe, float* out) noexcept nogil
        void (*embed_backward)(int64_t rows, int64_t T, int64_t C, const int32_t* ids,
                               const float* dx, float* dwte, float* dwpe) noexcept nogil
        double (*cross_entropy)(int64_t rows, int64_t V, float* logits, int64_t ld,
                                const int32_t* targets, float scale, int backward,
                                const SoftTargets* soft, double* smoothed) noexcept nogil
        void (*adamw)(int64_t n, float* w, float* m, float* v, const float* g,
                      const OptimizerStep* step) noexcept nogil
        void (*sgd)(int64_t n, float* w, float* m, const float* g,
                    const OptimizerStep* step) noexcept nogil
        void (*keep_state)(int64_t n, const float* w, const float* m, const float* v,
                           const float* g, float* kept, int64_t stride) noexcept nogil
        double (*tree_sum)(int64_t n, int64_t lanes, int64_t group, const float* first,
                           int64_t stride, float* out, StoreMode store) noexcept nogil
        void (*repack)(const NumberFormat* f, int64_t rows, int64_t N, const float* w,
                       float* panels, int64_t height, float* panels_t, int64_t height_t,
                       StoreMode store) noexcept nogil
        void (*move_floats)(Traffic traffic, int64_t n, int64_t rounds, const float* a,
                            float* b) noexcept nogil
        void (*dropout)(int64_t n, const float* x, float* out, uint64_t key, uint64_t first,
                        uint32_t threshold, float scale) noexcept nogil
    # end


cdef const Primitives* primitives() noexcept nogil


# Around what a thread computes: see `LevelHooks`.
cdef inline void begin_thread() noexcept nogil:
    if primitives().hooks.begin_thread != NULL:
        primitives().hooks.begin_thread()


cdef inline void end_thread() noexcept nogil:
    if primitives().hooks.end_thread != NULL:
        primitives().hooks.end_thread()
