"""Exact mathematics: integers, fixed point, primes and lattices, on compiled kernels."""
