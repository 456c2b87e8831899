"""An evaluation over the held-out split, in rounds, and what it came to.

A round is a phase EVALUATE over some of the split's units.  Between rounds Node Zero looks at
what is wanted of it, tells how far it is, and may pause or change the number of spheres; so a
round lasts about half a second, or one unit where a unit takes longer.  A stop is not even
made to wait for the round (see `train.step`).

Which units make a round changes no bit: the sums of all units are added at the end, exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from crystalline.train import words as w

MOST_UNITS = 256  # of a round
ROUND_NS = 400_000_000


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found."""

    loss: float  # nats per token; NaN where that of a unit is not finite
    bits_per_byte: float
    tokens: int  # that were predicted


class Evaluation:
    """One pass over `units` units, handed out in rounds."""

    def __init__(self, units: int, permits: int) -> None:
        self._units = units
        self._size = min(permits, MOST_UNITS)  # of the next round
        self._rows: list[list[float]] = []

    @property
    def tokens(self) -> int:
        """Tokens predicted so far."""
        return int(sum(row[w.TOKEN_COUNT] for row in self._rows))

    def next_round(self) -> tuple[int, int] | None:
        """Return (first unit, units) of the next round, or None when all is done.

        >>> Evaluation(5, permits=2).next_round()
        (0, 2)
        """
        first = len(self._rows)
        return (first, min(self._size, self._units - first)) if first < self._units else None

    def enter(self, rows: list[list[float]], took_ns: int) -> None:
        """Take the results of a round, and choose the size of the next by its time."""
        self._rows += rows
        if took_ns < ROUND_NS // 2:
            self._size = min(2 * self._size, MOST_UNITS)
        elif took_ns > 2 * ROUND_NS:
            self._size = max(1, self._size // 2)

    def outcome(self, tokens_per_byte: float) -> Outcome:
        """Return the mean loss; `tokens_per_byte` is that of the whole held-out split.

        Bits per byte are bits per predicted token times tokens per byte of the whole split, also
        where a part of it was evaluated: bytes are not counted window by window.
        """
        nats, tokens = [row[w.LOSS_SUM] for row in self._rows], self.tokens
        loss = math.fsum(nats) / tokens if all(map(math.isfinite, nats)) else math.nan
        return Outcome(loss, loss / math.log(2) * tokens_per_byte, tokens)
