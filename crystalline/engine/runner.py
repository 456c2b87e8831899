"""Phases as Node Zero runs them: begun, watched while they last, and left where that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine.board import CHANGES, STOP, Board
from crystalline.engine.phase import Phase, numbered
from crystalline.engine.tree import Tree
from crystalline.faults import point
from crystalline.ipc.barrier import IDLE

NAP_NS = 50_000_000  # the longest sleep while a phase runs
LOOK_NS = 250_000_000  # between looks at the spheres while phases follow one another


class Runner:
    """Begins phases out of IDLE and waits for their end; who dies meanwhile is replaced."""

    def __init__(
        self,
        board: Board,
        phases: Sequence[Phase],
        look_after: Callable[[], None],
        disband: Callable[[], None],
    ) -> None:
        """`look_after` sees to the spheres, `disband` ends them all."""
        self._board = board
        self._tree = Tree(board)
        self._families: list[int] = []
        self._changes = -1  # of the tree when they were looked at
        self._barrier = board.barrier
        self._numbers = numbered(phases)
        self._phases = phases
        self._look_after, self._disband = look_after, disband
        self._looked_ns = monotonic_ns()

    def begin(self, name: str) -> None:
        """Let the spheres begin a phase; what they need must have been written."""
        point("node.publish")
        self._barrier.publish(self._numbers[name])
        point("node.published")
        self._ring()

    def wait(self) -> bool:
        """Wait until no phase follows any more; return False when one was left for a stop before.

        There are no spheres any more then.
        """
        barrier = self._barrier
        while True:
            heard = barrier.node_bell()
            number = barrier.phase() & 15
            if monotonic_ns() - self._looked_ns > LOOK_NS:
                self.look_after()
            if number == IDLE:
                return True
            if self._phases[number - 1].leaves and self._board.control.load(STOP):
                self._disband()
                return False
            if not barrier.sleep_on_node_bell(heard, NAP_NS):
                self.look_after()

    def look_after(self) -> None:
        """See to the spheres now."""
        self._looked_ns = monotonic_ns()
        self._look_after()
        if self._barrier.phase() & 15 != IDLE:
            self._ring()  # where a wake was lost

    def _ring(self) -> None:
        """Wake as many leaves as there are permits free."""
        free = self._board.permits.free_count()
        if free:
            changes = self._board.state.load(CHANGES)
            if changes != self._changes:
                self._changes, self._families = changes, self._tree.families()
            self._board.bells.ring_for_work(free, self._families)
