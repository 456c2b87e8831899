"""Profiles that are asked for while a run goes on: of what follows, again and again, same bits."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from crystalline.train.metrics import read_metrics
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import make_spec, run, serial_run

pytestmark = pytest.mark.timeout(60)


class Asker:
    """Asks for each of some things at a step."""

    def __init__(self, plan: dict[int, str]) -> None:
        self._plan, self._step = plan, 0

    def watch(self, snapshot: Snapshot) -> None:
        self._step = snapshot.step

    def actions(self) -> list[str]:
        due = [step for step in self._plan if step <= self._step]
        return [self._plan.pop(step) for step in sorted(due)]


def answers(run_dir: Path) -> list[tuple[bool, str]]:
    lines: list[dict[str, Any]] = read_metrics(run_dir / "metrics.jsonl")
    return [(line["ok"], line["told"]) for line in lines if line.get("command") == "profile"]


def test_a_run_that_goes_on_is_profiled_twice(tmp_path: Path) -> None:
    asker = Asker({5: "profile=4", 6: "profile=9", 30: "profile=0", 60: "profile=1000"})
    slow = {"naps": {"compute": 0.003}}
    result = run(tmp_path, asker.watch, asker.actions, steps=120, options=slow)
    first, second, nothing, last = answers(tmp_path)
    path = tmp_path / "profile.json"
    assert first == (True, f"the next 4 steps are recorded, into {path}")
    assert second[0] in (True, False)  # the first may be done by then
    assert nothing == (False, "a profile needs a step")
    assert last == (True, f"the next 1,000 steps are recorded, into {path}")
    document = json.loads(path.read_text())
    about = document["otherData"]
    assert about["first_step"] >= 61
    assert about["first_step"] + about["steps"] == 121  # it ends with the run
    rows = {row["name"]: row for row in about["rows"]}
    assert rows["compute"]["times"] >= 12 * about["steps"]
    assert rows["compute"]["seconds"] > 0.003 * 12 * about["steps"]
    assert {event["tid"] for event in document["traceEvents"]} <= {0, 1, 2}
    assert result.profile is not None
    assert result.profile.startswith(f"profile of steps {about['first_step']} to 120: ")
    program, _ = serial_run(make_spec(tmp_path / "alone", steps=120))
    assert result.weights_sha256 == program.weights_sha256()


def test_a_profile_survives_a_sphere(tmp_path: Path) -> None:
    killed: list[int] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.step > 20 and not killed:
            killed.append(snapshot.spheres[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    asker = Asker({3: "profile=60"})

    def look(snapshot: Snapshot) -> None:
        asker.watch(snapshot)
        watch(snapshot)

    slow = {"naps": {"compute": 0.002}}
    result = run(tmp_path, look, asker.actions, steps=90, options=slow)
    about = json.loads((tmp_path / "profile.json").read_text())["otherData"]
    assert about["steps"] == 60
    assert about["counted"]["lanes"] >= 12 * 60
    program, _ = serial_run(make_spec(tmp_path / "alone", steps=90))
    assert result.weights_sha256 == program.weights_sha256()


def test_a_full_disk_costs_a_profile_and_no_run(tmp_path: Path, caplog) -> None:
    (tmp_path / "profile.json").mkdir()
    asker = Asker({3: "profile=5"})
    result = run(tmp_path, asker.watch, asker.actions, options={"naps": {"compute": 0.003}})
    assert result.stop_reason == "finished"
    assert "profile.json cannot be written. " in caplog.text
