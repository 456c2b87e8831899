"""Measured speed: of the right order, and put together rightly."""

from __future__ import annotations

import dataclasses

import pytest

from crystalline.model.config import ModelConfig
from crystalline.train.config import TrainConfig
from crystalline.train.sizing import flops_per_token
from crystalline.train.speed import Speed, measure_peak, measure_speed

MODEL = ModelConfig(vocab_size=70, seq_len=16, num_layers=2, num_heads=2, embed_dim=48)


def test_speed_is_below_the_peak_and_not_absurd() -> None:
    speed = measure_speed(MODEL, TrainConfig(seq_len=16), cores=1, seconds=0.2)
    flops = speed.tokens_per_second * flops_per_token(MODEL)
    peak = measure_peak(1, "float32")
    assert 0.005 * peak < flops < 1.1 * peak
    assert 0 < speed.update_s < 0.1


def test_measures_one_batch_at_the_least() -> None:
    config = TrainConfig(seq_len=16, batch_size=1)
    assert measure_speed(MODEL, config, cores=2, seconds=0.0).tokens_per_second > 0


def test_measures_the_crystalline_parts_too() -> None:
    config = TrainConfig(seq_len=16, crystalline_epsilon=0.2, crystalline_k=3)
    model = dataclasses.replace(MODEL, attention="crystalline")
    assert measure_speed(model, config, cores=2, seconds=0.0).tokens_per_second > 0


def test_measures_adapters_too() -> None:
    config = TrainConfig(seq_len=16, init_from="m", lora_rank=4)
    speed = measure_speed(MODEL, config, cores=2, seconds=0.0)
    assert speed.tokens_per_second > 0
    assert (
        speed.update_s < 0.5 * measure_speed(MODEL, TrainConfig(seq_len=16), 1, seconds=0).update_s
    )


@pytest.mark.parametrize(("interval", "expected"), [(0, 0.26), (50, 0.34)])
def test_a_step_bears_its_share_of_the_evaluations(interval: int, expected: float) -> None:
    speed = Speed(tokens_per_second=1000.0, update_s=0.02)
    config = TrainConfig(batch_size=3, seq_len=40, accumulation_steps=2, eval_interval=interval)
    assert speed.evaluation_s(10_000) == pytest.approx(4.0)
    assert 1 / speed.steps_per_second(config, 10_000) == pytest.approx(expected)
