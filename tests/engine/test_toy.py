"""The engine runs a program that is no model: same results on any number of spheres, with kills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crystalline.engine.board import SPHERE_STATES, states_of
from crystalline.engine.phase import MOST_PHASES, Phase, numbered
from crystalline.train.stats import SPHERE_STATES as SHOWN
from crystalline.train.step import StepPhases
from tests.engine.toy import NUMBERS, expected
from tests.train.engine_runs import make_spec
from tests.train.fake_program import FakeProgram

ROOT = Path(__file__).resolve().parents[2]


def toy(*arguments: int | str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.engine.toy", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize(("workers", "permits", "kills"), [(1, 1, 0), (3, 2, 4), (13, 2, 3)])
def test_any_number_of_spheres_comes_to_the_same(workers: int, permits: int, kills: int) -> None:
    rounds = 4
    told = toy(workers, permits, rounds, kills)
    assert told["total"] == expected(rounds + 1)
    assert told["order"] == [1, 2, 3, 1, 2, 3]  # of the last round, and with a stop in sight
    assert told["deaths"] == kills
    # Killed units are counted once; what wandered is what one round can, before it was left.
    units = (rounds + 1) * (NUMBERS + NUMBERS // 9)
    assert units <= told["units"] <= units + 40
    assert told["wandering_s"] < 1.0  # 40 units of 0.05 s on 1 or 2 permits: 1 to 2 s, if not left
    assert told["compute_ns"] > 0
    assert told["sync_ns"] > 0
    assert told["states"] == ["retired"]


@pytest.mark.parametrize("shapes", ["3+9", "2+4+8", "12+144"])
def test_a_tree_comes_to_the_same(shapes: str) -> None:
    told = toy(shapes, 2, 3)
    assert told["total"] == expected(4)
    assert (told["deaths"], told["units_of_controls"]) == (0, 0)
    assert told["units"] >= 4 * (NUMBERS + NUMBERS // 9)
    assert told["states"] == ["retired"]
    assert told["settling_s"] < 5.0


def test_a_tree_that_changes_and_is_killed_everywhere() -> None:
    rounds = 16
    told = toy("3+9,2+4+8,13,5,12+40,4+12", 2, rounds, 6, rounds)
    assert told["total"] == expected(rounds + 1)
    assert told["deaths"] >= rounds  # a node that dies between two looks is buried all the same
    assert told["events"] == ["control_lost", "sphere_replaced"]
    assert told["states"] == ["retired"]


def test_no_model_is_anywhere_in_memory() -> None:
    assert set(toy(2, 2, 1)["modules"]) <= {
        "_kernels", "atomic", "engine", "errors", "ipc", "log", "machine", "untrusted",
    }  # fmt: skip


def test_names_and_numbers() -> None:
    phases = [Phase(name, 1, lambda *_: None, "x") for name in "abc"]
    assert numbered(phases) == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(ValueError, match="two phases have one name"):
        numbered([*phases, phases[1]])
    with pytest.raises(ValueError, match="16 phases: there can be 15"):
        numbered([Phase(str(i), 1, lambda *_: None, "x") for i in range(MOST_PHASES + 1)])


def test_watchers_know_the_states_of_training(tmp_path: Path) -> None:
    phases = StepPhases(FakeProgram(make_spec(tmp_path)), 1.0).declare()
    assert states_of(phases) == SHOWN
    assert SHOWN[: len(SPHERE_STATES)] == SPHERE_STATES
