/* The table of exact primitives that a level exports: storey 1 of the exact kernels.
 *
 * Integer arithmetic only, so every level gives the same bits.  One struct a subject, each
 * declared in its own header; Cython algorithms (storey 2) call through the table that was
 * chosen at import.
 */
#ifndef CL_EXACT_H
#define CL_EXACT_H

#include <stdint.h>

#include "division_table.h"
#include "euclid_table.h"
#include "fixedarray_table.h"
#include "lattice_table.h"
#include "levels.h"
#include "limbs_table.h"
#include "ntt_table.h"
#include "primes_table.h"

typedef struct {
  const char *name;
  LimbPrimitives limbs;
  DivisionPrimitives division;
  PrimePrimitives primes;
  NttPrimitives ntt;
  LatticePrimitives lattice;
  EuclidPrimitives euclid;
  FixedArrayPrimitives fixedarray;
} ExactPrimitives;

#define CL_DECLARE(level) extern const ExactPrimitives cl_exact_##level;
CL_EXACT_LEVELS(CL_DECLARE)
#undef CL_DECLARE

#endif
