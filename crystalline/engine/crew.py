"""The spheres as processes: forked by Node Zero, watched, buried, replaced.

Forking is safe because Node Zero has one thread only, and cheap because nothing is
imported again: a dead sphere is replaced in milliseconds.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import statistics
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np

from crystalline._kernels.atomics import fork_workers, monotonic_ns
from crystalline.engine.board import (
    DEAD,
    DEATHS,
    RETIRED,
    S_BEAT,
    S_PID,
    S_RESPAWNS,
    S_STATE,
    SPHERE_WORDS,
    SPHERES,
    STARTING,
    SUSPENDED_NS,
    Board,
)
from crystalline.engine.phase import Phase
from crystalline.engine.sphere import Sphere
from crystalline.errors import EXIT_FAILURE, EngineError
from crystalline.ipc.barrier import IDLE
from crystalline.ipc.liveness import Patience, cpu_time_ns, is_stopped, thread_count
from crystalline.log import get_logger

HANG_UNITS = 30  # a busy sphere may be silent for this many times the usual time of a unit
HANG_BUSY_NS = 600_000_000_000  # ... and for this long where the usual time is not known yet
_TICK_NS = 200_000_000  # the most that counts between two looks: Node Zero may have been stopped
_BASELINE_SHARE = 0.2  # of the patience: from there on the processor time of a suspect is watched
_BUSY_SHARE = 0.02  # of a core: below this a suspect is not running
MOST_DEATHS, DEATHS_WITHIN_S = 5, 60.0
RETIRE_S = 1.0
JOINED_S = 1.0
REST_S = 0.1  # between looks at a launcher that is stopped

logger = get_logger("train")


class _Watch:
    """How long the holder of one permit has shown no sign of life."""

    def __init__(self) -> None:
        self.sign = (-1, -1)  # sphere, its beat
        self.silent_ns = 0
        self.cpu_ns: int | None = None  # processor time when the silence had lasted a while


class Crew:
    """All spheres of a run; used by Node Zero only."""

    def __init__(
        self,
        board: Board,
        phases: Sequence[Phase],
        *,
        jitter_s: float,
        hang_s: float,
        arena_bytes: int,
        settle: Callable[[], None],
        lost_file: Callable[[], str | None],
        replaced: Callable[[int, str], None],
    ) -> None:
        """`settle` is what each sphere calls with its first permit; `lost_file` tells what is wrong
        with a file that the spheres have mapped, as a sentence's beginning; `replaced` is told of
        each sphere that died, and how.
        """
        self.size = 0
        self.unit_ns: list[float] = []  # what units that take long took lately
        self._board = board
        self._phases = phases
        self._lost_file = lost_file
        self._replaced = replaced
        self._jitter_s = jitter_s
        self._arena_bytes = arena_bytes
        self._settle = settle
        self._hang_ns = hang_s * 1e9
        self._index_of: dict[int, int] = {}  # pid → sphere
        self._deaths: dict[int, deque[float]] = {}
        self._told = ""  # the last words of a sphere that were told last
        self._watches = [_Watch() for _ in range(board.permits.count)]
        self._looked_ns = monotonic_ns()
        self._suspended_ns = 0  # of the run, at the last look

    def resize(self, count: int) -> None:
        """Make it `count` spheres; between phases only."""
        before, self.size = self.size, count
        self._board.state.store(SPHERES, count)
        self._board.barrier.want_workers(count)
        if count > before:
            self._fork(before, count - before)
        patience = Patience(RETIRE_S)
        while any(index >= count for index in self._index_of.values()):
            self._reap()
            if patience.is_over():
                late = [pid for pid, index in self._index_of.items() if index >= count]
                self._signal(signal.SIGKILL, late)
                patience = Patience(math.inf)
            time.sleep(0.001)

    def look_after(self) -> None:
        """Replace the dead, wake where a wake was lost, kill who holds up the others."""
        self._rest()
        now_ns, suspended_ns = monotonic_ns(), self._board.control.load(SUSPENDED_NS)
        passed_ns = now_ns - self._looked_ns - (suspended_ns - self._suspended_ns)
        passed_ns = max(0, min(passed_ns, _TICK_NS))
        self._looked_ns, self._suspended_ns = now_ns, suspended_ns
        self._reap()
        board = self._board
        if board.barrier.phase() & 15 == IDLE:
            for watch in self._watches:
                watch.sign = (-1, -1)
            return
        holders = board.permits.holders()
        free = holders.count(-1)
        if free:
            board.barrier.ring_workers(free)
        for watch, sphere in zip(self._watches, holders, strict=True):
            self._suspect(watch, sphere, passed_ns)

    def _rest(self) -> None:
        """Stop the spheres for as long as the launcher is stopped.

        On Ctrl-Z the launcher stops us all itself.  But SIGSTOP cannot be caught, and a terminal
        that does not want a background job's output stops it in a way of its own.
        """
        launcher = os.getppid()
        if not is_stopped(launcher):
            return
        began_ns = monotonic_ns()
        self._signal(signal.SIGSTOP)
        try:
            while is_stopped(launcher):
                time.sleep(REST_S)
        finally:
            self._board.control.fetch_add(SUSPENDED_NS, monotonic_ns() - began_ns)
            self._signal(signal.SIGCONT)

    def disband(self) -> None:
        """Kill all spheres and wait until they are gone."""
        self._signal(signal.SIGKILL)
        for pid in self._index_of:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        for index in self._index_of.values():
            self._set_state(index, RETIRED)
        self._index_of.clear()

    def _signal(self, number: int, pids: list[int] | None = None) -> None:
        """Send a signal to some spheres, or to all of them."""
        for pid in list(self._index_of) if pids is None else pids:
            # Our children, not yet waited for: the pids are theirs.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _fork(self, first: int, count: int) -> None:
        """Start spheres `first` to `first + count - 1`, all in a row: so they share our pages."""
        patience = Patience(JOINED_S)
        while (threads := thread_count()) != 1 and not patience.is_over():
            time.sleep(0.001)  # a thread that was joined may still be on its way out
        if threads != 1:
            raise EngineError(
                f"Node Zero has {threads} threads and must not fork",
                advice="Something in this Python environment starts threads at import; remove it.",
            )
        for index in range(first, first + count):
            self._set_state(index, STARTING)
        sys.stdout.flush()
        sys.stderr.flush()
        pids = np.zeros(count, np.intc)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        place = fork_workers("sphere", first, pids)
        if place >= 0:
            self._become_sphere(first + place)
        started = -1 - place
        for i in range(started):
            self._index_of[int(pids[i])] = first + i
            self._board.spheres.store((first + i) * SPHERE_WORDS + S_PID, int(pids[i]))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if started < count:
            raise EngineError(
                f"sphere {first + started} could not be started ({os.strerror(pids[started])})",
                advice="Use fewer --workers, or raise the limits on processes and memory.",
            )

    def _become_sphere(self, index: int) -> NoReturn:
        code = EXIT_FAILURE
        try:
            Sphere(
                index, self._phases, self._board, self._jitter_s, self._arena_bytes, self._settle
            ).run()
            code = 0
        finally:  # never back into Node Zero's frames
            if code:
                self._board.leave_last_words(index, traceback.format_exc())
            os._exit(code)

    def _reap(self) -> None:
        while self._index_of:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            index = self._index_of.pop(pid, None)
            if index is None:
                continue
            if index >= self.size:
                self._clear_up(index)
                self._set_state(index, RETIRED)
                continue
            self._set_state(index, DEAD)
            self._clear_up(index)
            self._count_death(index, status)
            self._board.spheres.bump(index * SPHERE_WORDS + S_RESPAWNS, 1)
            self._fork(index, 1)

    def _clear_up(self, sphere: int) -> None:
        """Take back what a dead sphere held, in the order that `crystalline.ipc` gives."""
        board = self._board
        barrier, permits = board.barrier, board.permits
        permit = permits.held_by(sphere)
        if permit < 0:
            return
        number = barrier.phase() & 15
        undo = None if number == IDLE else self._phases[number - 1].undo
        if undo is not None:
            for unit in barrier.units_claimed_by(sphere):
                undo(unit, permit)
        barrier.free_units_of(sphere)
        permits.release(permit)
        barrier.wake_waiters()
        barrier.ring_workers(1)

    def _count_death(self, index: int, status: int) -> None:
        self._board.state.bump(DEATHS, 1)
        words = self._board.last_words(index).strip()
        cause = _cause(status)
        lost = self._lost_file() if _signal_of(status) == signal.SIGBUS else None
        if lost is not None:
            raise EngineError(lost, advice="It is made again from the text on the next start.")
        logger.warning("sphere %d %s and is replaced", index, cause)
        if words and words != self._told:  # the next may fail in the same way
            logger.error("%s", words)
            self._told = words
        self._replaced(index, cause)
        now = time.monotonic()
        deaths = self._deaths.setdefault(index, deque(maxlen=MOST_DEATHS))
        deaths.append(now)
        if len(deaths) < MOST_DEATHS or now - deaths[0] > DEATHS_WITHIN_S:
            return
        if words:
            cause = f"{cause} ({words.splitlines()[-1]})"
        raise EngineError(
            f"sphere {index} died {MOST_DEATHS} times within {DEATHS_WITHIN_S:.0f} seconds; "
            f"the last time it {cause}",
            advice="If it was killed, memory may be short: free some.",
        )

    def _suspect(self, watch: _Watch, sphere: int, passed_ns: int) -> None:
        if sphere < 0:
            watch.sign = (-1, -1)
            return
        row = sphere * SPHERE_WORDS
        sign = (sphere, self._board.spheres.load(row + S_BEAT))
        if sign != watch.sign:
            watch.sign, watch.silent_ns, watch.cpu_ns = sign, 0, None
            return
        pid = self._board.spheres.load(row + S_PID)
        watch.silent_ns += passed_ns
        baseline_ns = _BASELINE_SHARE * self._hang_ns
        if watch.cpu_ns is None:
            if watch.silent_ns >= baseline_ns:
                watch.cpu_ns = cpu_time_ns(pid)
            return
        if watch.silent_ns < self._hang_ns:
            return
        runs = cpu_time_ns(pid) - watch.cpu_ns > _BUSY_SHARE * (watch.silent_ns - baseline_ns)
        if runs and watch.silent_ns < self._patience_ns():
            return
        logger.warning("sphere %d has not answered for %.0f s", sphere, watch.silent_ns / 1e9)
        self._signal(signal.SIGKILL, [pid])
        watch.silent_ns = 0

    def _patience_ns(self) -> float:
        if not self.unit_ns:
            return HANG_BUSY_NS
        return max(self._hang_ns, HANG_UNITS * statistics.median(self.unit_ns))

    def _set_state(self, index: int, state: int) -> None:
        self._board.spheres.put(index * SPHERE_WORDS + S_STATE, state)


def _signal_of(status: int) -> int:
    """Return the signal that ended a process, 0 for none."""
    return max(0, -os.waitstatus_to_exitcode(status))


def _cause(status: int) -> str:
    """Return how a process ended, from what `waitpid` says.

    >>> _cause(9), _cause(1 << 8)
    ('was killed by signal 9 (Killed)', 'failed with exit code 1')
    """
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"failed with exit code {code}"
