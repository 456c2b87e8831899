"""Which token of a vocabulary derives from which, and by which affix.

The first step: suffixes that at least three tokens have in common.  Choosing affixes by
description length, prefixes and capitals are to come in their own files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Closeness = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[np.float64]]

_SHORTEST_STEM = 3
_LONGEST_SUFFIX = 4
_LEAST_PAIRS = 3
_LEAST_CLOSENESS = 0.2


@dataclass(frozen=True)
class Affix:
    """What a derived token has and its parent has not.

    >>> print(Affix("un", "prefix"), Affix("ing", "suffix"), Affix("Aa", "case"))
    un- -ing Aa
    """

    text: str
    kind: Literal["prefix", "suffix", "case"]

    def __str__(self) -> str:
        if self.kind == "case":
            return "Aa"
        return f"{self.text}-" if self.kind == "prefix" else f"-{self.text}"


@dataclass(frozen=True)
class Derivations:
    """A forest over the tokens of a vocabulary."""

    parent: npt.NDArray[np.int32]  # [V] what a token derives from directly; its own id for roots
    affix: npt.NDArray[np.int32]  # [V] index into affixes; -1 for roots
    affixes: tuple[Affix, ...]  # most frequent first


def find_derivations(
    texts: Sequence[str | None],
    counts: npt.NDArray[np.int64],
    *,
    closeness: Closeness | None = None,
) -> Derivations:
    """Return the derivations of a vocabulary; None in `texts` is never derived.

    >>> texts = ["walk", "talk", "cook", "walking", "talking", "cooking"]
    >>> find_derivations(texts, np.ones(6, np.int64)).parent
    array([0, 1, 2, 0, 1, 2], dtype=int32)
    """
    ids = {text: token for token, text in enumerate(texts) if text is not None}
    pairs: dict[Affix, list[tuple[int, int]]] = defaultdict(list)
    for text, token in ids.items():
        for length in range(1, _LONGEST_SUFFIX + 1):
            stem, ending = text[:-length], text[-length:]
            if len(stem.strip()) < _SHORTEST_STEM or stem not in ids or not ending.isalpha():
                continue
            pair = np.array([token]), np.array([ids[stem]])
            if closeness is None or float(closeness(*pair)[0]) >= _LEAST_CLOSENESS:
                pairs[Affix(ending, "suffix")].append((token, ids[stem]))
                break
    kept = {affix: found for affix, found in pairs.items() if len(found) >= _LEAST_PAIRS}
    weight = {affix: sum(int(counts[token]) for token, _ in kept[affix]) for affix in kept}
    affixes = tuple(sorted(kept, key=lambda affix: (-weight[affix], affix.text)))
    parent = np.arange(len(texts), dtype=np.int32)
    index = np.full(len(texts), -1, np.int32)
    for place, affix in enumerate(affixes):
        for token, stem_token in kept[affix]:
            parent[token], index[token] = stem_token, place
    return Derivations(parent, index, affixes)
