"""Learning-rate schedules against formulas written anew."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.train.config import TrainConfig
from crystalline.train.schedule import crystalline_epsilon, effective_warmup, learning_rate


def rates(max_steps: int, **settings) -> list[float]:
    config = TrainConfig(**settings)
    return [learning_rate(config, step, max_steps) for step in range(max_steps + 3)]


def nanogpt(it: int, lr: float, min_lr: float, warmup: int, decay_steps: int) -> float:
    """The rate as nanoGPT's documentation words it."""
    if it < warmup:
        return lr * (it + 1) / (warmup + 1)
    if it > decay_steps:
        return min_lr
    progress = (it - warmup) / (decay_steps - warmup)
    return min_lr + (lr - min_lr) * math.cos(progress * math.pi / 2) ** 2


@given(
    warmup=st.integers(0, 40),
    more=st.integers(1, 300),
    lr=st.floats(1e-5, 1.0),
    share=st.floats(0.0, 1.0),
)
def test_cosine_is_nanogpts(warmup: int, more: int, lr: float, share: float) -> None:
    steps = warmup + more
    found = rates(steps, learning_rate=lr, min_lr=lr * share, warmup_steps=warmup)
    expected = [nanogpt(step, lr, lr * share, warmup, steps) for step in range(steps + 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_linear_falls_by_equal_steps() -> None:
    found = rates(30, learning_rate=0.5, min_lr=0.1, warmup_steps=5, lr_schedule="linear")
    np.testing.assert_allclose(found[:5], 0.5 * np.arange(1, 6) / 6)
    np.testing.assert_allclose(found[5:31], np.linspace(0.5, 0.1, 26))
    assert found[31:] == [pytest.approx(0.1)] * 2


def test_step_divides_by_ten_twice() -> None:
    found = rates(200, learning_rate=0.8, warmup_steps=3, lr_schedule="step")
    np.testing.assert_allclose(found[:3], [0.2, 0.4, 0.6])
    expected = [0.8] * 117 + [0.08] * 50 + [0.008] * 33
    np.testing.assert_allclose(found[3:], expected)


def test_step_stays_above_a_given_minimum() -> None:
    found = rates(100, learning_rate=0.8, min_lr=0.05, warmup_steps=0, lr_schedule="step")
    np.testing.assert_allclose([found[59], found[60], found[85]], [0.8, 0.08, 0.05])


def test_step_drops_by_what_and_when_it_is_told() -> None:
    settings = {"learning_rate": 0.8, "warmup_steps": 3, "lr_schedule": "step"}
    found = rates(20, **settings, step_decay_factor=0.5, step_decay_steps=6)
    expected = [0.2, 0.4, 0.6] + [0.8] * 3 + [0.4] * 6 + [0.2] * 6 + [0.1] * 5
    np.testing.assert_allclose(found, expected)
    found = rates(200, **settings, step_decay_factor=0.25)
    np.testing.assert_allclose([found[119], found[120], found[170]], [0.8, 0.2, 0.05])
    last = rates(3000, **settings, step_decay_factor=0.001, step_decay_steps=1)[-1]
    assert 0 <= last < 1e-290


def test_the_default_drops_have_the_bits_of_a_division_by_ten() -> None:
    found = rates(200, learning_rate=0.3, warmup_steps=0, lr_schedule="step")
    assert [found[0], found[120], found[170]] == [0.3, 0.3 / 10.0, 0.3 / 100.0]


@pytest.mark.parametrize("schedule", ["constant", "none"])
def test_constant(schedule: str) -> None:
    found = rates(20, learning_rate=0.3, warmup_steps=2, lr_schedule=schedule)
    np.testing.assert_allclose(found, [0.1, 0.2, *[0.3] * 21])


def test_the_default_end_is_a_tenth() -> None:
    for schedule in ("cosine", "linear"):
        assert rates(50, learning_rate=0.2, lr_schedule=schedule)[50] == pytest.approx(0.02)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "constant"])
@pytest.mark.parametrize("max_steps", [1, 2, 7, 100])
def test_a_warmup_longer_than_the_run_leaves_room(schedule: str, max_steps: int) -> None:
    settings = {"learning_rate": 0.2, "warmup_steps": 100, "lr_schedule": schedule}
    assert effective_warmup(TrainConfig(**settings), max_steps) == max_steps // 10
    found = rates(max_steps, **settings)
    assert all(0 < rate <= 0.2 for rate in found)
    assert max(found) == pytest.approx(0.2)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "constant"])
def test_never_rises_after_the_warmup(schedule: str) -> None:
    found = rates(500, warmup_steps=50, lr_schedule=schedule)
    assert all(a < b for a, b in pairwise(found[:51]))
    assert all(a >= b for a, b in pairwise(found[50:]))


def test_epsilon_is_constant_or_falls_linearly_to_0() -> None:
    constant = TrainConfig(crystalline_epsilon=0.3)
    assert {crystalline_epsilon(constant, step, 50) for step in range(60)} == {0.3}
    linear = TrainConfig(crystalline_epsilon=0.3, crystalline_schedule="linear")
    found = [crystalline_epsilon(linear, step, 50) for step in range(60)]
    np.testing.assert_allclose(found, [*np.linspace(0.3, 0.0, 51), *[0.0] * 9], atol=1e-15)
    assert found[0] == 0.3
    assert found[50:] == [0.0] * 10
    off = TrainConfig(crystalline_schedule="linear")
    assert crystalline_epsilon(off, 0, 50) == 0.0
