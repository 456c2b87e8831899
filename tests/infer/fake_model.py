"""A model whose logits are any function of the tokens in its cache, and that minds its manners.

It refuses what the real decoder refuses: an overfull slot, more tokens than a chunk, a slot
twice in a call, unknown tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from crystalline.model.config import ModelConfig

Rule = Callable[[tuple[int, ...]], np.ndarray]


def noise(vocab_size: int) -> Rule:
    """Return a rule: normal logits, a pure function of all tokens and their order."""

    def rule(tokens: tuple[int, ...]) -> np.ndarray:
        seed = zlib.crc32(repr(tokens).encode())
        return np.random.default_rng(seed).normal(0.0, 2.0, vocab_size)

    return rule


def spells(ids: Sequence[int], vocab_size: int, prompt_length: int) -> Rule:
    """Return a rule that makes `ids` certain, one after the other, while the context lasts."""

    def rule(tokens: tuple[int, ...]) -> np.ndarray:
        row = np.full(vocab_size, -np.inf)
        row[ids[len(tokens) - prompt_length]] = 0.0
        return row

    return rule


class FakeDecoder:
    """`calls` has what was read: the tokens by their slot, one entry for each call."""

    def __init__(
        self, rule: Rule, *, vocab_size: int, seq_len: int, slots: int = 1, chunk: int = 0
    ) -> None:
        self.config = ModelConfig(
            vocab_size=vocab_size, seq_len=seq_len, num_layers=1, num_heads=1, embed_dim=8
        )
        self.slots = slots
        self.chunk = chunk or slots * seq_len
        self.calls: list[dict[int, tuple[int, ...]]] = []
        self.copies = 0  # slots filled by `reorder`
        self._rule = rule
        self._caches: list[tuple[int, ...]] = [()] * slots

    def extend(self, slots, tokens) -> np.ndarray:
        assert 1 <= len(slots) == len(tokens) == len(set(slots))
        assert sum(map(len, tokens)) <= self.chunk
        call = {}
        for slot, ids in zip(slots, tokens, strict=True):
            added = tuple(int(token) for token in ids)
            assert added
            assert all(0 <= token < self.config.vocab_size for token in added)
            if len(self._caches[slot]) + len(added) > self.config.seq_len:
                raise ValueError(f"slot {slot} holds {len(self._caches[slot])} tokens")
            self._caches[slot] += added
            call[slot] = added
        self.calls.append(call)
        return np.stack([np.asarray(self._rule(self._caches[s]), np.float32) for s in slots])

    def truncate(self, slot: int, length: int) -> None:
        assert 0 <= length <= len(self._caches[slot])
        self._caches[slot] = self._caches[slot][:length]

    def length(self, slot: int = 0) -> int:
        return len(self._caches[slot])

    def reorder(self, sources) -> None:
        old = list(self._caches)
        for slot, source in enumerate(sources):
            self._caches[slot] = old[source]
            self.copies += slot != source

    def score(self, tokens) -> np.ndarray:
        ids = [int(token) for token in tokens]
        assert 2 <= len(ids) <= self.config.seq_len + 1
        nats = []
        for end in range(1, len(ids)):
            row = np.asarray(self._rule(tuple(ids[:end])), dtype=np.float64)
            nats.append(float(np.log(np.exp(row).sum()) - row[ids[end]]))
        return np.array(nats)
