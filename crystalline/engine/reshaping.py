"""Changes of the tree of spheres that somebody asks for: which there can be, and their shape.

    spawn ROW N       the leaf in ROW gets N children, and becomes their control
    terminate ROW     the node in ROW goes, and all below it; a control without children computes

Pure: a shape goes in, as the paths of its nodes (`engine.shape`), and the one that is wanted
comes out.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from crystalline.engine.obeying import RefusedError
from crystalline.engine.shape import Places
from crystalline.ipc.barrier import POSITIONS


def spawned(
    shape: AbstractSet[Places], node: Places, count: int, *, levels: int, room: int
) -> frozenset[Places]:
    """Return the shape in which a leaf has `count` children.

    The tree may have `levels` levels, and `room` more nodes.

    >>> sorted(spawned({(0,), (1,)}, (1,), 2, levels=2, room=9))
    [(0,), (1,), (1, 0), (1, 1)]

    Raises:
        RefusedError: there can be no such tree.
    """
    if levels == 1:
        raise RefusedError(
            "the tree of this run is flat", advice="Resume it with --recursive-depth 2 or 3."
        )
    if any(other[:-1] == node for other in shape):
        raise RefusedError("it has children already", advice="Name a sphere that computes.")
    if len(node) >= levels:
        raise RefusedError(
            f"it stands in the last of {levels} levels", advice="Name a sphere above it."
        )
    if not 1 <= count <= POSITIONS:
        raise RefusedError(
            f"{count} children were asked for", advice=f"A sphere can have 1 to {POSITIONS}."
        )
    if count > room:
        raise RefusedError(
            f"there is room for {room} more spheres", advice="Ask for fewer, or end others."
        )
    return frozenset(shape) | {(*node, place) for place in range(count)}


def terminated(shape: AbstractSet[Places], node: Places) -> frozenset[Places]:
    """Return the shape without a node and all below it.

    >>> sorted(terminated({(0,), (1,), (1, 0), (1, 1)}, (1,)))
    [(0,)]

    Raises:
        RefusedError: nothing would be left.
    """
    left = frozenset(other for other in shape if other[: len(node)] != node)
    if not left:
        raise RefusedError("it is the last sphere", advice="End the run with: stop.")
    return left
