"""Root discovery in the engine, with the fake program: when it comes, and how it ends early."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from crystalline.train.metrics import read_metrics
from crystalline.train.spec import RunResult
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import make_spec, run, serial_run

pytestmark = pytest.mark.timeout(60)

# Evaluations after steps 10, 20 and 30, a discovery after the first and the second of them.
CRYSTALLINE: dict[str, Any] = {"discovery_interval": 1, "crystalline_epsilon": 0.25}
FOUND = {"generation": 1, "roots_changed": 2, "affixes_gained": 3, "affixes_lost": 4}


def discovering(seconds: float = 0.0) -> dict[str, Any]:
    return {"discoveries": 0.125, "discovery_s": seconds}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(tmp_path_factory.mktemp("undisturbed"), options=discovering(), **CRYSTALLINE)


def events(run_dir: Path) -> list[dict[str, Any]]:
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [line for line in lines if line.get("event") not in (None, "diagnostics", "request")]


def test_it_comes_after_every_mth_evaluation(tmp_path: Path, undisturbed: RunResult) -> None:
    program, _ = serial_run(make_spec(tmp_path, options=discovering(), **CRYSTALLINE))
    assert undisturbed.weights_sha256 == program.weights_sha256()
    assert events(Path(undisturbed.run_dir)) == [
        {"event": "root_discovery", "step": step, **FOUND} for step in (11, 21)
    ]
    rare = {**CRYSTALLINE, "discovery_interval": 2}
    result = run(tmp_path, options=discovering(), **rare)
    assert [line["step"] for line in events(tmp_path)] == [21]
    assert result.weights_sha256 not in ("", undisturbed.weights_sha256)


def test_without_an_evaluation_split_it_comes_all_the_same(tmp_path: Path) -> None:
    run(tmp_path, options={**discovering(), "eval_units": 0}, **CRYSTALLINE)
    assert [line["step"] for line in events(tmp_path)] == [11, 21]


def test_a_discovery_that_finds_nothing_leaves_no_word(tmp_path: Path) -> None:
    found = run(tmp_path / "found", options={"discoveries": 0.0}, **CRYSTALLINE)
    never = run(tmp_path / "never", crystalline_epsilon=0.25)
    assert found.weights_sha256 == never.weights_sha256
    assert events(tmp_path / "found") == []


@pytest.mark.parametrize("workers", [1, 2, 5, 12])
def test_any_number_of_workers(tmp_path: Path, undisturbed: RunResult, workers: int) -> None:
    result = run(
        tmp_path, workers=workers, permits=3, jitter_s=0.001, options=discovering(), **CRYSTALLINE
    )
    assert result.weights_sha256 == undisturbed.weights_sha256


@pytest.mark.parametrize("step", [10, 15, 20, 25])
def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, undisturbed: RunResult, step: int
) -> None:
    """At steps 10 and 20 the checkpoint was saved before the discovery: it is made again."""
    run(tmp_path, options=discovering(), save_interval=5, **CRYSTALLINE)
    checkpoint = tmp_path / "checkpoints" / f"step-{step:08d}"
    resumed = run(tmp_path, options=discovering(), resume_from=str(checkpoint), **CRYSTALLINE)
    assert resumed.weights_sha256 == undisturbed.weights_sha256
    assert events(tmp_path) == events(Path(undisturbed.run_dir))


def test_a_stop_ends_a_long_discovery(tmp_path: Path, undisturbed: RunResult) -> None:
    seen: list[Snapshot] = []
    asked: list[float] = []

    def stop() -> list[str]:
        if not asked and seen and seen[-1].state == "discovering":
            asked.append(time.monotonic())
            return ["stop"]
        return []

    result = run(tmp_path, seen.append, stop, options=discovering(40.0), **CRYSTALLINE)
    assert time.monotonic() - asked[0] < 2.0
    assert (result.stop_reason, result.final_step) == ("stopped", 10)
    assert events(tmp_path) == []
    resumed = run(tmp_path, options=discovering(), resume_from=result.checkpoint, **CRYSTALLINE)
    assert resumed.weights_sha256 == undisturbed.weights_sha256


def test_the_clock_ends_a_long_discovery(tmp_path: Path) -> None:
    result = run(tmp_path, max_seconds=0.4, options=discovering(40.0), **CRYSTALLINE)
    assert (result.stop_reason, result.final_step) == ("time", 10)
    assert result.seconds < 3.0
    assert result.val_loss is not None


def test_it_is_told_while_it_lasts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No sphere is taken for hung, however short the patience is, and the dead are replaced."""
    caplog.set_level("INFO")
    states: set[str] = set()
    killed: list[int] = []
    last: list[Snapshot] = []

    def watch(snapshot: Snapshot) -> None:
        states.add(snapshot.state)
        last[:] = [snapshot]
        if snapshot.state == "discovering" and not killed:
            killed.append(snapshot.spheres[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    settings = {**CRYSTALLINE, "discovery_interval": 2}
    run(tmp_path, watch, hang_s=0.2, options=discovering(2.3), **settings)
    assert "discovering" in states
    assert [sphere.respawns for sphere in last[-1].spheres] == [1, 0, 0]
    assert caplog.text.count("the spheres wait while roots and tables are made anew") == 1
    assert "root discovery after step 20: much is new" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_node_zero_is_ended_in_it(tmp_path: Path, number: int) -> None:
    from crystalline.errors import EngineError

    pids: list[int] = []
    ended: list[float] = []

    def end(snapshot: Snapshot) -> None:
        if snapshot.state == "discovering" and not pids:
            pids.extend(sphere.pid for sphere in snapshot.spheres)
            parent = psutil.Process(pids[0]).parent()
            assert parent is not None
            ended.append(time.monotonic())
            parent.send_signal(number)

    with pytest.raises(EngineError, match="Node Zero"):
        run(tmp_path, end, options=discovering(40.0), **CRYSTALLINE)
    assert time.monotonic() - ended[0] < 3.0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_the_loss_against_smoothed_targets_is_told_beside_the_plain_one(tmp_path: Path) -> None:
    """The fake program's is twice the plain one."""
    last: list[Snapshot] = []
    run(tmp_path / "on", last.append, crystalline_epsilon=0.25)
    steps = [line for line in read_metrics(tmp_path / "on" / "metrics.jsonl") if "loss" in line]
    assert len(steps) == 6
    assert all(line["crystalline_loss"] == 2.0 * line["loss"] for line in steps)
    assert last[-1].crystalline_loss == steps[-1]["crystalline_loss"]
    run(tmp_path / "off", last.append)
    lines = read_metrics(tmp_path / "off" / "metrics.jsonl")
    assert not any("crystalline_loss" in line for line in lines)
    assert last[-1].crystalline_loss is None
