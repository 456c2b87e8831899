"""A model whose logits are any function of the tokens in its cache, and that minds its manners.

It refuses what the real decoder refuses: an overfull slot, an empty slot, unknown tokens.
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
    def __init__(self, rule: Rule, *, vocab_size: int, seq_len: int, slots: int = 1) -> None:
        self.config = ModelConfig(
            vocab_size=vocab_size, seq_len=seq_len, num_layers=1, num_heads=1, embed_dim=8
        )
        self.slots = slots
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self._rule = rule
        self._caches: list[tuple[int, ...]] = [()] * slots

    def prefill(self, tokens, slot: int = 0) -> np.ndarray:
        cache = tuple(int(token) for token in tokens)
        if not 1 <= len(cache) <= self.config.seq_len:
            raise ValueError(f"{len(cache)} tokens for a context of {self.config.seq_len}")
        self.calls.append(("prefill", cache))
        self._caches[slot] = cache
        return self._row(slot)

    def step(self, tokens) -> np.ndarray:
        assert tokens.dtype == np.int32
        assert 1 <= tokens.size <= self.slots
        self.calls.append(("step", tuple(tokens.tolist())))
        for slot, token in enumerate(tokens.tolist()):
            if not 0 < len(self._caches[slot]) < self.config.seq_len:
                raise ValueError(f"slot {slot} holds {len(self._caches[slot])} tokens")
            self._caches[slot] += (token,)
        return np.stack([self._row(slot) for slot in range(tokens.size)])

    def length(self, slot: int = 0) -> int:
        return len(self._caches[slot])

    def reorder(self, sources) -> None:
        old = list(self._caches)
        for slot, source in enumerate(sources):
            self._caches[slot] = old[source]

    def score(self, tokens) -> np.ndarray:
        ids = [int(token) for token in tokens]
        assert 2 <= len(ids) <= self.config.seq_len + 1
        nats = []
        for end in range(1, len(ids)):
            row = np.asarray(self._rule(tuple(ids[:end])), dtype=np.float64)
            nats.append(float(np.log(np.exp(row).sum()) - row[ids[end]]))
        return np.array(nats)

    def _row(self, slot: int) -> np.ndarray:
        cache = self._caches[slot]
        assert all(0 <= token < self.config.vocab_size for token in cache)
        return np.asarray(self._rule(cache), dtype=np.float32)
