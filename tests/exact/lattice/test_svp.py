"""Shortest vectors against an exact rational enumeration, and lattices whose minimum is known."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest

from crystalline.exact.lattice.basis import LatticeBasis
from crystalline.exact.lattice.certificate import CertificateError
from crystalline.exact.lattice.svp import shortest_vector
from tests.exact.lattice.search_bases import qary, rows_of
from tests.oracles import enumeration as oracle


@pytest.mark.parametrize(
    ("n", "m", "bits"),
    [
        (1, 1, 3),
        (1, 3, 70),
        (2, 2, 200),
        (3, 7, 20),
        (6, 6, 64),
        (8, 8, 130),
        (10, 12, 9),
        (12, 12, 4),
        (14, 14, 6),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_proved_is_the_oracles(n: int, m: int, bits: int, seed: int) -> None:
    found = shortest_vector(rows_of(n, m, bits, 1000 * n + seed))
    reduced = found.reduced.rows
    assert found.squared_norm == oracle.closest(reduced, [0] * m, nonzero=True)
    assert found.basis.same_lattice(LatticeBasis([*found.basis.rows, found.row]))


@pytest.mark.parametrize("seed", range(6))
def test_qary_lattices(seed: int) -> None:
    found = shortest_vector(qary(12, 6, 97, seed))
    assert found.squared_norm == oracle.closest(found.reduced.rows, [0] * 12, nonzero=True)
    found.verify()


def e8() -> list[list[int]]:
    """Twice the lattice E_8: minimum 4 * 2 (Conway and Sloane, SPLAG, chapter 4, section 8.1)."""
    rows = [[4, 0, 0, 0, 0, 0, 0, 0]]
    rows += [[-2 * (j == i) + 2 * (j == i + 1) for j in range(8)] for i in range(6)]
    return [*rows, [1] * 8]


@pytest.mark.parametrize("method", ["proved", "fast"])
def test_e8_has_its_known_minimum_on_a_hidden_basis(method: str) -> None:
    generator = random.Random(8)
    rows = e8()
    for _ in range(200):
        i, j = generator.sample(range(8), 2)
        c = generator.randint(-3, 3)
        rows[i] = [a + c * b for a, b in zip(rows[i], rows[j], strict=True)]
    assert shortest_vector(rows, method=method).squared_norm == 8


def test_denominators_scale_the_norm() -> None:
    rows = rows_of(5, 5, 12, 7)
    whole = shortest_vector(rows)
    part = shortest_vector(LatticeBasis(rows, 6))
    assert part.squared_norm == whole.squared_norm / 36
    assert part.vector == tuple(Fraction(x, 6) for x in part.row)


def test_dependent_rows_and_huge_gaps() -> None:
    assert shortest_vector([[6, 0], [10, 0], [0, 9]]).squared_norm == 4
    assert shortest_vector([[2**400, 1], [0, 2**390]]).squared_norm == oracle.closest(
        [list(r) for r in shortest_vector([[2**400, 1], [0, 2**390]]).reduced.rows],
        [0, 0],
        nonzero=True,
    )


def test_a_planted_vector_of_a_larger_lattice_is_found() -> None:
    # Dimension 44 passes through block reduction.
    q, n, k = 1048583, 44, 22
    rows = qary(n, k, q, 3)
    generator = random.Random(4)
    secret = [generator.choice((-1, 0, 1)) for _ in range(n)]
    secret[0] = 1
    # Replace row 0 by the secret: row 0 has the only 1 in column 0.
    rows[0] = secret
    for i in range(1, k):
        secret_head = rows[0][i]
        rows[0] = [a - secret_head * b for a, b in zip(rows[0], rows[i], strict=True)]
    rows[0] = [a % q if j >= k else a for j, a in enumerate(rows[0])]
    expected = sum(x * x for x in secret)
    for method in ("proved", "fast"):
        assert shortest_vector(rows, method=method).squared_norm <= expected


def test_verify_refuses_what_is_tampered_with() -> None:
    found = shortest_vector(rows_of(6, 6, 10, 1))
    found.verify()
    with pytest.raises(CertificateError, match="not in the lattice"):
        replace(found, row=(found.row[0] + 1, *found.row[1:])).verify()
    with pytest.raises(CertificateError, match="zero"):
        replace(found, row=(0,) * 6).verify()
    with pytest.raises(CertificateError, match="shorter"):
        replace(found, row=tuple(2 * x for x in found.row)).verify()
    with pytest.raises(CertificateError, match="another lattice"):
        replace(found, reduced=LatticeBasis(e8())).verify()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="'quick'"):
        shortest_vector([[1]], method="quick")
    with pytest.raises(ValueError, match="all rows are zero"):
        shortest_vector([[0, 0], [0, 0]])
    with pytest.raises(TypeError, match=r"1\.5"):
        shortest_vector([[1.5]])
