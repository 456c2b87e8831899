from fractions import Fraction
from itertools import product

import pytest

from tests.oracles.enumeration import closest

ROWS = [[3, 1, 0], [1, -4, 1], [0, 2, 5]]


@pytest.mark.parametrize("target", [(0, 0, 0), (1, 2, 3), (Fraction(7, 2), -5, Fraction(1, 3))])
def test_the_oracle_agrees_with_a_box_of_coefficients(target: tuple[Fraction, ...]) -> None:
    def distance(x: tuple[int, ...]) -> Fraction:
        vector = [sum(c * row[j] for c, row in zip(x, ROWS, strict=True)) for j in range(3)]
        return sum(((t - v) ** 2 for t, v in zip(target, vector, strict=True)), Fraction(0))

    box = list(product(range(-4, 5), repeat=3))
    assert closest(ROWS, target) == min(map(distance, box))
    if not any(target):
        shortest = min(distance(x) for x in box if any(x))
        assert closest(ROWS, target, nonzero=True) == shortest
