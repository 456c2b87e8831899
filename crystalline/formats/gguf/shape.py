"""The shape of a model in the values of a GGUF file, both ways.

Values are named ARCHITECTURE.KEY.  A file may have keys that this program does not know; those
that say nothing (0, false, no text) are passed over, all others are refused: what they ask for
would be left out without a word.

Llama 3's scaling of rotary positions is no value but a tensor, what each pair's angle is divided
by (`rope_factors`).  What it was made from is kept under keys of our own, and found again from
the tensor in files of other programs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.errors import UsageError
from crystalline.formats.gguf.container import Container, Value
from crystalline.formats.gguf.names import HEAD, ROPE_FACTORS, TOKENS
from crystalline.model.architectures import ARCHITECTURES
from crystalline.model.config import ModelConfig, RopeScaling
from crystalline.untrusted import BadContent, shown
from crystalline.untrusted.files import GGUF

Floats = npt.NDArray[np.float32]

_LLAMA3 = {  # field of RopeScaling -> key of our own
    name: f"crystalline.rope.{name}"
    for name in ("factor", "original_seq_len", "low_freq_factor", "high_freq_factor")
}
_NEUTRAL = {  # keys that are not read, with the only value that may stand there; None: any
    "vocab_size": None,  # the tensor of the token embeddings says it
    "rope.scaling.finetuned": None,
    "tensor_data_layout": None,
    "expert_used_count": None,  # of no experts
    "attention.scale": 0.0,
    "attention.causal": True,
    "rope.scaling.yarn_attn_factor": None,  # llama.cpp takes no notice of it
    "rope.scaling.yarn_ext_factor": 1.0,
    "use_parallel_residual": False,
}
_READ = {
    "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon",
    "attention.sliding_window", "rope.dimension_count", "rope.freq_base", "rope.scale_linear",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
    "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What the values of a file say about its model."""

    config: ModelConfig
    name: str  # general.name


# --- writing ----------------------------------------------------------------------------------


def shape_values(config: ModelConfig) -> dict[str, Value]:
    """Return the values that describe a model.  Raises `UsageError` for what GGUF cannot hold."""
    _require_expressible(config)
    rotary = config.row.positions == "rotary"
    epsilon = "layer_norm_epsilon" if config.row.norm == "layernorm" else "layer_norm_rms_epsilon"
    values: dict[str, Value] = {
        "vocab_size": ("u32", config.vocab_size),
        "context_length": ("u32", config.seq_len),
        "embedding_length": ("u32", config.embed_dim),
        "block_count": ("u32", config.num_layers),
        "feed_forward_length": ("u32", config.mlp_width),
        "attention.head_count": ("u32", config.num_heads),
        f"attention.{epsilon}": ("f32", config.epsilon),
    }
    if rotary:
        values |= {
            "attention.head_count_kv": ("u32", config.kv_heads),
            "attention.key_length": ("u32", config.head_dim),
            "attention.value_length": ("u32", config.head_dim),
            "rope.dimension_count": ("u32", config.head_dim),
            "rope.freq_base": ("f32", config.theta),
        }
    own: dict[str, Value] = {}
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind == "llama3":
        own = {key: ("f64", float(getattr(scaling, name))) for name, key in _LLAMA3.items()}
    elif scaling is not None:
        values |= _scaling_values(scaling)
    return {f"{config.architecture}.{key}": value for key, value in values.items()} | own


def _require_expressible(config: ModelConfig) -> None:
    if config.attention == "crystalline":
        raise UsageError(
            "a model with crystalline attention cannot be a GGUF file: llama.cpp does not "
            "compute it, and would write other text without a word",
            advice="Save it as a Hugging Face folder, or train with --attention standard.",
        )
    if 0 < config.sliding_window < config.seq_len:
        raise UsageError(
            f"a sliding window of {config.sliding_window:,} positions cannot be written to a GGUF "
            f"file: llama.cpp has none for {config.architecture}",
            advice="Save it as a Hugging Face folder.",
        )
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind == "llama3" and config.architecture != "llama":
        raise UsageError(
            f"llama3 scaling of rotary positions cannot be written to a GGUF file: llama.cpp has "
            f"it for llama, not for {config.architecture}",
            advice="Use linear or yarn scaling, or save it as a Hugging Face folder.",
        )


def _scaling_values(scaling: RopeScaling) -> dict[str, Value]:
    values: dict[str, Value] = {
        "rope.scaling.type": ("text", scaling.kind),
        "rope.scaling.factor": ("f32", scaling.factor),
    }
    if scaling.kind == "yarn":
        values |= {
            "rope.scaling.original_context_length": ("u32", scaling.original_seq_len),
            "rope.scaling.yarn_beta_fast": ("f32", scaling.beta_fast),
            "rope.scaling.yarn_beta_slow": ("f32", scaling.beta_slow),
        }
        if scaling.attention_factor:  # llama.cpp multiplies its own rule by this
            part = scaling.attention_factor / _yarn_rule(scaling.factor)
            values["rope.scaling.attn_factor"] = ("f32", part)
    return values


def _yarn_rule(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0


def rope_factors(scaling: RopeScaling, theta: float, head_dim: int) -> Floats:
    """Return what Llama 3's scaling divides the angle of each pair by, float32[D / 2]."""
    angles = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    turns = scaling.original_seq_len * angles / (2 * math.pi)  # within the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0) if high > low else turns >= low
    return (1.0 / ((1.0 - kept) / scaling.factor + kept)).astype(np.float32)


# --- reading ----------------------------------------------------------------------------------


def read_shape(container: Container) -> Shape:
    """Return the shape that the values describe.

    The tensors are those that it needs, which is for the caller to check.  Raises `BadContent`.
    """
    architecture = container.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise BadContent(
            f"its architecture is {shown(repr(architecture), 60)}, "
            f"{', '.join(ARCHITECTURES)} are known here"
        )
    if container.get("split.count", 0) not in (0, 1):
        raise BadContent("it is one of several files that make up a model")
    prefix = architecture + "."
    given = {
        key.removeprefix(prefix): container.get(key)
        for key in container.keys()  # noqa: SIM118 - not a mapping
        if key.startswith(prefix)
    }
    for key, value in given.items():
        if key in _READ:
            continue
        if _NEUTRAL[key] not in (None, value) if key in _NEUTRAL else value:
            raise BadContent(
                f"it has {shown(prefix + key, 80)} = {shown(repr(value), 60)}, "
                "which is not known here"
            )
    assert GGUF.record is not None
    values = GGUF.record.check(given)
    try:
        config = _config(architecture, values, container)
    except UsageError as error:
        raise BadContent(f"it describes an impossible model: {error.message}") from None
    name = container.get("general.name", "")
    return Shape(config, name if isinstance(name, str) else "")


def _config(architecture: str, values: dict[str, Any], container: Container) -> ModelConfig:
    row = ARCHITECTURES[architecture]
    rotary = row.positions == "rotary"
    tokens = container.tensors.get(TOKENS)
    if tokens is None or len(tokens.shape) != 2:
        raise BadContent(f"it has no tensor '{TOKENS}'")
    heads, channels = values["attention.head_count"], values["embedding_length"]
    head_dim = values.get("attention.key_length", channels // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if rotary and values.get(key, head_dim) != head_dim:
            raise BadContent(f"its {key} is {values[key]:,}, its heads have {head_dim:,} channels")
    epsilon = "layer_norm_epsilon" if row.norm == "layernorm" else "layer_norm_rms_epsilon"
    if f"attention.{epsilon}" not in values:
        raise BadContent(f"it has no 'attention.{epsilon}'")
    theta = _decimal(values.get("rope.freq_base", 10000.0))
    window = values.get("attention.sliding_window", 0)
    return ModelConfig(
        vocab_size=tokens.shape[0],
        seq_len=values["context_length"],
        num_layers=values["block_count"],
        num_heads=heads,
        embed_dim=channels,
        architecture=architecture,
        num_kv_heads=values.get("attention.head_count_kv", heads),
        head_size=head_dim if rotary else 0,
        mlp_dim=values["feed_forward_length"],
        norm_epsilon=_decimal(values[f"attention.{epsilon}"]),
        rope_theta=theta if rotary else 0.0,
        rope_scaling=_scaling(values, container, theta, head_dim) if rotary else None,
        tie_embeddings=not rotary or HEAD not in container.tensors,
        sliding_window=window if window < values["context_length"] else 0,
    )


def _decimal(value: float) -> float:
    """Return the shortest decimal number that float32 stores so: what was meant.

    >>> _decimal(float(np.float32(1e-5)))
    1e-05
    """
    return float(str(np.float32(value)))


def _scaling(
    values: dict[str, Any], container: Container, theta: float, head_dim: int
) -> RopeScaling | None:
    if ROPE_FACTORS in container.tensors:
        return _llama3(values, container, theta, head_dim)
    kind = values.get("rope.scaling.type", "linear")
    factor = _decimal(values.get("rope.scaling.factor") or values.get("rope.scale_linear") or 1.0)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind == "linear":
        return RopeScaling("linear", factor)
    if kind != "yarn":
        raise BadContent(f"its rotary positions are scaled by {shown(repr(kind), 40)}")
    part = _decimal(values.get("rope.scaling.attn_factor", 1.0))
    return RopeScaling(
        "yarn",
        factor,
        original_seq_len=values.get(
            "rope.scaling.original_context_length", values["context_length"]
        ),
        beta_fast=_decimal(values.get("rope.scaling.yarn_beta_fast", 32.0)),
        beta_slow=_decimal(values.get("rope.scaling.yarn_beta_slow", 1.0)),
        attention_factor=0.0 if part == 1.0 else _decimal(part * _yarn_rule(factor)),
    )


def _llama3(
    values: dict[str, Any], container: Container, theta: float, head_dim: int
) -> RopeScaling | None:
    """Return the scaling whose factors are those of the file."""
    info = container.tensors[ROPE_FACTORS]
    if info.shape != (head_dim // 2,):
        raise BadContent(f"its '{ROPE_FACTORS}' has the shape {shown(str(info.shape), 60)}")
    factors = info.kind.dequantize(container.rows(info))[0]
    if not (np.isfinite(factors).all() and factors.min() >= 1.0):
        raise BadContent(f"its '{ROPE_FACTORS}' has factors that are not finite or below 1")
    if (factors == 1.0).all():
        return None
    if values.get("rope.scaling.factor", 1.0) not in (0.0, 1.0):
        raise BadContent("its rotary positions are scaled twice")
    for scaling in _candidates(values, container, factors, theta):
        if np.allclose(rope_factors(scaling, theta, head_dim), factors, rtol=1e-5, atol=0.0):
            return scaling
    raise BadContent(f"its '{ROPE_FACTORS}' is not of llama3 scaling")


def _candidates(
    values: dict[str, Any], container: Container, factors: Floats, theta: float
) -> Iterator[RopeScaling]:
    """Yield scalings that may have made the factors: those that are named, usual, and found."""
    own = [container.get(key) for key in _LLAMA3.values()]
    if all(isinstance(value, float) and 0 < value < 2**31 for value in own):
        factor, length, low, high = own
        if factor >= 1.0 and length >= 1.0:
            yield RopeScaling("llama3", factor, int(length), low, high)
    factor = _decimal(factors.max())
    for length in (values.get("rope.scaling.original_context_length", 0), 8192):
        if length > 0:
            yield RopeScaling("llama3", factor, length)
    # 1 / f = (1 - s) / factor + s with s = (turns - low) / (high - low): two pairs between the
    # ends give the line, up to a common scale; wavelengths count from low = 1.
    inner = np.flatnonzero((factors > 1.0) & (factors < factors.max()))
    angles = theta ** (-np.arange(len(factors), dtype=np.float64) / len(factors))
    for first, last in itertools.pairwise(inner[[0, -1]] if len(inner) > 1 else []):
        kept = (1.0 / factors[[first, last]].astype(np.float64) - 1 / factor) / (1 - 1 / factor)
        turns = angles[[first, last]] / (2 * math.pi)  # of one position
        slope = (kept[0] - kept[1]) / (turns[0] - turns[1])
        origin = kept[0] - slope * turns[0]  # s = slope turns + origin; low at s = 0, high at s = 1
        if slope > 0 and origin < 0:
            length = round(-slope / origin)
            if 0 < length < 2**31:
                high = _decimal(round((1 - origin) / -origin, 3))
                yield RopeScaling("llama3", factor, length, 1.0, high)
