"""Rows of BigFixedArray: 10,000 numbers of 256 bits against arb objects in an object array.

The peer computes one object after the other at 256 bits of precision, through NumPy's object
dtype; dot products and matrices are also set against arb_mat, which stays in C.  Where no figure
was asked for, `at_most` is what this code is held to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flint
import numpy as np

from bench.exact.pairs import Row
from crystalline.exact import BigFixedArray

N = 10_000  # elements of an array
M = 60  # rows of a matrix
PREC_BITS = 256


def rows() -> list[Row]:
    """Return the rows of this part."""
    flint.ctx.prec = PREC_BITS
    rng = np.random.default_rng(12)
    a = BigFixedArray.of(rng.uniform(0.1, 4, N)) / 3
    b = BigFixedArray.of(rng.uniform(-4, 4, N)) / 7
    out = BigFixedArray(N)
    arb_a, arb_b = _arbs(a), _arbs(b)
    matrix, arb_matrix = a[: M * M].reshape(M, M), _arb_matrix(arb_a, M, M)

    def each(name: str) -> Callable[[], Any]:
        method = np.frompyfunc(getattr(flint.arb, name), 1, 1)
        return lambda: method(arb_a)

    row_a, column_b = _arb_matrix(arb_a, 1, N), _arb_matrix(arb_b, N, 1)
    objects = "arb objects"
    return [
        Row("mul, 10,000 x 256 bits", lambda: a.mul(b, out), objects, lambda: arb_a * arb_b, 0.05,
            _agree),
        Row("add, 10,000 x 256 bits", lambda: a.add(b, out), objects, lambda: arb_a + arb_b, 0.05,
            _agree),
        Row("exp, 10,000 x 256 bits", lambda: a.exp(out), objects, each("exp"), 0.2, _agree),
        Row("dot, 10,000 x 256 bits", lambda: a.dot(b), objects, lambda: arb_a.dot(arb_b), 0.2,
            _agree),
        Row("dot, 10,000 x 256 bits, matrix", lambda: a.dot(b), "arb_mat",
            lambda: (row_a * column_b)[0, 0], 0.2, _agree),
        Row("matmul, 60 x 60 x 256 bits", lambda: matrix @ matrix, "arb_mat",
            lambda: arb_matrix * arb_matrix, 0.5, _agree),
        Row("fma, 10,000 x 256 bits", lambda: a.fma(b, a, out), objects,
            lambda: arb_a * arb_b + arb_a, 0.05, _agree),
        Row("div, 10,000 x 256 bits", lambda: b.div(a, out), objects, lambda: arb_b / arb_a, 1.0,
            _agree),
        Row("sqrt, 10,000 x 256 bits", lambda: a.sqrt(out), objects, each("sqrt"), 1.0, _agree),
        Row("log, 10,000 x 256 bits", lambda: a.log(out), objects, each("log"), 0.2, _agree),
        Row("sin, 10,000 x 256 bits", lambda: a.sin(out), objects, each("sin"), 0.2, _agree),
        Row("cos, 10,000 x 256 bits", lambda: a.cos(out), objects, each("cos"), 0.2, _agree),
        Row("atan, 10,000 x 256 bits", lambda: a.atan(out), objects, each("atan"), 0.2, _agree),
    ]  # fmt: skip


def _arbs(a: BigFixedArray) -> Any:
    unit = flint.arb(2) ** -a.frac_bits
    return np.array([flint.arb(m) * unit for m in a.ravel().mantissas()], object)


def _arb_matrix(values: Any, n: int, m: int) -> Any:
    return flint.arb_mat(n, m, values[: n * m].tolist())


def _agree(ours: BigFixedArray, theirs: Any) -> None:
    """Check our results against arb's balls, widened by half a unit of the grid and a bit."""
    if isinstance(theirs, flint.arb_mat):
        theirs = theirs.entries()
    balls = np.asarray(theirs, object).reshape(-1)
    slack = flint.arb(0, 1) * flint.arb(2) ** -(ours.frac_bits + 1)
    values = _arbs(ours)
    assert len(values) == len(balls)
    for value, ball in zip(values, balls, strict=True):
        assert (ball + slack).overlaps(value), "the two sides disagree"
