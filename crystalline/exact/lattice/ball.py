"""A reduced basis made ready for enumeration, whatever the size of its entries.

Bases whose entries and norms fit are measured in 128-bit integers by the kernel; all others by
Python's integers, vector by vector, while the kernel walks in scaled doubles.  Either way floats
only steer: what is kept is decided in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ldexp

import numpy as np
import numpy.typing as npt

from crystalline._kernels.lattice.enumerate import LARGEST_NORM, Enumerator, gram
from crystalline.exact import _parts as parts
from crystalline.exact.lattice.babai import nearest_plane

Row = Sequence[int]
LARGEST_ENTRY = 1 << 50  # leaves the kernel's 128-bit sums room for any dimension


def dot(a: Row, b: Row) -> int:
    """Return the inner product."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def combine(x: Sequence[int], rows: Sequence[Row]) -> list[int]:
    """Return the sum of x[i] rows[i]."""
    total = [0] * len(rows[0])
    for factor, row in zip(x, rows, strict=True):
        if factor:
            total = [t + factor * entry for t, entry in zip(total, row, strict=True)]
    return total


def scaled(number: int, exponent: int) -> tuple[float, float]:
    """Return number 2^-exponent as a sum of two doubles, to a relative 2^-105."""
    cut = max(0, number.bit_length() - 120)
    top = number >> cut
    high = float(top)
    return ldexp(high, cut - exponent), ldexp(float(top - int(high)), cut - exponent)


class Ball:
    """Searches the vectors of a lattice, given by reduced and independent integer rows.

    >>> ball = Ball([[2, 1], [-1, 3]])
    >>> ball.shortest()
    ([1, 0], 5)
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        n = len(rows)
        self.small, self.exponent = False, 0
        if max(map(max, rows)) < LARGEST_ENTRY and min(map(min, rows)) > -LARGEST_ENTRY:
            packed = np.array(rows, np.int64)
            high, low = gram(packed)
            self.norms = [int(high[i, i]) + int(low[i, i]) for i in range(n)]
            self.small = max(self.norms) * n < LARGEST_NORM
        if self.small:
            self.enumerator = Enumerator(high, low, packed)
            return
        self.norms = [dot(row, row) for row in rows]
        # Squared norms up to 2^500, so that their products stay within doubles.
        self.exponent = max(self.norms).bit_length() - 500
        high, low = np.zeros((n, n)), np.zeros((n, n))
        for i in range(n):
            for j in range(i + 1):
                high[i, j], low[i, j] = scaled(dot(rows[i], rows[j]), self.exponent)
        self.enumerator = Enumerator(high, low)

    def _bound(self, norm: int) -> float:
        """A double that is not below norm 2^-exponent."""
        return scaled(norm, self.exponent)[0] * (1 + 2**-50)

    def shortest(self, pruning: npt.NDArray[np.float64] | None = None) -> tuple[list[int], int]:
        """Return (x, squared norm) of a shortest nonzero vector; with pruning, of a short one."""
        best = min(range(len(self.rows)), key=self.norms.__getitem__)
        x = [int(i == best) for i in range(len(self.rows))]
        norm = self.norms[best]
        if self.small:
            return self.enumerator.shortest(norm, pruning=pruning) or (x, norm)

        def judge(candidate: list[int]) -> float | None:
            nonlocal x, norm
            vector = combine(candidate, self.rows)
            length = dot(vector, vector)
            if length >= norm:
                return None
            x, norm = candidate, length
            return self._bound(norm)

        self.enumerator.shortest(self._bound(norm), judge, pruning)
        return x, norm

    def closest(
        self, target: Row, pruning: npt.NDArray[np.float64] | None = None
    ) -> tuple[list[int], int]:
        """Return (vector, squared distance) of a lattice vector closest to an integer target.

        With pruning, of a close one.
        """
        if self.small and max(map(abs, target), default=0) < LARGEST_ENTRY:
            vectors, distances = self.closest_to_all(np.array([target], np.int64), pruning)
            return vectors[0].tolist(), distances[0]
        near = nearest_plane(self.rows, target).coordinates
        rest = [a - b for a, b in zip(target, combine(near, self.rows), strict=True)]
        products = np.array([scaled(dot(rest, row), self.exponent)[0] for row in self.rows])
        error = self.enumerator.project(products)
        best, distance = rest, dot(rest, rest)
        # The part of the distance inside the span, which differences of exact distances change.
        start, r = distance, self.enumerator.r
        within = float((((np.abs(products) + error) ** 2) * r).sum()) * (1 + 2**-40)

        def judge(candidate: list[int]) -> float | None:
            nonlocal best, distance
            difference = [a - b for a, b in zip(rest, combine(candidate, self.rows), strict=True)]
            length = dot(difference, difference)
            if length >= distance:
                return None
            best, distance = difference, length
            return within - scaled(start - distance, self.exponent)[0] * (1 - 2**-50)

        self.enumerator.closest_called(products, error, within, judge, pruning)
        return [t - d for t, d in zip(target, best, strict=True)], distance

    def closest_to_all(
        self,
        targets: npt.NDArray[np.int64],
        pruning: npt.NDArray[np.float64] | None = None,
    ) -> tuple[npt.NDArray[np.int64], list[int]]:
        """Return (vectors[N, m], squared distances) for targets[N, m]; needs a `small` basis."""
        coefficients = np.zeros((len(targets), len(self.rows)), np.int64)
        distances = np.zeros((len(targets), 2), np.uint64)
        self.enumerator.closest(parts.contiguous(targets), coefficients, distances, pruning)
        basis = np.array(self.rows, np.int64)
        vectors = np.empty((len(targets), basis.shape[1]), np.int64)
        for part in parts.slices(len(targets), 1 + parts.PART // basis.size):
            vectors[part] = coefficients[part] @ basis
        squared: list[int] = []
        for part in parts.slices(len(distances), 1 << 14):
            squared += [low + (high << 64) for low, high in distances[part].tolist()]
        return vectors, squared
