"""The shape of a model.  Sizes have fixed letters everywhere:

B batch, T sequence, C channels, H heads, D head size, V vocabulary, L layers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from crystalline.errors import UsageError

LAYER_NORM_EPSILON = 1e-5

Attention = Literal["standard", "crystalline"]


@dataclass(frozen=True)
class ModelConfig:
    """A GPT-2 shaped transformer: pre-LayerNorm, learned positions, GELU (tanh form),
    biases, tied head.

    >>> ModelConfig(vocab_size=65, seq_len=64, num_layers=4, num_heads=4, embed_dim=128).head_dim
    32
    """

    vocab_size: int  # V
    seq_len: int  # T, the longest context
    num_layers: int  # L
    num_heads: int  # H
    embed_dim: int  # C
    dropout: float = 0.0
    attention: Attention = "standard"  # crystalline: scores gain λ K(a, b) of the two tokens

    def __post_init__(self) -> None:
        for name in ("vocab_size", "seq_len", "num_layers", "num_heads", "embed_dim"):
            value = getattr(self, name)
            if value < 1:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} is {value}", advice="It must be at least 1.")
        if self.embed_dim % self.num_heads:
            below = self.embed_dim - self.embed_dim % self.num_heads
            nearest = below or self.num_heads
            raise UsageError(
                f"--embed-dim {self.embed_dim} cannot be divided"
                f" among --num-heads {self.num_heads}",
                advice=f"Use a multiple of the number of heads, for example --embed-dim {nearest}.",
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(
                f"--dropout is {self.dropout}", advice="It must be at least 0 and less than 1."
            )
        if self.attention not in get_args(Attention):
            raise UsageError(
                f"--attention is {self.attention!r}",
                advice=f"It must be {' or '.join(get_args(Attention))}.",
            )

    @property
    def head_dim(self) -> int:
        """D, the channels of one head."""
        return self.embed_dim // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for files.

        Standard attention is left out: its files are those of versions that knew no other.
        """
        fields = asdict(self)
        if self.attention == "standard":
            del fields["attention"]
        return fields
