"""Closest vectors of a lattice to a target, one by one or many in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.exact.lattice.ball import LARGEST_ENTRY, Ball
from crystalline.exact.lattice.basis import LatticeBasis
from crystalline.exact.lattice.bkz import linear_pruning
from crystalline.exact.lattice.certificate import CertificateError
from crystalline.exact.lattice.search import check_spanned, nearer_exists
from crystalline.exact.lattice.svp import check_method, prepared

# Added to linear pruning, which alone misses the closest vector for most random targets.
ABOVE = 0.2


@dataclass(frozen=True)
class ClosestVector:
    """A vector of a lattice closest to a target, as `closest_vector` found it.

    `vector` and `target` are exact rationals; `reduced`: the basis that was enumerated; `nodes`:
    how many nodes of its tree were visited.

    >>> found = closest_vector([[2, 0], [0, 2]], [Fraction(7, 3), Fraction(7, 2)])
    >>> found.vector, found.method
    ((Fraction(2, 1), Fraction(4, 1)), 'proved')
    """

    basis: LatticeBasis
    target: tuple[Fraction, ...]
    vector: tuple[Fraction, ...]
    method: str
    reduced: LatticeBasis
    nodes: int

    @property
    def squared_distance(self) -> Fraction:
        """The squared Euclidean distance of the vector from the target, exact."""
        pairs = zip(self.target, self.vector, strict=True)
        return sum(((t - v) ** 2 for t, v in pairs), Fraction(0))

    def verify(self) -> None:
        """Check in exact arithmetic that the vector is what it claims to be.

        The reduced basis spans the lattice, the vector is a member, and, for the method
        "proved", a walk over the tree in rationals finds nothing nearer.  CertificateError names
        what fails.  The walk is slow: minutes from about 200,000 nodes.
        """
        denominator = self.basis.denominator
        row = [x * denominator for x in self.vector]
        if any(x.denominator != 1 for x in row):
            raise CertificateError("the vector is not in the lattice")
        check_spanned(self.basis, self.reduced, [int(x) for x in row])
        if self.method != "proved":
            return
        scale = math.lcm(denominator, *(t.denominator for t in self.target))
        rows = [[x * (scale // denominator) for x in line] for line in self.reduced.rows]
        target = [int(t * scale) for t in self.target]
        if nearer_exists(rows, target, int(self.squared_distance * scale**2)):
            raise CertificateError("there is a nearer vector")


class ClosestVectorSearch:
    """A lattice prepared for many closest-vector queries: its basis is reduced once.

    basis: a LatticeBasis or what makes one; rows may be dependent.  A query measures in exact
    integers; see `closest_vector` for the methods.

    >>> search = ClosestVectorSearch([[4, 1], [2, 3]])
    >>> search.closest([3, Fraction(5, 2)]).vector
    (Fraction(2, 1), Fraction(3, 1))
    >>> vectors, squared = search.closest_to_all(np.array([[3, 2], [-7, 1]]))
    >>> vectors.tolist(), squared
    ([[2, 3], [-6, 1]], [2, 1])
    """

    def __init__(self, basis: Any) -> None:
        self.basis, self.reduced = prepared(basis)
        self._ball = Ball(self.reduced.rows)

    def closest(self, target: Sequence[Any], *, method: str = "proved") -> ClosestVector:
        """Return a vector closest to the target: ints, Fractions, BigFixed, [n] of them."""
        check_method(method)
        exact = self._rational(target)
        scale = math.lcm(*((t * self.reduced.denominator).denominator for t in exact))
        ball = self._ball
        if scale > 1:  # the target lies on a finer grid than the basis
            ball = Ball([[x * scale for x in row] for row in self.reduced.rows])
        grid = scale * self.reduced.denominator
        pruning = linear_pruning(len(self.reduced), ABOVE) if method == "fast" else None
        row, _squared = ball.closest([int(t * grid) for t in exact], pruning)
        vector = tuple(Fraction(x, grid) for x in row)
        nodes = ball.enumerator.nodes
        return ClosestVector(self.basis, exact, vector, method, self.reduced, nodes)

    def closest_to_all(
        self, targets: npt.NDArray[np.integer[Any]], *, method: str = "proved"
    ) -> tuple[npt.NDArray[np.int64], list[int]]:
        """Return (rows[N, n], squared distances) for integer targets[N, n], in one nogil call.

        Rows, targets and distances are in units of 1 / denominator of the basis.  ValueError for
        targets of another shape; TypeError for targets that are no integers; OverflowError where
        the basis or a target has entries of 2^50 or more: `closest` has no such limit.
        """
        check_method(method)
        targets = np.asarray(targets)
        if targets.dtype.kind not in "iu":
            raise TypeError(f"targets are {targets.dtype}, expected integers")
        n = self.reduced.shape[1]
        if targets.ndim != 2 or targets.shape[1] != n:
            raise ValueError(f"targets have the shape {targets.shape}, expected (N, {n})")
        beyond = (targets >= LARGEST_ENTRY) | (targets <= -LARGEST_ENTRY)
        if beyond.any():
            i, j = np.argwhere(beyond)[0]
            raise OverflowError(f"entry [{i}][{j}] of the targets is {targets[i, j]}, beyond 2^50")
        if not self._ball.small:
            raise OverflowError(
                f"the reduced basis has entries of {self.reduced.bits} bits, too large for targets "
                "in one call; use closest() for each"
            )
        pruning = linear_pruning(len(self.reduced), ABOVE) if method == "fast" else None
        return self._ball.closest_to_all(targets.astype(np.int64), pruning)

    def _rational(self, target: Sequence[Any]) -> tuple[Fraction, ...]:
        n = self.reduced.shape[1]
        if len(target) != n:
            raise ValueError(f"the target has {len(target)} entries, the basis {n} columns")
        for i, entry in enumerate(target):
            if isinstance(entry, float) or not hasattr(entry, "as_integer_ratio"):
                raise TypeError(
                    f"entry {i} of the target is {entry!r} ({type(entry).__name__}), expected an "
                    "exact number; Fraction(x) makes one of a float"
                )
        return tuple(Fraction(*map(int, entry.as_integer_ratio())) for entry in target)


def closest_vector(basis: Any, target: Sequence[Any], *, method: str = "proved") -> ClosestVector:
    """Return a vector of a lattice closest to a target.

    basis: a LatticeBasis or what makes one; target: ints, Fractions or BigFixed [n], inside the
    span or not.  "proved" walks the whole tree within a bound whose rounding margin is proved
    (see `crystalline._kernels.lattice.enumerate`) and measures in integers: no vector is nearer.
    "fast" prunes the tree: the vector is close, most often closest, without a guarantee.  Of
    several closest vectors one is returned, always the same.  Ctrl-C ends a long call.  For many
    targets see `ClosestVectorSearch`.

    Source: C. P. Schnorr, M. Euchner, Mathematical Programming 66 (1994).

    >>> found = closest_vector([[4, 1], [2, 3]], [3, 2])
    >>> found.vector, found.squared_distance
    ((Fraction(2, 1), Fraction(3, 1)), Fraction(2, 1))
    >>> found.verify()
    """
    return ClosestVectorSearch(basis).closest(target, method=method)
