"""Rates after warm-up, from snapshots made up here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.workloads import steady_rate
from crystalline.train.stats import Snapshot


def snapshots(*rows: tuple[int, float, int, tuple[int, ...]]) -> list[Snapshot]:
    made: list[Any] = [
        SimpleNamespace(
            step=step,
            elapsed_s=seconds,
            tokens=tokens,
            spheres=[SimpleNamespace(lanes_done=lanes) for lanes in done],
        )
        for step, seconds, tokens, done in rows
    ]
    return cast(list[Snapshot], made)


def test_only_steps_after_every_sphere_has_worked_count() -> None:
    seen = snapshots(
        (0, 0.0, 0, (0, 0)),
        (1, 5.0, 100, (3, 0)),  # the second sphere has not worked yet
        (2, 6.0, 200, (3, 1)),
        (2, 6.5, 200, (3, 2)),  # not the end of a step
        (5, 9.0, 500, (5, 4)),
        (5, 99.0, 500, (5, 4)),  # finished long ago
    )
    assert steady_rate(seen) == pytest.approx((500 - 200) / (9.0 - 6.0))


def test_a_run_that_never_got_warm_has_no_rate() -> None:
    with pytest.raises(ValueError, match="had 1 steps after warm-up"):
        steady_rate(snapshots((0, 0.0, 0, (0,)), (1, 1.0, 10, (1,))))
