"""What weights and gradients look like: measured by the spheres, summed up by group and layer.

At step 1 and every --diagnostics-interval the phase DIAGNOSE goes over weights, gradients and
moments once more, segment by segment; what it finds stands in the arena, a row for every piece of a
tensor that lies in a segment.  Node Zero makes of it the event "diagnostics", and with `Verdicts`
warnings with a remedy.  After a step that is dropped the phase goes over them too (`examination`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crystalline._kernels.optimizer import magnitudes
from crystalline.ipc.arena import Arena, Region
from crystalline.model.params import Parameter, ParameterTable
from crystalline.model.update import SegmentUpdate
from crystalline.train.stats import Diagnosis, Sizes

# A row of the arena's table: of the weights and the gradients of a piece.
PIECE_WORDS = 12
(
    W_SQUARES, W_LARGEST, W_ZEROS, W_ODD, W_VALUE,  # index in the tensor of the first that is not
    G_SQUARES, G_TOTAL, G_LARGEST, G_ZEROS, G_ODD, G_VALUE,  # finite, -1: none; and that number
    CHANGE,  # sum of squares of what the step added to the weights
) = range(PIECE_WORDS)  # fmt: skip

VANISHING, EXPLODING = 1e-6, 1.0  # of a group's gradients before clipping: their rms
CONSTANT, CONSTANT_STEPS = 1e-4, 50  # how little the loss may move in how many steps


@dataclass(frozen=True)
class Piece:
    """The part of a tensor that lies in a segment."""

    tensor: int  # index into ParameterTable.parameters
    start: int  # in floats, in the buffer
    stop: int


class Diagnoser:
    """Goes over the tensors of a table."""

    def __init__(self, table: ParameterTable) -> None:
        self._table = table
        self._pieces: list[Piece] = []
        self._of_segment: list[range] = []  # rows of the arena's table, by segment
        for segment in table.segments():
            first = len(self._pieces)
            for index, p in enumerate(table.parameters):
                start, stop = max(segment.start, p.offset), min(segment.stop, p.offset + p.size)
                if start < stop:
                    self._pieces.append(Piece(index, start, stop))
            self._of_segment.append(range(first, len(self._pieces)))

    def region(self) -> Region:
        """Return what it needs in the arena."""
        return Region("pieces", "float64", (len(self._pieces), PIECE_WORDS))

    def bind(
        self,
        arena: Arena,
        weights: npt.NDArray[np.float32],
        grads: npt.NDArray[np.float32],
        update: SegmentUpdate,
    ) -> None:
        """Take the arrays that it looks at."""
        self._rows = arena["pieces"]
        self._weights, self._grads, self._update = weights, grads, update

    def look(self, segment: int, step: int, lr: float) -> None:
        """Look at a segment after step number `step` (from 0), which had the rate `lr`."""
        for row in self._of_segment[segment]:
            piece = self._pieces[row]
            p = self._table.parameters[piece.tensor]
            weights = self._weights[piece.start : piece.stop]
            grads = self._grads[piece.start : piece.stop]
            w, g = magnitudes(weights), magnitudes(grads)
            before = piece.start - p.offset
            self._rows[row] = (
                w[0], w[2], w[4], before + w[5] if w[5] >= 0 else -1, weights[w[5]],
                g[0], g[1], g[2], g[4], before + g[5] if g[5] >= 0 else -1, grads[g[5]],
                self._update.change(piece.start, piece.stop, step, lr, p.decays),
            )  # fmt: skip

    def diagnosis(self, step: int) -> Diagnosis:
        """Return what was found after `step` finished steps."""
        groups: dict[str, list[int]] = {}
        layers: dict[str, list[int]] = {}
        for row, piece in enumerate(self._pieces):
            p = self._table.parameters[piece.tensor]
            groups.setdefault(p.group, []).append(row)
            if p.layer >= 0:
                layers.setdefault(f"layer {p.layer}", []).append(row)
        return Diagnosis(
            step,
            tuple(self._sizes(name, rows) for name, rows in groups.items()),
            tuple(self._sizes(name, rows) for name, rows in layers.items()),
        )

    def _sizes(self, name: str, rows: list[int]) -> Sizes:
        found = self._rows[rows]
        count = sum(self._pieces[row].stop - self._pieces[row].start for row in rows)

        def mean(word: int) -> float:
            return math.fsum(found[:, word].tolist()) / count

        weight, change = math.sqrt(mean(W_SQUARES)), math.sqrt(mean(CHANGE))
        return Sizes(
            name=name,
            weight_rms=weight,
            weight_max=float(found[:, W_LARGEST].max()),
            gradient_rms=math.sqrt(mean(G_SQUARES)),
            gradient_mean=mean(G_TOTAL),
            gradient_max=float(found[:, G_LARGEST].max()),
            gradient_zeros=mean(G_ZEROS),
            update_ratio=change / weight if weight else None,
        )

    def odd(self, word: int) -> tuple[Parameter, int, float] | None:
        """Return the first tensor that is not finite, the number's index in it, and the number.

        `word` is W_ODD or G_ODD.
        """
        for row, piece in enumerate(self._pieces):
            index = int(self._rows[row, word])
            if index >= 0:
                return self._table.parameters[piece.tensor], index, float(self._rows[row, word + 1])
        return None


class Verdicts:
    """Judges diagnoses and losses; tells what is wrong once, until it changes."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()
        self._losses: list[float] = []

    def enter_loss(self, loss: float) -> None:
        """Take the loss of a step."""
        self._losses = [*self._losses[1 - CONSTANT_STEPS :], loss]

    def judge(self, found: Diagnosis) -> list[str]:
        """Return what is wrong, and was not told before."""
        wrong = dict(self._faults(found))
        new = [words for fault, words in wrong.items() if fault not in self._told]
        self._told = set(wrong)
        return new

    def _faults(self, found: Diagnosis) -> Iterator[tuple[tuple[str, str], str]]:
        if all(group.weight_max == 0 for group in found.groups):
            words = "all weights are zero: nothing can be learned from there; start again, or look "
            yield ("weights", "zero"), words + "at what --init-from names"
        for group in found.groups:
            fault = _fault_of(group)
            if fault is not None:
                yield (
                    (group.name, fault),
                    _WORDS[fault].format(
                        name=group.name, rms=f"rms {group.gradient_rms:.1e} before clipping"
                    ),
                )
        losses = self._losses
        if len(losses) >= CONSTANT_STEPS and max(losses) - min(losses) <= 2 * CONSTANT:
            yield ("loss", "constant"), _WORDS["constant"].format(steps=CONSTANT_STEPS)


_WORDS = {
    "zero": "the gradients of {name} are all zero: they are not trained; use fewer --num-layers, "
    "or look at what is frozen",
    "vanishing": "the gradients of {name} vanish ({rms}): use fewer --num-layers, or raise "
    "--learning-rate",
    "exploding": "the gradients of {name} explode ({rms}): lower --learning-rate or --grad-clip, "
    "or warm up over more steps",
    "constant": "the loss has not moved for {steps} steps: raise --learning-rate, or look whether "
    "the text is all alike",
}


def _fault_of(group: Sizes) -> str | None:
    if group.gradient_max == 0:
        return "zero"
    if group.gradient_rms < VANISHING:
        return "vanishing"
    return "exploding" if group.gradient_rms > EXPLODING else None
