"""How long a timed run is, and the rate of its second half, from snapshots made up here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import workloads
from bench.workloads import LEAST_STEPS, steady_rate, steps_for
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


def test_a_run_lasts_until_every_sphere_has_had_its_turn_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workloads, "usable_cores", lambda: 2)
    # tiny: 768 tokens of 6 · 801,664 + 393,216 operations at 0.65 · 5e11 a second
    assert steps_for("tiny", 60.0, 5e11) == LEAST_STEPS + 4880
    # gpt2: a step takes 2.43 s, a turn 12 · 4 ms + 0.6 ms · 5,945 MB = 3.61 s; 2 cores for 12
    assert steps_for("gpt2", 1.0, 5e11) == LEAST_STEPS + round(2 * 6 * 3.61 / 2.43)
