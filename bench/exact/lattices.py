"""Lattice reduction against fpylll and python-flint, on the three kinds of bases of the issue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flint
from fpylll import FPLLL, LLL, IntegerMatrix

from bench.exact.pairs import Row
from crystalline.exact.lattice import LatticeBasis, Reduction, lll

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


def rows() -> list[Row]:
    """The rows of the lattices in the issue's table."""
    table = []
    for name, dimension, kind, options in KINDS:
        FPLLL.set_random_seed(20261121)
        matrix = IntegerMatrix.random(dimension, kind, **options)
        lists = [[int(x) for x in row] for row in matrix]
        ours = _ours(LatticeBasis(lists))
        table.append(Row(name, ours, "fpylll", _fpylll(matrix), 1.5, _check))
        table.append(Row(name, ours, "python-flint", _flint(flint.fmpz_mat(lists)), 1.0, _check))
    return table
