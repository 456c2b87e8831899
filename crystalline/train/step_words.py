"""A step in words, for the level DEBUG: which sphere did how much, and what took how long."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crystalline.engine.board import Board
from crystalline.log import get_logger
from crystalline.train import words as w

if TYPE_CHECKING:
    from crystalline.train.books import Step

_log = get_logger("train")


class StepSpheres:
    """What the spheres did in each step, from what they count over all."""

    def __init__(self, board: Board) -> None:
        self._table = board.sphere_table
        self._before = self._counts()

    def since(self) -> list[list[int]] | None:
        """Return lanes and stolen claims by sphere, since the last call; None where nobody asks.

        It is called between steps: as soon as the next has begun, its lanes count.
        """
        if not _log.isEnabledFor(logging.DEBUG):
            return None
        before, self._before = self._before, self._counts()
        found: list[list[int]] = (self._before - before).tolist()
        return found

    def _counts(self) -> npt.NDArray[np.int64]:
        words = [w.sphere_word("lanes_done"), w.sphere_word("steals")]
        return self._table[:, words].T


def tell(done: Step) -> None:
    """Tell of a step whose spheres were counted."""
    if done.spheres is not None:
        _log.debug("%s", words_of(done, *done.spheres))


def words_of(done: Step, lanes: list[int], stolen: list[int]) -> str:
    """Return what there is to tell of a step."""
    by_sphere = " ".join(f"{sphere}:{count}" for sphere, count in enumerate(lanes) if count)
    lanes_ns, sums_ns = int(done.outcome[w.LANES_DONE_NS]), int(done.outcome[w.SUMS_DONE_NS])
    times = [f"lanes {_ms(lanes_ns - done.from_ns)}"]
    if sums_ns:
        times += [f"sums {_ms(sums_ns - lanes_ns)}", f"update {_ms(done.to_ns - sums_ns)}"]
    return (
        f"step {done.number}: {', '.join(times)}; lanes by sphere {by_sphere or '-'}; "
        f"{sum(stolen)} claims stolen"
    )


def _ms(duration_ns: int) -> str:
    return f"{duration_ns / 1e6:.2f} ms"
