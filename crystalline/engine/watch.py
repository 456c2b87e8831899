"""Spheres that hold a permit and show no sign of life: how long one has patience with them."""

from __future__ import annotations

from collections.abc import Sequence

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine import board as b
from crystalline.engine.board import SPHERE_WORDS, Board
from crystalline.ipc.liveness import cpu_time_ns
from crystalline.log import get_logger

HANG_UNITS = 30  # a busy sphere may be silent for this many times the usual time of a unit
HANG_BUSY_NS = 600_000_000_000  # ... and for this long where the usual time is not known yet
_TICK_NS = 250_000_000  # the most that counts between two looks: who looks may have been stopped
_BASELINE_SHARE = 0.2  # of the patience: from there on the processor time of a suspect is watched
_BUSY_SHARE = 0.02  # of a core: below this a suspect is not running

logger = get_logger("train")


class _Watch:
    """How long the holder of one permit has shown no sign of life."""

    def __init__(self) -> None:
        self.sign = (-1, -1)  # sphere, its beat
        self.silent_ns = 0
        self.cpu_ns: int | None = None  # processor time when the silence had lasted a while


class Beats:
    """How long nodes that do nothing that takes long have shown no sign of life."""

    def __init__(self, board: Board, hang_s: float) -> None:
        self._words = board.spheres
        self._hang_ns = hang_s * 1e9
        self._looked_ns = monotonic_ns()
        self._silent: dict[int, tuple[tuple[int, int], int]] = {}  # row → (pid, beat), for how long

    def silent(self, rows: Sequence[int]) -> list[int]:
        """Look; return those of `rows` that are to be killed."""
        now_ns = monotonic_ns()
        passed_ns = min(now_ns - self._looked_ns, _TICK_NS)
        self._looked_ns = now_ns
        silent = {}
        for row in rows:
            at = row * SPHERE_WORDS
            sign = (self._words.load(at + b.S_PID), self._words.load(at + b.S_BEAT))
            before, silent_ns = self._silent.get(row, (sign, 0))
            silent[row] = (sign, silent_ns + passed_ns if sign == before else 0)
        self._silent = silent
        hang = [row for row, (_, silent_ns) in silent.items() if silent_ns > self._hang_ns]
        for row in hang:
            logger.warning("sphere %d has not answered for %.0f s", row, silent[row][1] / 1e9)
        return hang


class Watches:
    """The watches of all permits, kept by one supervisor."""

    def __init__(self, board: Board, hang_s: float) -> None:
        self._board = board
        self._hang_ns = hang_s * 1e9
        self._watches = [_Watch() for _ in range(board.permits.count)]
        self._looked_ns = monotonic_ns()
        self._suspended_ns = board.control.load(b.SUSPENDED_NS)  # of the run, at the last look

    def rest(self) -> None:
        """Begin again: nobody has anything to do."""
        for watch in self._watches:
            watch.sign = (-1, -1)

    def suspects(self, rows: Sequence[int]) -> list[int]:
        """Look; return those of `rows` that are to be killed."""
        now_ns, suspended_ns = monotonic_ns(), self._board.control.load(b.SUSPENDED_NS)
        passed_ns = now_ns - self._looked_ns - (suspended_ns - self._suspended_ns)
        passed_ns = max(0, min(passed_ns, _TICK_NS))
        self._looked_ns, self._suspended_ns = now_ns, suspended_ns
        holders = self._board.permits.holders()
        return [
            row
            for watch, row in zip(self._watches, holders, strict=True)
            if self._hangs(watch, row if row in rows else -1, passed_ns)
        ]

    def _hangs(self, watch: _Watch, sphere: int, passed_ns: int) -> bool:
        if sphere < 0:
            watch.sign = (-1, -1)
            return False
        row = sphere * SPHERE_WORDS
        sign = (sphere, self._board.spheres.load(row + b.S_BEAT))
        if sign != watch.sign:
            watch.sign, watch.silent_ns, watch.cpu_ns = sign, 0, None
            return False
        pid = self._board.spheres.load(row + b.S_PID)
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
        logger.warning("sphere %d has not answered for %.0f s", sphere, watch.silent_ns / 1e9)
        watch.silent_ns = 0
        return True

    def _patience_ns(self) -> float:
        unit_ns = self._board.state.load(b.UNIT_NS)
        return max(self._hang_ns, HANG_UNITS * unit_ns) if unit_ns else HANG_BUSY_NS
