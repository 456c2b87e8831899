"""Bases, their Gram-Schmidt data and certificates against slow rational arithmetic and FLINT."""

from __future__ import annotations

import dataclasses
import math
import pickle
import random
from fractions import Fraction

import flint
import pytest

from crystalline._kernels.lattice.basis import IntMatrix
from crystalline.exact.array import BigFixedArray
from crystalline.exact.lattice import (
    CertificateError,
    GramSchmidt,
    LatticeBasis,
    float_gram_schmidt,
    lll,
)
from tests.oracles import lattice as oracle

INDEPENDENT = [
    family
    for family in oracle.FAMILIES
    if not any(word in family for word in ("dependent 10", "dependent 6", "zero", "tall"))
]


def made(family: str) -> oracle.Rows:
    return oracle.FAMILIES[family](random.Random(family))


EDGES = [
    s * (2**k + e)
    for k in (0, 1, 31, 62, 63, 64, 65, 127, 128, 191, 640)
    for e in (-1, 0, 1)
    for s in (1, -1)
]


def test_integers_of_every_size_come_back() -> None:
    rng = random.Random(0)
    rows = [rng.sample(EDGES, 7) for _ in range(40)] + [[x] * 7 for x in EDGES]
    matrix = IntMatrix(rows)
    assert matrix.to_lists() == rows
    assert matrix.copy().to_lists() == rows
    assert matrix.bits >= max(x.bit_length() for row in rows for x in row)


@pytest.mark.parametrize("family", oracle.FAMILIES)
def test_hermite_form(family: str) -> None:
    rows = made(family)
    if len(rows) > 20 or "10,000" in family:
        rows = [[x % 1000 for x in row[:8]] for row in rows[:8]]
    basis = LatticeBasis(rows)
    form = flint.fmpz_mat(rows).hnf()
    assert [[int(x) for x in row] for row in form.tolist()] == [list(r) for r in basis.hnf().rows]
    assert basis.rank() == flint.fmpz_mat(rows).rank()


@pytest.mark.parametrize("family", INDEPENDENT)
def test_exact_gram_schmidt(family: str) -> None:
    rows = made(family)[:12]
    g = GramSchmidt(LatticeBasis(rows, denominator=3))
    mu, norms = oracle.gram_schmidt(rows)
    for i in range(len(rows)):
        assert g.squared_norm(i) == norms[i] / 9
        assert [g.mu(i, j) for j in range(i)] == mu[i]


@pytest.mark.parametrize("family", INDEPENDENT)
@pytest.mark.parametrize("reduced", [False, True])
def test_float_gram_schmidt_is_within_its_bound(family: str, reduced: bool) -> None:
    rows = made(family)[:12]
    if not reduced:
        rows = [row[:] for row in rows]
    else:
        rows = [list(row) for row in lll(rows).basis.rows]
    g = float_gram_schmidt(LatticeBasis(rows))
    mu, norms = oracle.gram_schmidt(rows)
    slack = g.error + 2.0**-52
    assert g.error <= 1e-6
    for j in range(len(rows)):
        exact = float(norms[j] / Fraction(4) ** g.exponent)
        assert math.isclose(g.r[j], exact, rel_tol=2.1 * slack, abs_tol=1e-290)
    # |R_ij - computed| <= error * norm of the tail of column j
    for j in range(len(rows)):
        for i in range(j):
            tail = sum((mu[j][k] ** 2 * norms[k] for k in range(i, j)), norms[j])
            gap = abs(Fraction(float(g.mu[j, i])) - mu[j][i]) ** 2 * norms[i]
            assert gap <= tail * Fraction(4 * slack) ** 2


def test_precision_follows_the_basis() -> None:
    rng = random.Random(2)
    assert float_gram_schmidt(LatticeBasis(oracle.uniform(rng, 8, 8, 30))).precision == "double"
    near = LatticeBasis(oracle.nearly_dependent(rng, 5, 40))
    assert float_gram_schmidt(near).precision == "quad"
    nearer = LatticeBasis(oracle.nearly_dependent(rng, 5, 400))
    assert float_gram_schmidt(nearer).precision == "exact"


def test_dependent_rows_have_no_gram_schmidt_data() -> None:
    basis = LatticeBasis([[1, 2], [2, 4]])
    for function in (GramSchmidt, float_gram_schmidt, LatticeBasis.dual):
        with pytest.raises(ValueError, match="row 1 of the basis depends"):
            function(basis)
    with pytest.raises(ZeroDivisionError):
        basis.orthogonality_defect()
    with pytest.raises(ValueError, match="-1"):
        float_gram_schmidt(basis, -1)


def test_determinants() -> None:
    rows = oracle.uniform(random.Random(3), 6, 6, 80)
    determinant = abs(int(flint.fmpz_mat(rows).det()))
    basis = LatticeBasis(rows, denominator=2)
    assert basis.determinant() == Fraction(determinant, 64)
    assert basis.gram_determinant() == Fraction(determinant**2, 4096)
    assert LatticeBasis([[0, 2], [3, 1]]).determinant() == 6
    assert LatticeBasis([[1, 2], [2, 4]]).determinant() == 0
    with pytest.raises(ValueError, match="1 x 2"):
        LatticeBasis([[1, 2]]).determinant()


def test_orthogonality_defect_of_huge_entries() -> None:
    rows = [[1 << 4000, 0], [1 << 4000, 1 << 4000]]
    assert LatticeBasis(rows).orthogonality_defect() == pytest.approx(math.sqrt(2))


def test_dual() -> None:
    rows = oracle.uniform(random.Random(4), 4, 6, 50)
    basis = LatticeBasis(rows, denominator=5)
    dual = basis.dual().fractions()
    for i, a in enumerate(dual):
        for j, b in enumerate(basis.fractions()):
            assert oracle.inner(a, b) == (i == j)
    assert basis.dual().dual() == basis


def test_same_lattice() -> None:
    rows = oracle.qary(random.Random(5), 8, 20)
    basis = LatticeBasis(rows, denominator=2)
    reduced = lll(basis).basis
    doubled = LatticeBasis([[2 * x for x in row] for row in reduced.rows], denominator=4)
    assert basis.same_lattice(doubled)
    assert reduced == doubled
    assert hash(reduced) == hash(doubled)
    assert not basis.same_lattice(LatticeBasis(rows))
    assert pickle.loads(pickle.dumps(reduced)) == reduced


def test_rational_bases() -> None:
    basis = LatticeBasis.from_rationals([[0.5, Fraction(1, 3)], [2, Fraction(-5, 6)]])
    assert basis.rows == ((3, 2), (12, -5))
    assert basis.denominator == 6
    with pytest.raises(TypeError, match="'1/2'"):
        LatticeBasis.from_rationals([["1/2"]])


def test_fixed_point_bases() -> None:
    rng = random.Random(7)
    rows = [[1 << 200, -5, 0], [-(1 << 254), 7, (1 << 255) - 1]]
    array = BigFixedArray.from_limbs(LatticeBasis(rows).to_limbs(256), 192)
    basis = LatticeBasis.from_fixed(array)
    assert basis.rows == tuple(map(tuple, rows))
    assert basis.denominator == 1 << 192
    assert basis == LatticeBasis.from_rationals(array.to_fractions())
    # a 16-dimensional basis of 256-bit numbers, reduced and brought back
    big = [[rng.randrange(-(1 << 250), 1 << 250) for _ in range(16)] for _ in range(16)]
    reduced = lll(LatticeBasis(big, 1 << 192)).basis
    back = BigFixedArray.from_limbs(reduced.to_limbs(256), 192)
    assert LatticeBasis.from_fixed(back) == reduced
    assert oracle.hermite(reduced.rows) == oracle.hermite(big)
    with pytest.raises(ValueError, match="two axes"):
        LatticeBasis.from_fixed(array[0])
    with pytest.raises(OverflowError, match="256 bits does not fit 192"):
        LatticeBasis([[1 << 255]]).to_limbs(192)
    with pytest.raises(ValueError, match="100"):
        basis.to_limbs(100)


def test_combination() -> None:
    basis = LatticeBasis([[4, 1], [2, 3]], denominator=2)
    assert basis.combine([2, -1]) == (3, Fraction(-1, 2))
    with pytest.raises(ValueError, match="3 coordinates for 2 rows"):
        basis.combine([1, 2, 3])


@pytest.mark.parametrize("denominator", [0, -3])
def test_bad_denominator(denominator: int) -> None:
    with pytest.raises(ValueError, match=str(denominator)):
        LatticeBasis([[1]], denominator)


def test_representation() -> None:
    assert repr(LatticeBasis([[1, 2]], 3)) == "LatticeBasis([[1, 2]] / 3)"
    assert repr(LatticeBasis([[1 << 99]])).startswith("LatticeBasis(1 x 1, entries of at most 10")


# Certificates


def test_certificate_that_is_tampered_with_is_refused() -> None:
    rows = oracle.dependent(random.Random(6), 6, 6, 4, 30)
    good = lll(rows).certificate()
    good.verify()
    u = [list(row) for row in good.transformation]
    assert good.reduced is not None
    b = [list(row) for row in good.reduced.rows]

    def refused(message: str, **changes: object) -> None:
        with pytest.raises(CertificateError, match=message):
            dataclasses.replace(good, **changes).verify()  # type: ignore[arg-type]

    refused("not unimodular", transformation=[[2 * x for x in u[0]], *u[1:]])
    refused("not of 6 x 6", transformation=u[1:])
    refused(
        "does not give row 0",
        transformation=[[x + y for x, y in zip(u[0], u[-1], strict=True)], *u[1:]],
    )
    other = [*b[:-1], [b[-1][0] + 1, *b[-1][1:]]]
    refused("does not give row 5", reduced=LatticeBasis(other))
    refused("different denominators", reduced=LatticeBasis(b, 2))
    longer = [[x + 3 * y for x, y in zip(u[5], u[2], strict=True)]]
    bigger = [[x + 3 * y for x, y in zip(b[3], b[0], strict=True)]]
    refused(
        "row 3 is not size-reduced against row 0",
        transformation=[*u[:5], *longer],
        reduced=LatticeBasis([*b[:3], *bigger]),
    )
    refused("size-reduced", eta=Fraction(1, 1000))
    # a dependency passed off as a row of the basis
    refused("depends", reduced=LatticeBasis([[0] * 6, *b]))


def test_certificate_of_rows_in_the_wrong_order_is_refused() -> None:
    good = lll([[5, 0], [0, 1]]).certificate()
    good.verify()
    assert good.reduced is not None
    changed = dataclasses.replace(
        good,
        transformation=good.transformation[::-1],
        reduced=LatticeBasis(good.reduced.rows[::-1]),
    )
    with pytest.raises(CertificateError, match="rows 0 and 1 break Lovász"):
        changed.verify()
