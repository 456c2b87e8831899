"""Every architecture against the float64 twin: loss, logits, and the gradient of every tensor.

Runs once per instruction-set level that this machine has, in every format that trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.formats import trains
from crystalline.errors import UsageError
from crystalline.model.architectures import ARCHITECTURES
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig, RopeScaling
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer
from tests.oracles import transformer as oracle

F64 = npt.NDArray[np.float64]

# Of a tensor's gradient along a direction of length 1, against its length.  Measured over the five
# levels: at most 1.4e-6 in float32 and 2.7e-2 in bf16; of the loss 7.1e-8 and 6.8e-4.
TOLERANCE = {"float32": 3e-6, "bf16": 3e-2}
LOSS_TOLERANCE = {"float32": 3e-7, "bf16": 1.5e-3}

SHAPES = {
    # odd sizes, every head its own keys
    "odd": {"vocab_size": 67, "seq_len": 13, "num_layers": 2, "num_heads": 3, "embed_dim": 42},
    # grouped queries, heads wider than C / H, an MLP that is no multiple of anything
    "grouped": {
        "vocab_size": 45, "seq_len": 11, "num_layers": 2, "num_heads": 4, "embed_dim": 20,
        "num_kv_heads": 2, "head_size": 10, "mlp_dim": 37,
    },
    # one key/value head for all, a window, angles of another base and slower, an own head
    "single": {
        "vocab_size": 33, "seq_len": 17, "num_layers": 1, "num_heads": 6, "embed_dim": 36,
        "num_kv_heads": 1, "sliding_window": 5, "rope_theta": 500.0, "tie_embeddings": False,
        "rope_scaling": RopeScaling("linear", 2.0),
    },
    # wide enough for whole tiles and blocks
    "tiles": {
        "vocab_size": 131, "seq_len": 70, "num_layers": 1, "num_heads": 4, "embed_dim": 128,
        "num_kv_heads": 2,
    },
    "least": {"vocab_size": 2, "seq_len": 1, "num_layers": 1, "num_heads": 2, "embed_dim": 4},
}  # fmt: skip
ROTARY = [name for name, row in ARCHITECTURES.items() if row.positions == "rotary"]
FORMATS = [name for name in ("float32", "bf16") if trains(name)]


def config_of(architecture: str, shape: str, **changes: Any) -> ModelConfig:
    return ModelConfig(architecture=architecture, **{**SHAPES[shape], **changes})


def subject(config: ModelConfig, seed: int = 3) -> tuple[npt.NDArray[np.float32], dict[str, F64]]:
    """Return weights that no initialization would give, flat and by name in float64."""
    table = parameter_table(config)
    flat = np.zeros(table.size, np.float32)
    initialize(config, flat, seed)
    generator = np.random.default_rng(seed)
    for parameter, view in zip(table.parameters, table.views(flat).values(), strict=True):
        spread = 0.15 if parameter.decays else 0.3
        view += generator.normal(0, spread, parameter.shape).astype(np.float32)
    views = table.views(flat)
    return flat, {name: view.astype(np.float64) for name, view in views.items()}


def features_of(config: ModelConfig) -> npt.NDArray[np.float32] | None:
    if config.attention == "standard":
        return None
    generator = np.random.default_rng(5)
    return generator.normal(0, 0.4, (config.vocab_size, 16)).astype(np.float32)


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("architecture", ROTARY)
def test_gradients(architecture: str, shape: str, precision: str) -> None:
    check_gradients(config_of(architecture, shape), precision)


@pytest.mark.parametrize("architecture", ROTARY)
def test_gradients_with_crystalline_attention(architecture: str) -> None:
    check_gradients(config_of(architecture, "grouped", attention="crystalline"), "float32")


def test_the_twin_agrees_on_gpt2() -> None:
    check_gradients(ModelConfig(67, 13, 2, 3, 21), "float32")


def check_gradients(config: ModelConfig, precision: str) -> None:
    flat, params = subject(config)
    generator = np.random.default_rng(11)
    length = config.seq_len
    tokens = generator.integers(0, config.vocab_size, (3, length + 1)).astype(np.int32)
    features = features_of(config)
    model = Transformer.allocate(config, flat, precision=precision, features=features)
    table = parameter_table(config)
    grads = np.zeros(table.size, np.float32)
    for view in table.views(grads).values():  # the gaps between tensors stay 0
        view[...] = np.nan
    found = model.compute(tokens, grads, scale=1.0)
    told = None if features is None else features.astype(np.float64)
    expected = float(np.real(oracle.loss(config, params, tokens, told)))
    assert found == pytest.approx(expected, rel=LOSS_TOLERANCE[precision])
    assert model.evaluate(tokens) == found
    least = 0.01 * float(np.linalg.norm(grads))  # what is 0 by nature is so up to rounding
    for name, view in table.views(grads).items():
        gradient = view.astype(np.float64)
        length_of_it = float(np.linalg.norm(gradient))
        assert np.isfinite(length_of_it), name
        if length > 1 or name.endswith(("embed_tokens.weight", "model.norm.weight")):
            assert length_of_it > 0, f"the loss does not depend on {name}"
        for direction in directions(gradient, generator):
            along = float((gradient * direction).sum())
            true = oracle.derivative(config, params, tokens, name, direction, told)
            assert abs(along - true) <= TOLERANCE[precision] * max(length_of_it, least), name


def directions(gradient: F64, generator: np.random.Generator) -> list[F64]:
    """Return directions of length 1: the gradient's own, and some at random."""
    drawn = [gradient] if np.linalg.norm(gradient) > 0 else []
    drawn += [generator.normal(size=gradient.shape) for _ in range(2)]
    return [direction / np.linalg.norm(direction) for direction in drawn]


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_one_token_sees_only_itself(architecture: str) -> None:
    """T = 1 and longer contexts agree on the first position: attention is causal."""
    config = ModelConfig(29, 9, 2, 2, 24, architecture=architecture)
    flat, params = subject(config)
    model = Transformer.allocate(config, flat)
    tokens = np.arange(9, dtype=np.int32)[None]
    whole, first = model.logits(tokens), model.logits(tokens[:, :1])
    np.testing.assert_allclose(whole[0, 0], first[0, 0], rtol=0, atol=1e-6)
    expected = oracle.logits(config, params, tokens[0])
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(whole[0], expected, rtol=0, atol=4e-6 * scale)


@pytest.mark.parametrize("kind", ["relu2", "gelu"])
def test_other_mlps_in_a_llama(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The MLP is the row's choice: an architecture of one's own takes one member to change."""
    row = dataclasses.replace(ARCHITECTURES["llama"], name="toy", mlp=kind)
    tensors = dict(row.tensors)
    tensors[Role.UP] = dataclasses.replace(tensors[Role.UP], files=("model.up.{layer}",))
    monkeypatch.setitem(ARCHITECTURES, "toy", dataclasses.replace(row, tensors=tensors))
    check_gradients(ModelConfig(31, 7, 2, 2, 24, architecture="toy"), "float32")


@pytest.mark.parametrize("architecture", ROTARY)
def test_side_buffers_and_chunks_agree(architecture: str) -> None:
    """Gradients added through a side buffer are those computed apart and then added."""
    config = config_of(architecture, "single")
    flat, _ = subject(config)
    model = Transformer.allocate(config, flat)
    generator = np.random.default_rng(2)
    size = parameter_table(config).size
    parts = [generator.integers(0, 33, (2, 18)).astype(np.int32) for _ in range(2)]
    apart = [np.zeros(size, np.float32) for _ in parts]
    for tokens, grads in zip(parts, apart, strict=True):
        model.compute(tokens, grads, scale=0.5)
    together = apart[0].copy()
    side = np.zeros(Transformer.side_size(config), np.float32)
    model.compute(parts[1], together, scale=0.5, side=side)
    assert np.array_equal(together, apart[0] + apart[1])


def test_refusals() -> None:
    for changes, word in (
        ({"architecture": "gpt3"}, "gpt2, llama or qwen3"),
        ({"num_kv_heads": 2}, "--num-kv-heads"),
        ({"rope_theta": 100.0}, "--rope-theta"),
        ({"tie_embeddings": False}, "--no-tie-embeddings"),
        ({"sliding_window": 4}, "--sliding-window"),
        ({"architecture": "llama", "num_kv_heads": 3}, "--num-kv-heads 3"),
        ({"architecture": "llama", "num_heads": 8}, "cannot be rotated"),
    ):
        with pytest.raises(UsageError) as caught:
            ModelConfig(**{**SHAPES["tiles"], "num_kv_heads": 0, "embed_dim": 24, **changes})
        assert word in f"{caught.value.message} {caught.value.advice}"


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
