"""Dropout in the model: the masks that the counters promise, where the formulas want them."""

from __future__ import annotations

import numpy as np
import pytest

from crystalline._kernels import random
from crystalline._kernels.attention import attention_forward
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer
from tests.oracles import gpt2

CONFIG = ModelConfig(67, 31, num_layers=2, num_heads=3, embed_dim=21, dropout=0.3)
SEED, STEP, FIRST = 11, 5, 7
SITES = ("embedding", "attention", "attention_output", "mlp_output")


def mask(shape: tuple[int, ...], layer: int, site: str, first: int) -> np.ndarray:
    out = np.empty(int(np.prod(shape)), np.float32)
    key = random.derive_key(SEED, STEP, 4 * layer + SITES.index(site))
    random.dropout(np.ones_like(out), out, CONFIG.dropout, key, first)
    return out.reshape(shape).astype(np.float64)


def masks(n: int, t: int, first: int) -> dict[str, np.ndarray]:
    C, H = CONFIG.embed_dim, CONFIG.num_heads
    result = {"embedding": mask((n, t, C), 0, "embedding", first * t * C)}
    for layer in range(CONFIG.num_layers):
        result[f"h.{layer}.attention"] = mask((n, H, t, t), layer, "attention", first * H * t * t)
        for site in ("attention_output", "mlp_output"):
            result[f"h.{layer}.{site}"] = mask((n, t, C), layer, site, first * t * C)
    return result


def subject() -> tuple[Transformer, np.ndarray]:
    flat = np.zeros(parameter_table(CONFIG).size, np.float32)
    initialize(CONFIG, flat, seed=3)
    flat *= 3.0
    return Transformer.allocate(CONFIG, flat), flat


@pytest.mark.parametrize("t", [1, 29, 31])
def test_loss_and_gradients_equal_the_oracle_under_the_same_masks(t: int) -> None:
    model, flat = subject()
    tokens = gpt2.random_tokens(CONFIG, 3, t + 1, seed=9).astype(np.int32)
    grads = np.full_like(flat, 9.0)
    loss = model.compute(tokens, grads, scale=0.1, seed=SEED, step=STEP, first_sequence=FIRST)
    expected_loss, expected = gpt2.loss_and_gradients(
        gpt2.from_flat(CONFIG, flat), CONFIG, tokens[:, :-1], tokens[:, 1:], 0.1, masks(3, t, FIRST)
    )
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, got in parameter_table(CONFIG).views(grads).items():
        want = expected[name]
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max() + 1e-9, name


def test_the_masks_depend_on_step_seed_and_sequence_but_not_on_the_split() -> None:
    model, flat = subject()
    tokens = gpt2.random_tokens(CONFIG, 4, 12, seed=2).astype(np.int32)

    def loss(rows: slice, **place: int) -> float:
        grads = np.zeros_like(flat)
        where = {"seed": SEED, "step": STEP, "first_sequence": FIRST, **place}
        return model.compute(tokens[rows], grads, scale=1.0, **where)

    whole = loss(slice(0, 4))
    parts = loss(slice(0, 1)) + loss(slice(1, 4), first_sequence=FIRST + 1)
    assert parts == pytest.approx(whole, rel=1e-6)
    for other in ({"seed": SEED + 1}, {"step": STEP + 1}, {"first_sequence": FIRST + 1}):
        assert abs(loss(slice(0, 4), **other) - whole) > 1e-3
    assert loss(slice(0, 4)) == whole
    without = model.evaluate(tokens)
    assert without == Transformer.allocate(
        ModelConfig(67, 31, num_layers=2, num_heads=3, embed_dim=21), flat
    ).evaluate(tokens)
    assert abs(without - whole) > 1e-3


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_attention_refuses_a_probability_outside_its_range(probability: float) -> None:
    qkv, out, lse = np.ones((2, 12), "f4"), np.ones((2, 4), "f4"), np.ones((1, 2, 2), "f4")
    with pytest.raises(ValueError, match="dropout probability"):
        attention_forward(qkv, 2, 2, out, lse, dropout=probability)
