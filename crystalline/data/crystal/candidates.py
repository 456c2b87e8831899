"""Every way in which one word of a vocabulary might derive from another: pairs, no verdict.

A suffix stands at the end of the derived word and may change the end of its parent:
parent = stem + x, derived = stem + z + affix.  The change (x, z) at the seam is nothing in
work/working, the drop of x in mak(e)/making, z the doubled last letter in run/run(n)ing,
x replaced by z in tr(y)/tr(i)es.  A prefix stands before an unchanged parent.  What is
likely and what is not is decided in `description.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LONGEST_AFFIX = 8  # letters
LONGEST_DROP = 3  # letters of the parent; the stem keeps more than that
_FEW = 20_000  # pairs: below, a change at the seam need not be seen twice

DOUBLED = "\0"  # as z: the last letter of the stem once more

Indices = npt.NDArray[np.int64]
Change = tuple[str, str]  # (x, z) of the seam


class Candidates(NamedTuple):
    """E pairs of words; an affix is (kind, text), kind "prefix" or "suffix"."""

    child: Indices  # [E] index of the derived word
    parent: Indices  # [E] index of the word it may derive from
    affix: Indices  # [E] index into `affixes`
    change: Indices  # [E] index into `changes`
    affixes: list[tuple[str, str]]
    changes: list[Change]


def find_candidates(words: Sequence[str]) -> Candidates:
    """Return all pairs of the distinct `words`, ordered by child.

    >>> found = find_candidates(["make", "making"])
    >>> [(found.affixes[a][1], found.changes[c]) for a, c in zip(found.affix, found.change)]
    [('ing', ('e', '')), ('ng', ('e', 'i'))]
    """
    pairs = _ends(words)
    if len(pairs) > _FEW:
        seen = Counter((drop, end) for _, _, drop, end in pairs)
        pairs = [pair for pair in pairs if not pair[2] or seen[pair[2:]] > 1]
    affixes: dict[tuple[str, str], int] = {}
    changes: dict[Change, int] = {("", ""): 0}
    rows: list[tuple[int, int, int, int]] = []

    def add(child: int, parent: int, affix: tuple[str, str], change: Change) -> None:
        rows.append(
            (
                child,
                parent,
                affixes.setdefault(affix, len(affixes)),
                changes.setdefault(change, len(changes)),
            )
        )

    for child, parent, drop, end in pairs:
        if not drop or drop[0] != end[0] or len(drop) == 1 < len(end):
            add(child, parent, ("suffix", end), (drop, ""))
        if not drop:
            if len(end) > 1 and end[0] == words[parent][-1]:
                add(child, parent, ("suffix", end[1:]), ("", DOUBLED))
        elif drop[0] != end[0]:
            for length in range(1, min(len(drop), 2, len(end) - 1) + 1):
                add(child, parent, ("suffix", end[length:]), (drop, end[:length]))
    index = {word: place for place, word in enumerate(words)}
    for child, word in enumerate(words):
        for length in range(1, min(LONGEST_AFFIX, len(word) - 1) + 1):
            parent = index.get(word[length:], -1)
            if parent >= 0:
                add(child, parent, ("prefix", word[:length]), ("", ""))
    table = np.array(rows, np.int64).reshape(len(rows), 4)
    table = table[np.argsort(table[:, 0], kind="stable")]
    child_, parent_, affix_, change_ = np.ascontiguousarray(table.T)
    return Candidates(child_, parent_, affix_, change_, list(affixes), list(changes))


def _ends(words: Sequence[str]) -> list[tuple[int, int, str, str]]:
    """Return (child, parent, what the parent ends in, what the child ends in) for suffixes."""
    whole: dict[str, int] = {}
    stems: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for place, word in enumerate(words):
        whole[word] = place
        for length in range(1, min(LONGEST_DROP, (len(word) - 1) // 2) + 1):
            stems[word[:-length]].append((place, word[-length:]))
    found = []
    for child, word in enumerate(words):
        for cut in range(max(1, len(word) - LONGEST_AFFIX), len(word)):
            stem, end = word[:cut], word[cut:]
            parent = whole.get(stem)
            if parent is not None:
                found.append((child, parent, "", end))
            for parent, drop in stems.get(stem, ()):
                if parent != child:
                    found.append((child, parent, drop, end))
    return found
