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
from pathlib import Path
from typing import Any

from crystalline._kernels.atomics import monotonic_ns
from crystalline._kernels.marks import MarkRow
from crystalline.engine import board as b
from crystalline.engine.balance import forget_homes, rebalance
from crystalline.engine.board import Board, engine_regions
from crystalline.engine.clock import RunningClock
from crystalline.engine.deaths import Happened, Toll
from crystalline.engine.demand import Demand
from crystalline.engine.growth import Growth
from crystalline.engine.helper import Helper, Work
from crystalline.engine.lifeline import Lifeline
from crystalline.engine.mail import Mail
from crystalline.engine.member import live
from crystalline.engine.obeying import Handler, Obeying, RefusedError
from crystalline.engine.phase import Phase
from crystalline.engine.placement import settle_in
from crystalline.engine.policy import Limits
from crystalline.engine.queue import RequestQueue
from crystalline.engine.requests import FEWER, MORE, Wish
from crystalline.engine.runner import NAP_NS, Runner
from crystalline.engine.shape import (
    AUTO,
    NODE_ZERO,
    Depth,
    Places,
    first_levels,
    most_leaves,
    most_levels,
    places_of,
    shape_of,
)
from crystalline.engine.supervisor import Company, Supervisor
from crystalline.engine.tree import Tree
from crystalline.errors import EngineError
from crystalline.ipc.arena import Arena, Layout, Region
from crystalline.ipc.liveness import Patience, is_stopped, parent_of
from crystalline.ipc.mailbox import Kind, Message
from crystalline.ipc.slots import Cores, OwnCores
from crystalline.log import get_logger
from crystalline.machine.cores import Pin

PAUSE_NAP_NS = 250_000_000
ATTACH_S = 20.0
REST_S = 0.1  # between looks at a launcher that is stopped

logger = get_logger("train")


class Node:
    """What coordinates the spheres of one run."""

    also_look: Callable[[], None] = staticmethod(lambda: None)  # what the program sees to as often

    def __init__(
        self,
        phases: Sequence[Phase],
        regions: list[Region],
        *,
        folder: Path,
        permits: int,
        rows: int,
        depth: Depth,
        states: Sequence[str],
        jitter_s: float,
        hang_s: float,
        lost_file: Callable[[], str | None],
        happened: Happened,
        held: bool = False,
        cores: Cores | None = None,
        pin: Pin = "no",
        record: Callable[[int], MarkRow | None] = lambda _: None,
    ) -> None:
        """`regions` are the program's; `states` what it is in, by number; the arena is made in
        `folder` where there is no memory file, with `rows` for the nodes of the tree, whose levels
        `depth` tells.  The first of `phases` is the one whose units the tree grows for.  `happened`
        is told of events, by name and with what belongs to them: "request", "sphere_replaced",
        "control_lost", "workers", "spawned", "collapsed", "paused" and "resumed".  `held` is a run
        that waits for the request to start.  `cores` are those that other runs use as well, `pin`
        is whether spheres stay on one.  `lost_file` is as in `Toll`, the rest as in `Company`.
        """
        most = max(phase.units for phase in phases)
        self.arena = Arena.create(Layout(engine_regions(most, permits, rows) + regions), folder)
        self.board = Board(self.arena, phases)
        self._lifeline = Lifeline()
        self._cores = OwnCores() if cores is None else cores
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
            cores=self._cores,
            pins=settle_in(self.arena, permits, pin),
        )
        self._children = Supervisor(company, NODE_ZERO)
        self._mail = Mail(self.board, NODE_ZERO)
        self._toll = Toll(self.board, lost_file, happened)
        self.growth = Growth(self.board, self._children, self.look_after)
        self.runner = Runner(self.board, phases, self.look_after, self.disband)
        self.clock = RunningClock(self.board)
        self._states = states
        self._happened = happened
        self._depth = depth
        limits = Limits(most_levels(depth), permits, rows)
        self.demand = Demand(self.board, self.growth, limits, phases[0].units, happened)
        self.is_held = held
        self.is_paused = False
        own: dict[str, Handler] = {
            "start": self._start,
            "pause": self._pause,
            "resume": self._resume,
            "stop": self._stop,
            "workers": self._workers,
            "rebalance": self._rebalance,
            "spawn": self._spawn,
            "terminate": self._terminate,
        }
        self.requests = Obeying(RequestQueue(self.board), own, happened)

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
        self.growth.want(self._shape_of(leaves))
        forget_homes(self.board)

    def _shape_of(self, leaves: int) -> frozenset[Places]:
        return places_of(shape_of(leaves, first_levels(self._depth)))

    def look_after(self) -> None:
        """See to the spheres: bury and replace, and take account of who died."""
        self._rest()
        self._children.look_after()
        self._toll.look()
        self._mail.read(_heard)
        self.also_look()

    def disband(self) -> None:
        """End all spheres."""
        self._children.disband()
        self._cores.leave()

    def helper(self, name: str, number: int, work: Work, *, silent_s: float) -> Helper:
        """Fork a helper; see there."""

        def alone() -> dict[str, Any]:
            self._lifeline.let_go()
            return work()

        return Helper(name, number, alone, silent_s=silent_s)

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
        return (
            self.stop_wanted() != 0
            or self.is_paused
            or self.requests.is_wanted
            or not self.growth.is_settled
            or (self._depth == AUTO and self.demand.is_due)
        )

    def obey(self, state: str) -> int:
        """Do what is wanted while nobody computes; go on in `state`, or return why to stop."""
        told = False  # of a pause
        while True:
            heard = self.board.barrier.node_bell()
            self.requests.obey()
            if not self.growth.is_settled:
                self.growth.settle()
            if self._depth == AUTO and self.demand.is_due:
                self.demand.follow_policy()
            stop = self.stop_wanted()
            if stop or not self.is_paused:
                self.clock.go_on()
                self.enter_state(state)
                if told and not stop:
                    self._happened("resumed")
                return stop
            self.enter_state("paused")
            self.clock.pause()
            if not told:
                self._happened("paused")
                told = True
            self.board.barrier.sleep_on_node_bell(heard, PAUSE_NAP_NS)
            self.runner.look_after()

    def hold(self) -> int:
        """Wait for the request to start, if that is wanted; return why to stop, 0: it came."""
        if self.is_held:
            logger.info("the run is ready, and waits for the request to start")
        while self.is_held and not self.stop_wanted():
            heard = self.board.barrier.node_bell()
            self.requests.obey()
            if self.is_held and not self.stop_wanted():
                self.enter_state("held")
                self.board.barrier.sleep_on_node_bell(heard, PAUSE_NAP_NS)
                self.runner.look_after()
        return self.stop_wanted()

    def _start(self, _: Wish) -> str:
        if not self.is_held:
            raise RefusedError("the run has started already")
        self.is_held = False
        return "it begins to train"

    def _pause(self, _: Wish) -> str:
        if self.is_paused:
            raise RefusedError("the run is paused already", advice="Let it go on with: resume.")
        self.is_paused = True
        return "it is paused"

    def _resume(self, _: Wish) -> str:
        if not self.is_paused:
            raise RefusedError("the run is not paused", advice="There is nothing to resume.")
        self.is_paused = False
        return "it goes on"

    def _stop(self, _: Wish) -> str:
        return "it ends"  # by the word, which is there since the wish was uttered

    def _workers(self, wish: Wish) -> str:
        now = self.growth.size
        changes: dict[object, object] = {MORE: now + 1, FEWER: now - 1}
        wanted = changes.get(wish.argument, wish.argument)
        most = most_leaves(self._depth)
        if not isinstance(wanted, int) or not 1 <= wanted <= most:
            raise RefusedError(
                f"{wanted} workers were asked for", advice=f"Use 1 to {most} of them."
            )
        if wanted != now:
            if len(self._shape_of(wanted)) > self.board.rows:
                raise RefusedError(
                    f"{wanted} workers and their controls are more than the run has room for",
                    advice=f"Resume it with --workers {wanted}.",
                )
            self._ask_tree(lambda: self.resize(wanted))
            self._happened("workers", workers=wanted)
        return f"it has {wanted} workers"

    def _spawn(self, wish: Wish) -> str:
        assert isinstance(wish.argument, tuple)
        row, count = wish.argument
        self._ask_tree(lambda: self.demand.spawn(row, count))
        return f"sphere {row} is the control of {count} spheres, and {self.growth.size} compute"

    def _terminate(self, wish: Wish) -> str:
        row = wish.argument
        assert isinstance(row, int)
        was_leaf = not Tree(self.board).children(row)
        self._ask_tree(lambda: self.demand.terminate(row))
        done = "has ended" if was_leaf else "has no children any more"
        return f"sphere {row} {done}, and {self.growth.size} compute"

    def _ask_tree(self, change: Callable[[], None]) -> None:
        """Change the tree.  Raises `RefusedError` where it cannot be so."""
        try:
            change()
        except EngineError as error:
            raise RefusedError(error.message, advice=error.advice) from None
        forget_homes(self.board)

    def _rebalance(self, _: Wish) -> str:
        return rebalance(self.board)

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


def _heard(message: Message) -> None:
    """Log what a node has told."""
    if message.kind == Kind.SPAWNED:
        row, children, failed = message.payload[:3]
        trouble = f", and could not fork ({os.strerror(failed)})" if failed else ""
        logger.debug("sphere %d has %d children%s", row, children, trouble)
