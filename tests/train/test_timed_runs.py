"""Timed runs in the engine, with the fake program: they use their time, and can be made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crystalline.engine import board as b
from crystalline.engine.clock import RunningClock
from crystalline.ipc.arena import Arena, Layout
from crystalline.train.metrics import read_metrics
from crystalline.train.plan import Plan
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import make_spec, run, serial_run

pytestmark = pytest.mark.timeout(60)

# Steps of some 12 ms by two permits; epsilon follows the plan too.
STEPS: dict[str, Any] = {"naps": {"compute": 0.002, "evaluate": 0.002}}
SETTINGS: dict[str, Any] = {
    "crystalline_epsilon": 0.2, "crystalline_schedule": "linear", "log_interval": 1,
    "eval_interval": 50,
}  # fmt: skip


@pytest.mark.parametrize("factor", [3.0, 0.33])
def test_a_run_uses_its_time_and_its_plan_makes_it_again(tmp_path: Path, factor: float) -> None:
    """Planned from a wrong speed, and the speed changes threefold on the way."""
    slow = {**STEPS, "slowness": [[40, factor]]}
    timed = run(tmp_path / "timed", steps=600, max_seconds=2.0, options=slow, **SETTINGS)
    assert timed.stop_reason == "finished"
    assert 0.92 * 2.0 <= timed.seconds <= 1.04 * 2.0  # a machine may be held up just at the end
    assert timed.plan is not None
    plan = Plan.parse(timed.plan)
    assert 1 < len(plan.pieces) <= 64
    assert plan.max_steps == timed.final_step
    again = run(tmp_path / "again", steps=None, plan=timed.plan, **SETTINGS)
    assert again.weights_sha256 == timed.weights_sha256
    spec = make_spec(tmp_path / "serial", steps=None, plan=timed.plan, **SETTINGS)
    assert serial_run(spec)[0].weights_sha256() == timed.weights_sha256
    rates = [line["lr"] for line in read_metrics(tmp_path / "timed/metrics.jsonl") if "lr" in line]
    assert rates[-1] == pytest.approx(0.001, rel=0.2)  # a tenth of the peak: its end
    checkpoint = tmp_path / f"timed/checkpoints/step-{timed.final_step:08d}"
    assert json.loads((checkpoint / "state.json").read_text())["config"]["plan"] == timed.plan


def test_a_stopped_run_goes_on_in_the_time_that_is_left(tmp_path: Path) -> None:
    seen: list[Snapshot] = []

    def stop() -> list[str]:
        return ["stop"] if seen and seen[-1].step >= 40 else []

    first = run(tmp_path, seen.append, stop, steps=600, max_seconds=2.0, options=STEPS, **SETTINGS)
    assert first.stop_reason == "stopped"
    assert first.checkpoint is not None
    state = json.loads((Path(first.checkpoint) / "state.json").read_text())
    assert state["seconds_left"] == pytest.approx(2.0 - first.seconds, abs=0.1)
    left_s = state["seconds_left"]
    second = run(
        tmp_path, steps=None, plan=first.plan, max_seconds=left_s,
        resume_from=first.checkpoint, options=STEPS, **SETTINGS,
    )  # fmt: skip
    assert 0.9 * left_s <= second.seconds <= 1.05 * left_s
    assert second.plan is not None
    spec = make_spec(tmp_path / "serial", steps=None, plan=second.plan, **SETTINGS)
    assert serial_run(spec)[0].weights_sha256() == second.weights_sha256


def test_a_bound_on_steps_ends_it_before_the_time(tmp_path: Path) -> None:
    result = run(tmp_path, steps=600, max_seconds=30.0, most_steps=25, options=STEPS, **SETTINGS)
    assert (result.final_step, result.stop_reason) == (25, "finished")
    assert result.seconds < 10


def test_a_pause_does_not_count(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    script = ["pause", "resume"]

    def poll() -> list[str]:
        now = seen[-1] if seen else None
        if now is None or now.step < 10 or not script:
            return []
        if script[0] == "resume" and sum(s.state == "paused" for s in seen) < 60:
            return []
        return [script.pop(0)]

    result = run(tmp_path, seen.append, poll, steps=80, max_seconds=1.0, options=STEPS, **SETTINGS)
    assert sum(s.state == "paused" for s in seen) >= 60  # 0.6 s and more
    assert 0.9 <= result.seconds <= 1.1
    assert seen[-1].elapsed_s == pytest.approx(result.seconds, abs=0.3)


def test_the_clock_leaves_out_pauses_and_suspensions(tmp_path: Path) -> None:
    arena = Arena.create(Layout(b.engine_regions(12, 2, 1)), tmp_path)
    try:
        board = b.Board(arena)
        now = [1000]
        clock = RunningClock(board, lambda: now[0])
        board.control.store(b.SUSPENDED_NS, 7)  # before training began: not of its time
        clock.start()
        now[0] += 100
        assert clock.running_ns() == 100
        clock.pause()
        now[0] += 50
        clock.pause()
        assert (clock.running_ns(), board.state.load(b.PAUSED_NS)) == (100, 50)
        now[0] += 5
        clock.go_on()
        clock.go_on()
        now[0] += 20
        board.control.store(b.SUSPENDED_NS, 7 + 15)
        assert (clock.running_ns(), board.state.load(b.PAUSED_NS)) == (105, 55)
    finally:
        arena.close()
