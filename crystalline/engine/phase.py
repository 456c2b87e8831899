"""What a program declares: its phases, and what a unit of work may know of the sphere that does it.

A phase is a number of units that any sphere may do, in any order and at the same time.  When all
are done, one sphere says what follows: another phase, or nothing, and Node Zero goes on.

Rules that make the results independent of who computes:

* What a unit writes depends on its number and on what earlier phases wrote, never on the permit
  (which only lends scratch memory), the process, or time.
* A unit may read what another of the same phase wrote only if it `needs` that one.
* A unit may be cut off anywhere and done again by another.  Either it changes nothing that it
  reads, or the phase has an `undo`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

MOST_PHASES = 15  # the one that is declared first has number 1; 0 is that there is none


class Worker(Protocol):
    """A sphere, as a unit of work sees it."""

    index: int  # its row in the table of spheres

    @property
    def position(self) -> int:
        """The symmetry position whose work it prefers, 0 to 11."""
        ...

    def book(self) -> int:
        """Add the time since the last call to the phase's account; return it, in nanoseconds."""
        ...

    def count(self, word: int, amount: int) -> None:
        """Add to a word of the sphere's statistics, one of the program's own."""
        ...


def nothing_follows() -> None:
    """Say that no phase follows."""


@dataclass(frozen=True)
class Phase:
    """One kind of work."""

    name: str
    units: int
    work: Callable[[int, int, Worker], None]  # do a unit, with a permit
    shown: str  # what a sphere that does it is said to do, one of the board's states
    # What comes next, by name; None: Node Zero.  Called once, when all units are done, by one
    # sphere, which alone may then write what follows from them; if it dies, another calls again.
    follows: Callable[[], str | None] = nothing_follows
    # Undo what a dead sphere left of a unit, with the permit that it had; None: there is no need.
    undo: Callable[[int, int], None] | None = None
    computes: bool = False  # whether its time is that of computing, or of keeping in step
    # Units until the symmetry positions come round again: a sphere prefers those of its own
    # position.  0: in ascending order, whoever asks.
    cycle: int = 0
    heavy_units: int = 0  # the first of them, which are more work than the others
    # The units that each unit needs done before it can be claimed, all of them smaller numbers;
    # empty: none needs any.  Then units are claimed in ascending order, and `cycle` is 0.
    needs: Sequence[Sequence[int]] = ()
    # Whether Node Zero may leave it unfinished for a stop: nothing may come of it then.
    leaves: bool = False


def numbered(phases: Sequence[Phase]) -> dict[str, int]:
    """Return the number of each phase, by name.

    >>> add = Phase("add", 3, lambda unit, permit, me: None, "compute")
    >>> numbered([add])
    {'add': 1}
    """
    if len(phases) > MOST_PHASES:
        raise ValueError(f"{len(phases)} phases: there can be {MOST_PHASES}")
    numbers = {phase.name: number for number, phase in enumerate(phases, 1)}
    if len(numbers) < len(phases):
        raise ValueError(f"two phases have one name: {[phase.name for phase in phases]}")
    return numbers
