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
from crystalline.engine import board as b
from crystalline.engine.board import SPHERE_WORDS, Board
from crystalline.engine.deaths import Death, Deaths
from crystalline.engine.lifeline import Lifeline
from crystalline.engine.phase import Phase
from crystalline.engine.shape import NODE_ZERO
from crystalline.engine.tree import CONTROL, LEAF, LEAVING, Tree, order_of
from crystalline.engine.watch import Beats, Watches
from crystalline.errors import EXIT_FAILURE, EngineError
from crystalline.faults import SPHERE, play, point
from crystalline.ipc.barrier import IDLE
from crystalline.ipc.liveness import Patience, parent_of, thread_count
from crystalline.log import get_logger

RETIRE_S = 1.0  # that a leaf has to leave; a control three times that, for its children
JOINED_S = 1.0
REPLACED_S = 10.0  # that the system has to let a dead leaf be replaced, where it refuses to

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
    live: Callable[[Company, int], None]  # what a node does with its row, until it is to leave
    lifeline: Lifeline


class Supervisor:
    """The children of one node."""

    def __init__(self, company: Company, row: int) -> None:
        """`row` is the node's own, or `shape.NODE_ZERO`."""
        self.row = row
        self._company = company
        self._board = company.board
        self._tree = Tree(company.board)
        self._children: dict[int, int] = {}  # pid → row
        self._missing: dict[int, Patience] = {}  # rows of dead leaves that could not be replaced
        self._watches = Watches(company.board, company.hang_s)
        self._beats = Beats(company.board, company.hang_s)
        self._deaths = Deaths(company.board)

    # Who is there.

    @property
    def rows(self) -> list[int]:
        """The rows of the children."""
        return list(self._children.values())

    def have(self, places: Iterable[int]) -> None:
        """Fork and let go until there is a child in each of `places`, and no other.

        Between phases only.  All or nothing: where one cannot be forked none of the new ones stay.

        Raises:
            EngineError: one could not be forked, or there is no row for it.
        """
        for row in self._missing:
            self._tree.free(row)
        self._missing.clear()
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

    def signal(self, number: int) -> None:
        """Send a signal to all children."""
        for pid in self._children:
            _send(pid, number)

    def disband(self) -> None:
        """Kill all children, and theirs, and wait until they are gone; their rows stay to be read.

        Controls go first, since they would replace who is killed.  What they leave becomes ours.
        """
        while self._children:
            rows = self.rows
            self.signal(signal.SIGKILL)
            for pid in self._children:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
            self._children.clear()
            for row in rows:
                self._set_state(row, b.RETIRED)
                for orphan in self._tree.children(row):
                    self._set_state(orphan, b.RETIRED)
                    pid = self._tree.word(orphan, b.S_PID)
                    if _is_ours(pid):
                        self._children[pid] = orphan

    # Looking after them.

    def look_after(self) -> None:
        """Bury and replace the dead, and kill who holds up the others."""
        self._reap()
        self._replace_missing()
        for row in self._beats.silent([row for row in self.rows if self._is_prompt(row)]):
            _send(self._tree.word(row, b.S_PID), signal.SIGKILL)
        if self._board.barrier.phase() & 15 == IDLE:
            self._watches.rest()
            return
        for row in self._watches.suspects(self.rows):
            _send(self._tree.word(row, b.S_PID), signal.SIGKILL)

    def _is_prompt(self, row: int) -> bool:
        """Return whether a child has nothing to do that takes long: it is a control, or to obey."""
        order, answer = (self._tree.word(row, word) for word in (b.S_ORDER, b.S_ANSWER))
        return self._tree.word(row, b.S_ROLE) == CONTROL or order_of(order) != order_of(answer)

    def _replace_missing(self) -> None:
        """Fork again what could not be forked; raise `EngineError` when that goes on too long."""
        for row, patience in list(self._missing.items()):
            try:
                self._fork([row])
            except EngineError:
                if patience.is_over():
                    raise
            else:
                del self._missing[row]

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
        for row in rows:
            self._set_state(row, b.STARTING)
            self._tree.put(row, b.S_PID, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        pids = np.zeros(len(rows), np.intc)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        place = fork_workers("sphere", np.array(rows, np.intc), pids, self.row == NODE_ZERO)
        if place >= 0:
            self._become(rows[place])
        started = -1 - place
        point("fork.parted")
        for row, pid in zip(rows[:started], pids[:started].tolist(), strict=True):
            self._children[pid] = row
            self._tree.exchange(row, b.S_PID, 0, pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if started < len(rows):
            raise EngineError(
                f"sphere {rows[started]} could not be started ({os.strerror(pids[started])})",
                advice="Use fewer --workers, or raise the limits on processes and memory.",
            )

    def _become(self, row: int) -> NoReturn:
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
            if tree.exchange(row, b.S_PID, 0, os.getpid()) or (
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
            if patience.is_over():
                for pid, row in self._children.items():
                    if row in going:
                        _send(pid, signal.SIGKILL)
                patience = Patience(math.inf)
            time.sleep(0.001)

    # The dead.

    def _reap(self) -> None:
        for pid in list(self._children):
            with contextlib.suppress(ChildProcessError):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self._bury(self._children.pop(pid), status)

    def _bury(self, row: int, status: int) -> None:
        """Take back what a dead child held; replace it, or take over what it leaves."""
        tree = self._tree
        role, node = tree.word(row, b.S_ROLE), tree.word(row, b.S_ID)
        point("burial.begun")
        self._take_back(row)
        if role == LEAVING:
            self._inherit(row, [])
            self._set_state(row, b.RETIRED)
            tree.free(row)
            return
        self._set_state(row, b.DEAD)
        if role == CONTROL:
            places = sorted([*tree.free_places(self.row), tree.word(row, b.S_PLACE)])
            adopted = self._inherit(row, places)
            self._deaths.tell(Death(row, node, status, adopted))
            tree.free(row)
        else:
            self._deaths.tell(Death(row, node, status, 0))
            point("burial.told")
            tree.put(row, b.S_RESPAWNS, tree.word(row, b.S_RESPAWNS) + 1)
            self._missing[row] = Patience(REPLACED_S)
            self._replace_missing()
        self._board.barrier.ring_node()

    def _inherit(self, dead: int, places: list[int]) -> int:
        """Adopt the children of a dead node as long as there are places, end the others.

        Returns how many were adopted.  The kernel has made those that live our own children.
        """
        tree = self._tree
        adopted = 0
        point("adoption.begun")
        for orphan in tree.children(dead):
            if tree.exchange(orphan, b.S_PID, 0, -1):  # on its way: it will see that and go
                tree.free(orphan)
                continue
            pid = tree.word(orphan, b.S_PID)
            if _is_ours(pid):
                if places and tree.word(orphan, b.S_ROLE) != LEAVING:
                    tree.stand(orphan, self.row, places.pop(0))
                    point("adoption.stood")
                    self._children[pid] = orphan
                    adopted += 1
                    continue
                _send(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # buried by its parent already
                os.waitpid(pid, 0)
            self._take_back(orphan)
            adopted += self._inherit(orphan, places)
            self._set_state(orphan, b.RETIRED)
            tree.free(orphan)
        self._board.bells.ring_family(dead + 1)
        return adopted

    def _take_back(self, row: int) -> None:
        """Take back what a dead sphere held, in the order that `crystalline.ipc` gives."""
        board, phases = self._board, self._company.phases
        barrier, permits = board.barrier, board.permits
        permit = permits.held_by(row)
        if permit < 0:
            return
        number = barrier.phase() & 15
        undo = None if number == IDLE else phases[number - 1].undo
        if undo is not None:
            for unit in barrier.units_claimed_by(row):
                undo(unit, permit)
        point("burial.undone")
        barrier.free_units_of(row)
        point("burial.freed")
        permits.release(permit)
        barrier.wake_waiters()
        board.bells.ring_for_work(1, self._tree.families())

    def _set_state(self, row: int, state: int) -> None:
        self._board.spheres.put(row * SPHERE_WORDS + b.S_STATE, state)


def _is_ours(pid: int) -> bool:
    """Return whether a process lives and is a child of this one, also by inheritance."""
    return pid > 0 and parent_of(pid) == os.getpid()


def _send(pid: int, number: int) -> None:
    """Send a signal to a child that we have not waited for: the pid is its."""
    if pid > 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def failure(error: EngineError) -> int:
    """Return the number that an order is answered with when it fails so."""
    cause = error.__cause__
    return cause.errno or errno.EAGAIN if isinstance(cause, OSError) else errno.EAGAIN
