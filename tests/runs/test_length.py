"""How long a run is: by steps, by epochs, by time and by plan; new, resumed, and made again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from crystalline.errors import UsageError
from crystalline.formats.checkpoint import CheckpointInfo
from crystalline.model.config import ModelConfig
from crystalline.runs.layers import Layers
from crystalline.runs.length import make_way, new_length, resumed_length
from crystalline.train.config import TrainConfig

CONFIG = TrainConfig(batch_size=8, seq_len=30)  # 240 tokens a step, of 10,000: 42 steps an epoch
STORED = dataclasses.replace(CONFIG, max_steps=100).to_dict()


def speed(_: TrainConfig) -> float:
    return 2.0


def info(step: int, **state: Any) -> CheckpointInfo:
    return CheckpointInfo(
        step, ModelConfig(9, 8, 1, 1, 4), {}, state, Path(), Path(), None, None, None
    )


@pytest.mark.parametrize(
    ("settings", "plan", "steps", "seconds", "most"),
    [
        ({"max_steps": 7}, None, 7, None, None),
        ({"max_steps": 7, "epochs": 3.0}, None, 7, None, None),
        ({"epochs": 2.0}, None, 84, None, None),
        ({"minutes": 1.0}, "0:120", 120, 60.0, None),
        ({"minutes": 1.0, "epochs": 2.0}, "0:84", 84, 60.0, 84),
        ({"minutes": 1.0, "epochs": 50.0}, "0:120", 120, 60.0, 2084),
        ({"minutes": 1.0, "max_steps": 900}, "0:120", 120, 60.0, 900),
        ({"plan": "0:9,4:7", "max_steps": 7, "epochs": 50.0}, "0:9,4:7", 7, None, None),
    ],
)
def test_new(
    settings: dict[str, Any], plan: str | None, steps: int, seconds: float | None, most: int | None
) -> None:
    found = new_length(dataclasses.replace(CONFIG, **settings), 10_000, speed)
    assert (found.config.plan, found.config.max_steps) == (plan, steps)
    assert (found.seconds, found.most_steps) == (seconds, most)


def resumed(
    given: dict[str, Any], stored: dict[str, Any], step: int, explicit: str = "", **state: Any
) -> tuple[Any, ...]:
    config = dataclasses.replace(CONFIG, **given)
    found = resumed_length(
        config, {**STORED, **stored}, explicit.split(), info(step, **state), 10_000, speed
    )
    config = found.config
    return config.plan, config.max_steps, config.minutes, found.seconds, found.most_steps


@pytest.mark.parametrize(
    ("given", "stored", "expected"),
    [
        ({}, {}, (None, 100, None, None, None)),
        ({"max_steps": 100}, {}, (None, 100, None, None, None)),
        ({"max_steps": 300}, {}, ("0:100,40:300", 300, None, None, 300)),
        ({"max_steps": 50}, {}, ("0:100,40:50", 50, None, None, 50)),
        ({"epochs": 2.0}, {}, ("0:100,40:84", 84, None, None, 84)),
        ({"minutes": 1.0}, {}, ("0:100,40:160", 160, 1.0, 60.0, None)),
        ({"minutes": 1.0, "epochs": 2.0}, {}, ("0:100,40:84", 84, 1.0, 60.0, 84)),
        (
            {"max_steps": 300},
            {"plan": "0:200,30:100"},
            ("0:200,30:100,40:300", 300, None, None, 300),
        ),
        ({}, {"plan": "0:200,30:100"}, ("0:200,30:100", 100, None, None, None)),
        # A run of one minute that has had 45 seconds: it goes on by time, unless steps are given.
        ({}, {"minutes": 1.0}, ("0:100", 100, 1.0, 15.0, None)),
        ({"max_steps": 300}, {"minutes": 1.0}, ("0:100,40:300", 300, None, None, 300)),
        ({"minutes": 2.0}, {"minutes": 1.0}, ("0:100,40:280", 280, 2.0, 120.0, None)),
    ],
)
def test_resumed_after_40_steps(
    given: dict[str, Any], stored: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    assert resumed(given, stored, 40, seconds=45.0) == expected


def test_as_many_minutes_again_are_a_new_time() -> None:
    again = resumed({"minutes": 1.0}, {"minutes": 1.0}, 40, "minutes", seconds=58.0)
    assert again == ("0:100,40:160", 160, 1.0, 60.0, None)


def test_a_later_session_counts_its_own_time() -> None:
    """The run has had 300 seconds in all, of the newest minute 20."""
    state = {"seconds": 300.0, "seconds_left": 40.0, "most_steps": 500}
    assert resumed({}, {"minutes": 1.0}, 40, **state) == ("0:100", 100, 1.0, 40.0, 500)


def test_what_is_too_short_or_changes_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="has done 40 steps, more than the 39 wanted"):
        resumed({"max_steps": 39}, {}, 40)
    with pytest.raises(UsageError, match="differs from the 0:100 of the run"):
        resumed({"plan": "0:100,50:90"}, {}, 40)
    with pytest.raises(UsageError, match="come down to 0 at step 100") as caught:
        resumed({"max_steps": 200, "min_lr": 0.0}, {}, 100)
    assert "--min-lr" in caught.value.advice


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["seed"], {"plan", "max_steps", "minutes"}),
        (["minutes"], {"minutes"}),
        (["epochs"], {"minutes"}),
        (["max_steps"], {"minutes"}),
        (["plan"], set()),
    ],
)
def test_a_length_makes_a_plan_below_it_void(given: list[str], left: set[str]) -> None:
    layers = Layers({"plan": "0:9,4:7", "max_steps": 7, "minutes": 1.0, "seed": 4})
    make_way(layers, given)
    assert set(layers.values) - {"seed"} == left
