"""Runs that train adapters: what may be asked for, what is kept of the model, what goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from crystalline.errors import UsageError
from crystalline.model.adapters import AdapterConfig
from crystalline.runs.foundation import Foundation
from crystalline.runs.settings import RunSettings
from crystalline.train.config import TrainConfig
from tests.runs.test_foundation import model_folder


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora_rank": -1}, "--lora-rank is -1"),
        ({"lora_alpha": 8.0}, "--lora-alpha 8 weighs adapters, and --lora-rank 0 has none"),
        ({"lora_rank": 8}, "--lora-rank 8 trains adapters of a model, and none is named"),
        ({"lora_rank": 8, "init_from": ""}, "--init-from names no model"),
        ({"lora_rank": 8, "init_from": "m", "lora_alpha": 0.0}, "--lora-alpha is 0"),
        ({"lora_rank": 8, "init_from": "m", "lora_alpha": float("inf")}, "--lora-alpha is inf"),
        ({"lora_rank": 8, "init_from": "m", "init": "lattice"}, "--init lattice would take"),
        (
            {"lora_rank": 8, "init_from": "m", "crystalline_epsilon": 0.1},
            "--crystalline-epsilon 0.1 teaches all weights of a model, and --lora-rank 8",
        ),
        (
            {"lora_rank": 8, "init_from": "m", "attention": "crystalline"},
            "--attention crystalline teaches all weights of a model",
        ),
        (
            {"lora_rank": 8, "init_from": "m", "discovery_interval": 2},
            "--discovery-interval 2 would change nothing",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(**settings)
    assert words in str(caught.value)
    assert caught.value.advice


def test_what_the_settings_ask_for() -> None:
    assert TrainConfig().adapter is None
    assert TrainConfig(init_from="m", lora_rank=8).adapter == AdapterConfig(8, 16.0)
    assert TrainConfig(init_from="m", lora_rank=8, lora_alpha=3).adapter == AdapterConfig(8, 3)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_a_rank_above_a_side_of_the_matrices_is_refused(architecture: str, tmp_path: Path) -> None:
    found = Foundation.open(str(model_folder(tmp_path / "model", architecture)))
    settled = found.settle(RunSettings(init_from="model", lora_rank=32), {"lora_rank"})
    assert (settled.lora_rank, settled.lora_alpha) == (32, 64.0)  # in so many words from here on
    with pytest.raises(UsageError, match="--lora-rank 33 is above the smallest side") as caught:
        found.settle(RunSettings(init_from="model", lora_rank=33), {"lora_rank"})
    assert caught.value.advice == "Use at most 32; 8 to 64 are usual."


def test_a_model_with_crystalline_attention_takes_no_adapters(tmp_path: Path) -> None:
    import dataclasses

    found = Foundation.open(str(model_folder(tmp_path / "model")))
    found.source.config = dataclasses.replace(found.source.config, attention="crystalline")
    with pytest.raises(UsageError, match="has crystalline attention, whose λ adapters do not"):
        found.settle(RunSettings(init_from="model", lora_rank=2), {"lora_rank"})
