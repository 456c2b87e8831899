"""Lattice reduction and search against fpylll and python-flint.

fpylll's own `SVP.shortest_vector(method="proved")` reads a file of strategies that its wheels do
not carry; it is timed by the parts it is made of: LLL, block reduction, full enumeration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flint
import numpy as np
from fpylll import BKZ, CVP, FPLLL, GSO, LLL, Enumeration, IntegerMatrix

from bench.exact.pairs import Row
from crystalline.exact.lattice import (
    ClosestVectorSearch,
    LatticeBasis,
    Reduction,
    lll,
    shortest_vector,
)

# name, fpylll's generator and what it takes
KINDS: tuple[tuple[str, int, str, dict[str, int]], ...] = (
    ("LLL of a 256-bit knapsack, dimension 40", 40, "intrel", {"bits": 256}),
    ("LLL of uniform 100-bit rows, dimension 60", 60, "uniform", {"bits": 100}),
    ("LLL of a 30-bit q-ary lattice, dimension 60", 60, "qary", {"k": 30, "bits": 30}),
)


def _volume(rows: list[list[int]]) -> Any:
    matrix = flint.fmpz_mat(rows)
    return (matrix * matrix.transpose()).det()


def _check(ours: Reduction, theirs: Any) -> None:
    """Both have the cell of the same volume, and our first vector is about as short."""
    a = [list(row) for row in ours.basis.rows]
    b = [[int(x) for x in row] for row in theirs]
    assert _volume(a) == _volume(b), "the two sides reduced different lattices"
    lengths = [sum(x * x for x in rows[0]) for rows in (a, b)]
    assert lengths[0] <= 2 * lengths[1], "our first vector is much longer"


def _fpylll(matrix: IntegerMatrix) -> Callable[[], Any]:
    return lambda: LLL.reduction(IntegerMatrix(matrix))


def _flint(matrix: Any) -> Callable[[], Any]:
    return lambda: matrix.lll().tolist()


def _ours(basis: LatticeBasis) -> Callable[[], Reduction]:
    return lambda: lll(basis)


def _fpylll_shortest(matrix: IntegerMatrix) -> int:
    work = IntegerMatrix(matrix)
    LLL.reduction(work)
    BKZ.reduction(work, BKZ.Param(20))
    gso = GSO.Mat(work)
    gso.update_gso()
    found = Enumeration(gso).enumerate(0, work.nrows, gso.get_r(0, 0) * 1.0001, 0)
    return sum(x * x for x in work.multiply_left(found[0][1]))


def _shortest() -> Row:
    FPLLL.set_random_seed(20261121)
    matrix = IntegerMatrix.random(40, "qary", k=20, bits=30)
    basis = LatticeBasis([[int(x) for x in row] for row in matrix])
    return Row(
        "SVP of a 30-bit q-ary lattice, dimension 40, proved",
        lambda: int(shortest_vector(basis).squared_norm),
        "fpylll",
        lambda: _fpylll_shortest(matrix),
        1.0,
    )


def _closest(name: str, dimension: int, count: int, at_most: float, *, one_call: bool) -> Row:
    """Targets against a reduced basis; fpylll takes them one by one."""
    FPLLL.set_random_seed(20261121)
    if dimension == 3:
        matrix = IntegerMatrix.random(3, "uniform", bits=20)
    else:
        matrix = IntegerMatrix.random(dimension, "qary", k=dimension // 2, bits=30)
    LLL.reduction(matrix)
    search = ClosestVectorSearch([[int(x) for x in row] for row in matrix])
    targets = np.random.default_rng(1).integers(0, 2**24, (count, dimension))
    listed = [tuple(row) for row in targets.tolist()]

    def ours() -> list[int]:
        if one_call:
            return search.closest_to_all(targets)[1]
        return [int(search.closest(target).squared_distance) for target in listed]

    def theirs() -> list[Any]:
        return [CVP.closest_vector(matrix, target) for target in listed]

    def check(distances: list[int], vectors: list[Any]) -> None:
        for target, ours_squared, vector in zip(listed, distances, vectors, strict=True):
            squared = sum((t - v) ** 2 for t, v in zip(target, vector, strict=True))
            # fpylll is not always closest; ours always is.
            assert ours_squared <= squared, "fpylll is nearer"

    return Row(name, ours, "fpylll", theirs, at_most, check)


def rows() -> list[Row]:
    """The rows of the lattices in the issue's table."""
    table = [
        _shortest(),
        _closest("CVP of a 30-bit q-ary lattice, dimension 20", 20, 1, 1.5, one_call=False),
        _closest("CVP in dimension 3, 10,000 targets", 3, 10_000, 0.1, one_call=True),
    ]
    for name, dimension, kind, options in KINDS:
        FPLLL.set_random_seed(20261121)
        matrix = IntegerMatrix.random(dimension, kind, **options)
        lists = [[int(x) for x in row] for row in matrix]
        ours = _ours(LatticeBasis(lists))
        table.append(Row(name, ours, "fpylll", _fpylll(matrix), 1.5, _check))
        table.append(Row(name, ours, "python-flint", _flint(flint.fmpz_mat(lists)), 1.0, _check))
    return table
