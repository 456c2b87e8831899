"""Fixed-point functions on vectors of limbs: the kernels under BigFixed."""
