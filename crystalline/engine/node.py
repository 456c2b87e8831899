"""Node Zero as far as the engine goes: the arena, the spheres, requests, and what watchers see.

What there is to do, and in which order, is the program's: it begins phases through the runner,
and between them lets `obey` do what somebody outside wants.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from crystalline._kernels.atomics import adopt_orphans, monotonic_ns
from crystalline._kernels.marks import MarkRow
from crystalline.engine import board as b
from crystalline.engine.board import Board, engine_regions
from crystalline.engine.clock import RunningClock
from crystalline.engine.deaths import Happened, Toll
from crystalline.engine.growth import Growth
from crystalline.engine.lifeline import Lifeline
from crystalline.engine.member import live
from crystalline.engine.phase import Phase
from crystalline.engine.runner import NAP_NS, Runner
from crystalline.engine.shape import NODE_ZERO, Places
from crystalline.engine.supervisor import Company, Supervisor
from crystalline.engine.tree import Tree
from crystalline.errors import EngineError
from crystalline.ipc.arena import Arena, Layout, Region
from crystalline.ipc.liveness import Patience, is_stopped, parent_of

PAUSE_NAP_NS = 250_000_000
ATTACH_S = 20.0
REST_S = 0.1  # between looks at a launcher that is stopped


class Node:
    """What coordinates the spheres of one run."""

    def __init__(
        self,
        phases: Sequence[Phase],
        regions: list[Region],
        *,
        folder: Path,
        permits: int,
        rows: int,
        shape_of: Callable[[int], AbstractSet[Places]],
        states: Sequence[str],
        jitter_s: float,
        hang_s: float,
        lost_file: Callable[[], str | None],
        happened: Happened,
        record: Callable[[int], MarkRow | None] = lambda _: None,
    ) -> None:
        """`regions` are the program's; `states` what it is in, by number; the arena is made in
        `folder` where there is no memory file, with `rows` for the nodes of the tree.  `shape_of`
        tells what the tree is like that has so many leaves.  `happened` is told of events, by name
        and with what belongs to them: "sphere_replaced", "control_lost", "workers", "paused" and
        "resumed".  `lost_file` is as in `Toll`, the rest as in `Company`.
        """
        most = max(phase.units for phase in phases)
        self.arena = Arena.create(Layout(engine_regions(most, permits, rows) + regions), folder)
        self.board = Board(self.arena, phases)
        self._lifeline = Lifeline()
        company = Company(
            board=self.board,
            phases=phases,
            jitter_s=jitter_s,
            hang_s=hang_s,
            arena_bytes=self.arena.layout.size_bytes,
            settle=self.arena.populate,
            record=record,
            live=live,
            lifeline=self._lifeline,
        )
        self._children = Supervisor(company, NODE_ZERO)
        self._toll = Toll(self.board, lost_file, happened)
        self.growth = Growth(self.board, self._children, self.look_after)
        self.runner = Runner(self.board, phases, self.look_after, self.disband)
        self.clock = RunningClock(self.board)
        self._states = states
        self._happened = happened
        self._shape_of = shape_of

    def await_launcher(self) -> None:
        """Wait until the launcher has mapped the arena, then forget its descriptor."""
        barrier, patience = self.board.barrier, Patience(ATTACH_S)
        while not self.board.control.load(b.ATTACHED):
            # A launcher that is stopped answers when it goes on; if it dies, so do we.
            if patience.is_over(waiting=not is_stopped(os.getppid())):
                raise EngineError(f"the launcher did not answer within {ATTACH_S:.0f} s")
            barrier.sleep_on_node_bell(barrier.node_bell(), NAP_NS)
        self.arena.close()

    # The spheres.

    def resize(self, leaves: int) -> None:
        """Make the tree that of so many leaves, between phases.  Raises as `Growth.want`."""
        adopt_orphans(True)
        self.growth.want(self._shape_of(leaves))

    def look_after(self) -> None:
        """See to the spheres: bury and replace, and take account of who died."""
        self._rest()
        self._children.look_after()
        self._toll.look()

    def disband(self) -> None:
        """End all spheres."""
        self._children.disband()

    def _rest(self) -> None:
        """Stop the spheres for as long as the launcher is stopped.

        On Ctrl-Z the launcher stops us all itself.  But SIGSTOP cannot be caught, and a terminal
        that does not want a background job's output stops it in a way of its own.
        """
        launcher = os.getppid()
        if not is_stopped(launcher):
            return
        began_ns = monotonic_ns()
        self._signal_all(signal.SIGSTOP)
        try:
            while is_stopped(launcher):
                time.sleep(REST_S)
        finally:
            self.board.control.fetch_add(b.SUSPENDED_NS, monotonic_ns() - began_ns)
            self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        """Send a signal to all nodes, parents before their children."""
        table = Tree(self.board)
        pids = {os.getpid()}
        for _, row in sorted(table.paths().items(), key=lambda item: len(item[0])):
            pid = table.word(row, b.S_PID)
            if parent_of(pid) in pids:  # so it is still that node's
                pids.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    # Requests.

    def stop_wanted(self) -> int:
        """Return the number of the reason to stop, 0 for none."""
        return self.board.control.load(b.STOP)

    def is_wanted(self) -> bool:
        """Return whether `obey` has something to do."""
        control = self.board.control
        return (
            control.load(b.STOP) != 0
            or control.load(b.PAUSE) != 0
            or control.load(b.CHECKPOINT) != self.board.state.load(b.CHECKPOINTS)
            or control.load(b.SET_WORKERS) not in (0, self.growth.size)
            or not self.growth.is_settled
        )

    def obey(self, state: str, save: Callable[[], None]) -> int:
        """Do what is wanted while nobody computes; go on in `state`, or return why to stop.

        `save` makes a checkpoint.
        """
        control = self.board.control
        paused = False
        while True:
            wanted = control.load(b.SET_WORKERS)
            if wanted and wanted != self.growth.size:
                self.resize(wanted)
                self._happened("workers", workers=wanted)
            elif not self.growth.is_settled:
                self.growth.settle()
            asked = control.load(b.CHECKPOINT)
            if asked != self.board.state.load(b.CHECKPOINTS):
                save()
                self.board.state.store(b.CHECKPOINTS, asked)
            stop = self.stop_wanted()
            if stop or not control.load(b.PAUSE):
                self.clock.go_on()
                self.enter_state(state)
                if paused and not stop:
                    self._happened("resumed")
                return stop
            self.enter_state("paused")
            self.clock.pause()
            if not paused:
                self._happened("paused")
            paused = True
            heard = self.board.barrier.node_bell()
            if control.load(b.PAUSE) and not control.load(b.STOP):
                self.board.barrier.sleep_on_node_bell(heard, PAUSE_NAP_NS)
            self.runner.look_after()

    # Words for watchers.

    def enter_state(self, state: str) -> None:
        """Tell watchers what goes on, and since when."""
        number, words = self._states.index(state), self.board.state
        if number == words.load(b.RUN_STATE) and words.load(b.SINCE_NS):
            return
        words.store(b.SINCE_NS, monotonic_ns())
        words.store(b.RUN_STATE, number)
        words.store(b.WORK_TOTAL, 0)  # after the state: watchers look in the opposite order,
        words.store(b.WORK_DONE, 0)  # so that no progress seems to fall back to nothing

    def enter_progress(self, done: int, total: int, took_ns: int) -> None:
        """Tell watchers how far it is, after `took_ns` of running time."""
        words = self.board.state
        words.store(b.SINCE_NS, monotonic_ns() - took_ns)
        words.store(b.WORK_DONE, done)
        words.store(b.WORK_TOTAL, total)
