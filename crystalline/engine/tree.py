"""The tree of spheres: whose child each node is, and what it does.

    Node Zero ── 12 nodes ── up to 12 each ── up to 12 each        (or up to 63 leaves, flat)

A node without children is a leaf: it computes.  A node with children is a control: it looks after
them and computes nothing.  Nodes exist only once they are forked, each by its parent; where a node
stands changes nothing of what is computed.

A row of the arena's table belongs to the parent of the node in it: the parent takes the row, writes
where the node stands, forks it, buries it and frees the row.  When a parent dies its own parent has
its rows, and its children: the kernel gives them to the nearest ancestor that asked for orphans,
as every control does.

    row free ──parent, by compare-and-swap of the id──> being written ──> taken ──fork──> at work
    at work ──it dies: its parent──> buried ──> forked anew, or free
    at work ──its parent dies──> child of its grandparent, where there is a place, else ended

    ID      0: the row is free; -2 - P: its parent, in row P, writes it; else the node's
    PID     of a process that nobody has waited for yet, so that no other has it
            0: nobody; -n: the fork with number n is under way, and who comes of it enters itself,
            unless its parent does so before, or a grandparent that wants it no more writes 0

Node Zero plans the shape: it writes into a row an order, which children the node shall have, and
the node follows it and answers, between phases.  Who hears of orders tells its children.

    ORDER   number of the order · 2¹² + the places of the children wanted, a bit each
    ANSWER  number of the order · 2¹² + 0, or the errno for which it failed

A node is named by its path, the places from Node Zero's child down: (3, 7) is child 7 of child 3.
"""

from __future__ import annotations

from collections.abc import Iterable

from crystalline.engine import board as b
from crystalline.engine.board import SPHERE_WORDS, Board
from crystalline.engine.geometry import group
from crystalline.engine.shape import MOST_LEVELS, NODE_ZERO, Places
from crystalline.errors import EngineError
from crystalline.ipc.positions import POSITIONS

LEAF, CONTROL, LEAVING = range(3)


class Tree:
    """The table of nodes in an arena."""

    def __init__(self, board: Board) -> None:
        self._words = board.spheres
        self._state = board.state
        self._rows = board.rows

    # Reading.

    def rows(self) -> list[int]:
        """Return the rows that are taken, ascending."""
        return [row for row in range(self._rows) if self.word(row, b.S_ID) > 0]

    def children(self, row: int) -> list[int]:
        """Return the rows of a node's children."""
        return [child for child in self.rows() if self.word(child, b.S_PARENT) == row]

    def word(self, row: int, word: int) -> int:
        """Return a word of a row."""
        return self._words.load(row * SPHERE_WORDS + word)

    def path(self, row: int) -> Places:
        """Return where a node stands; a row that was freed meanwhile ends it.

        The tree may change while this looks, so it takes no more than `MOST_LEVELS` steps.
        """
        places: list[int] = []
        while row != NODE_ZERO and len(places) < MOST_LEVELS:
            places.append(self.word(row, b.S_PLACE))
            row = self.word(row, b.S_PARENT)
        return tuple(reversed(places))

    def paths(self) -> dict[Places, int]:
        """Return the row of each node by its path."""
        return {self.path(row): row for row in self.rows()}

    # Writing, by the parent (or the parent's, when that has died).

    def take(self, parent: int, place: int) -> int:
        """Take a free row for a child that is to be forked; return it.

        What the row has counted stays: totals are over all who ever had it.

        Raises:
            EngineError: no row is free.
        """
        for row in range(self._rows):
            # Nobody sees the row before it is whole, and who buries the parent knows whose it was.
            if self.exchange(row, b.S_ID, 0, _being_written(parent)):
                self.put(row, b.S_PID, 0)
                self.put(row, b.S_ROLE, LEAF)
                self.put(row, b.S_ORDER, 0)
                self.put(row, b.S_ANSWER, 0)
                self.put(row, b.S_HOME, 0)
                self.put(row, b.S_PACE_NS, 0)
                self._stand(row, parent, place)
                self.put(row, b.S_ID, self.number())
                self._state.fetch_add(b.CHANGES, 1)
                return row
        raise EngineError(
            f"there are {self._rows} spheres already, and no room for one more",
            advice="Use fewer --workers.",
        )

    def number(self) -> int:
        """Return a number that no node and no fork has had."""
        return self._state.fetch_add(b.LAST_ID, 1) + 1

    def stand(self, row: int, parent: int, place: int) -> None:
        """Give a node its place below a parent."""
        self._stand(row, parent, place)
        self._state.fetch_add(b.CHANGES, 1)

    def _stand(self, row: int, parent: int, place: int) -> None:
        self.put(row, b.S_PLACE, place)
        self.put(row, b.S_PARENT, parent)
        below = [row]
        while below:
            node = below.pop()
            path = tuple(place % POSITIONS for place in self.path(node))
            self.put(node, b.S_GROUP, group(path))
            below += self.children(node)

    def become(self, row: int, role: int) -> None:
        """Change the role of a node."""
        self.put(row, b.S_ROLE, role)
        self._state.fetch_add(b.CHANGES, 1)

    def change_role(self, row: int, role: int, to: int) -> bool:
        """Change the role of a node, by itself; return False if its parent has done so before."""
        changed = self.exchange(row, b.S_ROLE, role, to)
        self._state.fetch_add(b.CHANGES, 1)
        return changed

    def free(self, row: int) -> None:
        """Give a row back; its process is gone."""
        self.put(row, b.S_ID, 0)
        self._state.fetch_add(b.CHANGES, 1)

    def free_unwritten(self, parent: int) -> None:
        """Give back the row that a dead parent was writing."""
        for row in range(self._rows):
            self.exchange(row, b.S_ID, _being_written(parent), 0)

    def put(self, row: int, word: int, value: int) -> None:
        """Set a word of a row."""
        self._words.store(row * SPHERE_WORDS + word, value)

    def families(self) -> list[int]:
        """Return the families (`ipc.bells`) that leaves belong to."""
        return sorted(
            {
                self.word(row, b.S_PARENT) + 1
                for row in self.rows()
                if self.word(row, b.S_ROLE) == LEAF
            }
        )

    def exchange(self, row: int, word: int, expected: int, value: int) -> bool:
        """Set a word of a row if it holds `expected`; return whether it did."""
        return self._words.compare_exchange(row * SPHERE_WORDS + word, expected, value)

    def free_places(self, row: int, most: int = POSITIONS) -> list[int]:
        """Return the places that a node has for more children."""
        taken = {self.word(child, b.S_PLACE) for child in self.children(row)}
        return [place for place in range(most) if place not in taken]


def _being_written(parent: int) -> int:
    """Return the id of a row that a parent is writing: below 0, also for Node Zero."""
    return -2 - parent


def order_of(word: int) -> int:
    """Return the number of an order, from the word ORDER or ANSWER.

    >>> order_of(order_word(7, [0, 11]))
    7
    """
    return word >> POSITIONS


def order_word(number: int, places: Iterable[int] = (), failure: int = 0) -> int:
    """Return the word of an order for children in `places`, or of an answer.

    >>> wanted_places(order_word(7, [0, 11]))
    [0, 11]
    """
    return (number << POSITIONS) | failure | sum(1 << place for place in places)


def wanted_places(word: int) -> list[int]:
    """Return the places that an order is for."""
    return [place for place in range(POSITIONS) if word >> place & 1]
