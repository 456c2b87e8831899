"""Checkpoints that are written while training goes on: the same files, and nothing before them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from crystalline.errors import SaveError
from crystalline.train.plan import Plan
from crystalline.train.stats import Snapshot
from crystalline.train.timing import TimedPlan, Work
from tests.train.engine_runs import make_spec, run, serial_run, timeless_metrics
from tests.train.test_endings import started

pytestmark = pytest.mark.timeout(60)

SLOW = {"save_s": 0.15, "naps": {"compute": 0.001}}  # a write lasts some ten steps


def helper_of(run_dir: Path) -> psutil.Process | None:
    """Return the process that writes a checkpoint of a run, if one does."""
    for process in psutil.process_iter(["name", "cmdline"]):
        name, words = process.info["name"] or "", process.info["cmdline"] or ()
        if name.startswith("save-") and str(run_dir) in words:
            return process
    return None


def contents(run_dir: Path) -> dict[str, Any]:
    """Return what the checkpoints of a run hold, times left out."""
    found: dict[str, Any] = {}
    for checkpoint in sorted((run_dir / "checkpoints").iterdir()):
        state = json.loads((checkpoint / "state.json").read_text())
        del state["seconds"]
        arrays = [np.load(checkpoint / f"{name}.npy").tobytes() for name in ("weights", "momentum")]
        found[checkpoint.name] = (state, arrays)
    return found


def at_helper(run_dir: Path, act: Callable[[psutil.Process], None]) -> Callable[[Snapshot], None]:
    """Return a watcher that does something to the first process that writes."""
    done: list[int] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.saving_step and not done:
            process = helper_of(run_dir)
            if process is not None:
                done.append(process.pid)
                act(process)

    return watch


def test_the_files_are_those_of_a_run_that_waits(tmp_path: Path) -> None:
    """State, weights and moments are those of the step, however far training has gone."""
    ahead: list[int] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.saving_step is not None:
            ahead.append(snapshot.step - snapshot.saving_step)

    settings: dict[str, Any] = {"steps": 60, "save_interval": 20, "eval_interval": 10}
    waits = run(tmp_path / "waits", **settings)
    goes_on = run(
        tmp_path / "on", watch, **settings, save_while_training=True, options=SLOW, jitter_s=0.001
    )
    assert goes_on.weights_sha256 == waits.weights_sha256
    assert contents(tmp_path / "on") == contents(tmp_path / "waits")
    assert timeless_metrics(tmp_path / "on") == timeless_metrics(tmp_path / "waits")
    best = (tmp_path / "on/best.txt").read_text()
    assert best == (tmp_path / "waits/best.txt").read_text() != ""
    assert max(ahead) > 0, "training never went on while a checkpoint was written"
    assert goes_on.checkpoint == str(tmp_path / "on/checkpoints/step-00000060")


def test_the_next_save_waits_for_the_last(tmp_path: Path) -> None:
    """There is one copy: it must not change under the process that reads it."""
    waits = run(tmp_path / "waits", steps=6, save_interval=1, eval_interval=0)
    goes_on = run(
        tmp_path / "on", steps=6, save_interval=1, eval_interval=0, save_while_training=True,
        options={"save_s": 0.1},
    )  # fmt: skip
    assert goes_on.weights_sha256 == waits.weights_sha256
    assert contents(tmp_path / "on") == contents(tmp_path / "waits")


def test_a_sphere_dies_in_the_snapshot(tmp_path: Path) -> None:
    killed: list[int] = []

    def watch(snapshot: Snapshot) -> None:
        pid = snapshot.spheres[len(killed)].pid if snapshot.spheres else 0
        if snapshot.state == "saving" and len(killed) < 2 and snapshot.saving_step is None and pid:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    spec = make_spec(tmp_path / "twin", steps=30)
    result = run(
        tmp_path / "run", watch, steps=30, save_interval=10, eval_interval=0,
        save_while_training=True, options={"naps": {"snapshot": 0.02}},
    )  # fmt: skip
    assert killed
    assert result.weights_sha256 == serial_run(spec)[0].weights_sha256()
    run(tmp_path / "waits", steps=30, save_interval=10, eval_interval=0)
    assert contents(tmp_path / "run") == contents(tmp_path / "waits")


def test_the_process_that_writes_is_killed(tmp_path: Path, caplog) -> None:
    """That save has failed, which is told; the one before and the one after are whole."""
    result = run(
        tmp_path, at_helper(tmp_path, lambda process: process.kill()), steps=60, save_interval=20,
        eval_interval=20, save_while_training=True, options=SLOW,
    )  # fmt: skip
    spec = make_spec(tmp_path / "twin", steps=60)
    assert result.weights_sha256 == serial_run(spec)[0].weights_sha256()
    assert (
        "the checkpoint of step 20 was not written: the process that writes it was killed by "
        "signal 9 (Killed). What was saved before is intact. Training goes on." in caplog.text
    )
    whole = [p.parent.name for p in sorted(tmp_path.glob("checkpoints/*/state.json"))]
    assert whole == ["step-00000040", "step-00000060"]
    assert "step-00000020" not in (tmp_path / "best.txt").read_text()


def test_the_process_that_writes_is_stopped(tmp_path: Path, caplog) -> None:
    """It gives no sign of life, and does not hold up the run for ever."""
    run(
        tmp_path, at_helper(tmp_path, lambda process: process.suspend()), steps=40,
        save_interval=20, eval_interval=0, save_while_training=True, save_hang_s=0.4, options=SLOW,
    )  # fmt: skip
    assert "the process that writes it gave no sign of life for 0.4 s" in caplog.text
    assert (tmp_path / "checkpoints/step-00000040/state.json").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("fail_save", "the disk is full. Free some space. Training goes on."),
        ("save_bug", "failed with exit code 1 (LookupError: a bug in the program)"),
    ],
)
def test_a_save_that_fails_is_told_and_the_next_succeeds(
    tmp_path: Path, caplog, option: str, words: str
) -> None:
    result = run(
        tmp_path, steps=30, save_interval=10, eval_interval=10, save_while_training=True,
        options={option: [10]},
    )  # fmt: skip
    assert result.final_step == 30
    assert words in caplog.text
    assert sorted(contents(tmp_path)) == ["step-00000020", "step-00000030"]


def test_the_last_save_must_succeed(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="the disk is full"):
        run(tmp_path, steps=10, save_while_training=True, options={"fail_save": [10]})


def test_best_and_the_path_wait_for_the_whole_checkpoint(tmp_path: Path) -> None:
    seen: list[tuple[int | None, str | None, bool]] = []

    def watch(snapshot: Snapshot) -> None:
        marked = (tmp_path / "best.txt").exists()
        seen.append((snapshot.saving_step, snapshot.last_checkpoint, marked))

    options = {"save_s": 0.4, "naps": {"compute": 0.001}}
    run(tmp_path, watch, steps=30, eval_interval=10, save_while_training=True, options=options)
    writing = [line for line in seen if line[0] == 10]
    assert writing
    assert {line[1:] for line in writing} == {(None, False)}
    assert "step-00000010" in (tmp_path / "best.txt").read_text()


def test_it_goes_on_in_a_pause(tmp_path: Path) -> None:
    """What is being written is whole, and told, before the run goes on."""
    told: list[str | None] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.state == "paused":
            told.append(snapshot.last_checkpoint)

    def actions() -> list[str]:
        if told and told[-1] is not None:
            return ["resume"]
        return ["pause"] if helper_of(tmp_path) is not None else []

    result = run(
        tmp_path, watch, actions, steps=40, save_interval=10, eval_interval=0,
        save_while_training=True, options={"save_s": 0.4, "naps": {"compute": 0.002}},
    )  # fmt: skip
    assert told[0] is None
    assert told[-1] is not None
    assert sorted(contents(tmp_path))[-1] == f"step-{result.final_step:08d}"


def test_the_end_waits_for_it(tmp_path: Path) -> None:
    def actions() -> list[str]:
        return ["stop"] if helper_of(tmp_path) is not None else []

    result = run(
        tmp_path, actions=actions, steps=400, save_interval=10, eval_interval=0,
        save_while_training=True, options={"save_s": 0.4, "naps": {"compute": 0.002}},
    )  # fmt: skip
    assert sorted(contents(tmp_path))[0] == "step-00000010"
    assert sorted(contents(tmp_path))[-1] == f"step-{result.final_step:08d}"
    assert result.final_step < 400


@pytest.mark.parametrize("who", ["node_zero", "launcher"])
def test_whoever_is_killed_the_process_that_writes_goes_too(tmp_path: Path, who: str) -> None:
    options = {"naps": {"compute": 0.001}, "save_s": 30.0}
    with started(
        tmp_path, steps=100_000, workers=3, options=options, save_interval=5,
        save_while_training=True,
    ) as engine:  # fmt: skip
        until = time.monotonic() + 10
        while (helper := helper_of(tmp_path)) is None and time.monotonic() < until:
            time.sleep(0.01)
        assert helper is not None
        (engine.node_zero if who == "node_zero" else engine.launcher).kill()
        engine.end()
        engine.assert_all_gone()
        _, alive = psutil.wait_procs([helper], timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert not list(tmp_path.glob("checkpoints/*/state.json"))


def test_the_plan_of_a_timed_run_knows_both_kinds_of_saves() -> None:
    """Saves that go on meanwhile cost their copy; the last one costs all of it."""

    def end_s(*, whole: bool) -> float:
        plan = TimedPlan(Plan.of_steps(100), 1000.0, Work(save_interval=10, save_s=6.0))
        for step in range(1, 11):
            plan.look(step, float(step))
        plan.saved(10, 0.25, whole=whole)
        plan.look(10, 10.25)
        return plan._end_s(10, 100, 10.25)

    assert end_s(whole=False) - end_s(whole=True) == pytest.approx(6.0 - 0.25)
