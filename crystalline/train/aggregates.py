"""What the figures of the spheres come to: by symmetry position, by level, and as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from crystalline.ipc.positions import POSITIONS
from crystalline.train.stats import SphereStats

Key = TypeVar("Key", bound=Hashable)


def summed(
    spheres: Iterable[SphereStats], figure: str, by: Callable[[SphereStats], Key]
) -> dict[Key, float]:
    """Return the sums of a figure of spheres that `by` says belong together."""
    sums: dict[Key, float] = {}
    for sphere in spheres:
        key = by(sphere)
        sums[key] = sums.get(key, 0) + getattr(sphere, figure)
    return sums


def balance(spheres: Iterable[SphereStats]) -> float | None:
    """Return the busy time of the busiest leaf over the mean of all: 1 is even; None: none was.

    Busy is computing, reducing and updating; waiting is not.
    """
    leaves = [s for s in spheres if s.state != "control"]
    at_work = [s for s in leaves if s.state not in ("retired", "dead")]
    leaves = at_work or leaves  # of a run that is over
    busy = [s.compute_s + s.sync_s - s.wait_s for s in leaves]
    return max(busy) * len(busy) / sum(busy) if sum(busy) > 0 else None


def lanes_by_group(spheres: Iterable[SphereStats]) -> list[int]:
    """Return the lanes of each of the 12 symmetry positions, whoever computed them."""
    counts = [0] * POSITIONS
    for sphere in spheres:
        for group, lanes in enumerate(sphere.lanes_by_group):
            counts[group] += lanes
    return counts


def shares(counts: Sequence[int]) -> tuple[float, ...]:
    """Return what part each count is of all; () where there is nothing.

    >>> shares([1, 3]), shares([0, 0])
    ((0.25, 0.75), ())
    """
    total = sum(counts)
    return tuple(count / total for count in counts) if total else ()


def entropy(parts: Sequence[float]) -> float | None:
    """Return the entropy of a distribution in bits; None where there is none.

    >>> entropy([0.5, 0.25, 0.25, 0.0]), entropy([])
    (1.5, None)
    """
    if not parts:
        return None
    return -sum(part * math.log2(part) for part in parts if part > 0) + 0.0


def stolen(index: int, rows: Sequence[Sequence[int]], homes: Sequence[tuple[int, int]]) -> int:
    """Return the lanes of a sphere's position that spheres of other positions computed.

    `rows` are the lanes by position of all spheres, `homes` (index, position) of those that there
    are; of spheres that share a position the first has them.

    >>> rows = [[5, 1], [2, 4]]
    >>> stolen(0, rows, [(0, 0), (1, 1)]), stolen(1, rows, [(0, 0), (1, 1)])
    (2, 1)
    """
    positions = dict(homes)
    mine = positions[index]
    if index != min(other for other, position in homes if position == mine):
        return 0
    return sum(rows[other][mine] for other, position in homes if position != mine)
