"""When a leaf becomes a control and when a control becomes a leaf again: a pure function.

`plan` looks at the tree, at the load and at the limits, and says what to do; what it must
remember from one look to the next it takes and returns.  Node Zero calls it about once a second,
between steps, and does what it says.  All thresholds are the constants below.

A leaf is expanded when work waits in a queue that is long enough, permits and processor time are
free for more leaves, and memory is there for more processes.  Children are given up again when
there has been little work for a while, when they do nothing, or when memory is short.  Between the
two lie a factor of two in the queue, some memory, and half a minute: the tree does not breathe.

    >>> three = [Node(row, NODE_ZERO, 1, row, is_leaf=True) for row in range(3)]
    >>> load = Load(now_s=10, units=12, cpu_share=0.7, free_bytes=8 << 30, total_bytes=16 << 30,
    ...             node_bytes=30 << 20)
    >>> plan(three, load, Limits(levels=2, permits=4)).actions
    [Spawn(row=0, positions=(0, 3, 4), reason='4.0 units wait for each leaf')]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from crystalline.engine.geometry import Path, group
from crystalline.engine.shape import MOST_NODES, NODE_ZERO, free_positions
from crystalline.ipc.positions import POSITIONS

LOOK_S = 1.0  # seconds between two looks at least

# To expand, all of these must hold.
LONG_QUEUE = 2.0  # units that wait for each leaf at Point A, at least
BUSY_CPU = 0.90  # of the machine's processor time in the last 5 s, at most
NEW_MEMORY = 0.80  # of the free memory, at most, for the new processes
KEPT_MEMORY = 0.15  # of the machine's memory, at least, is free afterwards
CALM_S = 30.0  # since children were given up
BUSY_WATCH = 0.05  # of a core: how much the parent's watch over its children may take at most
# A control does not compute: with one child nothing is gained, and with two a leaf for the price
# of two processes.  Where fewer permits are free, those that are too many take turns.
FEWEST_CHILDREN = 3
UNITS_PER_LEAF = 1  # that the queue must hold for each leaf that there will be

# To collapse, one of these is enough.
SHORT_QUEUE = LONG_QUEUE / 2  # units for each leaf; below it for ...
SHORT_QUEUE_S = 30.0
IDLE_CHILDREN = 0.90  # of the last 30 s; above it for all children
LOW_MEMORY = 0.10  # of the machine's memory is free; below it


@dataclass(frozen=True)
class Node:
    """What the policy knows of a sphere."""

    row: int
    parent: int  # its row, or NODE_ZERO
    level: int  # 1 for the children of Node Zero
    position: int  # 0 to 11, among its siblings
    is_leaf: bool
    idle_share: float = 0.0  # of the last 30 s, in which it did nothing; 0 for one that is younger
    watch_share: float = 0.0  # of a core, which a control spends on watching its children


@dataclass(frozen=True)
class Load:
    """How much there is to do, what it is done with, and what the user wants."""

    now_s: float  # of a clock that only grows
    units: int  # at Point A, which nobody has claimed
    cpu_share: float  # of the whole machine's processor time, by whomever, in the last 5 s
    free_bytes: int  # memory
    total_bytes: int
    node_bytes: int  # memory of one process's own, as measured
    watch_share: float = 0.0  # of a core, which Node Zero spends on watching its children
    asked: frozenset[int] = frozenset()  # rows of controls whose children shall go
    ending: bool = False  # the run is at its end


@dataclass(frozen=True)
class Limits:
    """What the tree may come to."""

    levels: int  # below Node Zero
    permits: int  # nodes that may compute at one time
    nodes: int = MOST_NODES


@dataclass(frozen=True)
class Spawn:
    """Make a leaf the control of new children at these positions."""

    row: int
    positions: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Collapse:
    """End all that is below a control, which then is a leaf again."""

    row: int
    reason: str


@dataclass(frozen=True)
class Seen:
    """What is remembered from one look to the next."""

    looked_s: float = -math.inf
    short_since_s: float | None = None  # when the queue was first short, of the looks in a row
    collapsed_s: float = -math.inf  # when children were given up last


_NOTHING = Seen()


@dataclass(frozen=True)
class Plan:
    """What to do, in this order, and what to give to the next call of `plan`."""

    actions: list[Spawn | Collapse]
    seen: Seen


def plan(nodes: Sequence[Node], load: Load, limits: Limits, seen: Seen = _NOTHING) -> Plan:
    """Return what to do with the tree now; nothing when the last look was less than a second ago.

    `nodes` are those that work or control, without any that are leaving.
    """
    controls = [node for node in nodes if not node.is_leaf]
    if load.ending:
        top = [node for node in controls if node.level == 1]
        return Plan([Collapse(node.row, "the run ends") for node in top], seen)
    asked = [node for node in controls if node.row in load.asked]
    if asked:
        wanted = [Collapse(node.row, "it was asked for") for node in asked]
        return Plan(list(wanted), replace(seen, collapsed_s=load.now_s))
    if load.now_s - seen.looked_s < LOOK_S:
        return Plan([], seen)
    leaves = sum(node.is_leaf for node in nodes)
    short_since_s = None
    if load.units < SHORT_QUEUE * leaves:
        short_since_s = load.now_s if seen.short_since_s is None else seen.short_since_s
    collapses = _collapses(nodes, load, short_since_s)
    if collapses:  # the tree is another: its queue is looked at anew
        return Plan(list(collapses), Seen(load.now_s, None, load.now_s))
    calm = load.now_s - seen.collapsed_s >= CALM_S
    spawns = _spawns(nodes, load, limits) if calm else []
    return Plan(list(spawns), Seen(load.now_s, short_since_s, seen.collapsed_s))


def obstacle(node: Node, nodes: Sequence[Node], limits: Limits) -> str | None:
    """Return why a node can have no children, whatever the load, or None.

    >>> leaf = Node(0, NODE_ZERO, 1, 0, is_leaf=True)
    >>> obstacle(leaf, [leaf], Limits(levels=1, permits=4))
    'the tree may have 1 level'
    """
    if not node.is_leaf:
        return "it has children already"
    if node.level >= limits.levels:
        return f"the tree may have {limits.levels} level{'s' * (limits.levels > 1)}"
    if sum(n.parent == node.parent and n.position == node.position for n in nodes) > 1:
        return "another node has its position"  # Node Zero has more than twelve children
    if len(nodes) + FEWEST_CHILDREN > limits.nodes:
        return f"there are {len(nodes)} nodes, and there may be {limits.nodes}"
    return None


def _spawns(nodes: Sequence[Node], load: Load, limits: Limits) -> list[Spawn]:
    """Return which leaves to expand: the highest first, of these the busiest."""
    leaves = [node for node in nodes if node.is_leaf]
    if not leaves or load.units < LONG_QUEUE * len(leaves) or load.cpu_share > BUSY_CPU:
        return []
    by_row = {node.row: node for node in nodes}
    groups = Counter(group(_path(leaf, by_row)) for leaf in leaves)
    reason = f"{load.units / len(leaves):.1f} units wait for each leaf"
    working, count = len(leaves), len(nodes)
    memory = min(NEW_MEMORY * load.free_bytes, load.free_bytes - KEPT_MEMORY * load.total_bytes)
    spawns = []
    for leaf in sorted(leaves, key=lambda n: (n.level, n.idle_share, n.position, n.row)):
        watch = by_row[leaf.parent].watch_share if leaf.parent != NODE_ZERO else load.watch_share
        if watch > BUSY_WATCH or obstacle(leaf, nodes, limits) is not None:
            continue
        if working >= limits.permits:
            break
        new = min(
            POSITIONS,
            max(limits.permits - working + 1, FEWEST_CHILDREN),  # the leaf's own becomes free
            load.units // UNITS_PER_LEAF - (working - 1),
            limits.nodes - count,
            int(memory // max(1, load.node_bytes)),
        )
        if new < FEWEST_CHILDREN:
            break
        path = _path(leaf, by_row)
        groups[group(path)] -= 1  # it is no leaf any more
        positions = free_positions(path, new, groups)
        groups.update(group((*path, position)) for position in positions)
        spawns.append(Spawn(leaf.row, tuple(positions), reason))
        working += new - 1
        count += new
        memory -= new * load.node_bytes
    return spawns


def _collapses(nodes: Sequence[Node], load: Load, short_since_s: float | None) -> list[Collapse]:
    """Return which controls shall lose their children, all of which are leaves.

    Where memory or work is short it is one at a time, the lowest first and of these the one whose
    children do least: the next look tells what came of it.
    """
    children: dict[int, list[Node]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    idle = {
        node.row: min(child.idle_share for child in children[node.row])
        for node in nodes
        if node.row in children and all(child.is_leaf for child in children[node.row])
    }
    by_row = {node.row: node for node in nodes}
    order = sorted(idle, key=lambda row: (-by_row[row].level, -idle[row], row))
    if not order:
        return []
    if load.free_bytes < LOW_MEMORY * load.total_bytes:
        return [Collapse(order[0], f"{load.free_bytes / 1e6:.0f} MB of memory are free")]
    if short_since_s is not None and load.now_s - short_since_s >= SHORT_QUEUE_S:
        return [Collapse(order[0], f"{load.units} units wait for all leaves")]
    return [
        Collapse(row, "its children have nothing to do")
        for row in order
        if idle[row] > IDLE_CHILDREN
    ]


def _path(node: Node, by_row: Mapping[int, Node]) -> Path:
    path: Path = (node.position,)
    while node.parent != NODE_ZERO:
        node = by_row[node.parent]
        path = (node.position, *path)
    return path
