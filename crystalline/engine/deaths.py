"""Spheres that died: told by who buries them, read by Node Zero, which ends a run of too many."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from crystalline.engine import board as b
from crystalline.engine.board import DEATH_RING, DEATH_WORDS, Board
from crystalline.errors import EngineError
from crystalline.faults import point
from crystalline.log import get_logger

MOST_DEATHS, DEATHS_WITHIN_S = 5, 60.0

logger = get_logger("train")


class Happened(Protocol):
    """Somebody who is told of events."""

    def __call__(self, event: str, **values: Any) -> None:
        """Take an event by name, with what belongs to it."""
        ...


@dataclass(frozen=True)
class Death:
    """One sphere that died."""

    row: int
    node: int  # its id
    status: int  # as `waitpid` gives it
    adopted: int  # children that went on in its parent's care


class Deaths:
    """The ring of deaths in the arena; whoever buries tells, and Node Zero reads."""

    def __init__(self, board: Board) -> None:
        self._state, self._words = board.state, board.deaths
        self._read = self._state.load(b.DEATHS)

    def tell(self, death: Death) -> None:
        """Enter a death."""
        number = self._state.fetch_add(b.DEATHS, 1)
        point("burial.telling")
        slot = number % DEATH_RING * DEATH_WORDS
        self._words.store(slot + b.D_ROW, death.row)
        self._words.store(slot + b.D_NODE, death.node)
        self._words.store(slot + b.D_STATUS, death.status)
        self._words.store(slot + b.D_ADOPTED, death.adopted)
        self._words.store(slot + b.D_NUMBER, number + 1)

    def news(self) -> Iterator[Death]:
        """Yield the deaths since the last call.

        One whose teller died over it is left out when the next one is told.
        """
        told = self._state.load(b.DEATHS)
        self._read = max(self._read, told - DEATH_RING)
        ready = [n for n in range(self._read, told) if self._word(n, b.D_NUMBER) == n + 1]
        for number in ready:
            self._read = number + 1
            yield Death(
                self._word(number, b.D_ROW),
                self._word(number, b.D_NODE),
                self._word(number, b.D_STATUS),
                self._word(number, b.D_ADOPTED),
            )

    def _word(self, number: int, word: int) -> int:
        return self._words.load(number % DEATH_RING * DEATH_WORDS + word)


class Toll:
    """Node Zero's books of the dead."""

    def __init__(
        self, board: Board, lost_file: Callable[[], str | None], happened: Happened
    ) -> None:
        """`lost_file` tells what is wrong with a file that the spheres have mapped, as a sentence's
        beginning; `happened` is told of "sphere_replaced" and "control_lost".
        """
        self._board = board
        self._deaths = Deaths(board)
        self._lost_file = lost_file
        self._happened = happened
        self._times: dict[int, deque[float]] = {}  # of each node's deaths
        self._told = ""  # the last words of a sphere that were told last

    def look(self) -> None:
        """Take the deaths since the last look.

        Raises:
            EngineError: a sphere dies again and again, or a file is gone.
        """
        for death in self._deaths.news():
            self._enter(death)

    def _enter(self, death: Death) -> None:
        row, cause = death.row, cause_of(death.status)
        words = self._board.last_words(row).strip()
        lost = self._lost_file() if _signal_of(death.status) == signal.SIGBUS else None
        if lost is not None:
            raise EngineError(lost, advice="It is made again from the text on the next start.")
        if death.adopted:
            logger.warning("control %d %s; %d spheres go on", row, cause, death.adopted)
            self._happened("control_lost", sphere=row, cause=cause, adopted=death.adopted)
        else:
            logger.warning("sphere %d %s and is replaced", row, cause)
            self._happened("sphere_replaced", sphere=row, cause=cause)
        if words and words != self._told:  # the next may fail in the same way
            logger.error("%s", words)
            self._told = words
        now = time.monotonic()
        times = self._times.setdefault(death.node, deque(maxlen=MOST_DEATHS))
        times.append(now)
        if len(times) < MOST_DEATHS or now - times[0] > DEATHS_WITHIN_S:
            return
        if words:
            cause = f"{cause} ({words.splitlines()[-1]})"
        raise EngineError(
            f"sphere {row} died {MOST_DEATHS} times within {DEATHS_WITHIN_S:.0f} seconds; "
            f"the last time it {cause}",
            advice="If it was killed, memory may be short: free some.",
        )


def _signal_of(status: int) -> int:
    """Return the signal that ended a process, 0 for none."""
    return max(0, -os.waitstatus_to_exitcode(status))


def cause_of(status: int) -> str:
    """Return how a process ended, from what `waitpid` says.

    >>> cause_of(9), cause_of(1 << 8)
    ('was killed by signal 9 (Killed)', 'failed with exit code 1')
    """
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"failed with exit code {code}"
