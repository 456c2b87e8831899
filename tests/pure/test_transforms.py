"""Maps of space keep distances, changes of basis keep the lattice; what is exact is exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import mpmath
import pytest

from crystalline.errors import DataError
from crystalline.exact import prime_array
from crystalline.pure import (
    CrystallineEmbeddings,
    change_basis,
    reflect,
    rotate_by_golden_angle,
    rotate_by_hours,
    translate,
)

BASIS = [[2, 1, 0], [0, 3, 1], [Fraction(1, 4), 0, 5]]
UNIT = Fraction(1, 2**192)


def embed() -> CrystallineEmbeddings:
    tokens = CrystallineEmbeddings(3, BASIS)
    primes = prime_array(100).tolist()
    tokens.add_tokens([f"t{p}" for p in primes], primes)
    tokens.add_token("ten", 10)
    return tokens


def squared(tokens: CrystallineEmbeddings, a: int, b: int) -> Fraction:
    pairs = zip(tokens[a].coordinates, tokens[b].coordinates, strict=True)
    return sum(((x - y).as_fraction() ** 2 for x, y in pairs), Fraction(0))


EXACT: dict[str, Callable[[CrystallineEmbeddings], CrystallineEmbeddings]] = {
    "three hours": lambda t: rotate_by_hours(t, 3),
    "half a turn": lambda t: rotate_by_hours(t, -6, (2, 0)),
    "mirror": lambda t: reflect(t, 2),
    "translation": lambda t: translate(t, [Fraction(1, 3), -(2**40), "1e-30"]),
    "other basis": lambda t: change_basis(t, [[1, 5, 0], [0, 1, 0], [2, 9, -1]]),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_maps_keep_distances_exactly(name: str) -> None:
    before = embed()
    after = EXACT[name](before)
    assert len(after) == len(before)
    for a in range(len(before)):
        assert squared(after, a, 0) == squared(before, a, 0)
        assert squared(after, a, 9) == squared(before, a, 9)
    assert after.positions.mantissas() == after.mantissas()
    assert after.root_of("ten").text == before.root_of("ten").text == "t5"
    assert [t.number for t in after] == [t.number for t in before]


@pytest.mark.parametrize("hours", [1, 2, 5, 11, -1, 25])
@pytest.mark.parametrize("plane", [(0, 1), (2, 0)])
def test_rotations_by_hours(hours: int, plane: tuple[int, int]) -> None:
    before, i, j = embed(), *plane
    after = rotate_by_hours(before, hours, plane)
    with mpmath.workprec(400):
        c, s = mpmath.cos(hours * mpmath.pi / 6), mpmath.sin(hours * mpmath.pi / 6)
        for old, new in zip(before.mantissas(), after.mantissas(), strict=True):
            assert abs(new[i] - (c * old[i] - s * old[j])) <= 0.51
            assert abs(new[j] - (s * old[i] + c * old[j])) <= 0.51
            assert new[3 - i - j] == old[3 - i - j]


def test_rotation_by_the_golden_angle() -> None:
    before = embed()
    after = rotate_by_golden_angle(before, 7, (1, 2))
    with mpmath.workprec(400):
        angle = 7 * 2 * mpmath.pi / mpmath.phi**2
        for old, new in zip(before.mantissas(), after.mantissas(), strict=True):
            assert abs(new[1] - (mpmath.cos(angle) * old[1] - mpmath.sin(angle) * old[2])) <= 0.51
            assert abs(new[2] - (mpmath.sin(angle) * old[1] + mpmath.cos(angle) * old[2])) <= 0.51
    for a in range(1, len(before)):
        apart = abs(math.sqrt(squared(after, a, 0)) - math.sqrt(squared(before, a, 0)))
        assert apart < 1e-13


def test_twelve_hours_are_no_turn() -> None:
    before = embed()
    assert rotate_by_hours(before, 12).mantissas() == before.mantissas()
    around = before
    for _ in range(4):
        around = rotate_by_hours(around, 3)
    assert around.mantissas() == before.mantissas()
    assert around.basis.mantissas() == before.basis.mantissas()
    assert reflect(reflect(before, 1), 1).mantissas() == before.mantissas()


@pytest.mark.parametrize("name", ["three hours", "half a turn", "mirror"])
def test_the_lattice_moves_along(name: str) -> None:
    before = embed()
    after = EXACT[name](before)
    assert after.lattice_positions.mantissas() == before.lattice_positions.mantissas()
    assert after.lattice_basis.gram() == before.lattice_basis.gram()
    assert after.basis.mantissas() != before.basis.mantissas()


def test_the_lattice_stays_for_a_translation() -> None:
    before = embed()
    after = translate(before, [1, 0, -2])
    assert after.basis.mantissas() == before.basis.mantissas()
    for old, new in zip(before.mantissas(), after.mantissas(), strict=True):
        assert [n - o for n, o in zip(new, old, strict=True)] == [1 << 192, 0, -2 << 192]


def test_unimodular_changes_keep_lattice_and_places() -> None:
    before = embed()
    u = [[1, 5, 0], [0, 1, 0], [2, 9, -1]]
    after = change_basis(before, u)
    assert after.mantissas() == before.mantissas()
    assert after.lattice_basis.same_lattice(before.lattice_basis)
    assert after.lattice_basis != before.lattice_basis
    # c' U = c: checked on the exact coordinates, which are c B^-1 of rationals.
    inverse, old = after.exact_inverse, before.exact_inverse
    x = [c.as_fraction() for c in before[7].coordinates]
    new = [sum(x[k] * inverse[k][j] for k in range(3)) for j in range(3)]
    want = [sum(x[k] * old[k][j] for k in range(3)) for j in range(3)]
    assert [sum(new[k] * u[k][j] for k in range(3)) for j in range(3)] == want
    found = after.lattice_positions.to_fractions()[7]
    assert all(abs(f - n) <= UNIT / 2 for f, n in zip(found, new, strict=True))


@pytest.mark.parametrize(
    ("u", "message"),
    [
        ([[2, 0, 0], [0, 1, 0], [0, 0, 1]], "determinant 2, expected 1 or -1"),
        ([[1, 1, 0], [1, 1, 0], [0, 0, 1]], "determinant 0"),
        ([[1, 0], [0, 1]], "not of 3 x 3"),
    ],
)
def test_other_transformations_are_refused(u: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change_basis(embed(), u)


def test_bad_input() -> None:
    tokens = embed()
    with pytest.raises(ValueError, match="axis 3 is not one of 3"):
        reflect(tokens, 3)
    with pytest.raises(ValueError, match="the axes 1 and 1 span no plane"):
        rotate_by_hours(tokens, 1, (1, 1))
    with pytest.raises(ValueError, match="expected"):
        translate(tokens, [1, 2])
    with pytest.raises(OverflowError, match="does not fit in 256 bits"):
        translate(translate(tokens, [2**62, 0, 0]), [2**62, 0, 0])
    with pytest.raises(TypeError):
        change_basis(tokens, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])  # type: ignore[list-item]
    with pytest.raises(DataError, match="26 tokens have 1 places"):
        tokens.moved([[0, 0, 0]] * 26, tokens.basis)
