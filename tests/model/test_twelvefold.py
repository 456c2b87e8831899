"""The twelve-fold position table against mpmath, and what it promises."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from crystalline.model.twelvefold import twelvefold_positions

CLOCK = (0, 2, 4, 6, 8)  # of the pairs of channels


def angle(T: int, C: int, i: int, q: int) -> mpmath.mpf:
    """The angle of pair q of position i, from the definition."""
    if q in CLOCK:
        return 2 * mpmath.pi * (1 + q // 2) * (i % 12) / 12
    golden = [pair for pair in range(-(-C // 2)) if pair not in CLOCK]
    share = mpmath.mpf(golden.index(q)) / (len(golden) - 1) if len(golden) > 1 else 0
    return i * 2 * mpmath.pi / mpmath.phi**2 / mpmath.mpf(T) ** share


@pytest.mark.parametrize(("T", "C"), [(1, 4), (29, 26), (128, 64), (1000, 12)])
def test_entries(T: int, C: int) -> None:
    table = twelvefold_positions(T, C)
    assert (table.shape, table.dtype) == ((T, C), np.float32)
    rng = np.random.default_rng(T)
    with mpmath.workprec(200):
        for i in {0, T - 1, *rng.integers(0, T, 20).tolist()}:
            for q in range(C // 2):
                a = angle(T, C, i, q)
                for column, want in ((2 * q, mpmath.cos(a)), (2 * q + 1, mpmath.sin(a))):
                    assert abs(mpmath.mpf(float(table[i, column])) - mpmath.sqrt(2) * want) < 2e-7


@pytest.mark.parametrize(("T", "C"), [(1, 1), (7, 1), (13, 2), (50, 3), (64, 31), (96, 48)])
def test_rms_is_one(T: int, C: int) -> None:
    table = twelvefold_positions(T, C).astype(np.float64)
    assert abs(np.sqrt((table**2).mean()) - 1) < 1e-7
    if C % 2 == 0:  # and that of every row
        assert np.abs((table**2).mean(axis=1) - 1).max() < 1e-6


def test_the_clock_comes_round_and_the_golden_angle_never() -> None:
    T, C = 600, 48
    pairs = twelvefold_positions(T, C).reshape(T, C // 2, 2)
    clock, golden = pairs[:, CLOCK], np.delete(pairs, CLOCK, axis=1)
    assert (clock[12:] == clock[:-12]).all()
    assert len(np.unique(clock.reshape(T, -1), axis=0)) == 12
    for pair in golden.transpose(1, 0, 2):
        assert len(np.unique(pair, axis=0)) == T


def test_slow_rotations_tell_near_from_far() -> None:
    table = twelvefold_positions(256, 64).reshape(256, 32, 2)
    slowest = table[:, -1]
    distance = np.linalg.norm(slowest - slowest[0], axis=1)
    assert (np.diff(distance) > 0).all()


def test_empty_tables_are_refused() -> None:
    for shape in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="is empty"):
            twelvefold_positions(*shape)
