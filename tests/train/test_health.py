"""The health of a run: judged from figures alone; seen in status, events and the dashboard."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crystalline.errors import EngineError
from crystalline.train import health
from crystalline.train.health import Facts, Vitals, judge
from crystalline.train.metrics import read_metrics
from crystalline.train.stats import DEAD, DEGRADED, FAILED, OK, SLOW, STALLED, Snapshot
from tests.train.engine_runs import run
from tests.ui.fake_snapshots import fake_snapshot

pytestmark = pytest.mark.timeout(60)


def well(spheres: int = 5) -> Snapshot:
    snapshot = fake_snapshot(spheres=spheres)
    rows = (dataclasses.replace(s, pace_s=0.1, state="compute") for s in snapshot.spheres)
    return dataclasses.replace(snapshot, spheres=tuple(rows))


def with_sphere(snapshot: Snapshot, index: int, **values: Any) -> Snapshot:
    rows = [*snapshot.spheres]
    rows[index] = dataclasses.replace(rows[index], **values)
    return dataclasses.replace(snapshot, spheres=tuple(rows))


# --- judged ---------------------------------------------------------------------------------------


def test_a_run_that_is_well() -> None:
    assert judge(well(), Facts(0.5, 0.5), 10.0) == health.Health()
    assert judge(dataclasses.replace(well(), spheres=()), Facts(), 10.0).state == OK


@pytest.mark.parametrize(
    ("values", "facts", "state", "words"),
    [
        ({"pace_s": 0.31}, Facts(), SLOW, "sphere 2 is more than 3 times as slow as others"),
        ({"quiet_s": 10.1}, Facts(), STALLED,
         "sphere 2 is without a sign of life for more than 10 s"),
        ({"state": "dead"}, Facts(), DEAD, "sphere 2 is dead"),
        ({"pid": 77}, Facts(gone={77}), DEAD, "sphere 2 is dead"),
        ({"pid": 77, "quiet_s": 99.0, "pace_s": 9.0}, Facts(gone={77}), DEAD, "sphere 2 is dead"),
    ],
)  # fmt: skip
def test_a_sphere_that_is_not(values: dict[str, Any], facts: Facts, state: str, words: str) -> None:
    found = judge(with_sphere(well(), 2, **values), facts, 10.0)
    assert found == health.Health(DEGRADED, (words,), {2: state})


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"pace_s": 0.29}, Facts()),
        ({"pace_s": 0.0}, Facts()),
        ({"quiet_s": 9.9}, Facts()),
        ({"quiet_s": 99.0, "pid": 77}, Facts(busy={77})),
    ],
)
def test_a_sphere_that_is_well_all_the_same(values: dict[str, Any], facts: Facts) -> None:
    assert judge(with_sphere(well(), 2, **values), facts, 10.0) == health.Health()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(disk_free=0.04), "the disk of the run has 4 % left"),
        (Facts(memory_used=0.93), "memory is 93 % full"),
    ],
)
def test_a_machine_that_is_not(facts: Facts, words: str) -> None:
    assert judge(well(), facts, 10.0) == health.Health(DEGRADED, (words,), {})


def test_dropped_steps_and_several_spheres_have_one_clause_each() -> None:
    snapshot = dataclasses.replace(well(9), dropped_lately=2)
    for index in (1, 4, 5):
        snapshot = with_sphere(snapshot, index, quiet_s=11.0)
    found = judge(snapshot, Facts(), 10.0)
    assert found.reasons == (
        "spheres 1, 4 and 5 are without a sign of life for more than 10 s",
        "2 of the last 100 steps were dropped: their gradient was not finite",
    )
    assert found.spheres == dict.fromkeys((1, 4, 5), STALLED)


def test_a_run_in_which_nobody_works_has_failed() -> None:
    snapshot = well(3)
    for index in range(3):
        snapshot = with_sphere(snapshot, index, quiet_s=11.0)
    found = judge(snapshot, Facts(), 10.0)
    assert found.state == FAILED
    assert found.reasons[0] == "no sphere works any more"


# --- found ----------------------------------------------------------------------------------------


def test_a_process_is_quiet_busy_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "QUIET_S", 0.1)
    vitals = Vitals(tmp_path, 0.3, 0.0)
    burn = "while True: pass"
    processes = [
        subprocess.Popen([sys.executable, "-c", text])
        for text in (burn, "import time; time.sleep(60)", "")
    ]
    try:
        processes[2].wait()
        deadline = time.monotonic() + 20
        while True:
            snapshot = well(3)
            for index, process in enumerate(processes):
                quiet = vitals.quiet_s(index, process.pid, 7)
                snapshot = with_sphere(snapshot, index, pid=process.pid, quiet_s=quiet)
            vitals.look(snapshot)
            if len(vitals.health.spheres) == 2 and snapshot.spheres[0].quiet_s > 0.6:
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert vitals.health.spheres == {1: STALLED, 2: DEAD}
        assert vitals.quiet_s(1, processes[1].pid, 8) < 0.1  # it has given a sign
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_sphere_that_was_slow_once_is_not_told_of(tmp_path: Path) -> None:
    vitals = Vitals(tmp_path, 10.0, 0.0)
    slow, calm = with_sphere(well(), 1, pace_s=5.0), well()
    for snapshot in (slow, slow, calm, slow, slow):
        vitals.look(snapshot)
        assert 1 not in vitals.health.spheres
    vitals.look(slow)
    assert vitals.health.spheres == {1: SLOW}
    vitals.look(calm)
    assert vitals.health.spheres == {}


def test_facts_of_this_machine(tmp_path: Path) -> None:
    disk, memory = health._disk_free(tmp_path), health._memory_used()
    assert disk is not None
    assert memory is not None
    assert 0.0 <= disk <= 1.0
    assert 0.0 <= memory <= 1.0
    assert health._disk_free(tmp_path / "nowhere") is None


# --- told -----------------------------------------------------------------------------------------


@pytest.fixture
def calm_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_disk_free", lambda _: 0.5)
    monkeypatch.setattr(health, "_memory_used", lambda: 0.5)
    monkeypatch.setattr(health, "SLOW_FACTOR", 1e9)  # other processes may slow one down


def told(run_dir: Path) -> list[tuple[str, str]]:
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [(line["state"], line["reasons"]) for line in lines if line.get("event") == "health"]


@pytest.mark.usefixtures("calm_machine")
def test_a_stopped_sphere_is_told_of_until_it_goes_on(tmp_path: Path) -> None:
    """One that has no permit, and so holds up nobody."""
    stopped: list[tuple[int, int]] = []
    seen: list[Snapshot] = []
    over: list[bool] = []

    def watch(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        if snapshot.step > 3 and not stopped:
            idle = [s for s in snapshot.spheres if s.state == "idle"]
            if idle:
                os.kill(idle[0].pid, signal.SIGSTOP)
                stopped.append((idle[0].index, idle[0].pid))
        elif stopped and not over and snapshot.health == DEGRADED:
            os.kill(stopped[0][1], signal.SIGCONT)
            over.append(True)

    def actions() -> list[str]:
        return ["stop"] if over and seen[-1].health == OK else []

    run(tmp_path, watch, actions, steps=20_000, workers=4, permits=1, hang_s=1.5,
        health_interval_s=0.1, options={"naps": {"compute": 0.002}})  # fmt: skip
    index = stopped[0][0]
    words = f"sphere {index} is without a sign of life for more than 1.5 s"
    assert told(tmp_path) == [(DEGRADED, words), (OK, "")]
    unwell = [s for s in seen if s.health == DEGRADED]
    assert {sphere.health for s in unwell for sphere in s.spheres if sphere.index == index} >= {
        STALLED
    }
    assert unwell[0].health_reasons == (words,)


@pytest.mark.usefixtures("calm_machine")
def test_dropped_steps_are_told_of_while_they_are_recent(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    run(tmp_path, seen.append, steps=300, health_interval_s=0.01,
        options={"nan_steps": [4, 11], "naps": {"compute": 0.0005}})  # fmt: skip
    found = told(tmp_path)
    assert found[0][0] == DEGRADED
    assert found[0][1].endswith("of the last 100 steps were dropped: their gradient was not finite")
    assert found[-1] == (OK, "")
    assert {snapshot.dropped_lately for snapshot in seen} >= {0, 2}


def test_a_run_that_failed_says_so_in_its_status(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        run(tmp_path, options={"fail_lane": [3, 4]})
    found = json.loads((tmp_path / "status.json").read_text())
    assert found["health"] == FAILED
    assert "died 5 times" in found["health_reasons"][0]


@pytest.mark.usefixtures("calm_machine")
def test_it_costs_little(tmp_path: Path) -> None:
    vitals = Vitals(tmp_path, 10.0, 0.0)
    snapshot = well(63)
    began = time.thread_time()
    for _ in range(20):
        for sphere in snapshot.spheres:
            vitals.quiet_s(sphere.index, sphere.pid, 1)
        vitals.look(snapshot)
    assert (time.thread_time() - began) / 20 < 0.005
