"""Transformers of every architecture in NumPy, forward only, for real and for complex numbers.

Written from the papers (see `crystalline/model/architectures`), one sequence, one head and one
position at a time where that is clearest.  Only names, shapes and roles of the tensors come from
the package under test.  `test_transformer_oracle.py` judges the judge.

The gradient is taken by a complex step: for an analytic f, Im f(x + i h v) / h is the derivative
along v, without cancellation, so h may be 1e-30 and the result is exact to rounding (Squire and
Trapp 1998).  Nothing here knows how a gradient is propagated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table

Numbers = npt.NDArray[Any]  # float64 or complex128
Params = Mapping[str, Numbers]
STEP = 1e-30


class Model:
    """The tensors of one model by role."""

    def __init__(self, config: ModelConfig, params: Params) -> None:
        self.config = config
        self.params = params
        self.table = parameter_table(config)

    def get(self, role: Role, layer: int = -1) -> Numbers | None:
        """Return a tensor, or None where the architecture has none."""
        found = self.table.find(role, layer)
        return None if found is None else self.params[found.name]

    def need(self, role: Role, layer: int = -1) -> Numbers:
        """Return a tensor that there must be."""
        found = self.get(role, layer)
        assert found is not None, role
        return found


def loss(
    config: ModelConfig,
    params: Params,
    tokens: npt.NDArray[np.int32],
    features: npt.NDArray[Any] | None = None,
) -> Any:
    """Return the sum of -ln p over the targets of tokens [n, t + 1]."""
    total: Any = 0.0
    for row in tokens:
        scores = logits(config, params, row[:-1], features)
        shifted = scores - scores.real.max(axis=1, keepdims=True)
        normalizers = np.log(np.exp(shifted).sum(axis=1))
        total = total + (normalizers - shifted[np.arange(len(row) - 1), row[1:]]).sum()
    return total


def derivative(
    config: ModelConfig,
    params: Params,
    tokens: npt.NDArray[np.int32],
    name: str,
    direction: npt.NDArray[np.float64],
    features: npt.NDArray[Any] | None = None,
) -> float:
    """Return the derivative of the loss along `direction` in one tensor."""
    moved = dict(params)
    moved[name] = params[name] + 1j * STEP * direction
    return float(np.imag(loss(config, moved, tokens, features)) / STEP)


def logits(
    config: ModelConfig,
    params: Params,
    tokens: npt.NDArray[np.int32],
    features: npt.NDArray[Any] | None = None,
) -> Numbers:
    """Return the logits [t, V] of one sequence [t]."""
    model = Model(config, params)
    x = model.need(Role.TOKENS)[tokens]
    positions = model.get(Role.POSITIONS)
    if positions is not None:
        x = x + positions[: len(tokens)]
    for layer in range(config.num_layers):
        x = x + _attention(model, layer, _norm(model, x, Role.NORM1, Role.NORM1_BIAS, layer),
                           None if features is None else features[tokens])  # fmt: skip
        x = x + _mlp(model, layer, _norm(model, x, Role.NORM2, Role.NORM2_BIAS, layer))
    x = _norm(model, x, Role.FINAL_NORM, Role.FINAL_NORM_BIAS, -1)
    head = model.get(Role.HEAD)
    return x @ (model.need(Role.TOKENS) if head is None else head).T


def _norm(model: Model, x: Numbers, scale: Role, shift: Role, layer: int) -> Numbers:
    weight, bias = model.need(scale, layer), model.get(shift, layer)
    if model.config.row.norm == "rmsnorm":
        return _rms(x, weight, model.config.epsilon)
    assert bias is not None
    x = x - x.mean(axis=-1, keepdims=True)
    return _rms(x, weight, model.config.epsilon) + bias


def _rms(x: Numbers, weight: Numbers, epsilon: float) -> Numbers:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def _linear(model: Model, x: Numbers, weight: Role, bias: Role, layer: int) -> Numbers:
    y = x @ model.need(weight, layer)
    shift = model.get(bias, layer)
    return y if shift is None else y + shift


def _attention(model: Model, layer: int, x: Numbers, features: npt.NDArray[Any] | None) -> Numbers:
    config = model.config
    H, G, D = config.num_heads, config.kv_heads, config.head_dim
    T = len(x)
    qkv = _linear(model, x, Role.QKV, Role.QKV_BIAS, layer)
    queries = qkv[:, : H * D].reshape(T, H, D)
    keys = qkv[:, H * D : (H + G) * D].reshape(T, G, D)
    values = qkv[:, (H + G) * D :].reshape(T, G, D)
    q_norm, k_norm = model.get(Role.Q_NORM, layer), model.get(Role.K_NORM, layer)
    if q_norm is not None and k_norm is not None:
        queries = _rms(queries, q_norm, config.epsilon)
        keys = _rms(keys, k_norm, config.epsilon)
    if config.row.positions == "rotary":
        queries, keys = _rotated(config, queries), _rotated(config, keys)
    lambdas = model.get(Role.LAMBDA, layer)
    numbers = [qkv, queries, keys, *([] if lambdas is None else [lambdas])]
    out = np.zeros((T, H, D), dtype=np.result_type(*numbers))
    for h in range(H):
        g = h // (H // G)
        for t in range(T):
            first = max(0, t + 1 - config.sliding_window) if config.sliding_window else 0
            scores = keys[first : t + 1, g] @ queries[t, h] / math.sqrt(D)
            if lambdas is not None and features is not None:
                scores = scores + lambdas[h] * (features[first : t + 1] @ features[t])
            weights = np.exp(scores - scores.real.max())
            out[t, h] = (weights / weights.sum()) @ values[first : t + 1, g]
    return _linear(model, out.reshape(T, H * D), Role.OUT, Role.OUT_BIAS, layer)


def _rotated(config: ModelConfig, x: Numbers) -> Numbers:
    """Turn channels i and i + D/2 of [T, heads, D] as one complex number each."""
    T, _, D = x.shape
    rates = config.theta ** (-np.arange(0, D, 2) / D)
    assert config.rope_scaling is None or config.rope_scaling.kind == "linear"
    if config.rope_scaling is not None:
        rates = rates / config.rope_scaling.factor
    angles = np.arange(T)[:, None, None] * rates
    a, b = x[..., : D // 2], x[..., D // 2 :]
    cosines, sines = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cosines - b * sines, b * cosines + a * sines], axis=-1)


def _mlp(model: Model, layer: int, x: Numbers) -> Numbers:
    kind, F = model.config.row.mlp, model.config.mlp_width
    up = _linear(model, x, Role.UP, Role.UP_BIAS, layer)
    if kind == "gelu":
        act = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    elif kind == "swiglu":
        gate = up[:, :F]
        act = gate / (1 + np.exp(-gate)) * up[:, F:]
    else:
        act = np.where(up.real > 0, up, 0) ** 2
    return _linear(model, act, Role.DOWN, Role.DOWN_BIAS, layer)
