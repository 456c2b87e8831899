"""What controls of the tree tell each other, along contacts: parents, children, siblings.

    HELLO     to the parent and to siblings in contact, when a node becomes a control: row, level,
              place
    SPAWNED   to the parent, when an order was followed: row, children now, errno of a failure

Leaves have nothing to tell, and compute: mail would be memory of its own in each of them.  A
control passes on to its own parent what comes from its children, so that Node Zero hears of the
whole tree and from its own children only.  Nothing depends on any of this: orders are answered by
words of the table (`growth`), and a run is right when every message is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from crystalline.engine import board as b
from crystalline.engine.board import Board
from crystalline.engine.geometry import linked, siblings_in_contact
from crystalline.engine.shape import NODE_ZERO
from crystalline.engine.tree import CONTROL, Tree
from crystalline.ipc import mailbox
from crystalline.ipc.mailbox import Address, Kind, Message, Post
from crystalline.ipc.positions import POSITIONS

_RESPAWNS = 16  # of a node that addresses tell apart


class Mail:
    """One control's mailbox and pen."""

    def __init__(self, board: Board, row: int) -> None:
        """`row` is the node's own, or `shape.NODE_ZERO`."""
        self._tree = Tree(board)
        self._row = row
        self._post = Post(
            board.mail, self._address(row), linked=self._linked, is_gone=self._is_gone
        )

    def say_hello(self) -> None:
        """Tell the parent, and siblings in contact that are controls, that this node is one."""
        tree, row = self._tree, self._row
        parent, place = tree.word(row, b.S_PARENT), tree.word(row, b.S_PLACE)
        near = siblings_in_contact(place % POSITIONS)
        siblings = (
            other
            for other in tree.children(parent)
            if other != row
            and tree.word(other, b.S_ROLE) == CONTROL
            and tree.word(other, b.S_PLACE) % POSITIONS in near
        )
        for other in (parent, *siblings):
            self._send(Kind.HELLO, other, (row, len(tree.path(row)), place))

    def tell_of_children(self, count: int, failed: int) -> None:
        """Tell the parent how many children there are now, and the errno of what failed."""
        parent = self._tree.word(self._row, b.S_PARENT)
        self._send(Kind.SPAWNED, parent, (self._row, count, failed))

    def read(self, heard: Callable[[Message], None] = lambda _: None) -> None:
        """Take what has come, let `heard` know, and pass on what is for Node Zero."""
        while (message := self._post.receive()) is not None:
            heard(message)
            if message.kind == Kind.SPAWNED and self._row != NODE_ZERO:
                self._send(message.kind, self._tree.word(self._row, b.S_PARENT), message.payload)

    def _send(self, kind: Kind, row: int, payload: tuple[int, ...]) -> None:
        self._post.send(kind, self._address(row), payload=payload)

    def _address(self, row: int) -> Address:
        if row == NODE_ZERO:
            return mailbox.NODE_ZERO
        node, respawns = (self._tree.word(row, word) for word in (b.S_ID, b.S_RESPAWNS))
        return Address(row, (node * _RESPAWNS + respawns % _RESPAWNS) & 0xFFFF)

    def _is_gone(self, address: Address) -> bool:
        return self._address(address.row) != address

    def _linked(self, one: int, other: int) -> bool:
        paths = (tuple(place % POSITIONS for place in self._tree.path(row)) for row in (one, other))
        return linked(*paths)
