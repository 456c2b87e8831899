"""What an architecture is: the tensors of a model by role, their names in files, and its choices.

In memory every linear layer is [inputs, outputs], and products that read the same input are one
tensor: queries, keys and values; the gate beside the MLP's input.  In files they may stand apart
and transposed, since torch's linear layers are [outputs, inputs].

Letters as in `crystalline/model/config.py`; W is the width of all queries, H · D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal

Norm = Literal["layernorm", "rmsnorm"]
Positions = Literal["learned", "rotary"]
Mlp = Literal["gelu", "swiglu", "relu2"]


class Role(Enum):
    """What a tensor is for.  Those from `QKV` on occur once in every layer."""

    TOKENS = auto()  # [V, C]
    POSITIONS = auto()  # [T, C]
    HEAD = auto()  # [V, C], where it is not the token embeddings
    FINAL_NORM = auto()  # [C]
    FINAL_NORM_BIAS = auto()
    QKV = auto()  # [C, W + 2 G D]
    OUT = auto()  # [W, C]
    UP = auto()  # [C, F]; with a gate [C, 2 F], the gate first
    DOWN = auto()  # [F, C]
    NORM1 = auto()  # [C]
    NORM1_BIAS = auto()
    QKV_BIAS = auto()
    OUT_BIAS = auto()
    Q_NORM = auto()  # [D], of every head's queries
    K_NORM = auto()  # [D]
    NORM2 = auto()  # [C]
    NORM2_BIAS = auto()
    UP_BIAS = auto()
    DOWN_BIAS = auto()
    LAMBDA = auto()  # [H], of crystalline attention


@dataclass(frozen=True)
class Tensor:
    """The names of a tensor; `{layer}` in them is the number of its layer."""

    name: str  # in memory
    files: tuple[str, ...] = ()  # in files, one for each of its parts; (): its name
    transposed: bool = False  # in files

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names in files, as many as the tensor has parts there."""
        return self.files or (self.name,)


@dataclass(frozen=True)
class HuggingFace:
    """How config.json in Hugging Face's layout describes the architecture."""

    model_type: str
    model_class: str  # among "architectures"
    keys: Mapping[str, str]  # field of ModelConfig -> key
    # Keys that must have one of these values where they are there; the first is written.
    fixed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)  # further key -> field it repeats
    # What transformers takes where a key is not there; None: the architecture's rule.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unsaid: Sequence[str] = ()  # keys that are null where the architecture's rule gives the value
    written: Sequence[str] = ()  # the keys of a file in their order; (): keys, also and fixed
    prefix: str = ""  # of tensor names, which files may leave out
    buffers: str = ""  # pattern of tensors that are no parameters, the prefix left out
    windowed: HuggingFace | None = None  # how models with a sliding window are described


@dataclass(frozen=True)
class Architecture:
    """One row: what models of this name have and compute."""

    name: str
    positions: Positions
    mlp: Mlp
    tensors: Mapping[Role, Tensor]  # what is not named here, its models do not have
    huggingface: HuggingFace
    ties_embeddings: bool  # by default
    mlp_ratio: float  # F / C by default
    mlp_multiple: int = 1  # F is rounded up to a multiple of it
    norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def norm(self) -> Norm:
        """LayerNorm where norms have a shift, RMSNorm otherwise."""
        return "layernorm" if Role.NORM1_BIAS in self.tensors else "rmsnorm"

    @property
    def has_gate(self) -> bool:
        """Whether the MLP multiplies its hidden values by a gate."""
        return self.mlp == "swiglu"
