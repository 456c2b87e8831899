"""A sphere: takes a permit, claims units, computes, hands over, and passes its turn on.

It knows nothing of runs and steps beyond the words of the arena; Node Zero forks
it, and kills it when all is over.  The rules it follows are in `crystalline.ipc`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from crystalline._kernels.atomics import monotonic_ns
from crystalline.ipc.barrier import POSITIONS, Kind
from crystalline.ipc.board import (
    CLIP,
    EVAL_COUNT,
    EVAL_FIRST,
    LOSS_SUM,
    NON_FINITE,
    NORM,
    S_BEAT,
    S_COMPUTE_NS,
    S_IDLE_NS,
    S_LANES,
    S_SEGMENTS,
    S_STATE,
    S_STEALS,
    S_SYNC_NS,
    S_TOKENS,
    S_WAIT_NS,
    SPHERE_WORDS,
    SQUARES,
    STEP_EPSILON,
    STEP_INDEX,
    STEP_LR,
    Board,
)
from crystalline.train.protocol import Program
from crystalline.train.stats import SPHERE_STATES

SPIN_NS = 100_000  # a permit's holder spins this long before it sleeps
NAP_NS = 50_000_000  # and sleeps this long before it looks again
SLEEP_NS = 1_000_000_000  # without a permit
# A permit changes hands when others wait and its holder has had a turn.  Whoever comes back finds
# nothing of its own in the caches, the less the more spheres there are, and has its own page tables
# to read, a cache line for 32 KiB of the arena: turns grow with both.
TURN_PER_SPHERE_NS = 4_000_000
TURN_PER_MEGABYTE_NS = 600_000

IDLE, WAITING, COMPUTING, REDUCING, UPDATING, RETIRED = (
    SPHERE_STATES.index(name)
    for name in ("idle", "waiting", "compute", "reduce", "update", "retired")
)
_STATE_OF: dict[int, int] = {
    Kind.COMPUTE: COMPUTING,
    Kind.REDUCE: REDUCING,
    Kind.UPDATE: UPDATING,
    Kind.EVALUATE: COMPUTING,
    Kind.PACK: UPDATING,
}

_RANDOM = random.SystemRandom()  # has no state that forked processes would share


class Sphere:
    """The loop of one worker process."""

    def __init__(
        self,
        index: int,
        program: Program,
        board: Board,
        grad_clip: float,
        jitter_s: float = 0.0,
        arena_bytes: int = 0,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """`settle` is called with the first permit; `jitter_s` is the longest random sleep before
        each unit, for tests.  Turns last the longer the larger the arena is.
        """
        self.index = index
        self._settle = settle
        self._program = program
        self._board = board
        self._barrier = board.barrier
        self._permits = board.permits
        self._words = board.spheres
        self._row = index * SPHERE_WORDS
        self._grad_clip = grad_clip
        self._jitter_s = jitter_s
        self._arena_bytes = arena_bytes
        self._clock_ns = monotonic_ns()

    def run(self) -> None:
        """Work until the number of spheres wanted falls to `index` or below."""
        barrier, permits, words = self._barrier, self._permits, self._words
        index, beat = self.index, self._row + S_BEAT
        permit = -1
        turn_ends_ns = 0
        settled = False
        while True:
            words.bump(beat, 1)
            if permit < 0:
                heard = barrier.work_bell()
                if index >= barrier.workers_wanted():
                    break
                if barrier.phase() & 15 != Kind.IDLE:
                    permit = permits.acquire(index)
                if permit < 0:
                    self._enter(IDLE)
                    barrier.sleep_on_work_bell(heard, SLEEP_NS)
                    self._book(S_IDLE_NS)
                    continue
                if not settled:
                    self._settle()
                    settled = True
                turn_ends_ns = monotonic_ns() + turn_ns(barrier.workers_wanted(), self._arena_bytes)
            phase = barrier.phase()
            kind = phase & 15
            if kind == Kind.IDLE:
                wanted = barrier.workers_wanted()
                if index >= wanted or (wanted > permits.count and monotonic_ns() > turn_ends_ns):
                    permits.release(permit)
                    permit = -1
                    continue
                self._enter(IDLE)
                barrier.wait_for_change(phase, SPIN_NS, NAP_NS)
                self._book(S_IDLE_NS)
                continue
            unit = barrier.claim(phase, index)
            if unit >= 0:
                self._enter(_STATE_OF[kind])
                self._work(phase, unit, permit)
                continue
            self._enter(WAITING)
            if barrier.all_done(phase) and barrier.claim_hand_over(phase, index):
                self._hand_over(phase)
            else:
                barrier.wait_for_change(phase, SPIN_NS, NAP_NS)
            self._book(S_WAIT_NS)
        self._enter(RETIRED)

    def _work(self, phase: int, unit: int, permit: int) -> None:
        """Do a claimed unit, write its results, and mark it as done."""
        board, program, words, row = self._board, self._program, self._words, self._row
        kind = phase & 15
        if self._jitter_s:
            time.sleep(self._jitter_s * _RANDOM.random())
        account = S_SYNC_NS
        if kind == Kind.COMPUTE:
            step = int(board.descriptor[STEP_INDEX])
            epsilon = float(board.descriptor[STEP_EPSILON])
            first = unit * program.lanes_per_unit
            for lane in range(first, min(first + program.lanes_per_unit, program.lane_count)):
                loss, tokens, norm, smoothed = program.compute_lane(lane, permit, step, epsilon)
                took_ns = self._book(S_COMPUTE_NS)
                board.results[lane, :SQUARES] = (loss, tokens, norm, took_ns, smoothed)
                words.bump(row + S_LANES, 1)
                words.bump(row + S_TOKENS, tokens)
                if (lane - self.index) % POSITIONS:
                    words.bump(row + S_STEALS, 1)
                if norm:
                    board.lane_norms[self.index] = norm
                board.positions.bump(self.index * POSITIONS + lane % POSITIONS, 1)
            account = S_COMPUTE_NS
        elif kind == Kind.EVALUATE:
            if unit < int(board.descriptor[EVAL_COUNT]):
                first = int(board.descriptor[EVAL_FIRST])
                loss, tokens = program.evaluate_unit(first + unit, permit)
                board.results[unit, :SQUARES] = (loss, tokens, 0.0, 0.0, loss)
            account = S_COMPUTE_NS
        else:
            if kind == Kind.REDUCE:
                board.results[unit, SQUARES] = program.reduce_segment(unit)
            elif kind == Kind.UPDATE:
                step, lr = int(board.descriptor[STEP_INDEX]), float(board.descriptor[STEP_LR])
                program.update_segment(unit, permit, step, lr, float(board.outcome[CLIP]))
            else:
                program.pack_segment(unit)
            words.bump(row + S_SEGMENTS, 1)
        self._barrier.done(phase, unit, self.index)
        self._book(account)

    def _hand_over(self, phase: int) -> None:
        """Write what follows from a finished phase, and begin the next."""
        barrier, outcome = self._barrier, self._board.outcome
        kind = phase & 15
        count = barrier.unit_count(kind)
        following = Kind.IDLE
        if kind == Kind.COMPUTE:
            losses = self._board.results[: self._program.lane_count, LOSS_SUM].tolist()
            finite = all(map(math.isfinite, losses))
            outcome[:] = 0.0
            outcome[NON_FINITE] = not finite
            if finite:
                following = Kind.REDUCE
        elif kind == Kind.REDUCE:
            squares = self._board.results[:count, SQUARES].tolist()
            norm = math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.nan
            outcome[NORM] = norm
            outcome[NON_FINITE] = not math.isfinite(norm)
            outcome[CLIP] = clip_factor(norm, self._grad_clip)
            if math.isfinite(norm):
                following = Kind.UPDATE
        barrier.advance(phase, following)
        if following == Kind.IDLE:
            barrier.ring_node()

    def _enter(self, state: int) -> None:
        self._words.put(self._row + S_STATE, state)

    def _book(self, account: int) -> int:
        """Add the time since the last call to an account; return it, in nanoseconds."""
        now_ns = monotonic_ns()
        took_ns = now_ns - self._clock_ns
        self._clock_ns = now_ns
        self._words.bump(self._row + account, took_ns)
        return took_ns


def turn_ns(spheres: int, arena_bytes: int) -> int:
    """Return how long a permit stays with one of `spheres` when others wait.

    >>> turn_ns(12, 60_000_000), turn_ns(63, 400_000_000)  # nanoseconds
    (84000000, 492000000)
    """
    return spheres * TURN_PER_SPHERE_NS + arena_bytes * TURN_PER_MEGABYTE_NS // 10**6


def clip_factor(norm: float, grad_clip: float) -> float:
    """Return what gradients are multiplied by; `grad_clip` 0 means no clipping.

    >>> clip_factor(4.0, 1.0), clip_factor(0.5, 1.0), clip_factor(4.0, 0.0)
    (0.25, 1.0, 1.0)
    """
    return grad_clip / norm if grad_clip and norm > grad_clip else 1.0
