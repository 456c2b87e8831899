"""Lattices: exact bases, Gram-Schmidt, LLL with proofs and certificates, nearest planes."""

from crystalline.exact.lattice.babai import CloseVector, NearestPlane, nearest_plane, round_off
from crystalline.exact.lattice.basis import LatticeBasis
from crystalline.exact.lattice.certificate import Certificate, CertificateError
from crystalline.exact.lattice.gso import FloatGramSchmidt, GramSchmidt, float_gram_schmidt
from crystalline.exact.lattice.lll import Reduction, lll

__all__ = [
    "Certificate",
    "CertificateError",
    "CloseVector",
    "FloatGramSchmidt",
    "GramSchmidt",
    "LatticeBasis",
    "NearestPlane",
    "Reduction",
    "float_gram_schmidt",
    "lll",
    "nearest_plane",
    "round_off",
]
