"""Places of numbers against a walk of the spiral, mpmath, and their own uniqueness."""

from __future__ import annotations

import itertools
import random

import mpmath
import pytest

from crystalline.exact import BigFixed, prime_array
from crystalline.pure import clock_direction, coordinates, golden_angle
from crystalline.pure.coordinates import FRAC_BITS, from_mantissas, rounded_quotient
from tests.oracles import tokens as oracle

UNIT = mpmath.mpf(2) ** FRAC_BITS
NUMBERS = [2, 3, 5, 30, 7919, 10**9 + 7, 2**62 - 57, 2**64 - 59]


def test_first_coordinates_are_the_place_on_the_spiral() -> None:
    for number, place in enumerate(oracle.ulam_places(1000), 1):
        if number > 1:
            assert coordinates(number, 5)[:2] == place


@pytest.mark.parametrize("number", NUMBERS)
def test_others_are_harmonics_of_the_golden_angle(number: int) -> None:
    found = coordinates(number, 9)[2:]
    assert len(found) == 7
    with mpmath.workprec(FRAC_BITS + 200):
        for i, value in enumerate(found):
            angle = (i // 2 + 1) * oracle.golden_angle(number)
            want = mpmath.sin(angle) if i % 2 else mpmath.cos(angle)
            assert abs(int(value.mantissa) - want * UNIT) <= 1
            assert value.prec_bits == FRAC_BITS


@pytest.mark.parametrize("dimension", [2, 3, 4, 7])
def test_fewer_dimensions_are_the_first_of_more(dimension: int) -> None:
    assert coordinates(101, dimension) == coordinates(101, 8)[:dimension]


@pytest.mark.parametrize("number", NUMBERS)
def test_one_dimension(number: int) -> None:
    (found,) = coordinates(number, 1)
    x, y = (int(c) for c in coordinates(number, 2))
    with mpmath.workprec(FRAC_BITS + 200):
        assert abs(int(found.mantissa) - (x + y / mpmath.phi) * UNIT) <= mpmath.mpf("0.501")


def test_numbers_in_one_dimension_keep_the_proved_distance() -> None:
    rng = random.Random(5)
    numbers = {*range(2, 3000), *(rng.randrange(2**63, 2**64) for _ in range(3000))}
    places = sorted(coordinates(number, 1)[0] for number in numbers)
    assert min(float(b - a) for a, b in itertools.pairwise(places)) > 2.0**-35


@pytest.mark.parametrize("number", [1, *NUMBERS])
def test_golden_angle(number: int) -> None:
    with mpmath.workprec(FRAC_BITS + 200):
        assert abs(int(golden_angle(number).mantissa) - oracle.golden_angle(number) * UNIT) <= 1


@pytest.mark.parametrize("prec_bits", [2, 53, 192, 272])
def test_clock_directions(prec_bits: int) -> None:
    for hours in range(-13, 27):
        with mpmath.workprec(prec_bits + 100):
            angle = hours * mpmath.pi / 6
            for got, want in zip(
                clock_direction(hours, prec_bits),
                (mpmath.cos(angle), mpmath.sin(angle)),
                strict=True,
            ):
                assert abs(int(got.mantissa) - want * mpmath.mpf(2) ** prec_bits) <= 0.51
        if hours % 3 == 0:
            assert [abs(int(x)) for x in clock_direction(hours, prec_bits)] in ([0, 1], [1, 0])


def test_quotients_round_to_even() -> None:
    for top in range(-40, 41):
        for bottom in range(1, 12):
            assert rounded_quotient(top, bottom) == round(mpmath.mpf(top) / bottom)


def test_array_of_mantissas() -> None:
    rows = [[1 << 254, -1, 0], [-(1 << 255), (1 << 255) - 1, 3]]
    array = from_mantissas(rows, 3)
    assert (array.shape, array.width_bits, array.frac_bits) == ((2, 3), 256, 192)
    assert array.mantissas() == rows
    assert from_mantissas([], 3).shape == (0, 3)
    with pytest.raises(OverflowError, match="does not fit in 256 bits"):
        from_mantissas([[1 << 255]], 1)


def test_types() -> None:
    for number in prime_array(100).tolist():
        assert all(isinstance(c, BigFixed) for c in coordinates(number, 3))
