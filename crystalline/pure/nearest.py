"""The tokens nearest to a point, exactly: the lattice's cells, a tree of boxes, integers to decide.

Doubles with a proved margin find the few tokens that can be meant (`_kernels.boxtree`), and exact
squared distances in units of 2^-384 order them, ties by the lower id: the answer is brute force's
in every case.  A search begins with the tokens of the query's cell, the points nearer to its
lattice vector than to any other (CVP), and goes on through the tree, which leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import frexp
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline._kernels import boxtree
from crystalline.exact import BigFixed, BigFixedArray, sqrt
from crystalline.exact.lattice import ClosestVectorSearch, LatticeBasis
from crystalline.pure.coordinates import FRAC_BITS, WIDTH_BITS
from crystalline.pure.token import CrystallineToken

# From here on a closest vector costs more than the start in its cell saves: enumeration is
# exponential in the dimension.
MOST_CELL_DIMENSIONS = 8
_LEAF = 8
_CELL_BITS = 20  # how finely queries and the basis are rounded to find a cell
_ROOM = 8  # candidates a query, beside the k that were asked for

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]
_Tree = tuple[_Floats, _Floats, _Integers, _Integers, _Integers]


@dataclass(frozen=True)
class Neighbor:
    """A token and its squared Euclidean distance from the point that was asked for, exact.

    >>> from crystalline.pure.embeddings import CrystallineEmbeddings
    >>> tokens = CrystallineEmbeddings(2)
    >>> _ = tokens.add_token("run", 5)
    >>> neighbor = tokens.nearest([2, 5])
    >>> neighbor.token.text, float(neighbor.squared_distance), float(neighbor.distance)
    ('run', 25.0, 5.0)
    """

    token: CrystallineToken
    squared_distance: BigFixed

    @property
    def distance(self) -> BigFixed:
        """The distance, rounded once to 192 bits."""
        return sqrt(self.squared_distance, FRAC_BITS)


def as_points(points: Any, dimension: int) -> BigFixedArray:
    """Return points [m, d] as an array of 256 bits, each coordinate rounded once to 2^-192.

    points: a BigFixedArray, a NumPy array, or sequences of numbers that BigFixedArray.of takes.
    ValueError for another shape.

    >>> as_points([[0.5, 2]], 2).shape
    (1, 2)
    """
    if not isinstance(points, BigFixedArray | np.ndarray):
        points = [list(point) if isinstance(point, Iterable) else point for point in points]
    array = BigFixedArray.of(points, WIDTH_BITS, FRAC_BITS)
    if array.shape == (0,):
        array = array.reshape(0, dimension)
    if array.ndim != 2 or array.shape[1] != dimension:
        raise ValueError(f"points have the shape {array.shape}, expected (m, {dimension})")
    return array


def as_point(point: Any, dimension: int) -> BigFixedArray:
    """Return a point [d] as `as_points` of one: [1, d].

    >>> as_point(np.array([0.5, 2]), 2).to_strings()
    [['0.5', '2.0']]
    """
    if not isinstance(point, BigFixedArray | np.ndarray):
        point = list(point)
    array = BigFixedArray.of(point, WIDTH_BITS, FRAC_BITS)
    if array.shape != (dimension,):
        raise ValueError(f"a point has the shape {array.shape}, expected ({dimension},)")
    return array.reshape(1, dimension)


class TokenIndex:
    """Points prepared for nearest-neighbor queries; immutable.

    positions [n, d], n > 0; basis: that of the lattice whose cells the points are sorted into.

    >>> index = TokenIndex(as_points([[0, 0], [2, 0], [0, 2]], 2), LatticeBasis([[1, 0], [0, 1]]))
    >>> ((rows, squares),) = index.nearest(as_points([[1, 2]], 2), 3)
    >>> rows, [square >> 384 for square in squares]
    ([2, 0, 1], [1, 5, 5])
    """

    def __init__(self, positions: BigFixedArray, basis: LatticeBasis) -> None:
        self._mantissas: list[list[int]] = positions.mantissas()
        floats = positions.to_floats()
        self._largest = np.abs(floats).max(axis=0)
        self._order, self._tree = _build(floats)
        self._points = np.ascontiguousarray(floats[self._order])
        self._cells = _Cells(basis) if positions.shape[1] <= MOST_CELL_DIMENSIONS else None
        vectors, named = np.zeros((len(floats), 0), np.int64), np.zeros(len(floats), bool)
        if self._cells is not None:
            vectors, named = self._cells.of(self._points)
        self._cell_ids: dict[bytes, int] = {}
        cell_of = np.full(len(floats), -1, np.int64)
        for i in np.flatnonzero(named):
            cell_of[i] = self._cell_ids.setdefault(vectors[i].tobytes(), len(self._cell_ids))
        # A token beyond the grid of the cells belongs to one more cell, which no query names.
        cell_of[cell_of < 0] = len(self._cell_ids)
        sizes = np.bincount(cell_of, minlength=len(self._cell_ids) + 1)
        self._cell_of = cell_of
        self._cell_first = np.concatenate([[0], np.cumsum(sizes)])
        self._cell_points = np.argsort(cell_of, kind="stable")

    def __len__(self) -> int:
        return len(self._mantissas)

    def nearest(self, points: BigFixedArray, k: int) -> list[tuple[list[int], list[int]]]:
        """Return for each of points [m, d] the k nearest rows, nearest first, and their distances.

        Distances are squared and exact, in units of 2^-384; of equal ones the lower row comes
        first.  1 <= k <= n.
        """
        found, counts = self._candidates(points, k)
        results = []
        for query, rows, count in zip(points.mantissas(), found, counts.tolist(), strict=True):
            ranked = sorted((self._squared(query, row), row) for row in rows[:count].tolist())[:k]
            results.append(([row for _, row in ranked], [square for square, _ in ranked]))
        return results

    def nearest_rows(self, points: BigFixedArray, k: int) -> _Integers:
        """Return the rows of `nearest` only: [m, k].  Distances are computed where they decide."""
        found, counts = self._candidates(points, k)
        rows = found[:, :k].copy()
        open_queries = np.arange(len(rows)) if k > 1 else np.flatnonzero(counts > 1)
        if open_queries.size:
            queries = points[open_queries].mantissas()
            for i, query in zip(open_queries.tolist(), queries, strict=True):
                among = found[i, : counts[i]].tolist()
                ranked = sorted((self._squared(query, row), row) for row in among)
                rows[i] = [row for _, row in ranked[:k]]
        return rows

    def _squared(self, query: Sequence[int], row: int) -> int:
        gaps = map(int.__sub__, query, self._mantissas[row])
        return sum(gap * gap for gap in gaps)

    def _candidates(self, points: BigFixedArray, k: int) -> tuple[_Integers, _Integers]:
        """Return rows [m, room] of which the first counts[m] may be among the k nearest."""
        queries = points.to_floats()
        m = len(queries)
        # |computed - true| of a coordinate's difference: two roundings and one of the difference,
        # 2^-53 of what is rounded each; doubled for what rounding does to this bound itself.
        slack = ((np.abs(queries) + self._largest) * 2.0**-51).sum(axis=1)
        counts, room = np.zeros(m, np.int64), min(k + _ROOM, len(self))
        while True:
            found = np.zeros((m, room), np.int64)
            boxtree.candidates(
                self._points,
                self._cell_of,
                self._cell_first,
                self._cell_points,
                *self._tree,
                queries,
                self._query_cells(queries),
                slack,
                np.empty(k),
                found,
                counts,
            )
            if counts.max(initial=0) <= room:
                return self._order[found], counts
            room = int(counts.max())

    def _query_cells(self, queries: _Floats) -> _Integers:
        result = np.full(len(queries), -1, np.int64)
        if self._cells is not None:
            vectors, named = self._cells.of(queries)
            for i in np.flatnonzero(named).tolist():
                result[i] = self._cell_ids.get(vectors[i].tobytes(), -1)
        return result


class _Cells:
    """Which lattice vector is closest to a point, up to a grid of about 2^-20 of the basis.

    Where the rounding matters, a search begins in the next cell; its result is the same.
    """

    def __init__(self, basis: LatticeBasis) -> None:
        largest = max(abs(entry) for row in basis.fractions() for entry in row)
        self._scale = 2.0 ** (_CELL_BITS - frexp(float(largest))[1])
        scale = Fraction(self._scale)
        self._search = ClosestVectorSearch(
            [[round(entry * scale) for entry in row] for row in basis.fractions()]
        )

    def of(self, points: _Floats) -> tuple[_Integers, npt.NDArray[np.bool_]]:
        """Return the vectors [m, d], and for which points there is one: not for those far out."""
        scaled = np.rint(points * self._scale)
        named: npt.NDArray[np.bool_] = np.all(np.abs(scaled) < 2.0**49, axis=1)
        vectors = np.zeros(points.shape, np.int64)
        if named.any():
            vectors[named] = self._search.closest_to_all(scaled[named].astype(np.int64))[0]
        return vectors, named


def _build(
    points: _Floats,
) -> tuple[_Integers, _Tree]:
    """Return the points' order in the tree, and the tree: lo, hi, first, last, child.

    A node's points are halved along its longest side until a leaf's are left.
    """
    order = np.arange(len(points))
    lo, hi, first, last, child = [], [], [0], [len(points)], [0]
    node = 0
    while node < len(first):
        start, stop = first[node], last[node]
        here = points[order[start:stop]]
        lo.append(here.min(axis=0))
        hi.append(here.max(axis=0))
        if stop - start > _LEAF:
            middle = (stop - start) // 2
            axis = int(np.argmax(hi[node] - lo[node]))
            halves = np.argpartition(here[:, axis], middle)
            order[start:stop] = order[start:stop][halves]
            child[node] = len(first)
            first += [start, start + middle]
            last += [start + middle, stop]
            child += [0, 0]
        node += 1
    spans = (np.array(first, np.int64), np.array(last, np.int64), np.array(child, np.int64))
    return order, (np.array(lo), np.array(hi), *spans)
