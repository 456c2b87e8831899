"""Babai's methods against their definitions in rationals, exactly, ties and huge numbers too."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from crystalline.exact.lattice import LatticeBasis, NearestPlane, lll, nearest_plane, round_off
from tests.oracles import lattice as oracle

INDEPENDENT = [
    family
    for family in oracle.FAMILIES
    if not any(word in family for word in ("dependent 10", "dependent 6", "zero", "tall"))
]
HALF = Fraction(1, 2)
MIX = [[3, 1, 4, 1], [5, 9, 2, -6], [5, 3, -5, 8], [9, 7, 9, 3]]


def planes_by_definition(
    rows: Sequence[Sequence[Fraction]], target: Sequence[Fraction]
) -> tuple[int, ...]:
    """The nearest plane at each step, from the last row to the first."""
    stars: list[list[Fraction]] = []
    for row in rows:
        star = list(row)
        for other in stars:
            factor = oracle.inner(row, other) / oracle.inner(other, other)
            star = [x - factor * y for x, y in zip(star, other, strict=True)]
        stars.append(star)
    rest, steps = list(target), [0] * len(rows)
    for j in range(len(rows) - 1, -1, -1):
        c = oracle.inner(rest, stars[j]) / oracle.inner(stars[j], stars[j])
        steps[j] = math.floor(c + HALF)
        rest = [x - steps[j] * y for x, y in zip(rest, rows[j], strict=True)]
    return tuple(steps)


@pytest.mark.parametrize("family", INDEPENDENT)
@pytest.mark.parametrize("reduced", [True, False])
def test_nearest_planes(family: str, reduced: bool) -> None:
    rng = random.Random(family)
    rows = oracle.FAMILIES[family](rng)[:10]
    basis = LatticeBasis(rows, denominator=rng.choice([1, 6]))
    if reduced:
        basis = lll(basis).basis
    bits = min(basis.bits + 40, 400)
    targets = [
        [Fraction(rng.randrange(-(1 << bits), 1 << bits), rng.choice([1, 6, 7])) for _ in rows[0]]
        for _ in range(6)
    ]
    targets.append([x + y / 2 for x, y in zip(*basis.fractions()[:1] * 2, strict=True)])
    targets.append([Fraction(0)] * len(rows[0]))
    for target, close in zip(targets, NearestPlane(basis).nearest_many(targets), strict=True):
        assert close.coordinates == planes_by_definition(basis.fractions(), target)
        assert close.vector == basis.combine(close.coordinates)
        gaps = [x - y for x, y in zip(target, close.vector, strict=True)]
        assert close.squared_distance == oracle.inner(gaps, gaps)


def test_knapsack_on_which_doubles_go_astray() -> None:
    """An unreduced 100-bit knapsack: coordinates beyond double, still exact."""
    rng = random.Random(8)
    rows = oracle.knapsack(rng, 8, 100)
    mix = [rng.randrange(-(1 << 60), 1 << 60) for _ in rows]
    target = [
        sum(x * y for x, y in zip(mix, column, strict=True)) + rng.randrange(-999, 999)
        for column in zip(*rows, strict=True)
    ]
    close = nearest_plane(LatticeBasis(rows), target)
    exact = [[Fraction(x) for x in row] for row in rows]
    assert close.coordinates == planes_by_definition(exact, [Fraction(x) for x in target])
    reduced = nearest_plane(lll(rows).basis, target)
    assert reduced.proof == "double"
    assert reduced.squared_distance <= close.squared_distance


def test_borders_between_cells_are_decided_exactly() -> None:
    basis = LatticeBasis([[2, 0], [0, 4]])
    planes = NearestPlane(basis)
    for target, coordinates in (
        ([1, 2], (1, 1)),
        ([-1, -2], (0, 0)),
        ([3, 6], (2, 2)),
        ([1 + 2**-60, Fraction(2**70 - 1, 2**69)], (1, 0)),
        ([Fraction(2**70 - 1, 2**70), Fraction(2**70 + 1, 2**69)], (0, 1)),
    ):
        close = planes.nearest(target)
        assert close.coordinates == coordinates
        assert close.proof == "exact"
    assert planes.nearest([0.9, 1.9]).proof == "double"


def test_floats_that_err_near_a_border_do_not_decide() -> None:
    """Long residuals beside short b*: the error of a coefficient is far above its last bit."""
    rng = random.Random(10)
    proofs = []
    for _ in range(40):
        turned = [
            [sum(x * y for x, y in zip(row, column, strict=True)) for column in MIX]
            for row in oracle.graded(rng, 4, 12)
        ]
        basis = lll(turned).basis
        rows = basis.fractions()
        along = oracle.inner(rows[3], rows[0]) / oracle.inner(rows[0], rows[0])
        star = [x - along * y for x, y in zip(rows[3], rows[0], strict=True)]
        shift = Fraction(rng.choice([1, -1]), 1 << rng.randrange(3, 50))
        target = [
            sum((rng.choice([HALF + shift, Fraction(3, 7)]) * x for x in column), Fraction(0))
            for column in zip(*rows, strict=True)
        ]
        close = nearest_plane(basis, target)
        assert close.coordinates == planes_by_definition(rows, target)
        # the coefficients of b*_0 and b*_3, but for b_3's part along b_0
        far = [(HALF + shift) * x + Fraction(2, 5) * y for x, y in zip(rows[0], star, strict=True)]
        close = nearest_plane(basis, far)
        assert close.coordinates == planes_by_definition(rows, far)
        proofs.append(close.proof)
    assert set(proofs) == {"double", "exact"}


def test_round_off() -> None:
    rng = random.Random(9)
    for size in (1, 2, 5):
        rows = oracle.uniform(rng, size, size, 20)
        basis = LatticeBasis(rows, denominator=3)
        x = [Fraction(rng.randrange(-999, 999), 14) for _ in range(size)]
        target = [
            sum((a * b for a, b in zip(x, column, strict=True)), Fraction(0))
            for column in zip(*basis.fractions(), strict=True)
        ]
        close = round_off(basis, target)
        assert close.coordinates == tuple(math.floor(v + HALF) for v in x)


def test_arrays_of_targets() -> None:
    rng = np.random.default_rng(1)
    basis = lll(rng.integers(-50, 50, (3, 3))).basis
    planes = NearestPlane(basis)
    targets = rng.normal(0, 1000, (500, 3))
    found = planes.nearest_many(targets)
    assert [c.coordinates for c in found[:20]] == [
        planes.nearest(t.tolist()).coordinates for t in targets[:20]
    ]
    exact = [[Fraction(x) for x in t.tolist()] for t in targets]
    assert [c.coordinates for c in found] == [
        planes_by_definition(basis.fractions(), t) for t in exact
    ]
    whole = planes.nearest_many(rng.integers(-9, 9, (4, 3)))
    assert len(whole) == 4
    assert planes.nearest_many([]) == []


def test_bad_targets() -> None:
    planes = NearestPlane(LatticeBasis([[1, 0], [0, 1]]))
    with pytest.raises(ValueError, match="target 1 has 3 entries, the basis has 2"):
        planes.nearest_many([[1, 2], [1, 2, 3]])
    with pytest.raises(TypeError, match="'x'"):
        planes.nearest([1, "x"])
    with pytest.raises(TypeError, match="target 0 is 3"):
        planes.nearest_many([3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="NaN"):
        planes.nearest([1, float("nan")])
    with pytest.raises(ValueError, match="row 1 of the basis depends"):
        NearestPlane(LatticeBasis([[1, 2], [2, 4]]))
