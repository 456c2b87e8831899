"""From whom a leaf takes work when its own is done.

The work of a phase lies in twelve queues, one for each symmetry position (`Barrier.queue`).  A leaf
works from that of its group.  Then it looks at the queues of its siblings in contact, of its other
siblings and of all others, nearest first (`geometry.steal_order`), and takes from the longest
among the nearest that have something to be taken.

    >>> tiers = queues((0,), [(0,), (1,), (6,)])
    >>> [[queue.position for queue in tier] for tier in tiers]
    [[1], [6], [2, 3, 4, 5, 7, 8, 9, 10, 11]]
    >>> victim(tiers, lambda position: {1: 1, 6: 4, 7: 9}.get(position, 0))
    Queue(position=6, owner=2)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from crystalline.engine.geometry import Path, group, siblings_in_contact, steal_order
from crystalline.ipc.positions import POSITIONS

LEAST = 2  # units of which half can be taken


class Queue(NamedTuple):
    """The units of a symmetry position."""

    position: int
    owner: (
        int  # who is robbed, as a place in the list of leaves: the nearest of its group; -1: none
    )


Tiers = tuple[tuple[Queue, ...], ...]


def queues(path: Path, leaves: Sequence[Path]) -> Tiers:
    """Return the queues of others for a leaf, in tiers: of siblings in contact, of other siblings,
    of the rest; in each the nearest first, and last those of groups without a leaf.

    It depends on the shape of the tree only, so it is asked for once when that changes.
    """
    tiers: tuple[list[Queue], ...] = ([], [], [])
    found = {group(path)}
    near = siblings_in_contact(path[-1])
    for place in steal_order(path, leaves):
        other = leaves[place]
        position = group(other)
        if position in found:
            continue
        found.add(position)
        sibling = other[:-1] == path[:-1]
        tier = 2 if not sibling else 0 if other[-1] in near else 1
        tiers[tier].append(Queue(position, place))
    tiers[2].extend(Queue(position, -1) for position in range(POSITIONS) if position not in found)
    return tuple(tuple(tier) for tier in tiers)


def victim(tiers: Tiers, pending: Callable[[int], int], least: int = LEAST) -> Queue | None:
    """Return the longest queue of the first tier that has one of `least` units, or None.

    `pending` gives the units of a position's queue that nobody has claimed; ties go to the nearest.
    """
    for tier in tiers:
        lengths = [pending(queue.position) for queue in tier]
        longest = max(lengths, default=0)
        if longest >= least:
            return tier[lengths.index(longest)]
    return None
