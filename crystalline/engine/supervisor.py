"""A parent in the tree of spheres: forks its children, watches, buries and replaces them.

Node Zero is one, and so is every control.  Forking is safe because these processes have one thread
only, and cheap because nothing is imported again: a dead sphere is replaced in milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from crystalline._kernels.atomics import fork_workers
from crystalline._kernels.marks import MarkRow
from crystalline.engine import board as b
from crystalline.engine.board import SPHERE_WORDS, Board
from crystalline.engine.deaths import Death, Deaths
from crystalline.engine.lifeline import Lifeline
from crystalline.engine.phase import Phase
from crystalline.engine.shape import NODE_ZERO
from crystalline.engine.tree import CONTROL, LEAF, LEAVING, Tree
from crystalline.engine.watch import Watches
from crystalline.errors import EXIT_FAILURE, EngineError
from crystalline.faults import SPHERE, play, point
from crystalline.ipc.barrier import IDLE
from crystalline.ipc.liveness import (
    Patience,
    children_of,
    dead_child,
    death_of,
    name_of,
    thread_count,
)
from crystalline.ipc.slots import Cores
from crystalline.log import get_logger

RETIRE_S = 1.0  # that a leaf has to leave; a control three times that, for its children
JOINED_S = 1.0
_NAME = "sphere"

logger = get_logger("train")


@dataclass(frozen=True)
class Company:
    """What all nodes of a tree have in common."""

    board: Board
    phases: Sequence[Phase]
    jitter_s: float  # the longest random sleep before each unit, for tests
    hang_s: float  # silence after which a sphere that does not run is killed
    arena_bytes: int
    settle: Callable[[], None]  # called by a leaf with its first permit
    record: Callable[[int], MarkRow | None]  # tells where the node in a row enters what it does
    live: Callable[[Company, int], None]  # what a node does with its row, until it is to leave
    lifeline: Lifeline
    cores: Cores  # those that other runs use as well
    pins: Sequence[int]  # the processor of each permit; none: spheres go wherever the kernel likes


class Supervisor:
    """The children of one node."""

    def __init__(self, company: Company, row: int) -> None:
        """`row` is the node's own, or `shape.NODE_ZERO`."""
        self.row = row
        self._company = company
        self._board = company.board
        self._tree = Tree(company.board)
        self._children: dict[int, int] = {}  # pid → row
        self._watches = Watches(company.board, company.hang_s)
        self._deaths = Deaths(company.board)
        self._lost_control = False  # so there may be children that no row names

    # Who is there.

    @property
    def rows(self) -> list[int]:
        """The rows of the children."""
        return list(self._children.values())

    @property
    def hang_s(self) -> float:
        """How long one may give no sign of life."""
        return self._company.hang_s

    def have(self, places: Iterable[int]) -> None:
        """Fork and let go until there is a child in each of `places`, and no other.

        Between phases only.  All or nothing: where one cannot be forked none of the new ones stay.

        Raises:
            EngineError: one could not be forked, or there is no row for it.
        """
        wanted = set(places)
        there = {self._tree.word(row, b.S_PLACE): row for row in self.rows}
        new: list[int] = []
        try:
            for place in sorted(wanted - there.keys()):
                new.append(self._tree.take(self.row, place))
            self._fork(new)
        except EngineError:
            self._dismiss(new)
            raise
        self._dismiss([there[place] for place in sorted(there.keys() - wanted)])

    def disband(self) -> None:
        """Kill all children, and theirs, and wait until they are gone; their rows stay to be read.

        Controls go first, since they would replace who is killed.  What they leave becomes ours:
        also those that no row names yet, or whose control was not buried.
        """
        while pids := self._children.keys() | _spheres_of(os.getpid()):
            for pid in pids:
                _send(pid, signal.SIGKILL)
            for pid in pids:
                os.waitpid(pid, 0)
            self._children.clear()
        for row in self._tree.rows():
            self._set_state(row, b.RETIRED)

    # Looking after them.

    def look_after(self) -> None:
        """Bury and replace the dead, and kill who holds up the others."""
        self._show_life()
        self._reap()
        self._reap_strays()
        for pid in self._watches.suspects(self._children):
            _send(pid, signal.SIGKILL)

    def _fork(self, rows: list[int]) -> None:
        """Fork a child into each of `rows`, all in a row: so they share our pages.

        Raises `EngineError`; then those that came before the one that failed are there.
        """
        if not rows:
            return
        patience = Patience(JOINED_S)
        while (threads := thread_count()) != 1 and not patience.is_over():
            time.sleep(0.001)  # a thread that was joined may still be on its way out
        if threads != 1:
            raise EngineError(
                f"a parent of spheres has {threads} threads and must not fork",
                advice="Something in this Python environment starts threads at import; remove it.",
            )
        forks = {}
        for row in rows:
            self._set_state(row, b.STARTING)
            forks[row] = -self._tree.number()
            self._tree.put(row, b.S_PID, forks[row])
        sys.stdout.flush()
        sys.stderr.flush()
        pids = np.zeros(len(rows), np.intc)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        place = fork_workers(_NAME, np.array(rows, np.intc), pids, self.row == NODE_ZERO)
        if place >= 0:
            self._become(rows[place], forks[rows[place]])
        started = -1 - place
        point("fork.parted")
        for row, pid in zip(rows[:started], pids[:started].tolist(), strict=True):
            self._children[pid] = row
            self._tree.exchange(row, b.S_PID, forks[row], pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if started < len(rows):
            raise EngineError(
                f"sphere {rows[started]} could not be started ({os.strerror(pids[started])})",
                advice="Use fewer --workers, or raise the limits on processes and memory.",
            ) from OSError(pids[started], os.strerror(pids[started]))

    def _become(self, row: int, fork: int) -> NoReturn:
        """Be the child in a row, until it is over."""
        code = EXIT_FAILURE
        try:
            play(SPHERE)
            point("fork.born")
            lifeline = self._company.lifeline
            lifeline.let_go()
            if self.row != NODE_ZERO:
                lifeline.hold_on()
            # If our parent has died meanwhile, its own may have given the row away.
            tree = self._tree
            if tree.exchange(row, b.S_PID, fork, os.getpid()) or (
                tree.word(row, b.S_PID) == os.getpid()
            ):
                point("fork.joined")
                self._company.live(self._company, row)
            code = 0
        finally:  # never back into the parent's frames
            if code:
                self._board.leave_last_words(row, traceback.format_exc())
            os._exit(code)

    def _dismiss(self, rows: list[int]) -> None:
        """Let children go, and theirs; kill them where they take too long."""
        going = {row for row in rows if row in self._children.values()}
        for row in rows:
            if row not in going:
                self._tree.free(row)
                continue
            is_leaf = self._tree.word(row, b.S_ROLE) == LEAF
            self._tree.become(row, LEAVING)
            if not is_leaf:
                self._board.bells.ring_family(row + 1)
        if not going:
            return
        point("leave.asked")
        self._board.bells.ring_family(self.row + 1)
        self._board.barrier.wake_waiters()
        patience = Patience(3 * RETIRE_S)
        while going.intersection(self._children.values()):
            self._reap()
            self._show_life()
            if patience.is_over():
                for pid, row in self._children.items():
                    if row in going:
                        _send(pid, signal.SIGKILL)
                patience = Patience(math.inf)
            time.sleep(0.001)

    # The dead.

    def _reap(self) -> None:
        for pid, row in list(self._children.items()):
            status = death_of(pid)
            if status is not None:
                self._bury(row, pid, status)

    def _reap_strays(self) -> None:
        """Wait for the dead that no row names, since their control died as it forked or buried."""
        while self._lost_control and (pid := dead_child()):
            named = any(self._tree.word(row, b.S_PID) == pid for row in self._tree.rows())
            if named or not _is_sphere(pid):
                return  # its control is to be buried first; or it is no sphere
            os.waitpid(pid, 0)

    def _bury(self, row: int, pid: int, status: int) -> None:
        """Take back what a dead child held; replace it, or take over what it leaves.

        A control that leaves nobody is replaced by a leaf: so there is always somebody to work.
        """
        tree = self._tree
        role, node = tree.word(row, b.S_ROLE), tree.word(row, b.S_ID)
        self._count(row, b.S_ERRORS, int(os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0))
        point("burial.begun")
        self._take_back(row)
        adopted = 0
        if role != LEAF:
            own = tree.word(row, b.S_PLACE)
            places = [] if role == LEAVING else sorted([*tree.free_places(self.row), own])
            adopted = self._inherit(row, places)
        self._part_with(row, pid)
        if role == LEAVING:
            self._set_state(row, b.RETIRED)
            tree.free(row)
            return
        self._set_state(row, b.DEAD)
        self._deaths.tell(Death(row, node, status, adopted))
        point("burial.told")
        if adopted:
            tree.free(row)
        else:
            if role == CONTROL:
                tree.become(row, LEAF)
            tree.put(row, b.S_RESPAWNS, tree.word(row, b.S_RESPAWNS) + 1)
            self._replace(row)
        self._board.barrier.ring_node()

    def _replace(self, row: int) -> None:
        """Fork anew into the row of a dead child; raises `EngineError` if nobody is left else."""
        try:
            self._fork([row])
        except EngineError as error:
            self._tree.free(row)  # and it grows again between phases
            if not self._children:
                raise
            logger.warning("%s", error.message)

    def _inherit(self, dead: int, places: list[int]) -> int:
        """Adopt the children of a dead node as long as there are places, end the others.

        Returns how many were adopted.  The kernel has made all of them our own children.
        """
        tree = self._tree
        self._lost_control = True
        adopted = 0
        point("adoption.begun")
        tree.free_unwritten(dead)
        for orphan in tree.children(dead):
            pid = tree.word(orphan, b.S_PID)
            if pid < 0 and not tree.exchange(orphan, b.S_PID, pid, 0):
                pid = tree.word(orphan, b.S_PID)  # it has just entered itself
            if pid > 0:  # else nobody is there, or on its way, and will see that and go
                leaves = tree.word(orphan, b.S_ROLE) == LEAVING
                if places and not leaves and death_of(pid) is None:
                    tree.stand(orphan, self.row, places.pop(0))
                    point("adoption.stood")
                    self._children[pid] = orphan
                    adopted += 1
                    continue
                _send(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                self._take_back(orphan)
                adopted += self._inherit(orphan, [] if leaves else places)
                self._part_with(orphan, pid)
            self._set_state(orphan, b.RETIRED)
            tree.free(orphan)
        self._board.bells.ring_family(dead + 1)
        return adopted

    def _part_with(self, row: int, pid: int) -> None:
        """Wait for a dead child, of which nothing is left to be taken back; then its pid is free.

        First its row forgets it: a pid in a row is of a process that nobody has waited for.
        """
        self._tree.put(row, b.S_PID, 0)
        point("burial.parted")
        os.waitpid(pid, 0)
        self._children.pop(pid, None)

    def _show_life(self) -> None:
        if self.row != NODE_ZERO:
            self._board.spheres.bump(self.row * SPHERE_WORDS + b.S_BEAT, 1)

    def _take_back(self, row: int) -> None:
        """Take back what a dead sphere held, in the order that `crystalline.ipc` gives."""
        board, phases = self._board, self._company.phases
        barrier, permits = board.barrier, board.permits
        permit = permits.held_by(row)
        if permit < 0:
            return
        number = barrier.phase() & 15
        units = barrier.units_claimed_by(row)
        undo = None if number == IDLE else phases[number - 1].undo
        if undo is not None:
            for unit in units:
                undo(unit, permit)
        self._count(row, b.S_RETRIES, len(units))
        point("burial.undone")
        barrier.free_units_of(row)
        point("burial.freed")
        permits.release(permit)
        barrier.wake_waiters()
        board.bells.ring_for_work(1, self._tree.families())

    def _count(self, row: int, word: int, amount: int) -> None:
        self._board.spheres.bump(row * SPHERE_WORDS + word, amount)

    def _set_state(self, row: int, state: int) -> None:
        self._board.spheres.put(row * SPHERE_WORDS + b.S_STATE, state)


def _is_sphere(pid: int) -> bool:
    """Return whether a process is a sphere, dead or alive."""
    return name_of(pid).startswith(f"{_NAME}-")


def _spheres_of(parent: int) -> set[int]:
    """Return the children of a process that are spheres, dead or alive."""
    return {pid for pid in children_of(parent) if _is_sphere(pid)}


def _send(pid: int, number: int) -> None:
    """Send a signal to a child that we have not waited for: the pid is its."""
    if pid > 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def failure(error: EngineError) -> int:
    """Return the number that an order is answered with when it fails so."""
    cause = error.__cause__
    return cause.errno or errno.EAGAIN if isinstance(cause, OSError) else errno.EAGAIN
