"""Low-rank adapters (LoRA, Hu et al. 2021): what a frozen model learns beside its matrices.

Every matrix W [K, N] of a layer computes x W + s (x A) B, with A [K, r], B [r, N], s = alpha / r.
Only A and B are trained; B begins at 0, so that the model begins as it was.

Tensors that are one in memory (queries, keys and values; gate and up) share A.  In files, which
have PEFT's names, each part has a pair of its own, and the copies of A are equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import (
    Floats,
    Parameter,
    ParameterTable,
    Part,
    fill,
    laid_out,
    parameter_table,
)

ADAPTED = (Role.QKV, Role.OUT, Role.UP, Role.DOWN)  # the matrices of a layer
_PREFIX = "base_model.model."  # of every name in PEFT's files


@dataclass(frozen=True)
class AdapterConfig:
    """The shape of a model's adapters."""

    rank: int  # r, at least 1
    alpha: float  # s = alpha / r is what their product counts for

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}: at least 1 is needed")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is {self.alpha}: a number above 0 is needed")

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied by."""
        return self.alpha / self.rank

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for files."""
        return {"rank": self.rank, "alpha": self.alpha}


def largest_rank(config: ModelConfig) -> int:
    """Return the smallest side of the matrices of a model's layers: no product needs more.

    >>> largest_rank(ModelConfig(65, 64, 1, 4, 128))
    128
    """
    matrices = (p for p in parameter_table(config).parameters if p.role in ADAPTED)
    return min(min(p.shape) for p in matrices)


@dataclass(frozen=True)
class Adapter:
    """The adapter of one matrix; offsets of `a` and `b` are those of the adapters' own buffer."""

    matrix: Parameter  # [K, N], of the model's table
    a: Parameter  # [K, r]
    b: Parameter  # [r, N]


@lru_cache(maxsize=32)
def adapters(config: ModelConfig, adapter: AdapterConfig) -> tuple[Adapter, ...]:
    """Return the adapters of a model, in the order of their buffer.

    >>> config = ModelConfig(65, 64, 1, 4, 128, architecture="llama")
    >>> qkv = adapters(config, AdapterConfig(rank=8, alpha=16))[0]
    >>> qkv.a.shape, qkv.b.shape, len(qkv.a.parts)
    ((128, 8), (8, 384), 3)
    >>> qkv.b.parts[1].name
    'base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight'
    """
    r = adapter.rank
    matrices = [p for p in parameter_table(config).parameters if p.role in ADAPTED]
    pairs = []
    for p in matrices:
        K, N = p.shape
        names = [part.name for part in p.parts]
        a = tuple(Part(_file_name(name, "A"), 0, r, True) for name in names)
        b = tuple(replace(part, name=_file_name(part.name, "B"), transposed=True)
                  for part in p.parts)  # fmt: skip
        # A as PEFT and torch's linear layers begin, by its variance (He et al. 2015, a = sqrt 5).
        std = 1 / math.sqrt(3 * K)
        pairs += [
            Parameter(f"{p.name}.lora_A", p.role, p.layer, (K, r), 0, "normal", std, a),
            Parameter(f"{p.name}.lora_B", p.role, p.layer, (r, N), 0, "zeros", 0.0, b),
        ]
    placed = laid_out(pairs).parameters
    return tuple(Adapter(*one) for one in zip(matrices, placed[::2], placed[1::2], strict=True))


@lru_cache(maxsize=32)
def adapter_table(config: ModelConfig, adapter: AdapterConfig) -> ParameterTable:
    """Return the table of the adapters' own flat buffer: A and B of every matrix in turn.

    >>> adapter_table(ModelConfig(65, 64, 1, 4, 128), AdapterConfig(8, 16)).count
    16384
    """
    return laid_out([p for one in adapters(config, adapter) for p in (one.a, one.b)])


def initialize_adapters(
    config: ModelConfig, adapter: AdapterConfig, flat: Floats, seed: int
) -> None:
    """Fill `flat` with adapters that change nothing yet: a pure function of the arguments."""
    fill(adapter_table(config, adapter), flat, seed)


def merge(one: Adapter, adapter: AdapterConfig, flat: Floats, matrix: Floats) -> None:
    """Add an adapter, in the adapters' buffer `flat`, to its matrix [K, N] (INOUT).

    >>> config, adapter = ModelConfig(65, 64, 1, 4, 8), AdapterConfig(2, 6)
    >>> flat = np.ones(adapter_table(config, adapter).size, np.float32)
    >>> matrix = np.zeros((8, 24), np.float32)
    >>> merge(adapters(config, adapter)[0], adapter, flat, matrix)
    >>> float(matrix.min()), float(matrix.max())  # 6 / 2 times the sum of 2 products
    (6.0, 6.0)
    """
    a, b = (flat[p.offset : p.offset + p.size].reshape(p.shape) for p in (one.a, one.b))
    matrix += np.float32(adapter.scale) * (a @ b)


def _file_name(name: str, which: str) -> str:
    """Return PEFT's name of A or B of a tensor in a model's files."""
    return f"{_PREFIX}{name.removesuffix('.weight')}.lora_{which}.weight"
