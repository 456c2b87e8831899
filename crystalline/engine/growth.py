"""Node Zero gives the tree its shape: between phases, by orders to the nodes that are to change.

A shape is the set of the paths of its nodes.  Which one it is changes nothing of what is computed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet

from crystalline._kernels.atomics import adopt_orphans
from crystalline.engine import board as b
from crystalline.engine.board import Board
from crystalline.engine.shape import MOST_LEVELS, Places
from crystalline.engine.supervisor import Supervisor
from crystalline.engine.tree import Tree, order_of, order_word
from crystalline.errors import EngineError
from crystalline.ipc.liveness import Patience

ANSWER_S = 20.0  # that nodes have to answer an order
NAP_NS = 50_000_000
_ROUNDS = MOST_LEVELS + 20  # a level in each; the rest is for spheres that die meanwhile


def leaves_of(shape: AbstractSet[Places]) -> int:
    """Return how many nodes of a shape have no children.

    >>> leaves_of({(0,), (1,), (1, 0), (1, 1)})
    3
    """
    parents = {path[:-1] for path in shape}
    return sum(path not in parents for path in shape)


class Growth:
    """Keeps the tree in the shape that is wanted."""

    def __init__(self, board: Board, children: Supervisor, look_after: Callable[[], None]) -> None:
        """`children` are Node Zero's; `look_after` is called while nodes are waited for."""
        self._board = board
        self._tree = Tree(board)
        self._children = children
        self._look_after = look_after
        self._wanted: AbstractSet[Places] = frozenset()
        self._changes = -1  # of the tree when it was as wanted

    @property
    def wanted(self) -> AbstractSet[Places]:
        """The shape that is wanted."""
        return self._wanted

    @property
    def size(self) -> int:
        """Leaves of the shape that is wanted."""
        return leaves_of(self._wanted)

    @property
    def is_settled(self) -> bool:
        """Whether the tree has not changed since it was as wanted."""
        return self._changes == self._board.state.load(b.CHANGES)

    def want(self, shape: AbstractSet[Places]) -> None:
        """Make the tree that of `shape`; where it cannot be, it is as it was wanted before.

        Raises:
            EngineError: a node could not be started, or does not answer.
        """
        adopt_orphans(True)
        before = self._wanted
        try:
            self._settle_as(frozenset(shape))
        except EngineError:
            if before:
                self._settle_as(before)
            raise

    def spawn(self, row: int, places: Collection[int]) -> None:
        """Give a leaf children in these places; raises as `want`."""
        path = self._tree.path(row)
        self.want(self._wanted | {(*path, place) for place in places})

    def prune(self, row: int) -> None:
        """Let all go that is below a control, or a leaf itself; raises as `want`."""
        path = self._tree.path(row)
        below = {node for node in self._wanted if node[: len(path)] == path and node != path}
        self.want(self._wanted - (below or {path}))

    def settle(self) -> None:
        """Make the tree as it is wanted, where deaths have changed it; raises as `want`."""
        for _ in range(_ROUNDS):
            changes = self._board.state.load(b.CHANGES)
            self._children.have(self._places(()))
            orders = self._orders()
            if not orders and changes == self._board.state.load(b.CHANGES):
                self._changes = changes
                return
            self._give(orders)
        raise EngineError("the tree of spheres does not come to rest", advice="Resume the run.")

    def _settle_as(self, shape: AbstractSet[Places]) -> None:
        self._wanted = shape
        self._board.state.store(b.SPHERES, self.size)
        self.settle()

    def _places(self, path: Places) -> list[int]:
        """Return the places of the children that a node is to have."""
        return [node[-1] for node in self._wanted if node[:-1] == path]

    def _orders(self) -> dict[int, list[int]]:
        """Return the rows of nodes that have not the children they shall have, and which those are.

        Rows of nodes that are to go themselves are left out.
        """
        there = self._tree.paths()
        orders = {}
        for path, row in there.items():
            if path in self._wanted:
                have = {node[-1] for node in there if node[:-1] == path}
                places = self._places(path)
                if have != set(places):
                    orders[row] = places
        return orders

    def _give(self, orders: dict[int, list[int]]) -> None:
        """Give orders, and wait until they are followed, or their nodes are dead."""
        if not orders:
            return
        board, tree = self._board, self._tree
        waiting = {}
        number = board.state.load(b.ORDERS)
        for row, places in orders.items():
            number, node = number + 1, tree.word(row, b.S_ID)
            if node > 0:  # else it has died since
                waiting[row] = (number, node)
                tree.put(row, b.S_ORDER, order_word(number, places))
        board.state.store(b.ORDERS, number)  # last: a control that sees it tells its children
        board.bells.ring_family(0)
        board.barrier.wake_waiters()
        # Who gives no sign of life is killed by its parent, and that one by its own.
        patience = Patience(ANSWER_S + MOST_LEVELS * self._children.hang_s)
        while waiting:
            heard = board.barrier.node_bell()
            for row, (number, node) in list(waiting.items()):
                answer = tree.word(row, b.S_ANSWER)
                if order_of(answer) >= number and tree.word(row, b.S_ID) == node:
                    failed = answer - order_word(number)
                    if failed:
                        reason = board.last_words(row).strip() or os.strerror(failed)
                        raise EngineError(
                            f"sphere {row} could not have {len(orders[row])} children: {reason}",
                            advice="Use fewer --workers, or raise the limits on processes and "
                            "memory.",
                        )
                    del waiting[row]
                elif tree.word(row, b.S_ID) != node:
                    del waiting[row]
            if waiting and not board.barrier.sleep_on_node_bell(heard, NAP_NS):
                self._look_after()
            if waiting and patience.is_over():
                raise EngineError(
                    f"sphere {min(waiting)} does not answer",
                    advice="Resume the run.",
                )
