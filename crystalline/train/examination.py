"""Where a step that is dropped went wrong first.

Weights, moments and the crystal are as before it, so what is not finite can be found again.  After
a diagnosis (`diagnosis`) one sphere looks, in this order, for a weight, for a loss, and for a
gradient, with the lanes that they are in; Node Zero puts it into the event "dropped_step".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalline._kernels.optimizer import magnitudes
from crystalline.ipc.arena import Arena, Region
from crystalline.train.diagnosis import G_ODD, W_ODD, Diagnoser

if TYPE_CHECKING:
    from crystalline.train.program import TrainingProgram

# The arena's words: the place in its lane of the first sequence whose loss is not finite, that
# loss, and the lanes; -1: none.
C_SEQUENCE, C_LOSS, C_LANES = 0, 1, 2
CULPRIT_WORDS = 8


@dataclass(frozen=True)
class Culprit:
    """Where a step that was dropped went wrong first."""

    what: str  # "weight", "loss" or "gradient"
    value: float
    tensor: str | None = None  # None for a loss
    index: tuple[int, ...] = ()  # of the number, in the tensor
    lanes: tuple[int, ...] = ()  # the first five that it is in
    sequences: tuple[int, ...] = ()  # of the run, from 0: those it is in, the first five
    positions: tuple[int, ...] = ()  # where they begin in the training split, in tokens

    def words(self) -> str:
        """Return it as a clause.

        >>> Culprit("gradient", math.inf, "wte.weight", (3, 7), (2, 5)).words()
        'wte.weight[3, 7] of its gradient is inf, first in lanes 2, 5'
        >>> Culprit("weight", math.nan, "wte.weight", (3, 7)).words()
        'wte.weight[3, 7] of the weights is nan'
        >>> Culprit("loss", math.nan, lanes=(4,), sequences=(100,), positions=(7680,)).words()
        'the loss of sequence 100 (token 7,680 of the training split) is nan, first in lane 4'
        """
        if self.what == "loss":
            text = f"the loss is {self.value:g}"
            if self.sequences:
                text = f"the loss of sequence {self.sequences[0]} (token {self.positions[0]:,} of "
                text += f"the training split) is {self.value:g}"
        else:
            place = ", ".join(map(str, self.index))
            whose = "the weights" if self.what == "weight" else "its gradient"
            text = f"{self.tensor}[{place}] of {whose} is {self.value:g}"
        if self.lanes:
            noun = "lane" if len(self.lanes) == 1 else "lanes"
            text += f", first in {noun} {', '.join(map(str, self.lanes))}"
        return text

    def to_event(self) -> dict[str, Any]:
        """Return it as fields of an event; a value that is not finite is a text there."""
        found = {name: value for name, value in asdict(self).items() if value not in ((), None)}
        return {**found, "value": f"{self.value:g}"}


class Examiner:
    """Looks at the steps of a program that were dropped."""

    def __init__(self, program: TrainingProgram, diagnoser: Diagnoser) -> None:
        self._program = program
        self._diagnoser = diagnoser

    def region(self) -> Region:
        """Return what it needs in the arena."""
        return Region("culprit", "float64", (CULPRIT_WORDS,))

    def bind(self, arena: Arena) -> None:
        """Take the words that it writes, and the gradients that it may overwrite."""
        self._found, self._lanes = arena["culprit"], arena["lanes"]

    def examine(
        self, permit: int, step: int, epsilon: float, losses: Sequence[float],
        alive: Callable[[], None],
    ) -> None:  # fmt: skip
        """Find the lanes, and the sequence, in which a step that is dropped went wrong first.

        `losses` are those of the lanes; `alive` is called now and then.  The gradients of the lanes
        are overwritten.
        """
        found = self._found
        found[:] = -1.0
        if self._diagnoser.odd(W_ODD) is not None:
            return
        lanes = [lane for lane, loss in enumerate(losses) if not math.isfinite(loss)]
        if lanes:
            found[C_LOSS] = losses[lanes[0]]
            self._find_sequence(lanes[0], permit, step, alive)
        else:
            odd, gradient = self._diagnoser.odd(G_ODD), self._lanes[0]
            for lane in range(self._program.lane_count):
                if odd is None or len(lanes) == 5:
                    break
                parameter = odd[0]
                alive()
                self._program.compute_into(lane, permit, step, epsilon, gradient, None)
                part = gradient[parameter.offset : parameter.offset + parameter.size]
                if magnitudes(part)[5] >= 0:
                    lanes.append(lane)
        told = first_five(lanes)
        found[C_LANES : C_LANES + len(told)] = told

    def _find_sequence(self, lane: int, permit: int, step: int, alive: Callable[[], None]) -> None:
        """Enter the first sequence of a lane whose loss alone is not finite, if there is one."""
        for place in range(len(self._sequences_of(lane, step))):
            alive()
            loss = self._program.sequence_loss(lane, place, permit, step)
            if not math.isfinite(loss):
                self._found[C_SEQUENCE], self._found[C_LOSS] = place, loss
                return

    def culprit(self, step: int) -> Culprit | None:
        """Return what `examine` and the diagnosis found of a step; None: nothing."""
        odd = self._diagnoser.odd(W_ODD)
        lanes = tuple(int(lane) for lane in self._found[C_LANES:] if lane >= 0)
        sequences = [n for lane in lanes for n in self._sequences_of(lane, step)]
        starts = [int(start) for lane in lanes for start in self._program.lane_starts(lane, step)]
        if odd is None and self._found[C_LOSS] != -1.0:
            place = int(self._found[C_SEQUENCE])
            if place >= 0:
                sequences, starts = sequences[place : place + 1], starts[place : place + 1]
            return Culprit(
                "loss", float(self._found[C_LOSS]), lanes=lanes,
                sequences=first_five(sequences) if place >= 0 else (),
                positions=first_five(starts) if place >= 0 else (),
            )  # fmt: skip
        what, odd = ("gradient", self._diagnoser.odd(G_ODD)) if odd is None else ("weight", odd)
        if odd is None:
            return None
        parameter, index, value = odd
        place_in = tuple(int(i) for i in np.unravel_index(index, parameter.shape))
        return Culprit(
            what, value, parameter.name, place_in, lanes, first_five(sequences), first_five(starts)
        )

    def _sequences_of(self, lane: int, step: int) -> range:
        """Return the numbers of a lane's sequences in a step, in the run."""
        count = self._program.sequences
        return range(step * count + lane, (step + 1) * count, self._program.spec.config.lanes)


def first_five(numbers: Sequence[int]) -> tuple[int, ...]:
    """Return what is told of a list of lanes or sequences."""
    return tuple(numbers[:5])
