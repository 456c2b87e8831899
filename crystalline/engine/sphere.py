"""A sphere: takes a permit, claims units, computes, hands over, and passes its turn on.

It knows nothing of what the units are.  It is a leaf of the tree of spheres, until its parent
wants it to go, or Node Zero wants it to have children.  The rules it follows are in
`crystalline.ipc`.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Sequence

from crystalline._kernels.atomics import monotonic_ns
from crystalline._kernels.marks import MarkRow
from crystalline.engine.board import (
    IDLING,
    S_ANSWER,
    S_BEAT,
    S_COMPUTE_NS,
    S_GROUP,
    S_HOME,
    S_IDLE_NS,
    S_ORDER,
    S_PACE_NS,
    S_PARENT,
    S_PLACE,
    S_ROLE,
    S_STATE,
    S_SYNC_NS,
    S_WAIT_NS,
    SPHERE_WORDS,
    SPHERES,
    WAITING,
    Board,
    states_of,
)
from crystalline.engine.geometry import work_order
from crystalline.engine.phase import Phase, numbered
from crystalline.engine.recording import (
    BETWEEN,
    HANDING_OVER,
    NO_CORE,
    NO_PERMIT,
    phase_kind,
    waiting_kind,
)
from crystalline.engine.tree import LEAF, order_of
from crystalline.faults import point
from crystalline.ipc.barrier import IDLE
from crystalline.ipc.bells import WORK
from crystalline.ipc.positions import POSITIONS
from crystalline.ipc.slots import POLL_NS, Cores, OwnCores

SPIN_NS = 100_000  # a permit's holder spins this long before it sleeps
NAP_NS = 50_000_000  # and sleeps this long before it looks again
SLEEP_NS = 1_000_000_000  # without a permit
PACE_UNITS = 8  # the newest unit is one in so many in the mean of a sphere's last ones
# A permit changes hands when others wait and its holder has had a turn.  Whoever comes back finds
# nothing of its own in the caches, the less the more spheres there are, and has its own page tables
# to read, a cache line for 32 KiB of the arena: turns grow with both.
TURN_PER_SPHERE_NS = 4_000_000
TURN_PER_MEGABYTE_NS = 600_000

_RANDOM = random.SystemRandom()  # has no state that forked processes would share


class Sphere:
    """The loop of one worker process."""

    def __init__(
        self,
        index: int,
        phases: Sequence[Phase],
        board: Board,
        jitter_s: float = 0.0,
        arena_bytes: int = 0,
        settle: Callable[[], None] = lambda: None,
        cores: Cores | None = None,
        pins: Sequence[int] = (),
        marks: MarkRow | None = None,
    ) -> None:
        """`settle` is called with the first permit; `cores` are those that other runs use as well,
        `pins` the processors of the permits; `jitter_s` is the longest random sleep before each
        unit, for tests.  Turns last the longer the larger the arena is.  `marks` is where a
        profiled run enters what is booked.
        """
        self.index = index
        self._settle = settle
        self._cores = OwnCores() if cores is None else cores
        self._pins = pins
        self._pinned = -1  # to this processor
        self._marks = marks
        self._kind = self._unit = 0  # of the unit in hand, for the marks
        self._phases = phases
        self._numbers = numbered(phases)
        states = states_of(phases)
        self._shown = [states.index(phase.shown) for phase in phases]
        self._account = S_SYNC_NS  # of the unit in hand
        self._board = board
        self._barrier = board.barrier
        self._permits = board.permits
        self._bells = board.bells
        self._words = board.spheres
        self._row = index * SPHERE_WORDS
        self._jitter_s = jitter_s
        self._arena_bytes = arena_bytes
        self._clock_ns = monotonic_ns()

    @property
    def position(self) -> int:
        """The symmetry position whose work it prefers."""
        home = self._words.load(self._row + S_HOME)
        return home - 1 if home else self._words.load(self._row + S_GROUP)

    def _order(self) -> tuple[int, ...]:
        """The positions whose work it takes: its own first, then its neighbors'.

        With a home, those behind it.
        """
        words, row = self._words, self._row
        home = words.load(row + S_HOME) - 1
        if home >= 0:  # as `balance` has cut the circle
            return tuple((home + turn) % POSITIONS for turn in range(POSITIONS))
        return work_order(words.load(row + S_GROUP), words.load(row + S_PLACE))

    def run(self) -> None:
        """Work until this node is to have children, or to leave."""
        barrier, permits, words, bells = self._barrier, self._permits, self._words, self._bells
        index, beat, state = self.index, self._row + S_BEAT, self._board.state
        cores = self._cores
        permit = -1
        turn_ends_ns = 0
        settled = False
        ordered, order = -1, self._order()  # the order, as it was in that phase
        while True:
            words.bump(beat, 1)
            if permit < 0:
                family = words.load(self._row + S_PARENT) + 1
                heard = bells.heard(family, WORK)
                if self._is_called():
                    return
                if barrier.phase() & 15 != IDLE:
                    permit = permits.acquire(index)
                if permit < 0:
                    self._enter(IDLING)
                    bells.sleep(family, WORK, heard, SLEEP_NS)
                    self._book(S_IDLE_NS, NO_PERMIT)
                    continue
                point("permit.taken")
                if not settled:
                    self._settle()
                    settled = True
                self._pin(permit)
                turn_ends_ns = monotonic_ns() + turn_ns(state.load(SPHERES), self._arena_bytes)
            phase = barrier.phase()
            kind = phase & 15
            if kind == IDLE:
                others_wait = state.load(SPHERES) > permits.count
                if self._is_called() or (others_wait and monotonic_ns() > turn_ends_ns):
                    cores.rest()
                    point("permit.release")
                    permits.release(permit)
                    permit = -1
                    continue
                self._enter(IDLING)
                barrier.wait_for_change(phase, SPIN_NS, NAP_NS)
                if barrier.phase() == phase:
                    cores.rest()
                self._book(S_IDLE_NS, BETWEEN)
                continue
            if phase != ordered:
                ordered, order = phase, self._order()
            now_ns, lacks_core = monotonic_ns(), False
            if not cores.keep(now_ns):
                if barrier.has_work(phase):
                    lacks_core = not cores.take(now_ns, self._pins[permit] if self._pins else -1)
                    self._pin(permit)
                else:
                    cores.rest()
            unit = -1 if lacks_core else barrier.claim(phase, index, order)
            if unit >= 0:
                point("barrier.claimed")
                self._enter(self._shown[kind - 1])
                self._work(phase, unit, permit)
                continue
            self._enter(WAITING)
            if barrier.all_done(phase) and barrier.claim_hand_over(phase, index):
                self._hand_over(phase)
                self._book(S_WAIT_NS, HANDING_OVER)
            elif lacks_core:
                barrier.wait_for_change(phase, 0, POLL_NS)
                self._book(S_WAIT_NS, NO_CORE)
            else:
                barrier.wait_for_change(phase, SPIN_NS, NAP_NS)
                if barrier.phase() == phase:
                    cores.rest()
                self._book(S_WAIT_NS, waiting_kind(kind, len(self._phases)))

    def _pin(self, permit: int) -> None:
        """Compute where the permit belongs, or else where we have a core."""
        if not self._pins:
            return
        core = self._cores.core
        number = self._pins[permit] if core < 0 else core
        if number != self._pinned:
            self._pinned = number
            with contextlib.suppress(OSError):  # it has gone offline, or is not ours any more
                os.sched_setaffinity(0, {number})

    def _is_called(self) -> bool:
        """Return whether this node is to leave, or to have children."""
        words, row = self._words, self._row
        return words.load(row + S_ROLE) != LEAF or (
            order_of(words.load(row + S_ORDER)) != order_of(words.load(row + S_ANSWER))
        )

    def _work(self, phase: int, unit: int, permit: int) -> None:
        """Do a claimed unit, and mark it as done."""
        if self._jitter_s:
            time.sleep(self._jitter_s * _RANDOM.random())
        declared = self._phases[(phase & 15) - 1]
        self._account = S_COMPUTE_NS if declared.computes else S_SYNC_NS
        if self._marks is not None:
            self._kind, self._unit = phase_kind(phase & 15), unit
            self._marks.name_unit(unit)
        began_ns = self._clock_ns
        declared.work(unit, permit, self)
        point("barrier.worked")
        self._barrier.done(phase, unit, self.index)
        point("barrier.done")
        if declared.needs:  # somebody may wait for this one
            self._barrier.wake_waiters()
        self.book()
        if declared.cycle:
            self._keep_pace(self._clock_ns - began_ns)

    def _keep_pace(self, took_ns: int) -> None:
        """Enter the time of a unit into the mean of the last few."""
        before_ns = self._words.load(self._row + S_PACE_NS)
        pace_ns = before_ns + (took_ns - before_ns) // PACE_UNITS if before_ns else took_ns
        self._words.put(self._row + S_PACE_NS, pace_ns)

    def _hand_over(self, phase: int) -> None:
        """Let what follows from a finished phase be written, and begin the next."""
        barrier = self._barrier
        point("handover.claimed")
        name = self._phases[(phase & 15) - 1].follows()
        point("handover.written")
        barrier.advance(phase, IDLE if name is None else self._numbers[name])
        point("handover.done")
        if name is None:
            barrier.ring_node()

    def count(self, word: int, amount: int) -> None:
        """Add to a word of the sphere's statistics, one of the program's own."""
        self._words.bump(self._row + word, amount)

    def book(self) -> int:
        """Add the time since the last call to the phase's account; return it, in nanoseconds."""
        return self._book(self._account, self._kind, self._unit)

    def _enter(self, state: int) -> None:
        self._words.put(self._row + S_STATE, state)

    def _book(self, account: int, kind: int = 0, unit: int = 0) -> int:
        """Add the time since the last call to an account; return it, in nanoseconds.

        `kind` and `unit` are what it is called in a profile.
        """
        now_ns = monotonic_ns()
        took_ns = now_ns - self._clock_ns
        self._clock_ns = now_ns
        self._words.bump(self._row + account, took_ns)
        if self._marks is not None:
            self._marks.span(now_ns - took_ns, now_ns, kind, unit)
        return took_ns


def turn_ns(spheres: int, arena_bytes: int) -> int:
    """Return how long a permit stays with one of `spheres` when others wait.

    >>> turn_ns(12, 60_000_000), turn_ns(63, 400_000_000)  # nanoseconds
    (84000000, 492000000)
    """
    return spheres * TURN_PER_SPHERE_NS + arena_bytes * TURN_PER_MEGABYTE_NS // 10**6
