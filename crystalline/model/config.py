"""The shape of a model.  Sizes have fixed letters everywhere:

B batch, T sequence, C channels, H heads, G key/value heads, D head size, F channels inside an MLP,
V vocabulary, L layers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from crystalline.errors import UsageError
from crystalline.model.architectures import ARCHITECTURES
from crystalline.model.architectures.table import Architecture, Role

Attention = Literal["standard", "crystalline"]
RopeKind = Literal["linear", "llama3", "yarn"]


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions are stretched beyond the context that a model was first trained with.

    linear: all angles divided by `factor`.  llama3: the slow ones only, by wavelength.  yarn: the
    slow ones only, by rotations within the original context (Peng et al. 2023).
    """

    kind: RopeKind
    factor: float
    original_seq_len: int = 0  # llama3, yarn
    low_freq_factor: float = 1.0  # llama3: wavelengths above original / low are divided whole
    high_freq_factor: float = 4.0  # llama3: wavelengths below original / high stay
    beta_fast: float = 32.0  # yarn: at least so many rotations: stays
    beta_slow: float = 1.0  # yarn: at most so many rotations: divided whole
    attention_factor: float = 0.0  # yarn: multiplies queries and keys; 0: 0.1 ln(factor) + 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(RopeKind):
            raise UsageError(
                f"the scaling of rotary positions is {self.kind!r}",
                advice=f"It must be {', '.join(get_args(RopeKind)[:-1])} or yarn.",
            )
        if not self.factor >= 1.0:
            raise UsageError(
                f"the factor of the rotary positions' scaling is {self.factor}",
                advice="It must be at least 1.",
            )
        if self.kind != "linear" and self.original_seq_len < 1:
            raise UsageError(
                f"{self.kind} scaling of rotary positions names no original context length",
                advice="Give original_seq_len (original_max_position_embeddings in config.json).",
            )


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a transformer.  What is 0 or None is the architecture's rule.

    >>> ModelConfig(vocab_size=65, seq_len=64, num_layers=4, num_heads=4, embed_dim=128).head_dim
    32
    >>> ModelConfig(65, 64, 4, 4, 96, architecture="llama", num_kv_heads=2).mlp_width
    256
    """

    vocab_size: int  # V
    seq_len: int  # T, the longest context
    num_layers: int  # L
    num_heads: int  # H
    embed_dim: int  # C
    dropout: float = 0.0
    attention: Attention = "standard"  # crystalline: scores gain λ K(a, b) of the two tokens
    architecture: str = "gpt2"
    num_kv_heads: int = 0  # G; 0: as many as heads
    head_size: int = 0  # D; 0: C / H
    mlp_dim: int = 0  # F; 0: the architecture's multiple of C
    norm_epsilon: float = 0.0  # 0: the architecture's
    rope_theta: float = 0.0  # base of the rotary angles; 0: the architecture's
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool | None = None  # whether the head is the token embeddings
    sliding_window: int = 0  # the newest so many positions that attention sees; 0: all

    def __post_init__(self) -> None:
        architecture_row(self.architecture)
        self._check_sizes()
        self._check_choices()
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(
                f"--dropout is {self.dropout}", advice="It must be at least 0 and less than 1."
            )
        if self.attention not in get_args(Attention):
            raise UsageError(
                f"--attention is {self.attention!r}",
                advice=f"It must be {' or '.join(get_args(Attention))}.",
            )

    def _check_sizes(self) -> None:
        for name in ("vocab_size", "seq_len", "num_layers", "num_heads", "embed_dim"):
            value = getattr(self, name)
            if value < 1:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} is {value}", advice="It must be at least 1.")
        for name in ("num_kv_heads", "head_size", "mlp_dim", "sliding_window"):
            value = getattr(self, name)
            if value < 0:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} is {value}", advice="It must be at least 1, or 0.")
        if not self.head_size and self.embed_dim % self.num_heads:
            below = self.embed_dim - self.embed_dim % self.num_heads
            nearest = below or self.num_heads
            raise UsageError(
                f"--embed-dim {self.embed_dim} cannot be divided"
                f" among --num-heads {self.num_heads}",
                advice=f"Use a multiple of the number of heads, for example --embed-dim {nearest}.",
            )
        if self.num_heads % self.kv_heads:
            raise UsageError(
                f"--num-heads {self.num_heads} cannot be divided among"
                f" --num-kv-heads {self.num_kv_heads}",
                advice="Use a divisor of the number of heads.",
            )

    def _check_choices(self) -> None:
        """Refuse what the architecture does not have."""
        row = self.row
        rotary = row.positions == "rotary"
        wrong = {
            "--num-kv-heads": self.kv_heads != self.num_heads and not rotary,
            "--head-size": self.head_size not in (0, self.embed_dim // self.num_heads)
            and not rotary,
            "--rope-theta": bool(self.rope_theta) and not rotary,
            "the scaling of rotary positions": self.rope_scaling is not None and not rotary,
            "--sliding-window": bool(self.sliding_window) and not rotary,
            "--no-tie-embeddings": self.tie_embeddings is False and Role.HEAD not in row.tensors,
        }
        others = [one.name for one in ARCHITECTURES.values() if one.positions == "rotary"]
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise UsageError(
                    f"{what} means nothing to --architecture {self.architecture}",
                    advice=f"Leave it out, or use --architecture {' or '.join(others)}.",
                )
        if rotary and self.head_dim % 2:
            raise UsageError(
                f"heads of {self.head_dim} channels cannot be rotated: rotary positions turn pairs",
                advice="Use an even number of channels a head (--embed-dim over --num-heads).",
            )
        if self.rope_theta < 0 or 0 < self.rope_theta < 1:
            raise UsageError(f"--rope-theta is {self.rope_theta}", advice="It must be at least 1.")
        if self.norm_epsilon < 0:
            raise UsageError(f"--norm-epsilon is {self.norm_epsilon}", advice="It must be above 0.")

    @property
    def row(self) -> Architecture:
        """The architecture's row of the table."""
        return ARCHITECTURES[self.architecture]

    @property
    def head_dim(self) -> int:
        """D, the channels of one head."""
        return self.head_size or self.embed_dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        """G, the heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def mlp_width(self) -> int:
        """F, the channels inside an MLP."""
        if self.mlp_dim:
            return self.mlp_dim
        multiple = self.row.mlp_multiple
        return -(-round(self.embed_dim * self.row.mlp_ratio) // multiple) * multiple

    @property
    def epsilon(self) -> float:
        """What is added to a variance before its root is divided by."""
        return self.norm_epsilon or self.row.norm_epsilon

    @property
    def theta(self) -> float:
        """The base of the rotary angles: pair i turns theta^(-2 i / D) a position."""
        return self.rope_theta or self.row.rope_theta

    @property
    def is_tied(self) -> bool:
        """Whether the head is the token embeddings."""
        return self.row.ties_embeddings if self.tie_embeddings is None else self.tie_embeddings

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for files.

        Of the fields after dropout, those that have their default are left out: the files of
        versions that did not know them stay as they were.
        """
        found = asdict(self)
        return {
            one.name: found[one.name]
            for one in fields(self)
            if one.name == "dropout" or found[one.name] != one.default
        }


def architecture_row(name: str) -> Architecture:
    """Return an architecture's row.  Raises `UsageError` for a name that there is not."""
    if name not in ARCHITECTURES:
        names = list(ARCHITECTURES)
        raise UsageError(
            f"--architecture is {name!r}",
            advice=f"It must be {', '.join(names[:-1])} or {names[-1]}.",
        )
    return ARCHITECTURES[name]
