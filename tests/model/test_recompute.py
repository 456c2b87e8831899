"""Layers taken forward once more in the backward pass: the same bits in less memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.formats import names, trains
from crystalline.model.adapters import AdapterConfig, adapter_table, initialize_adapters
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer

F32 = npt.NDArray[np.float32]

GPT2 = ModelConfig(vocab_size=67, seq_len=13, num_layers=3, num_heads=3, embed_dim=42)
CONFIGS = {
    "gpt2": GPT2,
    "dropout": dataclasses.replace(GPT2, dropout=0.2),
    "crystalline": dataclasses.replace(GPT2, attention="crystalline"),
    "one layer": dataclasses.replace(GPT2, num_layers=1),
    "llama": dataclasses.replace(GPT2, architecture="llama", num_kv_heads=1, tie_embeddings=False),
    "qwen3": dataclasses.replace(GPT2, architecture="qwen3", sliding_window=5),
    "tiles": ModelConfig(131, 70, 4, 4, 128),
}
FORMATS = [name for name in names() if trains(name)]


def computed(
    config: ModelConfig, precision: str, *, recompute: bool, rank: int = 0
) -> tuple[F32, list[float]]:
    """Return gradients of two chunks and more, with the losses, from a workspace full of NaN."""
    draw = np.random.default_rng(3)
    flat = np.zeros(parameter_table(config).size, np.float32)
    initialize(config, flat, seed=1)
    more: dict[str, Any] = {"recompute": recompute}
    size = len(flat)
    if rank:
        adapter = AdapterConfig(rank, 4.0)
        size = adapter_table(config, adapter).size
        adapters = np.zeros(size, np.float32)
        initialize_adapters(config, adapter, adapters, 2)
        adapters += draw.standard_normal(size).astype(np.float32) / 9
        more |= {"adapter": adapter, "adapters": adapters}
    if config.attention == "crystalline":
        more["features"] = draw.standard_normal((config.vocab_size, 16)).astype(np.float32)
    model = Transformer.allocate(config, flat, precision=precision, **more)
    count = 512 // config.seq_len + 2
    tokens = draw.integers(0, config.vocab_size, (count, config.seq_len + 1)).astype(np.int32)
    grads = np.full(size, np.nan, np.float32)
    loss = model.compute(tokens, grads, scale=0.1, seed=5, step=2)
    losses = [loss, model.evaluate(tokens)]
    return grads, [*losses, float(model.logits(np.ascontiguousarray(tokens[:2, :-1])).sum())]


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_bits_are_the_same(name: str, precision: str) -> None:
    config = CONFIGS[name]
    want, losses = computed(config, precision, recompute=False)
    got, again = computed(config, precision, recompute=True)
    assert losses == again
    assert np.nanmax(np.abs(want)) > 0  # gaps between tensors stay NaN
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_bits_of_adapters_are_the_same(name: str, precision: str) -> None:
    want, losses = computed(CONFIGS[name], precision, recompute=False, rank=3)
    got, again = computed(CONFIGS[name], precision, recompute=True, rank=3)
    assert losses == again
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("precision", "times"), [("float32", 6.5), ("bf16", 5.0)])
def test_activations_take_less(precision: str, times: float) -> None:
    """Those of GPT-2's 12 layers; what all layers share stays as it is."""

    def size(layers: int, *, recompute: bool = False) -> int:
        config = ModelConfig(50_257, 1024, layers, 12, 768)
        return Transformer.workspace_size(config, precision, 1024, None, recompute)

    shared = 2 * size(2) - size(4)
    assert (size(12, recompute=True) - shared) * times < size(12) - shared


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("tied", [True, False])
def test_a_lane_on_top_of_another_whose_head_has_several_blocks(tied: bool, precision: str) -> None:
    """More rows than a block of the head has: its gradient is a sum that is rounded apart."""
    config = ModelConfig(30_000, 700, 1, 2, 8, architecture="llama", tie_embeddings=tied)
    flat = np.zeros(parameter_table(config).size, np.float32)
    initialize(config, flat, seed=1)
    model = Transformer.allocate(config, flat, precision=precision)
    assert Transformer.side_rows(config) == 700
    draw = np.random.default_rng(3)
    lanes = [draw.integers(0, 30_000, (1, 701)).astype(np.int32) for _ in range(2)]
    apart = np.zeros((2, len(flat)), np.float32)
    for tokens, grads in zip(lanes, apart, strict=True):
        model.compute(tokens, grads, scale=0.1)
    together = np.full(len(flat), np.nan, np.float32)
    side = np.full(Transformer.side_size(config), np.nan, np.float32)
    model.compute(lanes[0], together, scale=0.1)
    model.compute(lanes[1], together, scale=0.1, side=side)
    np.testing.assert_array_equal(together, apart[0] + apart[1])
