"""Bells: a pair of words for each family of siblings, on which those sleep who have nothing to do.

Leaves without a permit sleep on their family's WORK bell, controls on their family's CALL bell.  So
whoever rings for one to work wakes no control, and a call reaches a deep tree level by level:
Node Zero rings for its own children, and each of these for its own.

A sleeper reads the bell, then looks for a reason to stay awake, then sleeps on the value that it
read; a ringer makes the reason, then adds one to the bell, then wakes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crystalline._kernels.atomics import Words
from crystalline.faults import point

WORK, CALL = 0, 4  # words of a family
BELL_WORDS = 8  # a cache line
_EVERYBODY = 2**31 - 1


class Bells:
    """The bells of all families; family 0 is Node Zero's children, family r + 1 those of row r."""

    def __init__(self, words: npt.NDArray[np.int64]) -> None:
        """`words` is int64 [families, BELL_WORDS]."""
        self._words = Words(words.reshape(-1))
        self._turn = 0  # place of the family that is asked first

    def heard(self, family: int, bell: int) -> int:
        """Return the count of a bell: read it before looking for a reason to stay awake."""
        return self._words.load(family * BELL_WORDS + bell)

    def sleep(self, family: int, bell: int, heard: int, timeout_ns: int) -> None:
        """Sleep until a bell has rung since `heard` returned that."""
        point("bells.sleep")
        self._words.wait(family * BELL_WORDS + bell, heard, timeout_ns)

    def ring(self, family: int, bell: int, count: int = _EVERYBODY) -> int:
        """Wake up to `count` of a family, those first who sleep longest; return how many it was."""
        word = family * BELL_WORDS + bell
        self._words.fetch_add(word, 1)
        point("bells.rung")
        return self._words.wake(word, count)

    def ring_family(self, family: int) -> None:
        """Wake all of a family."""
        self.ring(family, WORK)
        self.ring(family, CALL)

    def ring_for_work(self, count: int, families: Sequence[int]) -> None:
        """Wake up to `count` leaves, of one family after the other, so that all have their turns.

        A leaf that is on its way to sleep hears it, too.
        """
        for turn in range(len(families)):
            family = families[(self._turn + turn) % len(families)]
            count -= self.ring(family, WORK, count)
            if count <= 0:
                self._turn = (self._turn + turn + 1) % len(families)
                return
