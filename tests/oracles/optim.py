"""AdamW and SGD with momentum over many steps, in float64: a twin of the training loop.

Single steps are in `ops.py`.  The optimizers here hold their state by tensor
name, clip by the global norm first, and decay matrices only: what the engine
does to the flat buffer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.oracles import ops
from tests.oracles.ops import F64


class AdamW:
    """AdamW over a dict of tensors; matrices (two or more axes) decay, vectors do not."""

    def __init__(
        self,
        params: Mapping[str, F64],
        *,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        grad_clip: float = 0.0,
    ) -> None:
        self.params = {name: value.copy() for name, value in params.items()}
        self.moment1 = {name: np.zeros_like(value) for name, value in params.items()}
        self.moment2 = {name: np.zeros_like(value) for name, value in params.items()}
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.weight_decay, self.grad_clip = weight_decay, grad_clip
        self.steps = 0

    def step(self, grads: Mapping[str, F64], learning_rate: float) -> float:
        """Take one step in place; return the gradient norm before clipping."""
        norm = ops.global_norm(list(grads.values()))
        factor = ops.clip_factor(norm, self.grad_clip)
        self.steps += 1
        for name, value in self.params.items():
            self.params[name], self.moment1[name], self.moment2[name] = ops.adamw_step(
                value,
                factor * grads[name],
                self.moment1[name],
                self.moment2[name],
                step=self.steps,
                learning_rate=learning_rate,
                beta1=self.beta1,
                beta2=self.beta2,
                eps=self.eps,
                weight_decay=self.weight_decay if value.ndim > 1 else 0.0,
            )
        return norm


class Sgd:
    """SGD with momentum over a dict of tensors; matrices decay, vectors do not."""

    def __init__(
        self,
        params: Mapping[str, F64],
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        grad_clip: float = 0.0,
    ) -> None:
        self.params = {name: value.copy() for name, value in params.items()}
        self.velocity = {name: np.zeros_like(value) for name, value in params.items()}
        self.momentum, self.weight_decay, self.grad_clip = momentum, weight_decay, grad_clip

    def step(self, grads: Mapping[str, F64], learning_rate: float) -> float:
        """Take one step in place; return the gradient norm before clipping."""
        norm = ops.global_norm(list(grads.values()))
        factor = ops.clip_factor(norm, self.grad_clip)
        for name, value in self.params.items():
            self.params[name], self.velocity[name] = ops.sgd_momentum_step(
                value,
                factor * grads[name],
                self.velocity[name],
                learning_rate=learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay if value.ndim > 1 else 0.0,
            )
        return norm
