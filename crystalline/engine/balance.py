"""Which symmetry position each sphere begins with, by how fast each of them is.

A sphere does the work of its home first, then that of the positions behind it, in cyclic order.
So the spheres cut the circle of positions into arcs, from each home up to the next; with arcs that
fit their speeds all are done at about the same time, and little is left to steal.  Nothing of this
changes what is computed.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping

from crystalline.engine import board as b
from crystalline.engine.board import Board
from crystalline.engine.obeying import RefusedError
from crystalline.engine.tree import LEAF, Tree
from crystalline.ipc.positions import POSITIONS


def rebalance(board: Board) -> str:
    """Give the leaves of a tree homes by their paces; tell how even it was, and is.

    Raises `RefusedError` where nothing has been measured.
    """
    tree = Tree(board)
    leaves = {
        row: tree.word(row, b.S_PACE_NS) for row in tree.rows() if tree.word(row, b.S_ROLE) == LEAF
    }
    measured = [pace for pace in leaves.values() if pace]
    if not measured:
        raise RefusedError("no sphere has been measured yet", advice="Ask after some steps.")
    usual = statistics.median(measured)  # of those that have not had their turn yet
    paces = {row: pace or usual for row, pace in leaves.items()}
    homes, now = homes_of(paces), {}
    for row in leaves:
        home = tree.word(row, b.S_HOME)
        now[row] = home - 1 if home else tree.word(row, b.S_GROUP)
    before, after = balance(now, paces), balance(homes, paces)
    if after >= before:
        return f"the slowest takes {before:.2f} of the mean, and nothing would be better"
    for row, home in homes.items():
        tree.put(row, b.S_HOME, home + 1)
    return f"the slowest takes {after:.2f} of the mean, and took {before:.2f} before"


def forget_homes(board: Board) -> None:
    """Let spheres prefer what their place says: they were given homes among others."""
    tree = Tree(board)
    for row in range(board.rows):
        tree.put(row, b.S_HOME, 0)


def homes_of(paces: Mapping[int, float]) -> dict[int, int]:
    """Return the home of each sphere; `paces` are the times that each needs for a position's work.

    Where there are more spheres than positions, those that share one are as fast together as those
    of any other.

    >>> homes_of({0: 1.0, 1: 1.0, 2: 1.0}), homes_of({0: 1.0, 1: 5.0})
    ({0: 0, 1: 4, 2: 8}, {0: 0, 1: 10})
    """
    if len(paces) > POSITIONS:
        return _shared_homes(paces)
    lengths = dict.fromkeys(paces, 1)
    for _ in range(POSITIONS - len(paces)):
        quickest = min(paces, key=lambda sphere: ((lengths[sphere] + 1) * paces[sphere], sphere))
        lengths[quickest] += 1
    homes, start = {}, 0
    for sphere in sorted(paces):
        homes[sphere] = start
        start += lengths[sphere]
    return homes


def balance(homes: Mapping[int, int], paces: Mapping[int, float]) -> float:
    """Return how uneven the times are that the arcs take: the longest over the mean, 1.0 is even.

    >>> balance({0: 0, 1: 6}, {0: 1.0, 1: 5.0}), balance({0: 0, 1: 10}, {0: 1.0, 1: 5.0})
    (1.6666666666666667, 1.0)
    """
    speeds: dict[int, float] = defaultdict(float)
    for sphere, home in homes.items():
        speeds[home] += 1 / paces[sphere]
    starts = sorted(speeds)
    ends = [*starts[1:], starts[0] + POSITIONS]
    times = [(end - start) / speeds[start] for start, end in zip(starts, ends, strict=True)]
    return max(times) / statistics.fmean(times)


def _shared_homes(paces: Mapping[int, float]) -> dict[int, int]:
    speeds = [0.0] * POSITIONS
    homes = {}
    for sphere in sorted(paces, key=lambda sphere: (paces[sphere], sphere)):
        homes[sphere] = speeds.index(min(speeds))
        speeds[homes[sphere]] += 1 / paces[sphere]
    return homes
