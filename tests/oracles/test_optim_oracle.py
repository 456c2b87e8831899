"""Judges the optimizers' twins: single steps by hand, many steps against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.oracles import ops, optim
from tests.oracles.ops import F64


def test_first_adamw_step_by_hand() -> None:
    """Bias correction makes the first step learning rate · sign(gradient), after the decay."""
    param, m, v = ops.adamw_step(
        [1.0, 2.0],
        [0.5, -8.0],
        [0.0, 0.0],
        [0.0, 0.0],
        step=1,
        learning_rate=0.1,
        beta1=0.9,
        beta2=0.99,
        eps=0.0,
        weight_decay=0.2,
    )
    np.testing.assert_allclose(param, [0.98 - 0.1, 1.96 + 0.1], rtol=1e-14)
    np.testing.assert_allclose(m, [0.05, -0.8], rtol=1e-14)
    np.testing.assert_allclose(v, [0.0025, 0.64], rtol=1e-14)


def test_second_adamw_step_by_hand() -> None:
    param, m, v = ops.adamw_step(
        [1.0], [2.0], [0.5], [0.25], step=2, learning_rate=0.1, beta1=0.5, beta2=0.75, eps=0.5
    )
    assert (m[0], v[0]) == (1.25, 1.1875)
    mean, variance = 1.25 / 0.75, 1.1875 / 0.4375
    assert param[0] == pytest.approx(1.0 - 0.1 * mean / (math.sqrt(variance) + 0.5), rel=1e-14)


def test_sgd_steps_by_hand() -> None:
    param, velocity = ops.sgd_momentum_step([1.0], [2.0], [0.0], learning_rate=0.1, momentum=0.5)
    assert (param[0], velocity[0]) == (pytest.approx(0.8), 2.0)
    param, velocity = ops.sgd_momentum_step(
        param, [4.0], velocity, learning_rate=0.1, momentum=0.5, weight_decay=0.5
    )
    assert (param[0], velocity[0]) == (pytest.approx(0.8 * 0.95 - 0.5), 5.0)


def test_adamw_moves_one_learning_rate_a_step_under_a_constant_gradient() -> None:
    optimizer = optim.AdamW({"a": np.array([5.0, -5.0])}, eps=0.0)
    for _ in range(30):
        optimizer.step({"a": np.array([3.0, -0.001])}, 0.01)
    np.testing.assert_allclose(optimizer.params["a"], [4.7, -4.7], rtol=1e-12)


def test_sgd_with_momentum_follows_its_closed_form() -> None:
    """On k·x²/2 the pair (x, velocity) is multiplied by a constant 2×2 matrix a step."""
    k, learning_rate, momentum = 3.0, 0.05, 0.8
    optimizer = optim.Sgd({"x": np.array([2.0])}, momentum=momentum)
    for _ in range(25):
        optimizer.step({"x": k * optimizer.params["x"]}, learning_rate)
    matrix = np.array([[1 - learning_rate * k, -learning_rate * momentum], [k, momentum]])
    expected = np.linalg.matrix_power(matrix, 25) @ [2.0, 0.0]
    assert optimizer.params["x"][0] == pytest.approx(expected[0], rel=1e-12)
    assert optimizer.velocity["x"][0] == pytest.approx(expected[1], rel=1e-12)


def _distance_after(optimizer: optim.AdamW | optim.Sgd, goal: dict[str, F64], steps: int) -> float:
    """Descend Σ k·(x − goal)²/2 with k from 1 to 10, learning rate falling to zero."""
    for step in range(steps):
        gradients = {
            name: np.linspace(1, 10, value.size).reshape(value.shape) * (value - goal[name])
            for name, value in optimizer.params.items()
        }
        optimizer.step(gradients, 0.1 * (1 - step / steps))
    return max(float(np.abs(optimizer.params[name] - goal[name]).max()) for name in goal)


def test_both_find_a_known_minimum() -> None:
    goal = {"matrix": np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]]), "vector": np.array([-1.0, 4])}
    start = {name: np.zeros_like(value) for name, value in goal.items()}
    assert _distance_after(optim.AdamW(start), goal, 400) < 1e-3
    assert _distance_after(optim.Sgd(start, momentum=0.9), goal, 400) < 1e-3
    assert _distance_after(optim.Sgd(start, grad_clip=1.0), goal, 400) < 1e-3


@pytest.mark.parametrize("kind", [optim.AdamW, optim.Sgd])
def test_only_matrices_decay(kind: type[optim.AdamW | optim.Sgd]) -> None:
    start = {"matrix": np.full((2, 3), 2.0), "vector": np.full(3, 2.0)}
    optimizer = kind(start, weight_decay=0.5)
    for _ in range(3):
        optimizer.step({name: np.zeros_like(value) for name, value in start.items()}, 0.1)
    np.testing.assert_allclose(optimizer.params["matrix"], 2.0 * 0.95**3, rtol=1e-14)
    assert np.all(optimizer.params["vector"] == 2.0)
    assert np.all(start["matrix"] == 2.0)


def test_clipping_scales_all_tensors_alike() -> None:
    start = {"a": np.zeros(1), "b": np.zeros((1, 1))}
    optimizer = optim.Sgd(start, grad_clip=1.0)
    assert optimizer.step({"a": np.array([3.0]), "b": np.array([[4.0]])}, 1.0) == 5.0
    assert optimizer.params["a"][0] == pytest.approx(-0.6)
    assert optimizer.params["b"][0, 0] == pytest.approx(-0.8)
