"""What generation needs of a model: the protocol that `crystalline.model.decode.Decoder` fulfills.

Everything in this package is written against it, and tested with a fake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from crystalline.model.config import ModelConfig

Logits = npt.NDArray[np.float32]  # [V]
TokenIds = npt.NDArray[np.int32]


class Decoder(Protocol):
    """A model with a KV cache for each of its `slots` sequences."""

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""

    @property
    def slots(self) -> int:
        """Sequences it can hold at once."""

    def prefill(self, tokens: Sequence[int] | TokenIds, slot: int = 0) -> Logits:
        """Restart `slot` with 1 to seq_len tokens; return the logits [V] after the last."""

    def step(self, tokens: TokenIds) -> npt.NDArray[np.float32]:
        """Append one token to each of the first n slots; return their logits [n, V]."""

    def length(self, slot: int = 0) -> int:
        """Return the tokens in the slot's cache."""

    def reorder(self, sources: Sequence[int]) -> None:
        """Make slot i a copy of what slot sources[i] was."""

    def score(self, tokens: TokenIds) -> npt.NDArray[np.float64]:
        """Return the nats [n-1] of each next token given those before it; n ≤ seq_len + 1."""
