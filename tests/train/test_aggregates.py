"""What the figures of the spheres come to, against sums by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from crystalline.train.aggregates import (
    balance,
    entropy,
    lanes_by_group,
    shares,
    stolen,
    summed,
)
from tests.ui.fake_snapshots import fake_sphere

SPHERES = [fake_sphere(index, 100, 14, "compute") for index in range(14)]


def test_even_work_has_the_entropy_of_a_choice_of_twelve() -> None:
    assert entropy(shares([7] * 12)) == pytest.approx(math.log2(12), abs=1e-15)
    assert entropy(shares([7] + [0] * 11)) == 0.0
    assert entropy(shares([0] * 12)) is None


def test_balance_is_the_busiest_over_the_mean() -> None:
    busy = [replace(SPHERES[0], compute_s=c, sync_s=2.0, wait_s=1.0) for c in (1.0, 3.0)]
    assert balance(busy) == pytest.approx(4.0 / 3.0)
    # One that waits for its children, or is gone, is no part of the mean.
    assert balance([*busy, replace(busy[0], state="control", compute_s=99.0)]) == balance(busy)
    assert balance([]) is None
    assert balance([replace(busy[0], compute_s=0.0, sync_s=0.0, wait_s=0.0)]) is None


def test_sums_by_position_and_level() -> None:
    assert summed(SPHERES, "lanes_done", lambda s: s.level) == {
        1: sum(s.lanes_done for s in SPHERES[:12]),
        2: sum(s.lanes_done for s in SPHERES[12:]),
    }
    by_group = summed(SPHERES, "lanes_done", lambda s: s.position)
    assert [by_group[group] for group in range(12)] == lanes_by_group(SPHERES)


def test_what_is_stolen_from_the_homes_is_what_is_stolen_by_the_others() -> None:
    rows = [[3 * i + j for j in range(12)] for i in range(12)]
    homes = [(i, i) for i in range(12)]
    took = sum(rows[i][j] for i in range(12) for j in range(12) if i != j)
    assert sum(stolen(i, rows, homes) for i in range(12)) == took
    twice = [*homes, (12, 3)]
    rows.append([1] * 12)
    assert stolen(12, rows, twice) == 0
    assert stolen(3, rows, twice) == sum(rows[i][3] for i in range(12) if i != 3)
