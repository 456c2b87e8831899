"""Multiples of angles, and of the golden one, against mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from crystalline.exact import golden_turn
from crystalline.exact.rotations import TURN_BITS, rotations

TURNS = [0, 1, 1 << 127, 3**80, -(3**80), golden_turn(1, TURN_BITS), (1 << 200) + 12345]


@pytest.mark.parametrize(("count", "start"), [(1, 0), (2, 5), (37, -11), (1000, 10**9), (4097, 1)])
def test_within_two_to_the_minus_50(count: int, start: int) -> None:
    got = rotations(TURNS, count, start)
    assert got.shape == (count, len(TURNS), 2)
    with mpmath.workprec(300):
        for i in {0, 1, 31, 32, 33, count // 2, count - 1}:
            if i >= count:
                continue
            for column, turn in enumerate(TURNS):
                angle = 2 * mpmath.pi * mpmath.mpf((start + i) * turn) / mpmath.mpf(2) ** TURN_BITS
                for value, want in zip(
                    got[i, column], (mpmath.cos(angle), mpmath.sin(angle)), strict=True
                ):
                    assert abs(mpmath.mpf(float(value)) - want) < mpmath.mpf(2) ** -50


def test_nothing_asked_for() -> None:
    assert rotations([5], 0).shape == (0, 1, 2)
    assert rotations([], 3).shape == (3, 0, 2)
    with pytest.raises(ValueError, match="count must be at least 0, not -1"):
        rotations([5], -1)


def test_a_part_is_a_part_of_the_whole() -> None:
    turns = [golden_turn(7, TURN_BITS)]
    whole = rotations(turns, 3000)
    assert np.abs(rotations(turns, 500, 2100) - whole[2100:2600]).max() < 1e-15


@pytest.mark.parametrize("bits", [1, 7, 64, 128, 300])
@pytest.mark.parametrize("n", [0, 1, 3**200, -1, -987, 2**64])
def test_golden_turn_within_one_unit(n: int, bits: int) -> None:
    with mpmath.workprec(1000):
        want = mpmath.frac(n / mpmath.phi**2) * 2**bits
        off = abs(golden_turn(n, bits) - want)
        assert 0 <= golden_turn(n, bits) < 2**bits
        assert min(off, 2**bits - off) <= 1
