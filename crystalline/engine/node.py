"""Node Zero as far as the engine goes: the arena, the spheres, requests, and what watchers see.

What there is to do, and in which order, is the program's: it begins phases through the runner,
and between them lets `obey` do what somebody outside wants.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine import board as b
from crystalline.engine.board import Board, engine_regions
from crystalline.engine.clock import RunningClock
from crystalline.engine.crew import Crew
from crystalline.engine.phase import Phase
from crystalline.engine.runner import NAP_NS, Runner
from crystalline.errors import EngineError
from crystalline.ipc.arena import Arena, Layout, Region
from crystalline.ipc.liveness import Patience, is_stopped

PAUSE_NAP_NS = 250_000_000
ATTACH_S = 20.0


class Happened(Protocol):
    """Somebody who is told of events."""

    def __call__(self, event: str, **values: Any) -> None:
        """Take an event by name, with what belongs to it."""
        ...


class Node:
    """What coordinates the spheres of one run."""

    def __init__(
        self,
        phases: Sequence[Phase],
        regions: list[Region],
        *,
        folder: Path,
        permits: int,
        states: Sequence[str],
        jitter_s: float,
        hang_s: float,
        lost_file: Callable[[], str | None],
        happened: Happened,
    ) -> None:
        """`regions` are the program's; `states` what it is in, by number; the arena is made in
        `folder` where there is no memory file.  `happened` is told of events, by name and with what
        belongs to them: "sphere_replaced", "workers", "paused" and "resumed".  The rest is as in
        `Crew` and `Sphere`.
        """
        most = max(phase.units for phase in phases)
        self.arena = Arena.create(Layout(engine_regions(most, permits) + regions), folder)
        self.board = Board(self.arena, phases)
        self.crew = Crew(
            self.board,
            phases,
            jitter_s=jitter_s,
            hang_s=hang_s,
            arena_bytes=self.arena.layout.size_bytes,
            settle=self.arena.populate,
            lost_file=lost_file,
            replaced=lambda index, cause: happened("sphere_replaced", sphere=index, cause=cause),
        )
        self.runner = Runner(self.board, phases, self.crew)
        self.clock = RunningClock(self.board)
        self._states = states
        self._happened = happened

    def await_launcher(self) -> None:
        """Wait until the launcher has mapped the arena, then forget its descriptor."""
        barrier, patience = self.board.barrier, Patience(ATTACH_S)
        while not self.board.control.load(b.ATTACHED):
            # A launcher that is stopped answers when it goes on; if it dies, so do we.
            if patience.is_over(waiting=not is_stopped(os.getppid())):
                raise EngineError(f"the launcher did not answer within {ATTACH_S:.0f} s")
            barrier.sleep_on_node_bell(barrier.node_bell(), NAP_NS)
        self.arena.close()

    # Requests.

    def stop_wanted(self) -> int:
        """Return the number of the reason to stop, 0 for none."""
        return self.board.control.load(b.STOP)

    def is_rest_wanted(self) -> bool:
        """Return whether the spheres are to rest: for a pause, or for good."""
        control = self.board.control
        return control.load(b.PAUSE) != 0 or control.load(b.STOP) != 0

    def is_wanted(self) -> bool:
        """Return whether `obey` has something to do."""
        control = self.board.control
        return (
            control.load(b.STOP) != 0
            or control.load(b.PAUSE) != 0
            or control.load(b.CHECKPOINT) != self.board.state.load(b.CHECKPOINTS)
            or control.load(b.SET_WORKERS) not in (0, self.crew.size)
        )

    def obey(self, state: str, save: Callable[[], None]) -> int:
        """Do what is wanted while nobody computes; go on in `state`, or return why to stop.

        `save` makes a checkpoint.
        """
        control = self.board.control
        paused = False
        while True:
            wanted = control.load(b.SET_WORKERS)
            if wanted and wanted != self.crew.size:
                self.crew.resize(wanted)
                self._happened("workers", workers=wanted)
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
