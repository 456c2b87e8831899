# The chosen table of exact primitives, for every module that computes exactly.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "exact.h":
    enum:
        CL_VECTOR_LIMBS
        CL_MONTGOMERY_SMALL  # limbs
        NTT_THREE_PRIMES_MAX
        CL_FA_DIGITS
    ctypedef int (*ExactPoll)() noexcept nogil
    # written by tools/generate.py
    ctypedef struct DivisionPrimitives:
        uint64_t (*reciprocal_1)(uint64_t d) noexcept nogil
        uint64_t (*reciprocal_2)(uint64_t d1, uint64_t d0) noexcept nogil
        uint64_t (*divrem_1)(uint64_t* q, const uint64_t* a, int64_t n, uint64_t d) noexcept nogil
        uint64_t (*mod_1)(const uint64_t* a, int64_t n, uint64_t d) noexcept nogil
        uint64_t (*div_basecase)(uint64_t* q, uint64_t* u, int64_t un, const uint64_t* v,
                                 int64_t vn, uint64_t reciprocal) noexcept nogil
        void (*redc)(uint64_t* r, uint64_t* u, const uint64_t* m, int64_t n,
                     uint64_t inverse) noexcept nogil
        void (*montgomery_small)(uint64_t* r, const uint64_t* a, const uint64_t* b,
                                 const uint64_t* m, int64_t n, uint64_t inverse) noexcept nogil
    ctypedef struct JacobiState:
        unsigned low[2]
        int denominator
        int negative
    ctypedef struct EuclidPrimitives:
        int (*reduce_2)(uint64_t* m, uint64_t a1, uint64_t a0, uint64_t b1, uint64_t b0,
                        JacobiState* state) noexcept nogil
        int (*finish_2)(uint64_t* m, uint64_t* a, uint64_t* b, JacobiState* state) noexcept nogil
        void (*apply_inverse)(uint64_t* a, uint64_t* b, int64_t n, const uint64_t* m) noexcept nogil
        int64_t (*apply_row)(uint64_t* x, uint64_t* y, int64_t n, const uint64_t* m) noexcept nogil
        void (*gcd_2)(uint64_t* a, const uint64_t* b) noexcept nogil
        void (*jacobi_step)(JacobiState* state, int which, uint64_t q) noexcept nogil
    ctypedef struct FixedArrayConstants:
        uint64_t ln2[CL_FA_DIGITS]
        uint64_t quarter_pi[CL_FA_DIGITS]
        uint64_t inverse_factorials[48][CL_FA_DIGITS]
        uint64_t inverse_even_factorials[48][CL_FA_DIGITS]
        uint64_t inverse_odd_factorials[48][CL_FA_DIGITS]
        uint64_t inverses[48][CL_FA_DIGITS]
        uint64_t inverse_odds[48][CL_FA_DIGITS]
        uint64_t exp_high[256][CL_FA_DIGITS]
        uint64_t exp_low[256][CL_FA_DIGITS]
        uint64_t log_high[256][CL_FA_DIGITS]
        uint64_t log_low[260][CL_FA_DIGITS]
        uint64_t sincos[512][CL_FA_DIGITS]
        uint64_t atan[260][CL_FA_DIGITS]
    ctypedef struct FixedArrayPrimitives:
        int64_t (*add)(uint64_t* r, const uint64_t* a, int64_t as_, const uint64_t* b, int64_t bs,
                       int64_t n, int L) noexcept nogil
        int64_t (*sub)(uint64_t* r, const uint64_t* a, int64_t as_, const uint64_t* b, int64_t bs,
                       int64_t n, int L) noexcept nogil
        int64_t (*fma)(uint64_t* r, const uint64_t* a, int64_t as_, const uint64_t* b, int64_t bs,
                       const uint64_t* c, int64_t cs, int64_t n, int L, int F) noexcept nogil
        int (*round)(uint64_t* r, uint64_t* p, int m, int L, int F) noexcept nogil
        void (*dot)(uint64_t* exact, const uint64_t* a, const uint64_t* b, int64_t n,
                    int L) noexcept nogil
        int64_t (*matmul_work)(int64_t M, int64_t K, int L) noexcept nogil
        int (*matmul_begin)(void* work, const uint64_t* a, int64_t M, int64_t K, int L,
                            ExactPoll poll) noexcept nogil
        int64_t (*matmul_columns)(uint64_t* r, const uint64_t* a, const uint64_t* b, int64_t M,
                                  int64_t K, int64_t N, int64_t j, int L, int F, void* work,
                                  ExactPoll poll) noexcept nogil
        int64_t (*function)(int which, uint64_t* r, const uint64_t* a, int64_t n, int L, int F,
                            const FixedArrayConstants* constants, uint8_t* undecided) noexcept nogil
    ctypedef struct LatticePrimitives:
        void (*row_submul)(uint64_t* r, int64_t wr, const uint64_t* a, int64_t wa, int64_t n,
                           uint64_t x, int add, int64_t q) noexcept nogil
        void (*row_submul_64)(int64_t* r, const int64_t* a, int64_t n, int64_t x) noexcept nogil
        int (*row_bits_64)(const int64_t* a, int64_t n) noexcept nogil
        void (*gram_row)(double* g, const double* bt, int64_t ld, const double* b, int64_t n,
                         int64_t k) noexcept nogil
        void (*cholesky_row)(double* r, double* mu, const double* mut, int64_t ld,
                             const double* rinv, int64_t k) noexcept nogil
        void (*axpy)(double* y, const double* a, int64_t k, double x) noexcept nogil
    ctypedef struct LimbPrimitives:
        uint64_t (*add_n)(uint64_t* r, const uint64_t* a, const uint64_t* b,
                          int64_t n) noexcept nogil
        uint64_t (*sub_n)(uint64_t* r, const uint64_t* a, const uint64_t* b,
                          int64_t n) noexcept nogil
        uint64_t (*mul_1)(uint64_t* r, const uint64_t* a, int64_t n, uint64_t b) noexcept nogil
        uint64_t (*addmul_1)(uint64_t* r, const uint64_t* a, int64_t n, uint64_t b) noexcept nogil
        uint64_t (*submul_1)(uint64_t* r, const uint64_t* a, int64_t n, uint64_t b) noexcept nogil
        uint64_t (*lshift)(uint64_t* r, const uint64_t* a, int64_t n, int count) noexcept nogil
        uint64_t (*rshift)(uint64_t* r, const uint64_t* a, int64_t n, int count) noexcept nogil
        void (*mul_basecase)(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                             int64_t bn) noexcept nogil
        void (*sqr_basecase)(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil
        void (*mul_vector)(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b,
                           int64_t bn) noexcept nogil
        void (*sqr_vector)(uint64_t* r, const uint64_t* a, int64_t n) noexcept nogil
    ctypedef struct NttPrimitives:
        int (*mul)(uint64_t* r, const uint64_t* a, int64_t an, const uint64_t* b, int64_t bn,
                   int limbs_per_coefficient, ExactPoll poll) noexcept nogil
    ctypedef struct PrimePrimitives:
        void (*gcd)(uint64_t* out, const uint64_t* a, const uint64_t* b, int64_t n) noexcept nogil
        void (*gcd_1)(uint64_t* out, const uint64_t* a, uint64_t b, int64_t n) noexcept nogil
        void (*and_3)(uint8_t* r, const uint8_t* x, const uint8_t* y, const uint8_t* z,
                      int64_t n) noexcept nogil
        int64_t (*popcount)(const uint8_t* s, int64_t n) noexcept nogil
        int64_t (*numbers_64)(uint64_t* out, const uint8_t* s, int64_t n,
                              uint64_t first) noexcept nogil
        int64_t (*numbers_32)(uint32_t* out, const uint8_t* s, int64_t n,
                              uint64_t first) noexcept nogil
    ctypedef struct ExactPrimitives:
        const char* name
        LimbPrimitives limbs
        DivisionPrimitives division
        PrimePrimitives primes
        NttPrimitives ntt
        LatticePrimitives lattice
        EuclidPrimitives euclid
        FixedArrayPrimitives fixedarray
    # end

cdef const ExactPrimitives* exact_primitives() noexcept nogil
