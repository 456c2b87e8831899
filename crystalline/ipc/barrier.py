"""Points A and B: phases, claims and the hand-over, as drawn in `crystalline.ipc`.

Nothing here blocks for ever, and nothing here knows what a unit of work is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crystalline._kernels.atomics import Words
from crystalline.ipc.positions import POSITIONS

_LINE = 8  # words to a cache line
PHASE, TICKET, HANDOVER, NODE_BELL = (i * _LINE for i in range(4))
BARRIER_WORDS = 4 * _LINE

_FREE, _CLAIMED, _DONE = 0, 1, 2
MOST_SPHERES = 2**12 - 1  # that a claim word can name
_EVERYBODY = 2**31 - 1


IDLE = 0  # the kind of phase in which there is no work


@dataclass(frozen=True)
class Handout:
    """How the units of one kind of phase are handed out."""

    units: int
    cycle: int = 0  # units until the positions come round again; 0: positions do not matter
    # The first of a cycle's are more work than the others: nobody begins one of those while a heavy
    # one is free, and the last to end then keeps the others waiting least.
    heavy_units: int = 0
    needs: Sequence[Sequence[int]] = ()  # the units that each needs done first; see `claim`

    def __post_init__(self) -> None:
        """Check that the first unit which is not done can always be claimed, or has been."""
        if self.needs and (self.cycle or len(self.needs) != self.units):
            raise ValueError(f"{len(self.needs)} of {self.units} units say what they need")
        for unit, needed in enumerate(self.needs):
            if not all(0 <= other < unit for other in needed):
                raise ValueError(f"unit {unit} needs {needed}, which do not all come before it")


def kind_of(phase: int) -> int:
    """Return the kind of a phase word."""
    return phase & 15


def generation_of(phase: int) -> int:
    """Return the generation of a phase word."""
    return phase >> 4


def _claim_word(generation: int, state: int, sphere: int) -> int:
    return (generation << 16) | (state << 12) | (sphere + 1)


class Barrier:
    """The words that hand out work and tell when it is done."""

    def __init__(
        self,
        barrier: npt.NDArray[np.int64],
        claims: npt.NDArray[np.int64],
        handouts: Sequence[Handout],
    ) -> None:
        """`handouts` are those of the kinds of phases from 1 on."""
        self._words = Words(barrier)
        self._claims = Words(claims)
        self._handouts = (Handout(0), *handouts)
        self._units = [handout.units for handout in self._handouts]

    # What everybody may do.

    def phase(self) -> int:
        """Return the phase word."""
        return self._words.load(PHASE)

    def unit_count(self, kind: int) -> int:
        """Return the number of units of a kind of phase."""
        return self._units[kind]

    def all_done(self, phase: int) -> bool:
        """Return whether every unit of a phase is done."""
        bound = _claim_word(phase >> 4, _DONE, -1)
        return self._claims.first_below(0, self._units[phase & 15], bound) < 0

    def has_work(self, phase: int) -> bool:
        """Return whether there is a unit of a phase that nobody has claimed."""
        bound = _claim_word(phase >> 4, _CLAIMED, -1)
        return self._claims.first_below(0, self._units[phase & 15], bound) >= 0

    def ring_node(self) -> None:
        """Wake Node Zero."""
        self._words.fetch_add(NODE_BELL, 1)
        self._words.wake(NODE_BELL, 1)

    # What a sphere does.

    def claim(self, phase: int, sphere: int, order: Sequence[int]) -> int:
        """Claim a unit of a phase; return its number, or -1 when there is none to be claimed.

        Call it with a permit only.  Where positions matter, units go by their positions in `order`,
        which has all of them, heavy ones before the others; otherwise in ascending order.  Where
        units need others, it is the first whose needs are done: then -1 may also mean that one is
        to wait for them, see `wait_for_change`.
        """
        kind = phase & 15
        count = self._units[kind]
        bound = _claim_word(phase >> 4, _CLAIMED, -1)
        mine = bound + sphere + 1
        cycle = self._handouts[kind].cycle
        if cycle:
            for end in (self._handouts[kind].heavy_units, count):
                for position in order:
                    start = position * cycle // POSITIONS
                    if start < end:
                        unit = self._claims.claim_below(start, end, cycle, bound, mine)
                        if unit >= 0:
                            return unit
            return -1
        if self._handouts[kind].needs:
            return self._claim_ready(kind, bound, mine)
        ticket = self._words.load(TICKET)
        if (ticket >> 32) == (phase >> 4) and (ticket & 0xFFFFFFFF) < count:
            ticket = self._words.fetch_add(TICKET, 1)
            unit = ticket & 0xFFFFFFFF
            if (ticket >> 32) == (phase >> 4) and unit < count:
                unit = self._claims.claim_below(unit, unit + 1, 1, bound, mine)
                if unit >= 0:
                    return unit
        return self._claims.claim_below(0, count, 1, bound, mine)

    def _claim_ready(self, kind: int, bound: int, mine: int) -> int:
        """Claim the first unit that is free and whose needs are done."""
        claims, count = self._claims, self._units[kind]
        done = bound + _claim_word(0, _DONE - _CLAIMED, -1)
        unit = claims.first_below(0, count, bound)
        while unit >= 0:
            ready = all(claims.load(other) >= done for other in self._handouts[kind].needs[unit])
            if ready and claims.claim_below(unit, unit + 1, 1, bound, mine) >= 0:
                return unit
            unit = claims.first_below(unit + 1, count, bound)
        return -1

    def done(self, phase: int, unit: int, sphere: int) -> None:
        """Mark a claimed unit as done.  Its results must have been written before."""
        self._claims.store(unit, _claim_word(phase >> 4, _DONE, sphere))

    def claim_hand_over(self, phase: int, sphere: int) -> bool:
        """Try to become the one that ends a phase, all of whose units are done.

        The winner writes what follows from the phase, then calls `advance`.
        """
        bound = _claim_word(phase >> 4, _CLAIMED, -1)
        mine = bound + sphere + 1
        return self._words.claim_below(HANDOVER, HANDOVER + 1, 1, bound, mine) >= 0

    def advance(self, phase: int, kind: int) -> int:
        """End a phase and begin one of `kind`; return it.  For the holder of the hand-over."""
        return self._move(phase, kind)

    def wait_for_change(self, phase: int, spin_ns: int, sleep_ns: int) -> None:
        """Wait until the phase is no longer `phase`: spin for a while, then sleep."""
        if not self._words.spin(PHASE, phase, spin_ns):
            self._words.wait(PHASE, phase, sleep_ns)

    # What Node Zero does.

    def publish(self, kind: int) -> int:
        """Begin a phase out of IDLE; return it.  The descriptor must have been written before."""
        phase = self.phase()
        if phase & 15 != IDLE:
            raise RuntimeError(f"phase {phase:#x} is not idle")
        return self._move(phase, kind)

    def node_bell(self) -> int:
        """Return the count of Node Zero's bell."""
        return self._words.load(NODE_BELL)

    def sleep_on_node_bell(self, heard: int, timeout_ns: int) -> bool:
        """Sleep until the bell has rung since `heard`; return False on a timeout."""
        return self._words.wait(NODE_BELL, heard, timeout_ns)

    def wake_waiters(self) -> None:
        """Make those who wait at the phase look again."""
        self._words.wake(PHASE, _EVERYBODY)

    def units_claimed_by(self, sphere: int) -> list[int]:
        """Return the units of the current phase that a sphere has claimed and not done."""
        phase = self.phase()
        wanted = _claim_word(phase >> 4, _CLAIMED, sphere)
        count = self._units[phase & 15]
        return [unit for unit in range(count) if self._claims.load(unit) == wanted]

    def free_units_of(self, sphere: int) -> None:
        """Hand the units and the hand-over of a dead sphere back to the others."""
        phase = self.phase()
        claimed = _claim_word(phase >> 4, _CLAIMED, sphere)
        free = _claim_word(phase >> 4, _FREE, -1)
        for unit in range(self._units[phase & 15]):
            self._claims.compare_exchange(unit, claimed, free)
        self._words.compare_exchange(HANDOVER, claimed, free)

    def _move(self, phase: int, kind: int) -> int:
        following = (((phase >> 4) + 1) << 4) | kind
        self._words.store(TICKET, (following >> 4) << 32)
        if not self._words.compare_exchange(PHASE, phase, following):
            raise RuntimeError(f"phase {phase:#x} was moved by somebody else")
        self._words.wake(PHASE, _EVERYBODY)
        return following
