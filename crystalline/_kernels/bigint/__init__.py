"""Arithmetic on vectors of 64-bit limbs: the kernels under the exact integers."""
