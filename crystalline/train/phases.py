"""Phases as Node Zero runs them: begun, watched while they last, and left where that is allowed."""

from __future__ import annotations

from crystalline._kernels.atomics import monotonic_ns
from crystalline.ipc import board as b
from crystalline.ipc.barrier import Kind
from crystalline.ipc.board import Board
from crystalline.train.crew import Crew
from crystalline.train.evaluation import Evaluation

NAP_NS = 50_000_000  # the longest sleep while a phase runs
LOOK_NS = 250_000_000  # between looks at the spheres while steps follow one another


class Phases:
    """Begins phases out of IDLE and waits for their end; who dies meanwhile is replaced."""

    def __init__(self, board: Board, crew: Crew) -> None:
        self._board = board
        self._barrier = board.barrier
        self._crew = crew
        self._looked_ns = monotonic_ns()

    def begin(self, kind: Kind) -> None:
        """Let the spheres begin; what they need must stand in the descriptor."""
        self._barrier.publish(kind, self._board.permits.free_count)

    def wait(self, *, leaves: bool = False) -> bool:
        """Wait for the end of the phase; return False when it was left for a stop before.

        That is allowed where nothing comes of the phase and none follows it: there are no
        spheres any more then.
        """
        barrier = self._barrier
        while True:
            heard = barrier.node_bell()
            idle = barrier.phase() & 15 == Kind.IDLE
            if monotonic_ns() - self._looked_ns > LOOK_NS:
                self.look_after()
            if idle:
                return True
            if leaves and self._board.control.load(b.STOP):
                self._crew.disband()
                return False
            if not barrier.sleep_on_node_bell(heard, NAP_NS):
                self.look_after()

    def run_round(self, evaluation: Evaluation) -> bool:
        """Let the spheres do the next round; return False where it was left for a stop."""
        following = evaluation.next_round()
        if following is None:
            raise ValueError("the evaluation has no round left")
        first, count = following
        self._board.descriptor[b.EVAL_FIRST] = first
        self._board.descriptor[b.EVAL_COUNT] = count
        began_ns = monotonic_ns()
        self.begin(Kind.EVALUATE)
        if not self.wait(leaves=True):
            return False
        evaluation.enter(self._board.results[:count].tolist(), monotonic_ns() - began_ns)
        return True

    def look_after(self) -> None:
        """See to the spheres now."""
        self._looked_ns = monotonic_ns()
        self._crew.look_after()
