/* What every level's translation unit of exact primitives contains, and their table. */
#include "exact.h"
#include "limbs.h"
#include "limbs_ifma.h"
#include "division.h"
#include "primes_bytes.h"
#include "primes_gcd.h"
#include "ntt.h"
#include "lattice.h"
#include "euclid.h"
#include "fixedarray.h"

#define CL_EXACT_(level) cl_exact_##level
#define CL_EXACT(level) CL_EXACT_(level)
#define CL_STRING_(x) #x
#define CL_STRING(x) CL_STRING_(x)

__attribute__((visibility("hidden"))) const ExactPrimitives CL_EXACT(CL_LEVEL) = {
    .name = CL_STRING(CL_LEVEL),
    .limbs = {.add_n = add_n,
              .sub_n = sub_n,
              .mul_1 = mul_1,
              .addmul_1 = addmul_1,
              .submul_1 = submul_1,
              .lshift = lshift,
              .rshift = rshift,
              .mul_basecase = mul_basecase,
              .sqr_basecase = sqr_basecase,
              .mul_vector = mul_vector,
              .sqr_vector = sqr_vector},
    .division = {.reciprocal_1 = reciprocal_1,
                 .reciprocal_2 = reciprocal_2,
                 .divrem_1 = divrem_1,
                 .mod_1 = mod_1,
                 .div_basecase = div_basecase,
                 .redc = redc,
                 .montgomery_small = montgomery_small},
    .primes = {.gcd = gcd_batch,
               .gcd_1 = gcd_batch_1,
               .and_3 = sieve_and_3,
               .popcount = sieve_popcount,
               .numbers_64 = sieve_numbers_64,
               .numbers_32 = sieve_numbers_32},
    .ntt = {.mul = ntt_mul},
    .lattice = {.row_submul = row_submul,
                .row_submul_64 = row_submul_64,
                .row_bits_64 = row_bits_64,
                .gram_row = gram_row,
                .cholesky_row = cholesky_row,
                .axpy = axpy},
    .euclid = {.reduce_2 = reduce_2,
               .finish_2 = finish_2,
               .apply_inverse = apply_inverse,
               .apply_row = apply_row,
               .gcd_2 = gcd_2,
               .jacobi_step = jacobi_step},
    .fixedarray = {.add = fa_add,
                   .sub = fa_sub,
                   .fma = fa_fma,
                   .round = fa_round_one,
                   .dot = fa_dot,
                   .matmul_work = fa_matmul_work,
                   .matmul_begin = fa_matmul_begin,
                   .matmul_columns = fa_matmul_columns,
                   .function = fa_function},
};
