"""What spheres did and when: the rows of marks of a run that is profiled.

The memory is shared, and made before the spheres are forked; a run that is not profiled has none.
A sphere enters what it books, each with its kind: a phase by its number, or why it waited.  A
program may enter kinds of its own, the passes of a lane (`_kernels.marks`), which lie within.

    kinds   0 … len(PASSES) - 1     passes, within a unit
            then, in this order     idle without a permit; idle between phases; handing over;
                                    without a core, which other runs have; each phase; waiting
                                    for the end of each phase
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crystalline._kernels.marks import (
    HEADER_WORDS,
    KINDS,
    PASSES,
    RING_WORDS,
    MarkRow,
    row_words,
)

RING_BYTES = 24_000_000  # for the newest marks of all spheres; what is older is in the sums only
LEAST_RING, MOST_RING = 1 << 10, 1 << 16  # marks of a sphere

NO_PERMIT = len(PASSES)
BETWEEN = NO_PERMIT + 1
HANDING_OVER = NO_PERMIT + 2
NO_CORE = NO_PERMIT + 3
FIRST_PHASE = NO_PERMIT + 4


def phase_kind(number: int) -> int:
    """Return the kind of the units of a phase, by its number, which is 1 for the first."""
    return FIRST_PHASE + number - 1


def waiting_kind(number: int, phases: int) -> int:
    """Return the kind of the time that ends with a phase, after the sphere's last unit of it."""
    return FIRST_PHASE + phases + number - 1


def kind_names(phases: Sequence[str]) -> tuple[str, ...]:
    """Return what the kinds are called, by number.

    >>> kind_names(["add"])[len(PASSES) :]
    ('no permit', 'between phases', 'handing over', 'no core', 'add', 'end of add')
    """
    return (
        *PASSES, "no permit", "between phases", "handing over", "no core", *phases,
        *(f"end of {name}" for name in phases),
    )  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """What a sphere has recorded."""

    sums: npt.NDArray[np.int64]  # [KINDS, 2]: nanoseconds, marks
    marks: npt.NDArray[np.int64]  # [n, 3]: begin and end, monotonic ns; unit << 8 | kind
    written: int  # marks ever, of which those are the newest


class Recording:
    """The rows of all spheres; Node Zero switches it on and off, and reads it."""

    def __init__(self, rows: int) -> None:
        ring = LEAST_RING
        while ring < MOST_RING and 2 * ring * RING_WORDS * 8 * rows <= RING_BYTES:
            ring *= 2
        self._memory = mmap.mmap(-1, 8 * (HEADER_WORDS + rows * row_words(ring)))
        words = np.frombuffer(self._memory, np.int64)
        self._on = words[:1]
        self._rows = words[HEADER_WORDS:].reshape(rows, row_words(ring))

    def row(self, sphere: int) -> MarkRow:
        """Return where a sphere writes."""
        return MarkRow(self._rows[sphere], self._on)

    def switch(self, on: bool) -> None:
        """Record from now on, or no more; between phases, so that no unit is cut."""
        self._on[0] = on

    def read(self, sphere: int) -> Recorded:
        """Return what a sphere has recorded; the recording is off."""
        row = self._rows[sphere]
        sums, ring = np.split(row[HEADER_WORDS:], [2 * KINDS])
        ring = ring.reshape(-1, RING_WORDS)
        written = int(row[0])
        newest = np.arange(max(0, written - len(ring)), written) % len(ring)
        return Recorded(sums.reshape(KINDS, 2).copy(), ring[newest], written)
