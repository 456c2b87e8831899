"""The engine with a fake program: the same bits whoever computes, whatever happens."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from crystalline.errors import (
    CheckpointError,
    DivergedError,
    EngineError,
    SaveError,
    UsageError,
)
from crystalline.train.spec import RunResult
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import make_spec, run, serial_run, timeless_metrics

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, list[dict[str, Any]]]:
    """Thirty steps by one sphere: result and metrics without their times."""
    run_dir = tmp_path_factory.mktemp("undisturbed")
    return run(run_dir, workers=1), timeless_metrics(run_dir)


class Killer:
    """Sends a signal to a sphere that is seen in a wanted state; a few times at most.

    Not in a run's last steps: it would end before the sphere is missed.
    """

    def __init__(self, state: str, number: int = signal.SIGKILL, times: int = 3) -> None:
        self.state, self.number, self.times = state, number, times
        self.hit: set[int] = set()
        self.last: Snapshot | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        self.last = snapshot
        victims = {s.pid for s in snapshot.spheres if s.state == self.state and s.pid} - self.hit
        early = snapshot.step < snapshot.max_steps - 5
        if victims and early and len(self.hit) < self.times:
            victim = random.choice(sorted(victims))
            os.kill(victim, self.number)
            self.hit.add(victim)


def test_the_engine_computes_what_a_plain_loop_computes(tmp_path: Path) -> None:
    snapshots: list[Snapshot] = []
    result = run(tmp_path, snapshots.append, workers=5)
    program, losses = serial_run(make_spec(tmp_path))
    assert result.weights_sha256 == program.weights_sha256()
    assert result.train_loss == pytest.approx(losses[-1], rel=1e-12)
    logged = {line["step"]: line["loss"] for line in timeless_metrics(tmp_path) if "loss" in line}
    assert logged == pytest.approx({n: losses[n - 1] for n in range(5, 31, 5)}, rel=1e-12)
    evaluated = [program.evaluate_unit(unit, 0) for unit in range(5)]
    val_loss = sum(loss for loss, _ in evaluated) / sum(tokens for _, tokens in evaluated)
    assert result.val_loss == pytest.approx(val_loss, rel=1e-12)
    assert result.val_bits_per_byte == pytest.approx(val_loss / math.log(2) * 90 / 200, rel=1e-12)
    assert [(round(step), loss) for step, loss in snapshots[-1].loss_history] == [
        (n + 1, pytest.approx(loss, rel=1e-12)) for n, loss in enumerate(losses)
    ]
    assert [point.step for point in snapshots[-1].eval_history] == [10, 20, 30]
    assert snapshots[-1].state == "finished"
    assert (result.final_step, result.stop_reason, result.exit_code) == (30, "finished", 0)


@pytest.mark.parametrize("workers", [2, 3, 5, 12, 63])
def test_any_number_of_workers(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]], workers: int
) -> None:
    result = run(tmp_path, workers=workers, permits=1 + workers % 4)
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert timeless_metrics(tmp_path) == undisturbed[1]


@pytest.mark.parametrize("workers", [2, 7, 20])
def test_random_sleeps(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]], workers: int
) -> None:
    result = run(tmp_path, workers=workers, permits=6, jitter_s=0.002)
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert timeless_metrics(tmp_path) == undisturbed[1]


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        ("compute", "compute"),
        ("reduce", "reduce"),
        ("update", "update"),
        ("evaluate", "compute"),
        ("pack", "update"),
    ],
)
@pytest.mark.parametrize("permits", [1, 3])
def test_a_sphere_is_killed(
    tmp_path: Path,
    undisturbed: tuple[RunResult, list[dict[str, Any]]],
    phase: str,
    state: str,
    permits: int,
) -> None:
    killer = Killer(state)
    in_steps = phase in ("compute", "reduce", "update")
    result = run(
        tmp_path,
        killer,
        interval_s=0.05 if in_steps else 0.005,
        workers=4,
        permits=permits,
        options={"naps": {phase: 0.003 if in_steps else 0.02}},
    )
    assert killer.hit
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert timeless_metrics(tmp_path) == undisturbed[1]
    assert killer.last is not None
    assert sum(sphere.respawns for sphere in killer.last.spheres) == len(killer.hit)


def test_many_are_killed_at_any_moment(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    kills = 0

    def kill_somebody(snapshot: Snapshot) -> None:
        nonlocal kills
        alive = [s.pid for s in snapshot.spheres if s.pid and s.respawns < 3]
        if alive and snapshot.step < 29:
            with contextlib.suppress(ProcessLookupError):  # it is being replaced just now
                os.kill(random.choice(alive), signal.SIGKILL)
            kills += 1

    result = run(
        tmp_path,
        kill_somebody,
        workers=9,
        permits=3,
        interval_s=0.03,
        options={"naps": {"compute": 0.001, "reduce": 0.0005, "update": 0.001}},
    )
    assert kills > 5
    assert result.weights_sha256 == undisturbed[0].weights_sha256


@pytest.mark.parametrize("permits", [1, 2])
def test_a_stopped_sphere_is_replaced(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]], permits: int
) -> None:
    killer = Killer("compute", signal.SIGSTOP, times=1)
    result = run(
        tmp_path,
        killer,
        workers=3,
        permits=permits,
        hang_s=0.5,
        interval_s=0.03,
        options={"naps": {"compute": 0.005}},
    )
    assert len(killer.hit) == 1
    assert killer.last is not None
    assert sum(sphere.respawns for sphere in killer.last.spheres) == 1
    assert result.weights_sha256 == undisturbed[0].weights_sha256


def test_a_slow_sphere_is_left_alone(tmp_path: Path) -> None:
    """Lanes that take longer than the patience, but run, are not taken for hung."""
    last: list[Snapshot] = []
    run(
        tmp_path,
        last.append,
        workers=2,
        steps=1,
        hang_s=0.2,
        options={"burn_s": 0.6, "lanes": 2, "eval_units": 0},
    )
    assert sum(sphere.respawns for sphere in last[-1].spheres) == 0


def test_workers_come_and_go(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    plan = {2: ["workers=7"], 8: ["workers=1"], 14: ["workers+", "workers+"], 20: ["workers-"]}
    seen: dict[int, int] = {}
    latest = 0

    def watch(snapshot: Snapshot) -> None:
        nonlocal latest
        latest = snapshot.step
        seen[snapshot.workers] = snapshot.step

    def actions() -> list[str]:
        due = [step for step in plan if step <= latest]
        return [action for step in due for action in plan.pop(step)]

    result = run(tmp_path, watch, actions, workers=3, options={"naps": {"compute": 0.002}})
    assert set(seen) >= {3, 7, 1, 2}
    assert result.workers == 2
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert timeless_metrics(tmp_path) == undisturbed[1]


def test_pause_checkpoint_and_stop(tmp_path: Path) -> None:
    script = ["pause", "checkpoint", "resume", "stop"]
    paused_at: list[int] = []
    states: list[str] = []
    snapshots: list[Snapshot] = []

    def actions() -> list[str]:
        latest = snapshots[-1] if snapshots else None
        if latest is None or latest.step < 3 or not script:
            return []
        if script[0] == "checkpoint":
            if latest.state != "paused":
                return []
            paused_at.append(latest.step)
            if len(paused_at) < 10:
                return []
        if script[0] == "resume" and latest.last_checkpoint is None:
            return []
        if script[0] == "stop" and latest.step < paused_at[0] + 3:
            return []
        return [script.pop(0)]

    def watch(snapshot: Snapshot) -> None:
        snapshots.append(snapshot)
        states.append(snapshot.state)

    result = run(tmp_path, watch, actions, steps=100_000, options={"naps": {"compute": 0.0005}})
    assert len(set(paused_at)) == 1
    assert (tmp_path / "checkpoints" / f"step-{paused_at[0]:08d}" / "state.json").is_file()
    assert result.stop_reason == "stopped"
    assert result.exit_code == 75
    assert result.checkpoint is not None
    assert Path(result.checkpoint).name == f"step-{result.final_step:08d}"
    assert "paused" in states
    assert states[-1] == "stopped"


@pytest.mark.parametrize("workers", [1, 5])
def test_stop_and_resume(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]], workers: int
) -> None:
    run(tmp_path, steps=30, workers=4, save_interval=20)
    lines = timeless_metrics(tmp_path)
    resumed = run(
        tmp_path, steps=30, workers=workers, resume_from=str(tmp_path / "checkpoints/step-00000020")
    )
    assert resumed.weights_sha256 == undisturbed[0].weights_sha256
    assert timeless_metrics(tmp_path) == undisturbed[1] == lines
    assert resumed.val_loss == undisturbed[0].val_loss


def test_a_resumed_run_remembers_its_curves(tmp_path: Path) -> None:
    first: list[Snapshot] = []
    run(tmp_path, first.append, steps=30, log_interval=1, save_interval=20)
    latest: list[Snapshot] = []
    run(tmp_path, latest.append, steps=30, resume_from=str(tmp_path / "checkpoints/step-00000020"))
    before, after = first[-1], latest[-1]
    assert [step for step, _ in after.loss_history] == list(range(1, 31))
    assert after.loss_history == before.loss_history
    assert after.eval_history == before.eval_history
    begun = next(s for s in latest if s.state != "starting")
    assert begun.loss is not None
    assert begun.last_checkpoint is not None


def test_a_finished_run_is_resumed(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, resume_from=first.checkpoint)
    assert again.weights_sha256 == first.weights_sha256
    assert (again.final_step, again.train_loss, again.val_loss) == (
        first.final_step,
        first.train_loss,
        first.val_loss,
    )


def test_improvements_are_saved_as_best(tmp_path: Path) -> None:
    run(tmp_path, save_interval=7)
    saved = {int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir()}
    best = [int(line[5:]) for line in (tmp_path / "best.txt").read_text().split()]
    values = {
        line["step"]: line["val_loss"] for line in timeless_metrics(tmp_path) if "val_loss" in line
    }
    improved = [n for n in values if values[n] == min(v for k, v in values.items() if k <= n)]
    assert best == improved
    assert saved == {7, 14, 21, 28} | {10, 20, 30}  # what is evaluated was saved before


def test_steps_that_are_not_finite_are_dropped(tmp_path: Path) -> None:
    last: list[Snapshot] = []
    result = run(tmp_path, last.append, options={"nan_steps": [4, 11, 12]})
    program, _ = serial_run(make_spec(tmp_path, options={"nan_steps": [4, 11, 12]}))
    assert result.dropped_steps == last[-1].dropped_steps == 3
    lines = timeless_metrics(tmp_path)
    dropped = [line["step"] for line in lines if line.get("event") == "dropped_step"]
    assert dropped == [5, 12, 13]
    assert result.weights_sha256 == program.weights_sha256()
    assert result.final_step == 30


@pytest.mark.parametrize("bad", [range(5, 15), range(3, 90, 6)])
def test_divergence_ends_the_run(tmp_path: Path, bad: range) -> None:
    with pytest.raises(DivergedError, match="not finite") as caught:
        run(tmp_path, steps=90, save_interval=2, options={"nan_steps": list(bad)})
    assert caught.value.exit_code == 5
    assert "--learning-rate" in caught.value.advice
    assert "--resume" in caught.value.advice


def test_a_sphere_that_always_fails_ends_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineError, match=r"died 5 times.*lane 2 of step 3 is meant to fail"):
        run(tmp_path, workers=1, permits=1, options={"fail_lane": [2, 3]})
    assert "ArithmeticError" in caplog.text


def test_a_checkpoint_that_cannot_be_restored(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint") as caught:
        run(tmp_path, resume_from=str(tmp_path / "nothing"))
    assert caught.value.advice == "Look elsewhere."


def test_a_save_that_fails_is_told_and_training_goes_on(
    tmp_path: Path,
    undisturbed: tuple[RunResult, list[dict[str, Any]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = run(tmp_path, save_interval=8, options={"fail_save": [8, 24]})
    assert "the disk is full. Free some space. Training goes on." in caplog.text
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert (tmp_path / "checkpoints" / "step-00000016").is_dir()
    assert not (tmp_path / "checkpoints" / "step-00000024").is_dir()
    with pytest.raises(SaveError, match="the disk is full"):
        run(tmp_path, options={"fail_save": [30]})


def test_a_bug_in_node_zero_keeps_its_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineError, match="Node Zero ended with exit code 1"):
        run(tmp_path, options={"fail_start": True})
    assert "LookupError: a bug in the program" in caplog.text


def test_node_zero_forks_when_its_threads_have_ended(tmp_path: Path) -> None:
    assert run(tmp_path, options={"thread_s": 0.3}).final_step == 30
    with pytest.raises(EngineError, match="has 2 threads and must not fork"):
        run(tmp_path, options={"thread_s": 30.0})


def test_work_is_even_over_positions_and_spheres(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    last: list[Snapshot] = []
    run(
        tmp_path,
        last.append,
        steps=800,
        workers=12,
        permits=2,
        eval_interval=0,
        options={"naps": {"compute": 0.0005}},
    )
    assert "lanes by symmetry position: " + " ".join(["800"] * 12) in caplog.text
    lanes = [sphere.lanes_done for sphere in last[-1].spheres]
    assert sum(lanes) == 12 * 800
    assert min(lanes) > 0.2 * 800  # everybody gets turns


def test_node_zero_is_killed(tmp_path: Path) -> None:
    pids: list[int] = []

    def kill_node_zero(snapshot: Snapshot) -> None:
        if snapshot.step > 3 and not pids:
            pids.extend(sphere.pid for sphere in snapshot.spheres)
            parent = psutil.Process(pids[0]).parent()
            assert parent is not None
            pids.append(parent.pid)
            parent.kill()

    with pytest.raises(EngineError, match="killed by signal 9") as caught:
        run(
            tmp_path, kill_node_zero, steps=100_000, save_interval=1,
            options={"naps": {"compute": 0.001}},
        )  # fmt: skip
    assert "--resume" in caught.value.advice
    assert len(pids) == 4
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not list(Path("/dev/shm").glob("cllm-*"))


def test_a_bug_in_the_watcher_ends_everything(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail(snapshot: Snapshot) -> None:
        pids.extend(sphere.pid for sphere in snapshot.spheres)
        if pids:
            raise ZeroDivisionError("drawing failed")

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, fail, steps=100_000)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_unknown_number_of_workers_is_told(tmp_path: Path) -> None:
    messages: set[str | None] = set()
    asked = [["workers=64"], ["workers=0"]]
    run(
        tmp_path,
        lambda s: messages.add(s.message),
        lambda: asked.pop() if asked else [],
        options={"naps": {"compute": 0.001}},
    )
    assert "64 workers were asked for. Use 1 to 63 of them." in messages
    assert "0 workers were asked for. Use 1 to 63 of them." in messages
    assert UsageError.exit_code == 2
