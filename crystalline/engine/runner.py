"""Phases as Node Zero runs them: begun, watched while they last, and left where that is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine.board import STOP, Board
from crystalline.engine.crew import Crew
from crystalline.engine.phase import Phase, numbered
from crystalline.ipc.barrier import IDLE

NAP_NS = 50_000_000  # the longest sleep while a phase runs
LOOK_NS = 250_000_000  # between looks at the spheres while phases follow one another


class Runner:
    """Begins phases out of IDLE and waits for their end; who dies meanwhile is replaced."""

    def __init__(self, board: Board, phases: Sequence[Phase], crew: Crew) -> None:
        self._board = board
        self._barrier = board.barrier
        self._numbers = numbered(phases)
        self._phases = phases
        self._crew = crew
        self._looked_ns = monotonic_ns()

    def begin(self, name: str) -> None:
        """Let the spheres begin a phase; what they need must have been written."""
        self._barrier.publish(self._numbers[name], self._board.permits.free_count)

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
                self._crew.disband()
                return False
            if not barrier.sleep_on_node_bell(heard, NAP_NS):
                self.look_after()

    def look_after(self) -> None:
        """See to the spheres now."""
        self._looked_ns = monotonic_ns()
        self._crew.look_after()
