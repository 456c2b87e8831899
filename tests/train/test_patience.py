"""--patience: a run ends when evaluations bring nothing better, always at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crystalline.errors import UsageError
from crystalline.train.config import TrainConfig
from crystalline.train.metrics import read_metrics
from tests.train.engine_runs import run

STEPS, EVERY, PATIENCE = 60, 3, 2
SETTINGS: dict[str, Any] = {
    "steps": STEPS, "eval_interval": EVERY, "save_interval": 6, "learning_rate": 0.08,
}  # fmt: skip


def evaluations(run_dir: Path) -> list[tuple[int, float]]:
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [(line["step"], line["val_loss"]) for line in lines if "val_loss" in line]


def end_of(found: list[tuple[int, float]], patience: int) -> int:
    """Where a run ends, by what a run without patience found."""
    best, since = float("inf"), 0
    for step, loss in found:
        since = 0 if loss < best else since + 1
        best = min(best, loss)
        if since >= patience:
            return step
    raise AssertionError("the losses of the example only fall")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, float]]:
    run_dir = tmp_path_factory.mktemp("whole")
    assert run(run_dir, **SETTINGS).stop_reason == "finished"
    return evaluations(run_dir)


def test_it_ends_where_nothing_better_came(whole: list[tuple[int, float]], tmp_path: Path) -> None:
    end = end_of(whole, PATIENCE)
    assert EVERY * PATIENCE < end < STEPS
    result = run(tmp_path, patience=PATIENCE, **SETTINGS)
    assert (result.stop_reason, result.final_step, result.exit_code) == ("patience", end, 0)
    assert evaluations(tmp_path) == [one for one in whole if one[0] <= end]
    assert (tmp_path / "checkpoints" / f"step-{end:08d}").is_dir()


def test_a_resumed_run_ends_at_the_same_step(
    whole: list[tuple[int, float]], tmp_path: Path
) -> None:
    end = end_of(whole, PATIENCE)
    run(tmp_path, patience=PATIENCE, **SETTINGS)
    checkpoints = tmp_path / "checkpoints"
    for step in (end - EVERY, end):  # before the last evaluation, and after it
        again = run(
            tmp_path, patience=PATIENCE, resume_from=str(checkpoints / f"step-{step:08d}"),
            **SETTINGS,
        )  # fmt: skip
        assert (again.stop_reason, again.final_step) == ("patience", end)
    # More of it, and the run goes on as if there had been more from the start.
    more = run(
        tmp_path, patience=PATIENCE + 3, resume_from=str(checkpoints / f"step-{end:08d}"),
        **SETTINGS,
    )  # fmt: skip
    assert more.final_step == end_of(whole, PATIENCE + 3)


def test_the_last_step_is_the_end_of_any_run(
    whole: list[tuple[int, float]], tmp_path: Path
) -> None:
    end = end_of(whole, PATIENCE)
    result = run(tmp_path, patience=PATIENCE, **{**SETTINGS, "steps": end})
    assert (result.stop_reason, result.final_step) == ("finished", end)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="--patience is -1"):
        TrainConfig(patience=-1)
    with pytest.raises(UsageError, match="--patience 3 counts evaluations, and --eval-interval 0"):
        TrainConfig(patience=3, eval_interval=0)
