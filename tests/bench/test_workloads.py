"""Rates of the second half of a run, from snapshots made up here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.workloads import steady_rate
from crystalline.train.stats import Snapshot


def snapshots(*rows: tuple[int, float, int]) -> list[Snapshot]:
    made: list[Any] = [
        SimpleNamespace(step=step, elapsed_s=seconds, tokens=tokens)
        for step, seconds, tokens in rows
    ]
    return cast(list[Snapshot], made)


def test_only_the_second_half_of_the_steps_counts() -> None:
    seen = snapshots(
        (0, 0.0, 0),
        (1, 5.0, 100),
        (3, 6.0, 200),
        (3, 6.5, 200),  # not the end of a step
        (5, 9.0, 500),
        (6, 10.5, 600),
        (6, 99.0, 600),  # finished long ago
    )
    assert steady_rate(seen) == pytest.approx((600 - 200) / (10.5 - 6.0))


def test_a_run_of_one_step_has_no_rate() -> None:
    with pytest.raises(ValueError, match="ended at step 1"):
        steady_rate(snapshots((0, 0.0, 0), (1, 1.0, 10)))
