"""Shapes of models in the values of a file, both ways; what llama.cpp's converter writes, read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.gguf import read_gguf, write_gguf
from crystalline.formats.gguf.blocks import F32
from crystalline.formats.gguf.container import Header, Value
from crystalline.formats.gguf.names import ROPE_FACTORS, stored_tensors
from crystalline.formats.gguf.shape import rope_factors, shape_values
from crystalline.model.config import ModelConfig, RopeScaling
from tests.formats.gguf.models import SHAPES, config_of, tensors_of, trained


def resolved(config: ModelConfig) -> dict[str, Any]:
    """Return what a shape means, whichever of its rules were spelled out."""
    return {
        "sizes": (config.vocab_size, config.seq_len, config.num_layers, config.embed_dim),
        "heads": (config.num_heads, config.kv_heads, config.head_dim),
        "architecture": config.architecture,
        "mlp": config.mlp_width,
        "epsilon": config.epsilon,
        "theta": config.theta if config.row.positions == "rotary" else None,
        "scaling": config.rope_scaling,
        "tied": config.is_tied,
        "window": config.sliding_window,
    }


def file_of(
    folder: Path,
    config: ModelConfig,
    changes: dict[str, Value | None] | None = None,
    factors: np.ndarray | None = None,
) -> Path:
    """Return a file of zeros with changed values, and with factors of rotary positions."""
    values: dict[str, Any] = {"general.architecture": ("text", config.architecture)}
    values |= shape_values(config)
    for key, value in (changes or {}).items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    tensors = [(one.name, one.shape, F32) for one in stored_tensors(config)]
    if factors is not None:
        tensors.append((ROPE_FACTORS, factors.shape, F32))
    header = Header(values, tensors)
    data = bytearray(header.head.ljust(header.size_bytes, b"\0"))
    if factors is not None:
        start = header.places[ROPE_FACTORS].start
        data[start : start + factors.nbytes] = factors.tobytes()
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_come_back(tmp_path: Path, shape: str) -> None:
    config = config_of(shape)
    path = tmp_path / "model.gguf"
    tokenizer = trained("byte", tmp_path)
    write_gguf(path, config, tensors_of(config).items(), tokenizer=tokenizer, name="Zoë")
    model = read_gguf(path)
    assert resolved(model.config) == resolved(config)
    assert model.name == "Zoë"


def llama3_factors(scaling: RopeScaling, theta: float, dim: int) -> np.ndarray:
    """Return the factors as llama.cpp's converter makes them."""
    found = []
    for i in range(0, dim, 2):
        wavelength = 2 * math.pi * theta ** (i / dim)
        original = scaling.original_seq_len
        if wavelength < original / scaling.high_freq_factor:
            found.append(1.0)
        elif wavelength > original / scaling.low_freq_factor:
            found.append(scaling.factor)
        else:
            smooth = original / wavelength - scaling.low_freq_factor
            smooth /= scaling.high_freq_factor - scaling.low_freq_factor
            found.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return np.array(found, np.float32)


SCALINGS = [
    (RopeScaling("llama3", 8.0, 8192), 500_000.0, 128),
    (RopeScaling("llama3", 32.0, 8192), 500_000.0, 64),
    (RopeScaling("llama3", 4.0, 2048, high_freq_factor=8.0), 10_000.0, 64),
    (RopeScaling("llama3", 16.0, 4096, high_freq_factor=2.5), 10_000.0, 128),
]


@pytest.mark.parametrize(("scaling", "theta", "dim"), SCALINGS)
def test_llama3_scaling_is_found_in_the_factors(
    tmp_path: Path, scaling: RopeScaling, theta: float, dim: int
) -> None:
    """As other programs' files have it, which name none of its numbers."""
    factors = llama3_factors(scaling, theta, dim)
    np.testing.assert_allclose(rope_factors(scaling, theta, dim), factors, rtol=1e-6)
    config = ModelConfig(300, 64, 1, 2, 2 * dim, architecture="llama", rope_theta=theta, mlp_dim=32)
    found = read_gguf(file_of(tmp_path, config, factors=factors)).config.rope_scaling
    assert found == scaling


def test_factors_that_are_no_scaling_of_ours_are_refused(tmp_path: Path) -> None:
    config = config_of("llama")
    for factors in (
        np.array([1, 2, 1, 2, 1, 2, 1, 2], np.float32),
        np.array([1, 1, 1, 1, 1, 1, 1, np.inf], np.float32),
        np.array([0.5] * 8, np.float32),
        np.ones(3, np.float32),
    ):
        with pytest.raises(CheckpointError, match=ROPE_FACTORS):
            read_gguf(file_of(tmp_path, config, factors=factors))
    ones = np.ones(8, np.float32)
    assert read_gguf(file_of(tmp_path, config, factors=ones)).config.rope_scaling is None


# --- values of other programs ---------------------------------------------------------------------

_TYPE, _FACTOR = "rope.scaling.type", "rope.scaling.factor"
READ: list[tuple[str, dict[str, Value | None], dict[str, Any]]] = [
    ("llama", {"llama.vocab_size": None}, {"vocab_size": 300}),
    ("llama", {"llama.attention.head_count_kv": ("i32", 2)}, {"num_kv_heads": 2}),
    ("llama", {"llama.rope.dimension_count": None}, {"head_size": 16}),
    ("llama", {"llama.attention.key_length": None}, {"head_size": 16}),
    ("llama", {"llama.rope.freq_base": None}, {"rope_theta": 10000.0}),
    ("llama", {"llama.rope.freq_base": ("f32", 1e6)}, {"rope_theta": 1e6}),
    ("llama", {"llama.rope.scale_linear": ("f32", 4.0)},
     {"rope_scaling": RopeScaling("linear", 4.0)}),
    ("llama", {f"llama.{_TYPE}": ("text", "none"), f"llama.{_FACTOR}": ("f32", 4.0)},
     {"rope_scaling": None}),
    ("llama", {"llama.attention.sliding_window": ("u32", 0)}, {"sliding_window": 0}),
    ("llama", {"llama.attention.sliding_window": ("u32", 20)}, {"sliding_window": 20}),
    ("llama", {"llama.attention.sliding_window": ("u32", 4096)}, {"sliding_window": 0}),
    ("llama", {"llama.expert_count": ("u32", 0), "llama.attention.causal": ("bool", True)}, {}),
    ("qwen3", {f"qwen3.{_TYPE}": ("text", "yarn"), f"qwen3.{_FACTOR}": ("f32", 4.0)},
     {"rope_scaling": RopeScaling("yarn", 4.0, 48)}),
    ("gpt2", {"gpt2.attention.layer_norm_epsilon": ("f32", 1e-6)}, {"norm_epsilon": 1e-6}),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "changes", "expected"), READ)
def test_values_of_other_programs_are_understood(
    tmp_path: Path, shape: str, changes: dict[str, Value | None], expected: dict[str, Any]
) -> None:
    config = read_gguf(file_of(tmp_path, config_of(shape), changes)).config
    assert {name: getattr(config, name) for name in expected} == expected


BAD: list[tuple[dict[str, Value | None], str]] = [
    ({"general.architecture": ("text", "mamba\x1b[2J")}, "is 'mamba.*gpt2, llama, qwen3"),
    ({"general.architecture": None}, "architecture is None"),
    ({"general.architecture": ("u32", 5)}, "architecture is 5"),
    ({"general.architecture": ("text", "qwen3")}, "no 'context_length'"),
    ({"split.count": ("u16", 3)}, "one of several files"),
    ({"llama.context_length": ("u32", 0)}, "'context_length' is 0"),
    ({"llama.context_length": ("text", "64")}, "'context_length' is '64'"),
    ({"llama.context_length": ("u64", 2**40)}, "'context_length' is 1099511627776"),
    ({"llama.block_count": ("u32", 3)}, "no tensor 'blk.2"),
    ({"llama.block_count": ("u32", 1)}, "tensor 'blk.1.attn_k.weight', which is not known"),
    ({"llama.block_count": ("u32", 2**31)}, "'block_count' is"),
    ({"llama.embedding_length": ("u32", 128)}, "has the shape"),
    ({"llama.embedding_length": ("bool", True)}, "'embedding_length' is True"),
    ({"llama.attention.head_count": ("u32", 3)}, "cannot be divided|channels"),
    ({"llama.attention.head_count": ("list", ("u32", [4, 4]))}, r"head_count' is \[4, 4\]"),
    ({"llama.attention.head_count_kv": ("u32", 3)}, "impossible model"),
    ({"llama.attention.key_length": ("u32", 17)}, "value_length is 16|impossible"),
    ({"llama.attention.layer_norm_rms_epsilon": None}, "no 'attention.layer_norm_rms_epsilon'"),
    ({"llama.attention.layer_norm_rms_epsilon": ("f32", float("nan"))}, "layer_norm_rms_epsilon"),
    ({"llama.rope.freq_base": ("f32", float("inf"))}, "rope.freq_base"),
    ({"llama.rope.dimension_count": ("u32", 8)}, "rope.dimension_count is 8"),
    ({"llama.rope.scaling.type": ("text", "longrope")}, "'longrope'"),
    ({"llama.rope.scaling.factor": ("f32", 0.5)}, "impossible model"),
    ({"llama.expert_count": ("u32", 8)}, "llama.expert_count = 8, which is not known here"),
    ({"llama.logit_scale": ("f32", 0.5)}, "llama.logit_scale = 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_values_that_cannot_be_are_one_sentence(
    tmp_path: Path, changes: dict[str, Value | None], words: str
) -> None:
    path = file_of(tmp_path, config_of("llama"), changes)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_gguf(path)
    assert str(caught.value).isprintable()
    assert caught.value.advice


def test_text_and_masks_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, config_of("llama"), {"llama.attention.causal": ("bool", False)})
    with pytest.raises(CheckpointError, match=r"attention\.causal = False"):
        read_gguf(path)


# --- what cannot be written -----------------------------------------------------------------------


def refusal(config: ModelConfig) -> str:
    with pytest.raises(UsageError) as caught:
        shape_values(config)
    assert caught.value.advice
    return str(caught.value)


def test_what_llama_cpp_does_not_compute_is_refused() -> None:
    config = config_of("llama")
    assert "crystalline attention" in refusal(replace(config, attention="crystalline"))
    assert "sliding window of 7 positions" in refusal(replace(config, sliding_window=7))
    llama3 = config_of("llama, llama3").rope_scaling
    assert "not for qwen3" in refusal(replace(config_of("qwen3"), rope_scaling=llama3))
    assert shape_values(replace(config, sliding_window=config.seq_len))
