"""Compiled kernels for 64-bit number theory: sieves, primality, factors, batched gcd, spirals."""
