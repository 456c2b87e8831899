"""Evaluations in the engine, with the fake program: left, paused, made again, never twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crystalline.train.evaluation import MOST_UNITS, ROUND_NS, Evaluation
from crystalline.train.spec import RunResult
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import run, timeless_metrics
from tests.train.test_endings import started

pytestmark = pytest.mark.timeout(60)

LONG: dict[str, Any] = {"eval_units": 40, "naps": {"evaluate": 0.05}}  # a second, by two permits
ENDLESS: dict[str, Any] = {"eval_units": 2, "naps": {"evaluate": 60.0}}


class Wish:
    """Asks for something once, when the run is seen to evaluate at a step."""

    def __init__(self, *actions: str, step: int = 10) -> None:
        self.actions, self.step = list(actions), step
        self.seen: list[Snapshot] = []
        self.asked_at = 0.0

    def watch(self, snapshot: Snapshot) -> None:
        self.seen.append(snapshot)

    def poll(self) -> list[str]:
        now = self.seen[-1] if self.seen else None
        if now and now.state == "evaluating" and now.step >= self.step and self.actions:
            self.asked_at = self.asked_at or time.monotonic()
            return [self.actions.pop(0)]
        return []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, list[dict[str, Any]]]:
    run_dir = tmp_path_factory.mktemp("undisturbed")
    return run(run_dir, options={"eval_units": 40}), timeless_metrics(run_dir)


@pytest.mark.parametrize("step", [10, 30])
def test_a_stop_leaves_it_at_once_and_going_on_makes_it_first(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]], step: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Even in the middle of a unit that takes a minute; the last evaluation of a run as well."""
    caplog.set_level("INFO")
    naps = {**ENDLESS, "eval_units": 40}
    if step == 30:  # the first two are quick
        run(tmp_path, options={"eval_units": 40})
        options = {"resume_from": str(tmp_path / "checkpoints/step-00000020"), "options": naps}
    else:
        options = {"options": naps}
    wish = Wish("stop", step=step)
    result = run(tmp_path, wish.watch, wish.poll, **options)
    assert time.monotonic() - wish.asked_at < 2.0
    assert (result.stop_reason, result.final_step, result.exit_code) == ("stopped", step, 75)
    assert f"the evaluation after step {step} was given up at 0 %" in caplog.text
    assert result.checkpoint == str(tmp_path / f"checkpoints/step-{step:08d}")
    resumed = run(tmp_path, options={"eval_units": 40}, resume_from=result.checkpoint)
    assert resumed.weights_sha256 == undisturbed[0].weights_sha256
    assert resumed.val_loss == undisturbed[0].val_loss
    assert timeless_metrics(tmp_path) == undisturbed[1]
    assert states_of(tmp_path)[30] == states_of(Path(undisturbed[0].run_dir))[30]


def states_of(run_dir: Path) -> dict[int, dict[str, Any]]:
    states = {}
    for path in (run_dir / "checkpoints").iterdir():
        state = json.loads((path / "state.json").read_text())
        states[state["step"]] = {k: v for k, v in state.items() if k != "seconds"}
    return states


def test_a_run_killed_in_it_has_lost_nothing(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    options = {**ENDLESS, "eval_units": 40}
    with started(tmp_path, steps=30, options=options) as engine:
        deadline = time.monotonic() + 20
        while not (tmp_path / "checkpoints/step-00000010/state.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        engine.node_zero.kill()
        code, _, err = engine.end()
        engine.assert_all_gone()
    assert code == 1
    assert "--resume" in err
    resumed = run(
        tmp_path, options={"eval_units": 40},
        resume_from=str(tmp_path / "checkpoints/step-00000010"),
    )  # fmt: skip
    assert resumed.weights_sha256 == undisturbed[0].weights_sha256
    assert timeless_metrics(tmp_path) == undisturbed[1]


def test_a_finished_evaluation_is_not_made_again(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    """The checkpoint of its step was saved before it; the metrics have it."""
    run(tmp_path, options={"eval_units": 40})
    lines = timeless_metrics(tmp_path)
    for step in (30, 10):
        states: set[str] = set()
        again = run(
            tmp_path, lambda s, seen=states: seen.add(f"{s.state} {s.step}"),  # type: ignore[misc]
            options=LONG, steps=step, interval_s=0.002,
            resume_from=str(tmp_path / f"checkpoints/step-{step:08d}"),
        )  # fmt: skip
        assert f"evaluating {step}" not in states
        assert again.val_loss == next(
            n["val_loss"] for n in lines if n["step"] == step and "val_loss" in n
        )
        assert again.val_tokens == undisturbed[0].val_tokens
    best = (tmp_path / "best.txt").read_text().split()
    assert best.count("step-00000030") == 2  # marked again: the run may have ended before that


def test_without_metrics_it_is_made_again(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    first = run(tmp_path, options={"eval_units": 40})
    (tmp_path / "metrics.jsonl").unlink()
    again = run(tmp_path, options={"eval_units": 40}, resume_from=first.checkpoint)
    assert again.val_loss == undisturbed[0].val_loss
    assert [line["step"] for line in timeless_metrics(tmp_path)] == [30]


@pytest.mark.parametrize(
    ("actions", "check"),
    [
        (["pause", "resume"], lambda seen: any(s.state == "paused" for s in seen)),
        (["workers=5"], lambda seen: any(s.workers == 5 and s.step == 10 for s in seen)),
        (["checkpoint"], lambda seen: seen[-1].step == 30),
    ],
)
def test_wishes_are_heard_in_it(
    tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]],
    actions: list[str], check: Callable[[list[Snapshot]], bool],
) -> None:  # fmt: skip
    wish = Wish(*actions)

    def poll() -> list[str]:
        if actions[0] == "pause" and wish.seen and wish.seen[-1].state == "paused":
            return ["resume"]
        return [action for action in wish.poll() if action != "resume"]

    options = {"eval_units": 40, "naps": {"evaluate": 0.02}}
    result = run(tmp_path, wish.watch, poll, options=options)
    assert check(wish.seen)
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert timeless_metrics(tmp_path) == undisturbed[1]


def test_watchers_see_how_far_it_is(tmp_path: Path) -> None:
    wish = Wish()
    result = run(tmp_path, wish.watch, steps=10, options=LONG)
    during = [s for s in wish.seen if s.state == "evaluating"]
    done = [s.work_done for s in during]
    assert done == sorted(done)
    assert {s.work_total for s in during} <= {0, result.val_tokens}
    assert any(0 < s.work_done < s.work_total for s in during)
    assert all(s.work_eta_s is None or s.work_eta_s < 60 for s in during)
    assert wish.seen[-1].work_share is None


def test_rounds_cover_every_unit_once_and_last_half_a_second() -> None:
    evaluation, covered, now_ns = Evaluation(3000, permits=4), [], 0
    sizes = []
    while (following := evaluation.next_round()) is not None:
        first, count = following
        covered += range(first, first + count)
        sizes.append(count)
        took_ns = count * (5_000_000 if first < 1500 else 60_000_000)  # gets slower
        evaluation.enter([[2.0, 3.0, 0.0, 0.0, 0.0]] * count, took_ns)
        now_ns += took_ns
    assert covered == list(range(3000))
    assert max(sizes) <= MOST_UNITS
    assert sizes[0] == 4
    assert sizes[-2] * 60_000_000 <= 2 * ROUND_NS
    assert evaluation.tokens == 9000
    assert evaluation.outcome(0.5).loss == pytest.approx(2 / 3)
