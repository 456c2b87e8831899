"""What crystalline attention knows of a token: 16 fixed numbers φ, never trained.

The similarity of two tokens is K(a, b) = φ(a)·φ(b), a sum of three parts:

    K = 1/2 K_root + 1/4 K_place + 1/4 K_clock          K(a, a) = 1

Each part is a product of unit vectors of its own: 8 numbers for the root, 4 for the place, 4 for
the clock.  The weights are in proportion to these sizes, so that each of the 16 numbers carries
the same mean square and tokens that have nothing in common are at K = 0 ± 1/4 (rms; 16
dimensions allow no less, Welch 1974).  The root, the one part that morphology speaks in, gets
half.

* **Root**: 1 where two tokens have the same root, else about 0.  The code of the r-th most
  frequent root is the direction of a vector of the lattice E8, shell by shell (120, 1,080, 3,360,
  8,640, ... lines through the origin).  In 8 dimensions codes of many roots meet at cosines of
  rms √(1/8) = 0.354 whatever they are (Welch); E8 comes within 4 % of this bound from 65 roots
  on, lies on it at whole shells, and keeps its codes apart where that counts: all are different,
  cosines are at most 1/2 in absolute value among the 120 most frequent roots and 3/4 among
  1,200.  Random signs (Rademacher) have the same rms, but only 256 codes, so that one pair
  of unrelated roots in 256 would count as the same.
* **Place**: a random Fourier form (Rahimi and Recht 2007) of the RBF kernel exp(-d²/2σ²) with two
  frequencies, K = (cos ω₁·Δ + cos ω₂·Δ) / 2.  They have the kernel's root mean square length √2/σ
  and the directions 0 and 2 of the golden angle, 85° apart.  Near places agree with the RBF kernel
  to second order; of far ones two frequencies only say that they are not near (rms 1/2).  Δ is
  the difference of the places on Ulam's spiral, drawn together toward the center: at the distance
  log₂(1 + r) instead of r.  Roots lie within a few hundred of the center and products up to 2^30
  away: on a scale that sees both, one unit is a doubling.  σ is 2 doublings, so that the disc of
  10,000 roots (radius 7) holds about a dozen regions of its size.  The logarithm has straight
  lines between powers of two, exact in floating point and at most 0.0861 too small.
* **Clock**: K = (cos 2π (a - b)/12 + cos (a - b)γ) / 2 of the numbers a and b: hours of the clock
  of twelve, and turns by the golden angle γ.

All of it is exact arithmetic, or single operations that IEEE 754 defines to the last bit: the
features are the same on every machine.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline._kernels.attention import FEATURES as FEATURES
from crystalline.data.crystal.tokens import Crystal
from crystalline.exact import (
    BigFixed,
    clock_positions,
    golden_direction,
    pi,
    sincos,
    spiral_places,
)
from crystalline.exact.clock import HOURS

_F64 = npt.NDArray[np.float64]

ROOT_WEIGHT, PLACE_WEIGHT, CLOCK_WEIGHT = 0.5, 0.25, 0.25
PLACE_SCALE = 2.0  # σ
_ROOT_SIZE = 8
_FREQUENCIES = (0, 2)  # directions by the golden angle
_PREC_BITS = 64


def token_features(crystal: Crystal) -> npt.NDArray[np.float32]:
    """Return φ [V, 16] of every token; see above for what K = φ φᵀ means.

    >>> from crystalline.data.crystal.affixes import Affix, Derivations
    >>> found = Derivations(
    ...     parent=np.array([0, 0, 2], np.int32),
    ...     affix=np.array([-1, 0, -1], np.int32),
    ...     affixes=(Affix("ing", "suffix"),),
    ... )
    >>> phi = token_features(Crystal.of(("run", "running", "sun"), np.array([9, 5, 2]), found))
    >>> (phi @ phi.T).round(2)
    array([[ 1.  ,  0.72, -0.01],
           [ 0.72,  1.  , -0.01],
           [-0.01, -0.01,  1.  ]], dtype=float32)
    """
    parts = (
        (ROOT_WEIGHT, root_part(crystal.numbers[crystal.root])),
        (PLACE_WEIGHT, place_part(crystal.numbers)),
        (CLOCK_WEIGHT, clock_part(crystal.numbers)),
    )
    return np.hstack([math.sqrt(weight) * part for weight, part in parts]).astype(np.float32)


def root_part(primes: npt.NDArray[np.uint64]) -> _F64:
    """Return the unit code [V, 8] of each token's root, given by its prime [V].

    >>> codes = root_part(np.array([5, 5, 7], np.uint64))
    >>> (codes @ codes.T).round(12).tolist()[0]
    [1.0, 1.0, -0.5]
    """
    distinct, rank = np.unique(primes, return_inverse=True)
    return _root_codes(distinct.size)[rank]


def place_part(numbers: npt.NDArray[np.uint64]) -> _F64:
    """Return the unit vector [V, 4] of each number's place on Ulam's spiral.

    >>> near = place_part(np.array([1009, 1013, 1021], np.uint64))
    >>> (near @ near.T).round(3).tolist()[0]
    [1.0, 0.882, 0.354]
    """
    x, y = np.moveaxis(spiral_places(numbers).astype(np.float64), -1, 0)
    r = np.sqrt(x * x + y * y)
    mantissa, exponent = np.frexp(1.0 + r)  # 1 + r = m 2^e, 1/2 <= m < 1
    nearer = (exponent + 2.0 * mantissa - 2.0) / np.maximum(r, 1.0)
    columns = []
    for direction in _FREQUENCIES:
        cosine, sine = _pair(golden_direction(direction))
        east, north = math.sqrt(2.0) / PLACE_SCALE * cosine, math.sqrt(2.0) / PLACE_SCALE * sine
        columns.append(_circle(nearer * (east * x + north * y)))
    return math.sqrt(1 / len(_FREQUENCIES)) * np.hstack(columns)


def clock_part(numbers: npt.NDArray[np.uint64]) -> _F64:
    """Return the unit vector [V, 4] of each number's hour and golden direction.

    >>> clock_part(np.array([12, 15], np.uint64))[:, :2].round(3).tolist()
    [[0.707, 0.0], [0.0, 0.707]]
    """
    turn = 2 * pi(_PREC_BITS)
    hours = np.array(
        [_pair(sincos(turn * hour / HOURS, _PREC_BITS)[::-1]) for hour in range(HOURS)]
    )
    golden = np.array([_pair(golden_direction(number)) for number in numbers.tolist()])
    hour = clock_positions(numbers)[:, 1].astype(np.intp)
    return math.sqrt(1 / 2) * np.hstack([hours[hour], golden.reshape(-1, 2)])


def _circle(angles: _F64) -> _F64:
    """Return (cos, sin) [n, 2] of angles [n] in radians, rounded from 64 bits."""
    exact = [_pair(sincos(BigFixed(angle), _PREC_BITS)[::-1]) for angle in angles.tolist()]
    return np.array(exact).reshape(-1, 2)


def _pair(values: tuple[BigFixed, BigFixed]) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _root_codes(count: int) -> _F64:
    """Return the codes [count, 8]: directions of E8, the shells from the center outward.

    Within a shell the lines follow each other in golden strides, so that those of neighboring
    ranks are spread out; signs alternate, so that cosines are 0 on average.
    """
    codes = [np.empty((0, _ROOT_SIZE))]
    found, shell = 0, 0
    while found < count:
        shell += 1
        lines = _shell_lines(shell)
        stride = len(lines) * 377 // 610  # two of Fibonacci's numbers
        while math.gcd(stride, len(lines)) != 1:
            stride += 1
        order = np.arange(len(lines)) * stride % len(lines)
        signs = np.where(np.arange(len(lines)) % 2, -1.0, 1.0)
        codes.append(signs[:, None] * lines[order] / math.sqrt(8 * shell))
        found += len(lines)
    return np.concatenate(codes)[:count]


def _shell_lines(shell: int) -> npt.NDArray[np.int64]:
    """Return twice the primitive vectors of E8 of square 2·shell, one of each pair ±v, in order.

    Twice a vector of E8 has whole coordinates, all even or all odd, whose sum is a multiple of 4
    (Conway and Sloane, Sphere Packings, Lattices and Groups, 4.8.1).

    >>> [len(_shell_lines(shell)) for shell in (1, 2, 3, 4)]
    [120, 1080, 3360, 8640]
    """
    square = 8 * shell
    bound = math.isqrt(square)
    found: list[npt.NDArray[Any]] = []
    for parity in (0, 1):
        side = [value for value in range(-bound, bound + 1) if value % 2 == parity]
        half = np.stack(np.meshgrid(*[side] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
        squares = (half * half).sum(axis=1)
        for part in range(square + 1):
            a, b = half[squares == part], half[squares == square - part]
            found.append(np.hstack([np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))]))
    v = np.concatenate(found)
    v = v[v.sum(axis=1) % 4 == 0]
    v = v[v[np.arange(len(v)), (v != 0).argmax(axis=1)] > 0]
    for factor in range(2, math.isqrt(shell) + 1):
        v = v[~_is_multiple(v, factor)]
    lines: npt.NDArray[np.int64] = v[np.lexsort(v.T[::-1])]
    return lines


def _is_multiple(v: npt.NDArray[np.int64], factor: int) -> npt.NDArray[np.bool_]:
    """Return for each row whether it is `factor` times twice a vector of E8."""
    w = v // factor
    whole = (v % factor == 0).all(axis=1) & (w.sum(axis=1) % 4 == 0)
    same: npt.NDArray[np.bool_] = whole & (w % 2 == w[:, :1] % 2).all(axis=1)
    return same
