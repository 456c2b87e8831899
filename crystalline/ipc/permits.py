"""Permits: the right to compute now, as many as cores that this process may really use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crystalline._kernels.atomics import Words

STRIDE = 8  # words from permit to permit: a cache line


class Permits:
    """The permit words of the arena (`crystalline.ipc` has the rules)."""

    def __init__(self, words: npt.NDArray[np.int64]) -> None:
        self._words = Words(words)
        self.count = len(words) // STRIDE

    @staticmethod
    def words_needed(count: int) -> int:
        """Return the size of the region for `count` permits, in words."""
        return count * STRIDE

    def acquire(self, sphere: int) -> int:
        """Take a free permit for a sphere; return its number, or -1 when all are taken."""
        word = self._words.claim_below(0, self._words.size, STRIDE, 1, sphere + 1)
        return word // STRIDE if word >= 0 else -1

    def release(self, permit: int) -> None:
        """Give a permit back."""
        self._words.store(permit * STRIDE, 0)

    def held_by(self, sphere: int) -> int:
        """Return the permit that a sphere holds, or -1."""
        for permit in range(self.count):
            if self._words.load(permit * STRIDE) == sphere + 1:
                return permit
        return -1

    def holders(self) -> list[int]:
        """Return the sphere that holds each permit, -1 where it is free."""
        return [self._words.load(p * STRIDE) - 1 for p in range(self.count)]

    def free_count(self) -> int:
        """Return how many permits are free."""
        return self.holders().count(-1)
