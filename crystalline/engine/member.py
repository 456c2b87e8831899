"""The life of a node of the tree: it computes while it has no children, and looks after them else.

Never both: a control takes no permit and claims no unit.
"""

from __future__ import annotations

import itertools
import signal

from crystalline import faults
from crystalline._kernels.atomics import adopt_orphans
from crystalline.engine import board as b
from crystalline.engine.board import SPHERE_WORDS
from crystalline.engine.geometry import work_order
from crystalline.engine.mail import Mail
from crystalline.engine.sphere import Sphere
from crystalline.engine.supervisor import Company, Supervisor, failure
from crystalline.engine.tree import (
    CONTROL,
    LEAF,
    LEAVING,
    Tree,
    order_of,
    order_word,
    wanted_places,
)
from crystalline.errors import EngineError
from crystalline.faults import play, point
from crystalline.ipc.bells import CALL
from crystalline.ipc.positions import POSITIONS
from crystalline.log import get_logger

NAP_NS = 200_000_000  # between looks at the children; the death of one ends it

logger = get_logger("train")

# Known before anything is forked: what a process works out for itself is memory of its own.
for _group, _place in itertools.product(range(POSITIONS), repeat=2):
    work_order(_group, _place)


def live(company: Company, row: int) -> None:
    """Be the node in a row until it is to leave."""
    Member(company, row).live()


class Member:
    """One node."""

    def __init__(self, company: Company, row: int) -> None:
        self._company = company
        self._board = company.board
        self._tree = Tree(company.board)
        self._row = row
        self._children: Supervisor | None = None
        self._mail: Mail | None = None  # of a control
        self._heard = 0  # the last order, to anybody, that the children were told of

    def live(self) -> None:
        """Compute, or look after children, as is wanted."""
        company = self._company
        sphere = Sphere(
            self._row, company.phases, self._board, company.jitter_s, company.arena_bytes,
            company.settle, company.cores, company.pins, company.record(self._row),
        )  # fmt: skip
        while self._role() != LEAVING:
            sphere.run()
            self._follow()
            if self._children is not None:
                self._look_after(self._children)
        point("leave.going")
        self._enter(b.RETIRED)

    def _look_after(self, children: Supervisor) -> None:
        """Be a control until the children are gone."""
        bells = self._board.bells
        # A child that dies ends a nap: system calls return for a handler, whatever it does.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            family = self._tree.word(self._row, b.S_PARENT) + 1
            heard = bells.heard(family, CALL)
            if self._role() == LEAVING:
                children.have([])
                break
            self._follow()
            if self._children is None:
                break
            self._pass_on()
            children.look_after()
            if self._mail is not None:
                self._mail.read()
            bells.sleep(family, CALL, heard, NAP_NS)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _follow(self) -> None:
        """Have the children that an order is for, if there is one, and answer."""
        tree, row = self._tree, self._row
        order = tree.word(row, b.S_ORDER)
        number = order_of(order)
        if self._role() == LEAVING or number == order_of(tree.word(row, b.S_ANSWER)):
            return
        point("order.heard")
        places = wanted_places(order)
        failed = 0
        if places and self._children is None:
            adopt_orphans(True)
            if not tree.change_role(row, LEAF, CONTROL):
                return  # its parent lets it go
            play(faults.CONTROL)
            self._enter(b.CONTROLLING)
            self._children = Supervisor(self._company, row)
            self._mail = Mail(self._board, row)
            self._mail.say_hello()
        if self._children is not None:
            try:
                self._children.have(places)
            except EngineError as error:
                logger.warning("%s", error.message)
                self._board.leave_last_words(row, error.message)
                failed = failure(error)
            if not self._children.rows:
                self._children = None
                adopt_orphans(False)
                tree.change_role(row, CONTROL, LEAF)
                play(faults.SPHERE)
        if self._mail is not None:
            self._mail.tell_of_children(0 if self._children is None else len(places), failed)
        point("order.answer")
        tree.put(row, b.S_ANSWER, order_word(number, failure=failed))
        self._board.barrier.ring_node()

    def _pass_on(self) -> None:
        """Tell the children that there are orders, once for all that were given so far."""
        orders = self._board.state.load(b.ORDERS)
        if orders != self._heard:
            self._heard = orders
            self._board.bells.ring_family(self._row + 1)

    def _role(self) -> int:
        return self._tree.word(self._row, b.S_ROLE)

    def _enter(self, state: int) -> None:
        self._board.spheres.put(self._row * SPHERE_WORDS + b.S_STATE, state)
