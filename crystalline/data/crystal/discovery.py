"""Root discovery: the morphology found again, with what a model has learned as evidence.

The affix analysis asks how close two tokens are; here that is the cosine of their embeddings.
Derivations that only look alike (a false friend) fall apart, those that spelling alone was not
enough for are found, and all numbers are given out anew in one batch.  A pure function of the
crystal and the embeddings, with the same bits on any machine: sums are taken in a fixed tree of
single additions, never by a library whose order depends on the processor.

When it is asked for, and what follows from a change, is the engine's business.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from crystalline.data.crystal.affixes import find_derivations
from crystalline.data.crystal.tokens import Crystal

_ROWS = 1 << 12  # taken at a time

_Float64 = npt.NDArray[np.float64]


class Closeness:
    """The cosines of pairs of tokens, from embeddings of shape (V, C).

    The mean of all embeddings is taken off first: it is common to all tokens, and would make
    any two of them close.

    >>> closeness = Closeness(np.array([[3, 0], [1, 2], [1, 1], [-5, -3]], np.float32))
    >>> closeness(np.array([0, 0]), np.array([0, 3])).round(3)
    array([ 1.   , -0.857])
    """

    def __init__(self, embeddings: npt.NDArray[np.float32]) -> None:
        n = len(embeddings)
        blocks = [_tree_sum(self._block(embeddings, start)) for start in range(0, n, _ROWS)]
        self._mean = _tree_sum(np.stack(blocks)) / n
        self._embeddings = embeddings
        norms = [
            np.sqrt(_tree_sum(np.square(self._block(embeddings, start) - self._mean).T))
            for start in range(0, n, _ROWS)
        ]
        self._norms = np.concatenate(norms)  # (V,)

    @staticmethod
    def _block(embeddings: npt.NDArray[np.float32], start: int) -> _Float64:
        return embeddings[start : start + _ROWS].astype(np.float64)

    def __call__(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> _Float64:
        """Return the cosine of each pair of tokens, float64 in [-1, 1]; 0 for a zero vector."""
        cosines = np.zeros(len(first), np.float64)
        for start in range(0, len(first), _ROWS):
            part = slice(start, start + _ROWS)
            a, b = first[part], second[part]
            x, y = (self._embeddings[tokens].astype(np.float64) - self._mean for tokens in (a, b))
            scale = self._norms[a] * self._norms[b]
            np.divide(_tree_sum((x * y).T), scale, out=cosines[part], where=scale > 0)
        return np.clip(cosines, -1.0, 1.0)


class Changes(NamedTuple):
    """What a remap changed, beside the numbers themselves.

    >>> print(Changes(((7, 7, 3),), gained=("-ing",), lost=()))
    1 token has another root; gained -ing
    """

    rooted: tuple[tuple[int, int, int], ...]  # (token, its root before, its root now)
    gained: tuple[str, ...]  # affixes
    lost: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.rooted)
        tokens = "1 token has" if count == 1 else f"{count:,} tokens have"
        parts = [f"{tokens} another root"]
        parts += [
            f"{verb} {', '.join(affixes)}"
            for verb, affixes in (("gained", self.gained), ("lost", self.lost))
            if affixes
        ]
        return "; ".join(parts)


def discover(crystal: Crystal, embeddings: npt.NDArray[np.float32]) -> Crystal:
    """Return the crystal that spelling, counts and the learned embeddings (V, C) speak for.

    One of the next generation, with new numbers, or the very object that was given where
    nothing changed.  The same arguments give the same bits on any machine.

    Raises `ValueError` for embeddings of another vocabulary, or that are not finite.
    """
    if embeddings.ndim != 2 or len(embeddings) != crystal.vocab_size:
        raise ValueError(
            f"embeddings of shape {embeddings.shape} are not of {crystal.vocab_size} tokens"
        )
    if not np.isfinite(embeddings).all():
        raise ValueError("the embeddings are not finite")
    found = find_derivations(crystal.texts, crystal.counts, closeness=Closeness(embeddings))
    remapped = Crystal.of(crystal.texts, crystal.counts, found, generation=crystal.generation + 1)
    return crystal if _same_morphology(crystal, remapped) else remapped


def changes(old: Crystal, new: Crystal) -> Changes:
    """Return what tells two crystals of one vocabulary apart."""
    tokens = np.flatnonzero(old.root != new.root)
    rows = (tokens.tolist(), old.root[tokens].tolist(), new.root[tokens].tolist())
    before, now = set(old.affixes), set(new.affixes)
    return Changes(
        tuple(zip(*rows, strict=True)),
        tuple(str(affix) for affix in new.affixes if affix not in before),
        tuple(str(affix) for affix in old.affixes if affix not in now),
    )


def _same_morphology(old: Crystal, new: Crystal) -> bool:
    return (
        old.affixes == new.affixes
        and np.array_equal(old.parent, new.parent)
        and np.array_equal(old.affix, new.affix)
    )


def _tree_sum(rows: _Float64) -> _Float64:
    """Return the sum over the first axis by halving it: the order depends on its length only."""
    while len(rows) > 1:
        half = len(rows) // 2
        rows = np.concatenate([rows[:half] + rows[half : 2 * half], rows[2 * half :]])
    total: _Float64 = rows[0]
    return total
