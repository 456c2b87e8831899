"""The model with products in bfloat16: gradients, and what they may be off by.

A bfloat16 has 8 bits, so an operand is off by at most 2^-9 of itself.  Errors of a product's
many terms are independent and mostly cancel: a gradient's error, in norm, stays near 2^-9 times
the square root of the number of products it passed through, a few in a hundred at worst.  Errors
in the logic are of the size of the gradient itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crystalline._kernels.memory import aligned_empty
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from tests.oracles import gpt2

ODD = ModelConfig(67, 13, num_layers=2, num_heads=3, embed_dim=33)
WIDE = ModelConfig(301, 70, num_layers=2, num_heads=2, embed_dim=128)
EVEN_V = ModelConfig(64, 16, num_layers=1, num_heads=1, embed_dim=30)
NORM_TOLERANCE = 0.03  # relative, in norm, per tensor


def subject(config: ModelConfig) -> tuple[Transformer, np.ndarray, dict[str, np.ndarray]]:
    params = gpt2.random_parameters(config, seed=3)
    flat = gpt2.to_flat(config, params)
    packed = aligned_empty((Transformer.packed_size(config, precision="bf16"),))
    packed[:] = np.nan
    workspace = aligned_empty((Transformer.workspace_size(config, precision="bf16"),), np.uint8)
    workspace[:] = 0xFF
    model = Transformer(config, flat, packed, workspace, precision="bf16")
    model.pack()
    return model, flat, params


@pytest.mark.parametrize(
    ("config", "sequences", "length"),
    [(ODD, 1, 1), (ODD, 3, 13), (ODD, 1, 12), (WIDE, 3, 70), (WIDE, 9, 69), (EVEN_V, 2, 15)],
)
def test_loss_and_gradients_stay_near_the_oracle(
    config: ModelConfig, sequences: int, length: int
) -> None:
    model, flat, params = subject(config)
    tokens = gpt2.random_tokens(config, sequences, length + 1, seed=4).astype(np.int32)
    grads = np.full_like(flat, np.nan)
    loss = model.compute(tokens, grads, scale=0.01)
    expected_loss, expected = gpt2.loss_and_gradients(
        params, config, tokens[:, :-1], tokens[:, 1:], 0.01
    )
    assert loss == pytest.approx(expected_loss, rel=5e-3)
    assert loss != pytest.approx(expected_loss, rel=1e-9)  # it is bfloat16
    for name, got in parameter_table(config).views(grads).items():
        want = expected[name]
        error = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12)
        assert error < NORM_TOLERANCE, (name, error)
    assert model.evaluate(tokens) == loss


def test_accumulating_adds() -> None:
    model, flat, _ = subject(ODD)
    first = gpt2.random_tokens(ODD, 2, 8, seed=4).astype(np.int32)
    second = gpt2.random_tokens(ODD, 1, 14, seed=5).astype(np.int32)
    one, two, both = (np.zeros_like(flat) for _ in range(3))
    model.compute(first, one, scale=1.0)
    model.compute(second, two, scale=1.0)
    model.compute(first, both, scale=1.0)
    model.compute(second, both, scale=1.0, accumulate=True)
    np.testing.assert_allclose(both, one + two, rtol=1e-5, atol=1e-5 * np.abs(both).max())


def test_packing_by_segments_equals_packing_at_once() -> None:
    model, _, _ = subject(WIDE)
    tokens = gpt2.random_tokens(WIDE, 1, 50, seed=4).astype(np.int32)
    before = model.evaluate(tokens)
    packed = aligned_empty((Transformer.packed_size(WIDE, precision="bf16"),))
    packed[:] = np.nan
    workspace = aligned_empty((Transformer.workspace_size(WIDE, precision="bf16"),), np.uint8)
    again = Transformer(WIDE, subject(WIDE)[1], packed, workspace, precision="bf16")
    for index in reversed(range(again.segment_count)):
        again.pack_segment(index)
    assert again.evaluate(tokens) == before


def test_half_the_words() -> None:
    whole = ModelConfig(64, 16, num_layers=1, num_heads=1, embed_dim=32)  # no row is filled up
    assert Transformer.packed_size(whole, precision="bf16") == Transformer.packed_size(whole) // 2


def test_other_levels(isa_levels: Callable[[str], None]) -> None:
    isa_levels(__file__)
