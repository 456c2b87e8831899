"""How alike two tokens are: by their places, their numbers and their derivation.

similarity = w1 / (1 + distance) + w2 gcd(a, b) / max(a, b) + w3 / (1 + steps of derivation), the
last 0 for tokens of different roots; the weights add up to 1.  It lies in [0, 1], is symmetric, and
is 1 of a token with itself, to the last bit; many pairs take one pass of a compiled kernel, and a
single pair is a batch of one, so that both have the same bits.

`lattice_distance` and `prime_similarity` are exact; the weighted sum is computed in doubles from
coordinates rounded once, to a relative error below (d + 10) 2^-53 where the points are as far
apart as those of `coordinates` are for d >= 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline._kernels import similarity as kernel
from crystalline.exact import BigFixed, sqrt
from crystalline.pure.coordinates import FRAC_BITS
from crystalline.pure.morphology import Morphology

WEIGHTS = (0.4, 0.3, 0.3)


def checked_weights(weights: Sequence[float]) -> tuple[float, float, float]:
    """Return (lattice, prime, morphology) as floats; ValueError unless they are >= 0 and sum to 1.

    >>> checked_weights((0.7, 0.2, 0.1))
    (0.7, 0.2, 0.1)
    """
    lattice, prime, morphology = (float(weight) for weight in weights)
    if not min(lattice, prime, morphology) >= 0:
        raise ValueError(f"the weights are {tuple(weights)}, expected none below 0")
    if math.fsum((lattice, prime, morphology)) != 1:
        total = math.fsum((lattice, prime, morphology))
        raise ValueError(f"the weights {tuple(weights)} sum to {total}, expected 1")
    return lattice, prime, morphology


def checked_pairs(pairs: Any, tokens: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return both columns of pairs [m, 2] of ids; IndexError for one that is no token's.

    >>> checked_pairs([[0, 1], [2, 2]], 3)
    (array([0, 2]), array([1, 2]))
    """
    array = np.asarray(pairs)
    if array.size == 0:
        array = np.zeros((0, 2), np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"pairs are {array.dtype}, expected integers")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"pairs have the shape {array.shape}, expected (m, 2)")
    beyond = (array < 0) | (array >= tokens)
    if beyond.any():
        raise IndexError(f"there is no token {array[beyond][0]}, only 0 to {tokens - 1}")
    array = array.astype(np.int64)
    return np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])


def similarities(
    points: npt.NDArray[np.float64],
    numbers: npt.NDArray[np.uint64],
    morphology: Morphology,
    pairs: Any,
    weights: Sequence[float] = WEIGHTS,
) -> npt.NDArray[np.float64]:
    """Return the similarity of each of pairs [m, 2] of ids of tokens: [m].

    points [n, d], numbers [n] and the morphology are the tokens'.

    >>> graph, numbers = Morphology.of_parents([0, 0]), np.array([5, 10], np.uint64)
    >>> similarities(np.array([[0.0], [1.0]]), numbers, graph, [[0, 1], [1, 1]])
    array([0.5, 1. ])
    """
    a, b = checked_pairs(pairs, len(numbers))
    out = np.empty(a.size)
    kernel.token_similarities(
        points, numbers, morphology.parent, morphology.depth, a, b, *checked_weights(weights), out
    )
    return out


def prime_similarity(a: int, b: int) -> Fraction:
    """Return gcd(a, b) / max(a, b) of two positive numbers, exact.

    >>> prime_similarity(10, 15)
    Fraction(1, 3)
    """
    return Fraction(math.gcd(a, b), max(a, b))


def lattice_distance(a: Sequence[BigFixed], b: Sequence[BigFixed]) -> BigFixed:
    """Return the Euclidean distance of two points, rounded once to 192 bits.

    The sum of the squares under the root is exact.

    >>> float(lattice_distance([BigFixed(0), BigFixed(1)], [BigFixed(3), BigFixed(5)]))
    5.0
    """
    squared = sum(((x - y).as_fraction() ** 2 for x, y in zip(a, b, strict=True)), Fraction(0))
    bits = squared.denominator.bit_length() - 1
    return sqrt(BigFixed.from_mantissa(squared.numerator, bits), FRAC_BITS)
