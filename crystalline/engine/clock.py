"""The time that a run has really had: what passed, less what it was paused or suspended."""

from __future__ import annotations

from collections.abc import Callable

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine import board as b
from crystalline.engine.board import Board


class RunningClock:
    """Node Zero's clock of a session; it stands while the user has the run paused.

    Seconds that the whole run was suspended (Ctrl-Z) are known to the launcher, which adds them
    up in the control word `SUSPENDED_NS`.
    """

    def __init__(self, board: Board, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self._board = board
        self._now_ns = now_ns
        self._started_ns = now_ns()
        self._suspended_before_ns = 0
        self._paused_ns = 0
        self._pause_began_ns: int | None = None

    def start(self) -> None:
        """Begin to count: training begins."""
        self._started_ns = self._now_ns()
        self._suspended_before_ns = self._board.control.load(b.SUSPENDED_NS)
        self._board.state.store(b.STARTED_NS, self._started_ns)
        self._board.state.store(b.PAUSED_NS, 0)

    def pause(self) -> None:
        """Stand still from now on; call it again while the pause lasts, for watchers."""
        if self._pause_began_ns is None:
            self._pause_began_ns = self._now_ns()
        self._board.state.store(b.PAUSED_NS, self._all_paused_ns())

    def go_on(self) -> None:
        """End a pause, if there is one."""
        self._paused_ns = self._all_paused_ns()
        self._pause_began_ns = None
        self._board.state.store(b.PAUSED_NS, self._paused_ns)

    def running_ns(self) -> int:
        """Return the nanoseconds that this session has run since `start`."""
        suspended_ns = self._board.control.load(b.SUSPENDED_NS) - self._suspended_before_ns
        return self._now_ns() - self._started_ns - self._all_paused_ns() - suspended_ns

    def running_s(self) -> float:
        """Return the seconds that this session has run since `start`."""
        return self.running_ns() / 1e9

    def _all_paused_ns(self) -> int:
        if self._pause_began_ns is None:
            return self._paused_ns
        return self._paused_ns + self._now_ns() - self._pause_began_ns
