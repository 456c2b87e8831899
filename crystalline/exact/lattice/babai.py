"""Close lattice vectors by Babai's two methods: nearest plane and rounding, with exact results.

Floats guide the kernel and a proved bound of their error decides; a target too near to the border
between two answers is decided in exact integers.  What is closest of all is left to the search.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from crystalline._kernels.lattice.babai import PlaneSolver
from crystalline._kernels.lattice.basis import IntMatrix
from crystalline.exact.lattice.basis import LatticeBasis, as_basis, rational_rows
from crystalline.exact.lattice.gso import GramSchmidt


@dataclass(frozen=True)
class CloseVector:
    """A lattice vector near a target, exactly: vector = coordinates · basis.

    `squared_distance` is that of the target from `vector`; `proof` names the arithmetic that
    decided: "double" with a proved bound, or "exact".

    >>> near = NearestPlane([[4, 1], [2, 3]]).nearest([3, 2])
    >>> near.vector, near.squared_distance
    ((Fraction(2, 1), Fraction(3, 1)), Fraction(2, 1))
    """

    coordinates: tuple[int, ...]
    vector: tuple[Fraction, ...]
    squared_distance: Fraction
    proof: str


class NearestPlane:
    """Babai's methods for one basis and any number of targets.

    basis: a LatticeBasis or what makes one, of linearly independent rows, best reduced by `lll`: a
    plane's error is half a b*_j, so the result is as good as the basis.  A target is a sequence of
    n rationals (int, Fraction, BigFixed, float, ...); a batch of them a sequence of such or an
    array [m, n] of NumPy.

    Errors: ValueError for dependent rows and targets of another length, TypeError for entries
    that are no numbers.

    >>> planes = NearestPlane([[5, 0], [1, 4]])
    >>> close = planes.nearest([13.5, -3])
    >>> close.coordinates, close.squared_distance
    ((3, -1), Fraction(5, 4))
    >>> [close.coordinates for close in planes.nearest_many([[0, 2], [9, 9]])]
    [(0, 1), (1, 2)]
    """

    __slots__ = ("_basis", "_exact", "_solvers")

    def __init__(self, basis: Any) -> None:
        self._basis = as_basis(basis)
        self._exact: GramSchmidt | None = None
        self._solvers: dict[int, PlaneSolver] = {}
        if not math.isfinite(self._solver(1).error):
            self._integers()  # exact data from the start, or ValueError for dependent rows

    @property
    def basis(self) -> LatticeBasis:
        """The basis."""
        return self._basis

    def nearest(self, target: Iterable[Any]) -> CloseVector:
        """Return the vector of the cell that `target` is in: the nearest plane at every step.

        The residual v has -1/2 <= <v, b*_j> / |b*_j|^2 < 1/2 for every j, exactly, so
        |v|^2 <= (sum of |b*_j|^2) / 4 for a target in the span (L. Babai, Combinatorica 6, 1986).
        """
        return self.nearest_many([target])[0]

    def nearest_many(self, targets: Iterable[Iterable[Any]]) -> list[CloseVector]:
        """Return `nearest` of each of many targets; the kernel runs without the GIL."""
        rows, scale = self._scaled(targets)
        if not rows:
            return []
        factor = scale // self._basis.denominator
        residuals, coordinates, proved = self._solver(factor).solve(IntMatrix(rows))
        found = []
        pairs = zip(residuals.to_lists(), coordinates.to_lists(), strict=True)
        for i, (residual, line) in enumerate(pairs):
            if not proved[i]:
                steps = self._exact_steps(residual, factor)
                line = [x + y for x, y in zip(line, steps, strict=True)]
            found.append(self._close(rows[i], scale, line, "double" if proved[i] else "exact"))
        return found

    def round_off(self, target: Iterable[Any]) -> CloseVector:
        """Return the vector whose coordinates are those of `target`, rounded (halves up).

        Of a target outside the span of the basis, its projection is taken.

        >>> NearestPlane(LatticeBasis([[2, 0], [1, 2]])).round_off([3, 3]).coordinates
        (1, 2)
        """
        (row,), scale = self._scaled([target])
        g = self._integers()
        factor = scale // self._basis.denominator
        projected = g.project(row)
        size = len(projected)
        # x_j d[size], from the last on: sum over i >= j of mu_ij x_i = lambda_j / d[j + 1]
        x = [0] * size
        for j in range(size - 1, -1, -1):
            value = g.d[size] * projected[j]
            value -= sum(g.lam[i][j] * x[i] for i in range(j + 1, size))
            x[j] = value // g.d[j + 1]
        bottom = g.d[size] * factor
        return self._close(row, scale, [(2 * v + bottom) // (2 * bottom) for v in x], "exact")

    def _scaled(self, targets: Iterable[Iterable[Any]]) -> tuple[list[list[int]], int]:
        """Integer rows over one denominator, a multiple of the basis's."""
        rows, bottom = rational_rows(targets, "target")
        width = self._basis.shape[1]
        for i, row in enumerate(rows):
            if len(row) != width:
                raise ValueError(f"target {i} has {len(row)} entries, the basis has {width}")
        scale = math.lcm(bottom, self._basis.denominator)
        if scale != bottom:
            rows = [[x * (scale // bottom) for x in row] for row in rows]
        return rows, scale

    def _solver(self, factor: int) -> PlaneSolver:
        """The kernel's solver for rows multiplied by `factor`; the last few are kept."""
        if factor not in self._solvers:
            matrix = self._basis.matrix
            if factor != 1:
                matrix = IntMatrix([[factor * x for x in row] for row in self._basis.rows])
            if len(self._solvers) > 8:
                self._solvers.clear()
            self._solvers[factor] = PlaneSolver(matrix)
        return self._solvers[factor]

    def _integers(self) -> GramSchmidt:
        if self._exact is None:
            self._exact = GramSchmidt(self._basis)
        return self._exact

    def _exact_steps(self, residual: Sequence[int], factor: int) -> list[int]:
        """The coordinates of the nearest planes of `residual`, over rows times `factor`."""
        g = self._integers()
        projected = g.project(residual)
        steps = [0] * len(projected)
        for j in range(len(projected) - 1, -1, -1):
            bottom = g.d[j + 1] * factor
            steps[j] = (2 * projected[j] + bottom) // (2 * bottom)
            for i in range(j):
                projected[i] -= steps[j] * factor * g.lam[j][i]
        return steps

    def _close(
        self, row: Sequence[int], scale: int, coordinates: Sequence[int], proof: str
    ) -> CloseVector:
        vector = self._basis.combine(coordinates)
        gaps = (Fraction(x, scale) - y for x, y in zip(row, vector, strict=True))
        return CloseVector(
            tuple(coordinates), vector, sum((x * x for x in gaps), Fraction(0)), proof
        )


def nearest_plane(basis: Any, target: Iterable[Any]) -> CloseVector:
    """Return Babai's nearest-plane vector of one target; `NearestPlane` serves many.

    >>> nearest_plane([[3, 0], [1, 2]], [10, 10]).vector
    (Fraction(11, 1), Fraction(10, 1))
    """
    return NearestPlane(basis).nearest(target)


def round_off(basis: Any, target: Iterable[Any]) -> CloseVector:
    """Return Babai's rounding of one target: its coordinates, each rounded.

    >>> round_off([[3, 0], [1, 2]], [10, 10]).vector
    (Fraction(11, 1), Fraction(10, 1))
    """
    return NearestPlane(basis).round_off(target)
