"""Where tokens begin: points in as many dimensions as a model has channels, from their numbers.

    prime p ──> golden angles, Ulam's radius ──> LLL coordinates ──> token n = p q ...: their sum

* **Directions.**  The i-th prime p has a direction u_p in R^dim, a point of the plane for every
  pair m of channels: u_p[2m], u_p[2m + 1] = ρ (cos a, sin a).  The angle a is i · 3^m golden
  angles: in the first pair the primes are spread around the circle as evenly as can be, and in the
  others by multiples of an irrational turn too.  3 expands: two primes close to each other in one
  pair are three times as far apart in the next.  As k golden angles come no nearer to full turns
  than about 1 / (√5 k) of a turn, the i-th and the j-th prime are close in about
  log_3 (√5 |i - j|) pairs in a row from the first on and no more.  The radius is that of Ulam's
  spiral, ρ^2 = d / (1 + d) for a place at distance d of the center.
* **Lattice coordinates.**  The channels are cut into blocks of 12.  In every block the directions
  of the most frequent roots (the least primes that are tokens) are the basis of a lattice; LLL
  gives it a basis of short, nearly orthogonal rows b_j, and directions are written in coordinates
  to it, u = Σ y_j b_j.  The roots of the basis become points with integer coordinates, and the
  others points between them.  In coordinates to the basis as it was, those roots would be the unit
  vectors, far shorter than all other tokens, and the channels strongly correlated; reduced, they
  are about as long as the others, and the condition number of the covariance falls by an order of
  magnitude or more.  (The golden directions themselves are less correlated still: the lattice
  costs some of that.)
* **Sums.**  A token lies at the sum over its number's prime factors, with multiplicity, so that
  "running" is "run" plus "-ing": what an affix adds is the same for every root.
* **Balance.**  Last, every channel is brought to mean 0 and variance 1 over the vocabulary, which
  leaves the differences between tokens what they were, up to the channel's scale.

Directions are exact until they are rounded to 2^-32; all sums after that are of integers, and
no function of the C library takes part: the same numbers give the same bits everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from crystalline.data.crystal.tokens import Crystal
from crystalline.exact import LatticeBasis, factor_arrays, golden_turn, lll, nth_prime, prime_array
from crystalline.exact.rotations import TURN_BITS, rotations
from crystalline.exact.spiral import spiral_places

BLOCK = 12  # channels of a lattice
RATE = 3  # of the angles, from one pair of channels to the next

_UNIT_BITS = 32
_HALF_BITS = 16
_ROOT_BITS = 64
_RADIUS_BITS = 52

_Int64 = npt.NDArray[np.int64]
_Float64 = npt.NDArray[np.float64]


def lattice_positions(crystal: Crystal, dim: int) -> npt.NDArray[np.float32]:
    """Return a point for every token, float32[V, dim]; every channel has mean 0 and variance 1.

    A function of the crystal's numbers alone.  A vocabulary of a single token is all zeros.
    """
    return positions_of_numbers(crystal.numbers, dim)


def positions_of_numbers(numbers: npt.NDArray[np.uint64], dim: int) -> npt.NDArray[np.float32]:
    """Return the points of the tokens with these numbers, uint64[V]: float32[V, dim].

    Raises `ValueError` for a number 0 and for no channels or tokens.

    With "-ing" 2, "run" 3 and "jump" 5, "-ing" adds the same to both:

    >>> jump, run, jumping, running = positions_of_numbers(np.uint64([5, 3, 10, 6]), 16)
    >>> bool(np.allclose(jumping - jump, running - run, atol=1e-6))
    True
    """
    if dim < 1 or len(numbers) < 1:
        raise ValueError(f"a table of {len(numbers)} tokens and {dim} channels is empty")
    primes, exponents, starts = factor_arrays(numbers)
    factors = (_prime_indices(primes), exponents.astype(np.int64), starts)
    roots = np.unique(factors[0][starts[:-1][_are_prime(exponents, starts)]])
    count = int(factors[0].max(initial=-1)) + 1
    # Where the vocabulary has fewer roots than a block has channels, the next primes stand in.
    candidates = [*roots.tolist(), *range(count, count + BLOCK)]
    radii = _ulam_radii(count + BLOCK)
    result = np.empty((len(numbers), dim), np.float32)
    for start in range(0, dim, BLOCK):
        stop = min(start + BLOCK, dim)
        directions = _directions(radii, start, stop)
        basis = reduced_basis(directions, candidates)
        result[:, start:stop] = _standardized(_sums(_coordinates(directions, basis), *factors))
    varied = int(result.any(axis=0).sum())
    if 0 < varied < dim:  # two or three tokens may agree in a channel, their coordinates integers
        result *= np.float32(math.sqrt(dim / varied))
    return result


def _prime_indices(primes: npt.NDArray[np.uint64]) -> _Int64:
    """Return the index of every prime among all primes, 2 being 0."""
    listed = prime_array(int(primes.max(initial=1)) + 1)
    return np.searchsorted(listed, primes).astype(np.int64)


def _are_prime(exponents: npt.NDArray[np.uint8], starts: _Int64) -> npt.NDArray[np.bool_]:
    """Return which numbers have a single prime factor."""
    totals = np.concatenate([[0], np.cumsum(exponents, dtype=np.int64)])
    single: npt.NDArray[np.bool_] = totals[starts[1:]] - totals[starts[:-1]] == 1
    return single


def _ulam_radii(count: int) -> _Float64:
    """Return the radii of the first primes, the root of d / (1 + d), to 2^-50."""
    places = spiral_places(prime_array(nth_prime(count) + 1))
    one = 1 << _ROOT_BITS
    radii = []
    for square in (places**2).sum(axis=1).tolist():
        distance = math.isqrt(square << 2 * _ROOT_BITS)
        radii.append(math.isqrt((distance << 2 * _RADIUS_BITS) // (one + distance)))
    return np.array(radii) / 2.0**_RADIUS_BITS


def _directions(radii: _Float64, start: int, stop: int) -> _Int64:
    """Return the channels `start` (even) to `stop` of the directions of the first primes.

    The result is int64 [primes, channels], in units of 2^-_UNIT_BITS and within one of them.
    """
    pairs = range(start // 2, (stop + 1) // 2)
    turns = [golden_turn(RATE**m, TURN_BITS) for m in pairs]
    points = rotations(turns, len(radii), start=1).reshape(len(radii), 2 * len(pairs))
    points = points[:, : stop - start] * radii[:, None]
    return np.rint(points * 2.0**_UNIT_BITS).astype(np.int64)


def reduced_basis(directions: _Int64, candidates: Iterable[int]) -> LatticeBasis:
    """Return the LLL-reduced basis of the lattice of the first independent rows.

    directions: int64 [primes, w], in units of 2^-32; `candidates` are the rows to choose from, in
    order.  Raises `ValueError` where fewer than w of them are independent.
    """
    return lll(initial_basis(directions, candidates)).basis


def initial_basis(directions: _Int64, candidates: Iterable[int]) -> LatticeBasis:
    """Return the basis that `reduced_basis` reduces."""
    width = directions.shape[1]
    chosen: list[list[int]] = []
    for row in candidates:
        rows = [*chosen, directions[row].tolist()]
        if LatticeBasis(rows).gram_determinant():
            chosen = rows
        if len(chosen) == width:
            return LatticeBasis(chosen, 1 << _UNIT_BITS)
    raise ValueError(f"{len(chosen)} independent directions are no basis of {width} dimensions")


def _coordinates(directions: _Int64, basis: LatticeBasis) -> _Int64:
    """Return the coordinates of directions to a basis, in the same units.

    They are the inner products with the dual basis, in doubles added one by one: exact to about
    2^-45 before they are rounded to units, so that integers stay integers.
    """
    dual = np.array([[float(x) for x in row] for row in basis.dual().fractions()])
    result = np.zeros(directions.shape)
    for channel in range(directions.shape[1]):
        result += directions[:, channel, None].astype(np.float64) * dual[:, channel]
    return np.rint(result).astype(np.int64)


def _sums(points: _Int64, primes: _Int64, exponents: _Int64, starts: _Int64) -> _Int64:
    """Return the sum of the points of each number's prime factors: int64 [numbers, w]."""
    counts = np.diff(starts)
    result = np.zeros((len(counts), points.shape[1]), np.int64)
    for place in range(int(counts.max())):
        numbers = np.flatnonzero(counts > place)
        at = starts[numbers] + place
        result[numbers] += points[primes[at]] * exponents[at, None]
    return result


def _standardized(points: _Int64) -> npt.NDArray[np.float32]:
    """Return columns of integers with mean 0 and variance 1; a constant column becomes 0.

    All sums are exact: squares are added in two parts, the lower 16 bits and what is above them.
    OverflowError for coordinates of some thousands of units and more, which no reduced basis gives.
    """
    size = len(points)
    total = points.sum(axis=0)
    high, low = points >> _HALF_BITS, points & (1 << _HALF_BITS) - 1
    largest = int(np.abs(high).max()) + 1
    if size * largest**2 >= 1 << 63:
        raise OverflowError(f"coordinates of {largest >> _UNIT_BITS - _HALF_BITS} are too large")
    parts = [(high * high).sum(axis=0), (high * low).sum(axis=0), (low * low).sum(axis=0)]
    scales = []
    for mean, *sums in zip(total.tolist(), *(part.tolist() for part in parts), strict=True):
        squares = (sums[0] << 2 * _HALF_BITS) + (sums[1] << _HALF_BITS + 1) + sums[2]
        deviation = math.isqrt(size * squares - mean * mean << 2 * _ROOT_BITS)
        scales.append((1 << _ROOT_BITS) / deviation if deviation else 0.0)
    result: npt.NDArray[np.float64] = (size * points - total) * np.array(scales)
    return result.astype(np.float32)
