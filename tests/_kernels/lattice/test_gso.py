"""The floating proofs of reducedness: true just inside the conditions, never outside them."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from crystalline._kernels.lattice import gso, lll
from crystalline._kernels.lattice.babai import PlaneSolver
from crystalline._kernels.lattice.basis import IntMatrix
from tests.oracles import lattice as oracle

N = 10**6


@pytest.mark.parametrize("precision", gso.PRECISIONS)
@pytest.mark.parametrize("scale", [1, 1 << 300, 3**400])
@pytest.mark.parametrize(
    ("rows", "proved"),
    [
        ([[N, 0], [509999, N]], True),
        ([[N, 0], [510001, N]], False),
        ([[N, 0], [-509999, N]], True),
        ([[N, 0], [-510001, N]], False),
        # 0.99 N^2 lies between the squares of 994987 and 994988
        ([[N, 0], [0, 994988]], True),
        ([[N, 0], [0, 994987]], False),
        ([[N, 0, 0], [0, N, 0], [509999, 0, N]], True),
        ([[N, 0, 0], [0, N, 0], [510001, 0, N]], False),
        # the same with mu: 0.4^2 + 0.911...^2 = 0.99
        ([[N, 0], [400000, 911044]], True),
        ([[N, 0], [400000, 911043]], False),
        ([[N, 0], [N, 0]], False),
        ([[1, 2], [2, 4]], False),
    ],
)
def test_border_of_reducedness(rows: oracle.Rows, proved: bool, scale: int, precision: str) -> None:
    matrix = IntMatrix([[x * scale for x in row] for row in rows])
    assert gso.is_reduced(matrix, 0.99, 0.51, precision) == proved


def test_what_is_too_near_the_border_is_not_proved() -> None:
    for precision in gso.PRECISIONS:
        assert not gso.is_reduced(IntMatrix([[2, 0], [1, 2]]), 0.75, 0.5, precision)
        assert gso.is_reduced(IntMatrix([[1 << 40, 0], [(1 << 39) - 1, 1 << 40]]), 0.75, 0.5)


@pytest.mark.parametrize("precision", gso.PRECISIONS)
def test_proofs_are_true(precision: str) -> None:
    """Bases on the way to reducedness, at parameters that they may or may not have."""
    rng = random.Random(11)
    verdicts = []
    for _ in range(60):
        matrix = IntMatrix(oracle.uniform(rng, 5, 5, rng.choice([3, 10, 70])))
        lll.reduce(matrix, rng.choice([0.3, 0.6, 0.8]), rng.choice([0.5, 0.54]))
        delta, eta = rng.choice([0.3, 0.7, 0.9]), rng.choice([0.5, 0.55])
        proved = gso.is_reduced(matrix, delta, eta, precision)
        exact = oracle.is_reduced(matrix.to_lists(), Fraction(delta), Fraction(eta))
        assert exact or not proved
        verdicts.append((proved, exact))
    assert {(True, True), (False, False)} <= set(verdicts)
    assert verdicts.count((False, True)) < 12


def test_unknown_precision_and_shapes() -> None:
    matrix = IntMatrix([[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="'half'"):
        lll.reduce(matrix, 0.99, 0.51, None, False, "half")
    with pytest.raises(ValueError, match="half"):
        gso.is_reduced(matrix, 0.99, 0.51, "half")
    with pytest.raises(ValueError, match="u has 1 rows, b has 2"):
        lll.reduce(matrix, 0.99, 0.51, IntMatrix([[1]]))
    with pytest.raises(ValueError, match="targets have 3 entries, the basis has 2"):
        PlaneSolver(matrix).solve(IntMatrix([[1, 2, 3]]))


def test_planes_claimed_are_inside_the_cell() -> None:
    rng = random.Random(12)
    matrix = IntMatrix(oracle.uniform(rng, 4, 4, 12))
    lll.reduce(matrix, 0.99, 0.51)
    rows = matrix.to_lists()
    _, norms = oracle.gram_schmidt(rows)
    targets = oracle.uniform(rng, 200, 4, 16)
    residuals, coordinates, proved = PlaneSolver(matrix).solve(IntMatrix(targets))
    for target, residual, line in zip(
        targets, residuals.to_lists(), coordinates.to_lists(), strict=True
    ):
        mixed = [sum(x * y for x, y in zip(line, c, strict=True)) for c in zip(*rows, strict=True)]
        assert [x + y for x, y in zip(residual, mixed, strict=True)] == target
        mu, _ = oracle.gram_schmidt([*rows, residual])
        assert all(abs(c) < Fraction(1, 2) for c in mu[4])
    assert proved.count(1) > 190
    assert norms[0] > 0
