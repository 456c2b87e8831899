"""What is asked of a run between its steps: a save with a name, to go back, a learning rate."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.errors import CheckpointError
from crystalline.train.metrics import read_metrics
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import run, timeless_metrics

pytestmark = pytest.mark.timeout(60)

SLOW = {"naps": {"compute": 0.001}}


class Script:
    """Asks for one thing after the other: each at or behind its step, when the last was done."""

    def __init__(self, run_dir: Path, *wishes: tuple[int, str]) -> None:
        self.path = run_dir / "metrics.jsonl"
        self.wishes = list(wishes)
        self.asked_at = 0.0  # of what was asked last; what is from before that is done
        self.step = 0
        self.snapshots: list[Snapshot] = []

    def watch(self, snapshot: Snapshot) -> None:
        self.step = snapshot.step
        self.snapshots.append(snapshot)

    def actions(self) -> list[str]:
        newest = max([answer["asked_at"] for answer in self.answers()], default=0.0)
        if not self.wishes or self.step < self.wishes[0][0] or newest < self.asked_at:
            return []
        self.asked_at = time.time()
        return [self.wishes.pop(0)[1]]

    def answers(self) -> list[dict[str, Any]]:
        """Return the answers that stand in the metrics."""
        if not self.path.exists():
            return []
        return [line for line in read_metrics(self.path) if line.get("event") == "request"]


def scripted(run_dir: Path, *wishes: tuple[int, str], **keywords: Any) -> tuple[Any, Script]:
    script = Script(run_dir, *wishes)
    result = run(run_dir, script.watch, script.actions, **{"options": SLOW, **keywords})
    assert script.wishes == []
    return result, script


def saved(run_dir: Path, step: int) -> dict[str, Any]:
    place = run_dir / "checkpoints" / f"step-{step:08d}" / "state.json"
    found: dict[str, Any] = json.loads(place.read_text())
    return found


# --- learning rate --------------------------------------------------------------------------------


def test_a_factor_multiplies_the_schedule_from_the_next_step_on(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", steps=40, log_interval=1)
    result, script = scripted(
        tmp_path / "run", (7, "lr-factor=0.5"), (20, "lr-factor=2"), steps=40, log_interval=1
    )
    first, second = (answer["step"] for answer in script.answers())
    rates = {
        name: {
            line["step"]: line["lr"]
            for line in read_metrics(tmp_path / name / "metrics.jsonl")
            if "lr" in line
        }
        for name in ("plain", "run")
    }
    assert 7 <= first < second < 40
    for step, rate in rates["plain"].items():
        factor = 1.0 if step <= first else 0.5 if step <= second else 2.0
        assert rates["run"][step] == rate * factor
    assert result.weights_sha256 != plain.weights_sha256
    assert {snapshot.lr_factor for snapshot in script.snapshots} == {1.0, 0.5, 2.0}
    assert script.answers()[0]["told"] == "the learning rate is that of the schedule times 0.5"


def test_a_factor_is_saved_and_a_resumed_run_has_it(tmp_path: Path) -> None:
    result, script = scripted(tmp_path, (7, "lr-factor=0.5"), steps=40, save_interval=20)
    assert script.answers()[0]["step"] < 20
    assert saved(tmp_path, 20)["lr_factor"] == 0.5
    resumed = run(tmp_path, steps=40, resume_from=str(tmp_path / "checkpoints/step-00000020"))
    assert resumed.weights_sha256 == result.weights_sha256


def test_a_factor_after_a_save_of_the_same_step_is_saved_too(tmp_path: Path) -> None:
    """The evaluation of step 10 was saved before it, and the run ends there."""
    asked: list[str] = []

    def actions() -> list[str]:
        if latest and latest[-1].state == "evaluating" and len(asked) < 2:
            asked.append(["lr-factor=0.5", "stop"][len(asked)])
            return asked[-1:]
        return []

    latest: list[Snapshot] = []
    result = run(tmp_path, latest.append, actions, steps=40, options={"naps": {"evaluate": 0.1}})
    assert (result.final_step, result.stop_reason) == (10, "stopped")
    assert saved(tmp_path, 10)["lr_factor"] == 0.5


# --- names ----------------------------------------------------------------------------------------


def test_a_checkpoint_gets_a_name_once(tmp_path: Path) -> None:
    _, script = scripted(
        tmp_path, (3, "checkpoint=before"), (9, "checkpoint=before"), (12, "checkpoint"), steps=40
    )
    one, two, three = script.answers()
    assert (one["ok"], two["ok"], three["ok"]) == (True, False, True)
    assert two["told"] == "the name before is taken"
    assert one["told"].endswith("is written, and kept as before")
    assert saved(tmp_path, one["step"])["step"] == one["step"]
    assert script.snapshots[-1].named_checkpoints == (("before", one["step"]),)


def test_a_save_that_fails_is_a_refusal(tmp_path: Path) -> None:
    _, script = scripted(
        tmp_path, (5, "checkpoint=a"), steps=30,
        options={**SLOW, "fail_save": [n for n in range(30) if n % 10]},
    )  # fmt: skip
    (answer,) = script.answers()
    assert (answer["ok"], answer["told"]) == (False, "the disk is full")


# --- going back -----------------------------------------------------------------------------------


def test_a_restored_run_computes_what_a_resumed_one_does(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 60, "save_interval": 20, "log_interval": 1}
    result, _ = scripted(
        tmp_path / "run", (5, "lr-factor=0.5"), (25, "lr-factor=3"), (33, "restore=20"), **settings
    )
    plain = run(tmp_path / "resumed", options=SLOW, **settings)
    assert result.weights_sha256 != plain.weights_sha256
    checkpoint = str(tmp_path / "run/checkpoints/step-00000020")
    resumed = run(tmp_path / "run", resume_from=checkpoint, **settings)
    assert resumed.weights_sha256 == result.weights_sha256
    assert resumed.val_loss == result.val_loss


def test_what_a_restored_run_tells_is_what_a_resumed_one_tells(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "steps": 60, "save_interval": 20, "log_interval": 1, "batch_size": 5, "seq_len": 8,
    }  # fmt: skip
    result, script = scripted(tmp_path, (47, "restore=20"), **settings)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 61))
    (back,) = (line for line in lines if line.get("event") == "restored")
    assert (back["step"], back["checkpoint"]) == (20, "step-00000020")
    assert 47 <= back["before"] < 60
    (answer,) = (line for line in lines if line.get("event") == "request")
    assert answer["told"] == "the run is at step 20 again"
    told = timeless_metrics(tmp_path)
    resumed: list[Snapshot] = []
    run(tmp_path, resumed.append, resume_from=str(tmp_path / "checkpoints/step-00000020"),
        **settings)  # fmt: skip
    assert timeless_metrics(tmp_path) == told
    last = script.snapshots[-1]
    assert last.loss_history == resumed[-1].loss_history
    assert last.eval_history == resumed[-1].eval_history
    assert (last.tokens, last.epoch) == (resumed[-1].tokens, resumed[-1].epoch)
    assert (tmp_path / "latest.txt").read_text() == "step-00000020"
    assert result.final_step == 60


def test_no_snapshot_tells_of_steps_that_lie_behind_it(tmp_path: Path) -> None:
    _, script = scripted(
        tmp_path, (31, "pause"), (31, "restore=20"), (0, "resume"), steps=60, save_interval=20,
        log_interval=1,
    )  # fmt: skip
    for snapshot in script.snapshots:
        assert all(step <= snapshot.step + 1 for step, _ in snapshot.loss_history)
        assert all(point.step <= snapshot.step for point in snapshot.eval_history)
    steps = [snapshot.step for snapshot in script.snapshots]
    assert any(later < step for step, later in pairwise(steps))
    assert script.snapshots[-1].step == 60


def test_an_evaluation_in_hand_is_given_up_for_it(tmp_path: Path) -> None:
    asked: list[str] = []
    seen: list[Snapshot] = []

    def actions() -> list[str]:
        if seen and seen[-1].state == "evaluating" and seen[-1].step == 20 and not asked:
            asked.append("restore=10")
            return asked
        return []

    keywords: dict[str, Any] = {"steps": 30, "save_interval": 10}
    result = run(tmp_path, seen.append, actions, options={"naps": {"evaluate": 0.05}}, **keywords)
    (answer,) = Script(tmp_path).answers()
    assert answer["step"] == 10
    undisturbed = run(tmp_path / "plain", **keywords)
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert timeless_metrics(tmp_path) == timeless_metrics(tmp_path / "plain")


def test_the_last_evaluation_is_given_up_for_it(tmp_path: Path) -> None:
    asked: list[str] = []
    seen: list[Snapshot] = []

    def actions() -> list[str]:
        if seen and seen[-1].state == "evaluating" and seen[-1].step == 25 and not asked:
            asked.append("restore=10")
            return asked
        return []

    result = run(tmp_path, seen.append, actions, steps=25, save_interval=10,
                 options={"naps": {"evaluate": 0.05}})  # fmt: skip
    assert [answer["step"] for answer in Script(tmp_path).answers()] == [10]
    assert (result.final_step, result.stop_reason) == (25, "finished")
    assert result.weights_sha256 == run(tmp_path / "plain", steps=25).weights_sha256


def break_weights(place: Path) -> None:
    np.save(place / "weights.npy", np.zeros(3, np.float32))


def break_state(place: Path) -> None:
    state = json.loads((place / "state.json").read_text())
    (place / "state.json").write_text(json.dumps({**state, "tokens": -1}))


def another_seed(place: Path) -> None:
    state = json.loads((place / "state.json").read_text())
    state["config"]["seed"] += 1
    (place / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_weights, "holds another model"),
        (break_state, "state.json cannot be used: 'tokens' is -1"),
        (another_seed, "is of another run: its seed differs"),
        (None, "there is no checkpoint '7'"),
    ],
)
def test_what_does_not_belong_here_is_refused_and_changes_nothing(
    tmp_path: Path, damage: Callable[[Path], None] | None, words: str
) -> None:
    asked: list[str] = []
    seen: list[Snapshot] = []

    def actions() -> list[str]:
        if not seen or seen[-1].step < 15 or asked:
            return []
        place = tmp_path / "checkpoints" / "step-00000010"
        if damage is not None:
            damage(place)
        asked.append("restore=10" if damage else "restore=7")
        return asked

    result = run(tmp_path, seen.append, actions, steps=40, options=SLOW)
    (answer,) = Script(tmp_path).answers()
    assert not answer["ok"]
    assert words in answer["told"]
    assert result.weights_sha256 == run(tmp_path / "plain", steps=40).weights_sha256


def test_a_run_of_minutes_is_refused(tmp_path: Path) -> None:
    _, script = scripted(
        tmp_path, (3, "restore=0"), (3, "stop"), steps=4000, max_seconds=30.0,
    )  # fmt: skip
    assert script.answers()[0]["told"] == "the run's steps are fitted to the time that it has"


def test_signals_are_requests_from_outside_too(tmp_path: Path) -> None:
    sent: list[int] = []

    def interrupt(snapshot: Snapshot) -> None:
        if snapshot.step > 3 and not sent:
            sent.append(snapshot.step)
            os.kill(os.getpid(), signal.SIGINT)

    result = run(tmp_path, interrupt, steps=10_000, options=SLOW)
    assert result.stop_reason == "interrupted"
    (answer,) = Script(tmp_path).answers()
    assert (answer["command"], answer["argument"], answer["pid"]) == (
        "stop", "interrupted", os.getpid(),
    )  # fmt: skip


def test_an_early_checkpoint_is_no_excuse(tmp_path: Path) -> None:
    """A damaged checkpoint is an error of the run that begins with it, as before."""
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        run(tmp_path, steps=3, resume_from=str(tmp_path))
