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
    """A model with a KV cache for each of its `slots` sequences.

    The logits of a slot have the same bits whatever other slots are in the call, and
    however its tokens were cut into calls.
    """

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""

    @property
    def slots(self) -> int:
        """Sequences it can hold at once."""

    @property
    def chunk(self) -> int:
        """Most tokens, of all slots together, in one call of `extend`; at least `slots`."""

    def extend(
        self, slots: Sequence[int], tokens: Sequence[Sequence[int] | TokenIds]
    ) -> npt.NDArray[np.float32]:
        """Append tokens[i] (one or more) to slots[i]; return the logits [n, V] after each last.

        The slots are distinct; the result is the caller's to keep.

        Raises:
            ValueError: beyond config.seq_len tokens in a slot, or `chunk` in all.
        """

    def length(self, slot: int = 0) -> int:
        """Return the tokens in the slot's cache."""

    def truncate(self, slot: int, length: int) -> None:
        """Keep the first `length` tokens of the slot; 0 empties it."""

    def reorder(self, sources: Sequence[int]) -> None:
        """Make slot i a copy of what slot sources[i] was; where both are one, nothing is done."""

    def score(self, tokens: TokenIds) -> npt.NDArray[np.float64]:
        """Return the nats [n-1] of each next token given those before it; n ≤ seq_len + 1."""
