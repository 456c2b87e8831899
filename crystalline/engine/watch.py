"""Spheres that are needed and show no sign of life: how long one has patience with them."""

from __future__ import annotations

from collections.abc import Mapping

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine import board as b
from crystalline.engine.board import Board
from crystalline.engine.tree import CONTROL, Tree, order_of
from crystalline.ipc.barrier import IDLE
from crystalline.ipc.liveness import cpu_time_ns
from crystalline.log import get_logger

HANG_UNITS = 30  # a busy sphere may be silent for this many times the usual time of a unit
HANG_BUSY_NS = 600_000_000_000  # ... and for this long where the usual time is not known yet
_TICK_NS = 250_000_000  # the most that counts between two looks: who looks may have been stopped
_BASELINE_SHARE = 0.2  # of the patience: from there on the processor time of a suspect is watched
_BUSY_SHARE = 0.02  # of a core: below this a suspect is not running

logger = get_logger("train")


class _Watch:
    """How long one has shown no sign of life."""

    def __init__(self) -> None:
        self.sign = (-1, -1)  # its pid and beat
        self.silent_ns = 0
        self.cpu_ns: int | None = None  # processor time when the silence had lasted a while


class Watches:
    """The watches that a supervisor keeps of its children.

    Watched are those who hold others up when they stand still: in a phase the holders of permits;
    and always controls, without whom nobody looks after their children, and who is to follow an
    order.  These give a sign several times a second.
    """

    def __init__(self, board: Board, hang_s: float) -> None:
        self._board = board
        self._tree = Tree(board)
        self._hang_ns = hang_s * 1e9
        self._watches: dict[int, _Watch] = {}  # by row
        self._looked_ns = monotonic_ns()
        self._suspended_ns = board.control.load(b.SUSPENDED_NS)  # of the run, at the last look

    def suspects(self, children: Mapping[int, int]) -> list[int]:
        """Look at children, given as {pid: row}; return the pids of those that are to be killed."""
        now_ns, suspended_ns = monotonic_ns(), self._board.control.load(b.SUSPENDED_NS)
        passed_ns = now_ns - self._looked_ns - (suspended_ns - self._suspended_ns)
        passed_ns = max(0, min(passed_ns, _TICK_NS))
        self._looked_ns, self._suspended_ns = now_ns, suspended_ns
        works = self._board.barrier.phase() & 15 != IDLE
        holders = self._board.permits.holders() if works else []
        watched = {
            row: pid for pid, row in children.items() if row in holders or self._is_needed(row)
        }
        self._watches = {row: self._watches.get(row) or _Watch() for row in watched}
        return [
            pid
            for row, pid in watched.items()
            if self._hangs(self._watches[row], row, pid, passed_ns)
        ]

    def _is_needed(self, row: int) -> bool:
        """Return whether others wait for a node, whatever the phase."""
        word = self._tree.word
        return word(row, b.S_ROLE) == CONTROL or (
            order_of(word(row, b.S_ORDER)) != order_of(word(row, b.S_ANSWER))
        )

    def _hangs(self, watch: _Watch, row: int, pid: int, passed_ns: int) -> bool:
        sign = (pid, self._tree.word(row, b.S_BEAT))
        if sign != watch.sign:
            watch.sign, watch.silent_ns, watch.cpu_ns = sign, 0, None
            return False
        watch.silent_ns += passed_ns
        baseline_ns = _BASELINE_SHARE * self._hang_ns
        if watch.cpu_ns is None:
            if watch.silent_ns >= baseline_ns:
                watch.cpu_ns = cpu_time_ns(pid)
            return False
        if watch.silent_ns < self._hang_ns:
            return False
        runs = cpu_time_ns(pid) - watch.cpu_ns > _BUSY_SHARE * (watch.silent_ns - baseline_ns)
        if runs and watch.silent_ns < self._patience_ns():
            return False
        logger.warning("sphere %d has not answered for %.0f s", row, watch.silent_ns / 1e9)
        watch.silent_ns = 0
        return True

    def _patience_ns(self) -> float:
        unit_ns = self._board.state.load(b.UNIT_NS)
        return max(self._hang_ns, HANG_UNITS * unit_ns) if unit_ns else HANG_BUSY_NS
