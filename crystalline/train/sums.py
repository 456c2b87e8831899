"""The tree of sums over the lanes of a step, and where its nodes are kept while lanes finish.

The tree is fixed by the number of lanes: neighbors are paired, an odd one at the end moves up,
first within each twelve lanes and then over the twelves, so that the sum of a twelve, or of a power
of two of them, is a node (a *joint*) that a part of the machine can hand up.  Its leaves here are
units of lanes that are computed into one buffer.

    direct     every leaf has a buffer; when all are computed, one pass sums them into another
    in place   fewer buffers: who finds two sums of neighbors adds the right one to the left one,
               and the right one's buffer is free for the next leaf; the root stays in buffer 0

In place, leaves and merges are the units of one phase, in post-order, each with what it needs
done first: a merge its two sums, a leaf the merge that frees its buffer.  All of them have smaller
numbers, so the first unit that is not done can always be claimed, or is being done, or its sphere
has died and it is freed: there is always progress, however few spheres there are.  Which buffer a
unit uses is fixed beforehand as well, so there are no words to claim buffers with, and nothing to
take back from the dead but the claim, and the half-done block of a merge (`model.merge`).

    unit          FREE ──claim, when its needs are DONE──> CLAIMED ──done──> DONE
                  CLAIMED ──the sphere is dead; a merge's block is put back──> FREE
    buffer        leaf (writes all) ──> merge as left (changes) ──> … ──> merge as right (is read)
                  ──all parts of that merge DONE──> the next leaf

`tools/model_sums.py` walks all interleavings of it.  A merge is cut into parts, slices of the
buffers, so that it does not keep the others waiting where lanes end at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from crystalline.ipc.positions import POSITIONS

Tree: TypeAlias = "int | tuple[Tree, Tree]"

MOST_PARTS = 8  # of a merge
# Up to so many bytes of gradients each leaf has a buffer of its own: one pass over all of them then
# moves less memory than merges do, which counts where lanes take little time.
DIRECT_BYTES = 2**29


@dataclass(frozen=True)
class Leaf:
    """Lanes that one sphere computes in order, into one buffer."""

    lanes: range
    buffer: int


@dataclass(frozen=True)
class Merge:
    """A part of an inner node of the tree: `buffer` becomes the sum of it and `right`."""

    number: int  # among all parts of all merges
    lanes: range  # that it is then the sum of
    buffer: int
    right: int
    part: int
    parts: int

    def slice(self, size: int) -> tuple[int, int]:
        """Return the floats of buffers of `size` that it changes, whole cache lines.

        >>> Merge(0, range(2), 0, 1, 1, 2).slice(100)
        (48, 100)
        """
        first, last = (size * part // self.parts // 16 * 16 for part in (self.part, self.part + 1))
        return first, size if self.part + 1 == self.parts else last


@dataclass(frozen=True)
class Sums:
    """How the gradients of a step's lanes are summed."""

    buffers: int
    group: int  # leaves to a twelve
    units: tuple[Leaf | Merge, ...]
    needs: tuple[tuple[int, ...], ...]  # of each unit; empty where it is direct

    @property
    def is_direct(self) -> bool:
        """Whether every leaf has a buffer, which are then summed into another."""
        return not self.needs

    @property
    def merges(self) -> int:
        """Return the number of parts of merges."""
        return sum(isinstance(unit, Merge) for unit in self.units)

    def joint(self, first: int, twelves: int) -> tuple[int, tuple[int, ...]] | None:
        """Return the buffer that the sum of some twelves of lanes is in, and the units it needs.

        None where the buffers are not summed before all are there, or the sum is no node.

        >>> plan_sums(24, 1, permits=2, most_buffers=6).joint(0, 1)
        (0, (32, 33))
        """
        start = first * POSITIONS
        found = [
            (number, unit)
            for number, unit in enumerate(self.units)
            if isinstance(unit, Merge)
            and unit.lanes.start == start
            and -(-len(unit.lanes) // POSITIONS) == twelves
            and unit.lanes.stop in (start + twelves * POSITIONS, self.lanes)
        ]
        if not found:
            return None
        return found[0][1].buffer, tuple(number for number, _ in found)

    @property
    def lanes(self) -> int:
        """Return the number of lanes."""
        return max(unit.lanes.stop for unit in self.units)


def tree_over(leaves: int, group: int) -> Tree:
    """Return the tree: pairs of trees, and numbers of leaves.

    >>> tree_over(3, 12), tree_over(5, 2)
    (((0, 1), 2), (((0, 1), (2, 3)), 4))
    >>> tree_over(14, 12)[1]
    (12, 13)
    """
    groups = [range(start, min(start + group, leaves)) for start in range(0, leaves, group)]
    return _paired([_paired(list(one)) for one in groups])


def _paired(level: list[Tree]) -> Tree:
    while len(level) > 1:
        pairs: list[Tree] = list(zip(level[::2], level[1::2], strict=False))
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def least_buffers(tree: Tree) -> int:
    """Return the buffers that one sphere alone needs to sum a tree in place.

    >>> least_buffers(tree_over(12, 12)), least_buffers(tree_over(6, 6))
    (4, 3)
    """
    if isinstance(tree, int):
        return 1
    left, right = tree
    return max(least_buffers(left), 1 + least_buffers(right))


def usual_buffers(leaves: int, group: int, permits: int) -> int:
    """Return the buffers with which `permits` spheres hardly wait for one another.

    >>> usual_buffers(12, 12, 2), usual_buffers(60, 12, 2), usual_buffers(12, 12, 12)
    (5, 7, 12)
    """
    return min(leaves, least_buffers(tree_over(leaves, group)) + permits - 1)


def direct_sums(lanes: int, together: int) -> Sums:
    """Return the plan in which every leaf has a buffer."""
    leaves = tuple(
        Leaf(range(first, min(first + together, lanes)), number)
        for number, first in enumerate(range(0, lanes, together))
    )
    return Sums(len(leaves), POSITIONS // together, leaves, ())


def plan_sums(lanes: int, together: int, *, permits: int, most_buffers: int) -> Sums:
    """Return the plan with at most so many buffers, in which sums are taken in place.

    `together` lanes, which divide twelve, are computed into one buffer.

    >>> plan = plan_sums(3, 1, permits=1, most_buffers=2)
    >>> [(type(unit).__name__, unit.buffer) for unit in plan.units]
    [('Leaf', 0), ('Leaf', 1), ('Merge', 0), ('Leaf', 1), ('Merge', 0)]
    >>> plan.needs
    ((), (), (0, 1), (2,), (2, 3))

    Raises:
        ValueError: there are too few buffers even for one sphere.
    """
    group = POSITIONS // together
    leaves = -(-lanes // together)
    tree = tree_over(leaves, group)
    if most_buffers < least_buffers(tree):
        raise ValueError(f"{most_buffers} buffers are too few for {leaves} leaves")
    parts = min(permits, MOST_PARTS)
    buffers = min(most_buffers, leaves)
    # The one that has been free longest comes first: what frees it is done soonest.
    free: deque[tuple[int, tuple[int, ...]]] = deque((buffer, ()) for buffer in range(buffers))
    units: list[Leaf | Merge] = []
    needs: list[tuple[int, ...]] = []
    merges = 0
    done: list[tuple[range, int, list[tuple[int, ...]]]] = []  # lanes, buffer, units by part
    for node in _post_order(tree):
        if node is not None:
            buffer, freed_by = free.popleft()
            held = range(node * together, min((node + 1) * together, lanes))
            done.append((held, buffer, [(len(units),)] * parts))
            units.append(Leaf(held, buffer))
            needs.append(freed_by)
            continue
        (last, right, of_right), (first, left, of_left) = done.pop(), done.pop()
        held = range(first.start, last.stop)
        numbers = range(len(units), len(units) + parts)
        for part in range(parts):
            units.append(Merge(merges, held, left, right, part, parts))
            needs.append((*of_left[part], *of_right[part]))
            merges += 1
        done.append((held, left, [(number,) for number in numbers]))
        free.append((right, tuple(numbers)))
    return Sums(buffers, group, tuple(units), tuple(needs))


def _post_order(tree: Tree) -> Iterator[int | None]:
    """Yield leaves by number, and None for each inner node after its children."""
    if isinstance(tree, int):
        yield tree
        return
    for child in tree:
        yield from _post_order(child)
    yield None


def choose_sums(
    lanes: int, together: int, *, permits: int, size_bytes: int, most_buffers: int | None = None
) -> Sums:
    """Return the plan for gradients of `size_bytes`; at most so many buffers where one says so.

    >>> choose_sums(12, 1, permits=2, size_bytes=10**6).is_direct
    True
    >>> choose_sums(12, 1, permits=2, size_bytes=5 * 10**8).buffers
    5
    """
    leaves = -(-lanes // together)
    if most_buffers is None:
        if (leaves + 1) * size_bytes <= DIRECT_BYTES or leaves == 1:
            return direct_sums(lanes, together)
        most_buffers = usual_buffers(leaves, POSITIONS // together, permits)
    return plan_sums(lanes, together, permits=permits, most_buffers=most_buffers)
