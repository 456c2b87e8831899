"""The shape of the tree of spheres: which node is whose child, and at which position.

A shape is a list of places, parents before their children, so that it can be spawned from first to
last.  Leaves compute; a node that has children computes nothing.  What is wanted is given as a
number of leaves and of levels, or as a text with the number of nodes in each level below Node Zero:
"12" is flat, "3+9" has three controls with three leaves each, "12+144" is full.

The shape changes who works and never what comes of it: the bits of a run are the same for all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from crystalline.engine.geometry import Path, group
from crystalline.errors import UsageError
from crystalline.ipc.positions import POSITIONS

NODE_ZERO = -1  # as the parent of a node
MOST_LEVELS = 3  # below Node Zero
MOST_NODES: int = sum(POSITIONS**level for level in range(1, MOST_LEVELS + 1))  # 1,884
MOST_FLAT = 63  # children of Node Zero where they are all leaves

# What a user may say of the levels below Node Zero; with "auto" the tree begins flat, and grows.
Depth = Literal["1", "2", "3", "auto"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
AUTO = DEPTHS[-1]
_USUAL_ROWS = 256

# A node's way down from Node Zero as places among siblings: its path, but that the children of
# Node Zero in a flat tree are all told apart, however many there are.
Places = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A node's place in the tree."""

    parent: int  # its place in the list, or NODE_ZERO
    path: Path  # the positions on the way down from Node Zero

    @property
    def level(self) -> int:
        """1 for the children of Node Zero."""
        return len(self.path)

    @property
    def position(self) -> int:
        """0 to 11, among its siblings."""
        return self.path[-1]

    @property
    def group(self) -> int:
        """The symmetry group whose work it prefers."""
        return group(self.path)


Shape = tuple[Place, ...]


def shape_of(wanted: int | str, depth: int = 1) -> Shape:
    """Return the shape for so many leaves in at most `depth` levels, or for the sizes of levels.

    >>> [(node.parent, node.path) for node in shape_of("2+3")]
    [(-1, (0,)), (-1, (1,)), (0, (0, 0)), (0, (0, 1)), (1, (1, 1))]
    >>> shape_of(9, 2) == shape_of("3+9"), len(shape_of(144, 2)), len(shape_of(63))
    (True, 156, 63)

    Raises:
        UsageError: there can be no such tree.
    """
    sizes = level_sizes(wanted, depth) if isinstance(wanted, int) else _sizes_in(wanted)
    parents = [NODE_ZERO] * sizes[0]
    first = 0  # of the level above
    for above, size in pairwise(sizes):
        parents += [first + child * above // size for child in range(size)]
        first += above
    return placed(parents)


def places_of(shape: Shape) -> frozenset[Places]:
    """Return the nodes of a shape.

    >>> sorted(places_of(shape_of("2+2"))), len(places_of(shape_of(63)))
    ([(0,), (0, 0), (1,), (1, 0)], 63)
    """
    if all(node.parent == NODE_ZERO for node in shape):
        return frozenset((place,) for place in range(len(shape)))
    return frozenset(node.path for node in shape)


def most_leaves(depth: Depth) -> int:
    """Return how many leaves there can be with `--recursive-depth` so.

    >>> [most_leaves(depth) for depth in DEPTHS]
    [63, 144, 1728, 63]
    """
    levels = first_levels(depth)
    full: int = POSITIONS**levels
    return MOST_FLAT if levels == 1 else full


def first_levels(depth: Depth) -> int:
    """Return the levels that a tree has at first; with "auto" it begins flat, and may grow."""
    return 1 if depth == AUTO else int(depth)


def most_levels(depth: Depth) -> int:
    """Return the levels that a tree may come to have."""
    return MOST_LEVELS if depth == AUTO else int(depth)


def rows_of(leaves: int, depth: Depth) -> int:
    """Return for how many nodes there shall be room, of a tree that begins with so many leaves.

    A full tree has room in two levels; in three, twice of what there is at first.

    >>> rows_of(12, "1"), rows_of(12, "2"), rows_of(12, "3"), rows_of(1728, "3"), rows_of(12, AUTO)
    (63, 156, 256, 1884, 256)
    """
    if depth == "1":
        return MOST_FLAT
    if depth == "2":
        return POSITIONS + POSITIONS**2
    return min(MOST_NODES, max(_USUAL_ROWS, 2 * len(shape_of(leaves, first_levels(depth)))))


def level_sizes(leaves: int, depth: int) -> list[int]:
    """Return how many nodes each level has, the leaves last: even, and from each level to the
    next by about the same factor.

    A control has two children at least, since with one it would only stand in its way: few leaves
    have fewer levels than there may be.

    >>> level_sizes(9, 2), level_sizes(12, 2), level_sizes(144, 2), level_sizes(3, 2)
    ([3, 9], [3, 12], [12, 144], [3])

    Raises:
        UsageError: so many leaves have no place in so many levels.
    """
    if not 1 <= leaves <= MOST_NODES:
        raise UsageError(
            f"the tree shall have {leaves} leaves", advice=f"It can have 1 to {MOST_NODES}."
        )
    if not 1 <= depth <= MOST_LEVELS:
        raise UsageError(
            f"the tree shall have {depth} levels below Node Zero",
            advice=f"It can have 1 to {MOST_LEVELS}.",
        )
    while depth > 1 and leaves < 2**depth:
        depth -= 1
    if depth == 1 and leaves > MOST_FLAT:
        raise UsageError(
            f"{leaves} leaves have no place in one level",
            advice=f"Ask for at most {MOST_FLAT}, or for another level.",
        )
    sizes = [leaves]
    for level in range(depth - 1, 0, -1):
        sizes.append(max(-(-sizes[-1] // POSITIONS), _root(leaves**level, depth)))
    if depth > 1 and sizes[-1] > POSITIONS:
        raise UsageError(
            f"{leaves} leaves have no place in {depth} levels of {POSITIONS} children a node",
            advice=f"Ask for at most {POSITIONS**depth}, or for another level.",
        )
    return sizes[::-1]


def placed(parents: Sequence[int]) -> Shape:
    """Return the places of nodes whose parents are given, by place in the list.

    Children of Node Zero take the positions in turn, round and round where there are more than
    twelve of them, all leaves.  The others take positions as `free_positions` says.

    Raises:
        UsageError: a node has more children than there are positions; or there are too many
            levels or nodes.
    """
    if not 1 <= len(parents) <= MOST_NODES:
        raise UsageError(
            f"the tree shall have {len(parents)} nodes below Node Zero",
            advice=f"It can have 1 to {MOST_NODES}, controls among them.",
        )
    controls = set(parents) - {NODE_ZERO}
    leaves: Counter[int] = Counter()  # by group
    taken: defaultdict[int, list[int]] = defaultdict(list)  # positions, by parent
    shape: list[Place] = []
    # Those of the first level do not choose: count them before the others do.
    paths: dict[int, Path] = {}
    for node, parent in enumerate(parents):
        if parent == NODE_ZERO:
            paths[node] = (len(paths) % POSITIONS,)
            if node not in controls:
                leaves[paths[node][0]] += 1
    if controls and len(paths) > POSITIONS:
        raise _too_many_children("Node Zero", len(paths))
    for node, parent in enumerate(parents):
        if not NODE_ZERO <= parent < node:
            raise ValueError(f"node {node} has parent {parent}: parents come first")
        if parent != NODE_ZERO:
            above = shape[parent].path
            if len(above) == MOST_LEVELS:
                raise UsageError(
                    f"the tree shall have {MOST_LEVELS + 1} levels below Node Zero",
                    advice=f"It can have 1 to {MOST_LEVELS}.",
                )
            if len(taken[parent]) == POSITIONS:
                raise _too_many_children(f"node {parent}", list(parents).count(parent))
            (position,) = free_positions(above, 1, leaves, taken[parent])
            taken[parent].append(position)
            paths[node] = (*above, position)
            if node not in controls:
                leaves[group(paths[node])] += 1
        shape.append(Place(parent, paths[node]))
    return tuple(shape)


def free_positions(
    path: Path, count: int, leaves: Counter[int], taken: Collection[int] = ()
) -> list[int]:
    """Return positions for `count` more children of a node, none of them `taken`.

    They are those of the groups that have the fewest of the `leaves` that there are already, so
    that every group has leaves of its own as far as there are leaves; ties go by position.

    >>> free_positions((1,), 3, Counter({0: 1, 1: 1, 2: 1}))
    [2, 3, 4]
    """
    leaves = leaves.copy()
    chosen: list[int] = []
    for _ in range(count):
        free = [k for k in range(POSITIONS) if k not in taken and k not in chosen]
        chosen.append(min(free, key=lambda k: leaves[group((*path, k))]))
        leaves[group((*path, chosen[-1]))] += 1
    return chosen


def _sizes_in(text: str) -> list[int]:
    parts = text.split("+")
    if not all(part.isascii() and part.isdecimal() and int(part[:9]) > 0 for part in parts):
        raise UsageError(
            f"{text[:40]!r} is no shape of a tree",
            advice="Give the number of nodes in each level below Node Zero, as in 3+9 or 12+144.",
        )
    if len(parts) > MOST_LEVELS:
        raise UsageError(
            f"the tree {text[:40]!r} has {len(parts)} levels below Node Zero",
            advice=f"It can have 1 to {MOST_LEVELS}.",
        )
    sizes = [int(part[:9]) for part in parts]
    if sum(sizes) > MOST_NODES:
        raise UsageError(
            f"the tree {text[:40]!r} has more than {MOST_NODES} nodes below Node Zero",
            advice="Ask for fewer: controls count as leaves do.",
        )
    return sizes


def _too_many_children(who: str, count: int) -> UsageError:
    return UsageError(
        f"{who} shall have {count} children in a tree of several levels",
        advice=f"Give it at most {POSITIONS}.",
    )


def _root(number: int, degree: int) -> int:
    """Return the largest integer whose power of that degree is at most `number`."""
    root = 0
    while (root + 1) ** degree <= number:
        root += 1
    return root
