"""Adapters: their tables, their names in files, how they begin, and what merging adds."""

from __future__ import annotations

import numpy as np
import pytest

from crystalline.model.adapters import (
    AdapterConfig,
    adapter_table,
    adapters,
    initialize_adapters,
    merge,
)
from crystalline.model.config import ModelConfig
from crystalline.model.params import PANEL, parameter_table

SHAPES = {
    "gpt2": ModelConfig(97, 24, 3, 4, 40),
    "llama": ModelConfig(97, 24, 2, 6, 48, architecture="llama", num_kv_heads=2, mlp_dim=72),
    "qwen3": ModelConfig(97, 24, 2, 4, 32, architecture="qwen3", num_kv_heads=1, head_size=16),
}
ADAPTER = AdapterConfig(rank=3, alpha=6.0)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_every_matrix_of_a_layer_has_a_pair_of_its_shape(config: ModelConfig) -> None:
    matrices = [p for p in parameter_table(config).parameters if p.layer >= 0 and p.decays]
    pairs = adapters(config, ADAPTER)
    assert [one.matrix for one in pairs] == matrices
    for one in pairs:
        K, N = one.matrix.shape
        assert (one.a.shape, one.b.shape) == ((K, 3), (3, N))
        assert one.a.layer == one.b.layer == one.matrix.layer
        assert one.a.group == one.b.group == one.matrix.group


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_table_and_the_pairs_agree_and_segments_cover_it(config: ModelConfig) -> None:
    table = adapter_table(config, ADAPTER)
    assert table.parameters == tuple(p for one in adapters(config, ADAPTER) for p in (one.a, one.b))
    ends = [p.offset + p.size for p in table.parameters]
    assert all(p.offset >= end for p, end in zip(table.parameters[1:], ends, strict=False))
    assert sum(s.stop - s.start for s in table.segments()) == table.count
    assert all(s.row % PANEL == 0 for s in table.segments())


def test_names_are_those_of_peft() -> None:
    config = SHAPES["llama"]
    views = adapter_table(config, ADAPTER).file_views(
        np.zeros(adapter_table(config, ADAPTER).size, np.float32)
    )
    layer = "base_model.model.model.layers.1."
    shapes = {name.removeprefix(layer): view.shape for name, view in views.items() if layer in name}
    assert shapes == {
        "self_attn.q_proj.lora_A.weight": (3, 48), "self_attn.q_proj.lora_B.weight": (48, 3),
        "self_attn.k_proj.lora_A.weight": (3, 48), "self_attn.k_proj.lora_B.weight": (16, 3),
        "self_attn.v_proj.lora_A.weight": (3, 48), "self_attn.v_proj.lora_B.weight": (16, 3),
        "self_attn.o_proj.lora_A.weight": (3, 48), "self_attn.o_proj.lora_B.weight": (48, 3),
        "mlp.gate_proj.lora_A.weight": (3, 48), "mlp.gate_proj.lora_B.weight": (72, 3),
        "mlp.up_proj.lora_A.weight": (3, 48), "mlp.up_proj.lora_B.weight": (72, 3),
        "mlp.down_proj.lora_A.weight": (3, 72), "mlp.down_proj.lora_B.weight": (48, 3),
    }  # fmt: skip
    gpt2 = adapters(SHAPES["gpt2"], ADAPTER)[0]
    assert [part.name for part in gpt2.a.parts] == [
        "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    ]


def test_they_begin_with_nothing_to_add_and_depend_on_the_seed() -> None:
    config = SHAPES["qwen3"]
    table = adapter_table(config, ADAPTER)
    flats = [np.full(table.size, np.nan, np.float32) for _ in range(3)]
    for flat, seed in zip(flats, (5, 5, 6), strict=True):
        initialize_adapters(config, ADAPTER, flat, seed)
    assert np.array_equal(flats[0], flats[1])
    assert not np.array_equal(flats[0], flats[2])
    for one in adapters(config, ADAPTER):
        matrix = np.ones(one.matrix.shape, np.float32)
        merge(one, ADAPTER, flats[0], matrix)
        assert (matrix == 1).all()
        a = table.views(flats[0])[one.a.name]
        assert np.std(a) == pytest.approx(1 / np.sqrt(3 * len(a)), rel=0.3)


def test_merging_adds_the_scaled_product() -> None:
    config = SHAPES["llama"]
    table = adapter_table(config, ADAPTER)
    random = np.random.default_rng(3)
    flat = random.standard_normal(table.size).astype(np.float32)
    views = table.views(flat)
    for one in adapters(config, ADAPTER):
        matrix = random.standard_normal(one.matrix.shape).astype(np.float32)
        a, b = (np.float64(views[p.name]) for p in (one.a, one.b))
        wanted = matrix + 2.0 * (a @ b)
        merge(one, ADAPTER, flat, matrix)
        assert np.allclose(matrix, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rank", "alpha"), [(0, 1.0), (4, 0.0), (4, float("nan"))])
def test_what_no_adapter_can_be_is_refused(rank: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="is needed"):
        AdapterConfig(rank, alpha)
