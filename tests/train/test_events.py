"""What is done to a run stands in metrics.jsonl, after the step that it came after."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from crystalline.train.metrics import read_metrics
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import run


def events(run_dir: Path) -> list[dict[str, Any]]:
    lines = read_metrics(run_dir / "metrics.jsonl")
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)  # a resumed run cuts the file after a step
    return [line for line in lines if "event" in line]


def test_a_sphere_that_was_killed(tmp_path: Path) -> None:
    killed: list[tuple[int, int]] = []

    def kill(snapshot: Snapshot) -> None:
        if snapshot.step >= 5 and not killed:
            killed.append((snapshot.step, snapshot.spheres[1].pid))
            os.kill(snapshot.spheres[1].pid, signal.SIGKILL)

    run(tmp_path, kill, steps=60, workers=3, options={"naps": {"compute": 0.002}})
    (event,) = events(tmp_path)
    assert 0 <= event.pop("step") - killed[0][0] < 40
    assert event == {
        "event": "sphere_replaced", "sphere": 1, "cause": "was killed by signal 9 (Killed)",
    }  # fmt: skip


def test_a_sphere_that_was_killed_before_the_first_step(tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(snapshot: Snapshot) -> None:
        busy = [sphere for sphere in snapshot.spheres if sphere.state == "update" and sphere.pid]
        if busy and not killed:
            killed.append(busy[0].index)
            os.kill(busy[0].pid, signal.SIGKILL)

    run(tmp_path, kill, steps=3, workers=2, options={"naps": {"pack": 0.1}})
    (event,) = events(tmp_path)
    assert (event["event"], event["step"], event["sphere"]) == ("sphere_replaced", 0, killed[0])


def test_pauses_and_spheres_that_come(tmp_path: Path) -> None:
    wishes = iter(["pause", "workers=5", "resume"])
    seen: list[Snapshot] = []

    def actions() -> list[str]:
        before = seen[-1].state if seen else "starting"
        ready = before in ("training", "paused") and seen[-1].step > 2
        return [wish for wish in [next(wishes, None)] if wish] if ready else []

    run(tmp_path, seen.append, actions, interval_s=0.2, steps=100,
        options={"naps": {"compute": 0.003}})  # fmt: skip
    told = [line for line in events(tmp_path) if line["event"] != "request"]
    assert sorted(line["event"] for line in told) == ["paused", "resumed", "workers"]
    assert told[-1]["event"] == "resumed"
    assert {line["step"] for line in told if line["event"] != "workers"} == {told[-1]["step"]}
    assert next(line for line in told if line["event"] == "workers")["workers"] == 5


@pytest.mark.parametrize(("lanes", "told"), [(5, True), (6, False)])
def test_cores_that_would_have_nothing_to_do_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lanes: int, told: bool
) -> None:
    run(tmp_path, steps=2, workers=6, permits=6, options={"lanes": lanes})
    wanted = (
        "1 of 6 cores have nothing to do: a step has 5 lanes; a new run with --lanes 12 and at "
        "least as many sequences a step would use them all"
    )
    assert (wanted in caplog.messages) is told
