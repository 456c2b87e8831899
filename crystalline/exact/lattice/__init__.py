"""Lattices: exact bases, proved reduction, shortest and closest vectors."""

from crystalline.exact.lattice.babai import CloseVector, NearestPlane, nearest_plane, round_off
from crystalline.exact.lattice.basis import LatticeBasis
from crystalline.exact.lattice.bkz import bkz
from crystalline.exact.lattice.certificate import Certificate, CertificateError
from crystalline.exact.lattice.cvp import ClosestVector, ClosestVectorSearch, closest_vector
from crystalline.exact.lattice.gso import FloatGramSchmidt, GramSchmidt, float_gram_schmidt
from crystalline.exact.lattice.lll import Reduction, lll
from crystalline.exact.lattice.svp import ShortestVector, shortest_vector

__all__ = [
    "Certificate",
    "CertificateError",
    "CloseVector",
    "ClosestVector",
    "ClosestVectorSearch",
    "FloatGramSchmidt",
    "GramSchmidt",
    "LatticeBasis",
    "NearestPlane",
    "Reduction",
    "ShortestVector",
    "bkz",
    "closest_vector",
    "float_gram_schmidt",
    "lll",
    "nearest_plane",
    "round_off",
    "shortest_vector",
]
