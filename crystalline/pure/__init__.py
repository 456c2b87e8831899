"""The pure system: tokens as primes and points of a lattice, in exact arithmetic throughout."""

from crystalline.pure.coordinates import clock_direction, coordinates, golden_angle
from crystalline.pure.embeddings import CrystallineEmbeddings, NumberedTokens, Statistics
from crystalline.pure.morphology import Morphology
from crystalline.pure.nearest import Neighbor, TokenIndex
from crystalline.pure.phases import phase_alignment, phase_table
from crystalline.pure.similarity import lattice_distance, prime_similarity
from crystalline.pure.token import CrystallineToken, make_token
from crystalline.pure.transforms import (
    change_basis,
    reflect,
    rotate_by_golden_angle,
    rotate_by_hours,
    translate,
)

__all__ = [
    "CrystallineEmbeddings",
    "CrystallineToken",
    "Morphology",
    "Neighbor",
    "NumberedTokens",
    "Statistics",
    "TokenIndex",
    "change_basis",
    "clock_direction",
    "coordinates",
    "golden_angle",
    "lattice_distance",
    "make_token",
    "phase_alignment",
    "phase_table",
    "prime_similarity",
    "reflect",
    "rotate_by_golden_angle",
    "rotate_by_hours",
    "translate",
]
