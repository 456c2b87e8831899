"""How long a timed run is, and the rate of its second half, from snapshots made up here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import workloads
from bench.workloads import LEAST_STEPS, barrier_share, steady_rate, steps_for
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


def test_what_permits_do_not_spend_on_units_is_the_barriers_share() -> None:
    def seen(step: int, seconds: float, *spheres: tuple[float, float, float]) -> Snapshot:
        rows = [SimpleNamespace(compute_s=c, sync_s=s, wait_s=w) for c, s, w in spheres]
        made: Any = SimpleNamespace(
            step=step, elapsed_s=seconds, tokens=step, permits=2, workers=3, spheres=rows
        )
        return cast(Snapshot, made)

    run = [
        seen(0, 0.0, (9.0, 9.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        seen(2, 10.0, (10.0, 3.0, 1.0), (4.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        seen(4, 20.0, (12.0, 5.0, 2.0), (9.0, 1.0, 0.5), (7.0, 1.0, 0.5)),
    ]
    # of 2 times 10 s: 2 + 5 + 7 computing, 1 + 0.5 + 0.5 reducing and updating
    assert barrier_share(run) == pytest.approx(1 - 16 / 20)


def test_a_run_lasts_until_every_sphere_has_had_its_turn_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workloads, "usable_cores", lambda: 2)
    # tiny: 768 tokens of 6 · 801,664 + 393,216 operations at 0.65 · 5e11 a second
    assert steps_for("tiny", 60.0, 5e11) == LEAST_STEPS + 4880
    # gpt2: a step takes 2.43 s, a turn 12 · 4 ms + 0.6 ms · 5,945 MB = 3.61 s; 2 cores for 12
    assert steps_for("gpt2", 1.0, 5e11) == LEAST_STEPS + round(2 * 6 * 3.61 / 2.43)
