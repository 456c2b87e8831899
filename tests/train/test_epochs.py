"""Passes over the training split: told of with their mean loss, saved and evaluated after some."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from crystalline.errors import UsageError
from crystalline.train.config import TrainConfig
from crystalline.train.epochs import ends_epochs, epochs_done
from crystalline.train.metrics import read_metrics
from tests.train.engine_runs import make_spec, run, serial_run

# 40 tokens a step, 1,000 an epoch (make_spec): 25 steps.
SETTINGS: dict[str, Any] = {
    "steps": 90, "batch_size": 5, "seq_len": 8, "eval_interval": 0, "log_interval": 5,
}  # fmt: skip


def told(run_dir: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in ("event", "seconds")}
        for line in read_metrics(run_dir / "metrics.jsonl")
        if line.get("event") == "epoch"
    ]


EVEN = [25] * 12  # lanes of each position: as many as steps


def means(losses: list[float]) -> list[float]:
    return [math.fsum(losses[first : first + 25]) / 25 for first in (0, 25, 50)]


def test_each_is_told_of_with_its_mean_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run(tmp_path / "run", **SETTINGS)
    _, losses = serial_run(make_spec(tmp_path / "serial", **SETTINGS))
    assert told(tmp_path / "run") == [
        {
            "step": 25 * number,
            "epoch": number,
            "mean_loss": pytest.approx(mean, rel=1e-12),
            "lanes_by_position": EVEN,
        }
        for number, mean in enumerate(means(losses), 1)
    ]
    assert f"epoch 2/3: mean loss {means(losses)[1]:.4f}" in caplog.messages


def test_a_resumed_run_tells_the_same(tmp_path: Path) -> None:
    settings = {**SETTINGS, "save_interval": 40}
    whole = tmp_path / "whole"
    run(whole, **settings)
    before = told(whole)
    middle = str(whole / "checkpoints" / "step-00000040")
    run(whole, resume_from=middle, **settings)
    assert told(whole) == before


def test_short_ones_are_not_told_of_one_by_one(tmp_path: Path) -> None:
    run(tmp_path, **{**SETTINGS, "log_interval": 26})
    assert told(tmp_path) == []


def test_saved_and_evaluated_after_some(tmp_path: Path) -> None:
    run(tmp_path, **{**SETTINGS, "save_epochs": 2})
    evaluated = [
        line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "val_loss" in line
    ]
    assert evaluated == [50, 90]
    assert (tmp_path / "checkpoints" / "step-00000050").is_dir()
    (tmp_path / "bare").mkdir()
    run(tmp_path / "bare", **{**SETTINGS, "save_epochs": 1}, options={"eval_units": 0})
    saved = {int(path.name[5:]) for path in (tmp_path / "bare" / "checkpoints").iterdir()}
    assert saved == {25, 50, 75, 90}


def test_where_they_end() -> None:
    assert [epochs_done(step, 40, 1000) for step in (24, 25, 49, 50)] == [0, 1, 1, 2]
    assert epochs_done(9, 40, 0) == 0
    assert [step for step in range(1, 99) if ends_epochs(step, 3, 40, 1000)] == [75]
    # Several may end with one step.
    assert [step for step in range(1, 5) if ends_epochs(step, 2, 3000, 1000)] == [1, 2, 3, 4]
    assert not any(ends_epochs(step, 2, 40, 0) for step in range(1, 99))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="--save-epochs is -1"):
        TrainConfig(save_epochs=-1)
