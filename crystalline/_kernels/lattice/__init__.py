"""Integer lattice bases: rows of limbs, floating Gram-Schmidt with proofs, LLL, nearest planes."""
