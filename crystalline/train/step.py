"""The phases of training, as the engine is told of them.

    IDLE ─Point A─> COMPUTE ─Point B─> REDUCE ──> UPDATE ──> (DIAGNOSE where it is due) ──> IDLE
                       └ a loss is not finite ────┬─> DIAGNOSE ──> EXAMINE ──> IDLE
                                   a norm is not finite
    IDLE ──> EVALUATE ──> IDLE          IDLE ──> PACK ──> IDLE          IDLE ──> SNAPSHOT ──> IDLE

SNAPSHOT copies what a checkpoint holds, and a process that Node Zero forks writes the copy while
training goes on (`saving`).  It is declared where there is room for the copy.

The units of COMPUTE are lanes, and where sums are taken in place their merges too, each with what
it needs done first (`crystalline.train.sums`).

An evaluation is a row of phases EVALUATE, its rounds: unit u of the phase is unit EVAL_FIRST + u of
the held-out split while u < EVAL_COUNT, and nothing otherwise.  Between rounds Node Zero does what
the launcher wants, as between steps.  A round may be left for a stop: its units write to results
and to the workspace of their permit only, and the results of an evaluation that was left are not
read; the run that goes on makes it again, from its first unit.
"""

from __future__ import annotations

import math

from crystalline._kernels.atomics import monotonic_ns
from crystalline.engine.board import S_BEAT
from crystalline.engine.phase import Phase, Worker
from crystalline.faults import point
from crystalline.ipc.positions import POSITIONS
from crystalline.train import words as w
from crystalline.train.evaluation import MOST_UNITS
from crystalline.train.protocol import Program
from crystalline.train.sums import Merge
from crystalline.train.words import TrainingWords

_LANES, _STEALS, _SEGMENTS, _UPDATED, _TOKENS, _SEQUENCES = map(
    w.sphere_word,
    ("lanes_done", "steals", "segments_done", "segments_updated", "tokens", "sequences"),
)
_GRAD_NORM, _GRAD_LARGEST, _GRAD_SMALLEST = map(
    w.sphere_word, ("grad_norm", "grad_largest", "grad_smallest")
)

COMPUTE, REDUCE, UPDATE, EVALUATE, PACK = "compute", "reduce", "update", "evaluate", "pack"
SNAPSHOT, DIAGNOSE, EXAMINE = "snapshot", "diagnose", "examine"


class StepPhases:
    """Declares the phases of a program in training; `bind` comes before the first of them."""

    words: TrainingWords

    def __init__(self, program: Program, grad_clip: float) -> None:
        self._program = program
        self._grad_clip = grad_clip

    def bind(self, words: TrainingWords) -> None:
        """Take the words that units read and write."""
        self.words = words

    def declare(self) -> tuple[Phase, ...]:
        """Return the phases."""
        program = self._program
        sums, segments = program.sums, program.segment_count
        together = POSITIONS // sums.group
        return (
            Phase(
                COMPUTE, len(sums.units), self._compute, "compute",
                follows=self._after_lanes, computes=True, needs=sums.needs,
                undo=None if sums.is_direct else self._recover_merge,
                cycle=sums.group if sums.is_direct else 0,
                heavy_units=-(-program.heavy_lanes // together) if sums.is_direct else 0,
            ),
            Phase(REDUCE, segments, self._reduce, "reduce", follows=self._after_sums),
            Phase(
                UPDATE, segments, self._update, "update", undo=self._recover,
                follows=self._after_update,
            ),
            Phase(DIAGNOSE, segments, self._diagnose, "update", follows=self._after_diagnosis),
            Phase(EXAMINE, 1, self._examine, "compute"),
            Phase(
                EVALUATE, min(program.eval_units, MOST_UNITS), self._evaluate, "compute",
                computes=True, leaves=True,
            ),
            Phase(PACK, segments, self._pack, "update"),
            *([Phase(SNAPSHOT, segments, self._snapshot, "update")] if program.copies else ()),
        )  # fmt: skip

    # Units.

    def _compute(self, unit: int, permit: int, me: Worker) -> None:
        program, words = self._program, self.words
        step = int(words.descriptor[w.STEP_INDEX])
        epsilon = float(words.descriptor[w.STEP_EPSILON])
        work = program.sums.units[unit]
        if isinstance(work, Merge):
            program.merge(work, permit, step)
            point("compute.merge")
            return
        for lane in work.lanes:
            loss, tokens, norm, smoothed = program.compute_lane(lane, permit, step, epsilon)
            point("compute.lane")
            took_ns = me.book()
            words.results[lane, : w.SQUARES] = (loss, tokens, norm, took_ns, smoothed)
            me.count(_LANES, 1)
            me.count(_TOKENS, tokens)
            me.count(_SEQUENCES, program.sequences_in(lane))
            if (lane - me.position) % POSITIONS:
                me.count(_STEALS, 1)
            if norm:
                words.sphere_numbers[me.index, _GRAD_NORM] = norm
                largest, smallest = program.extremes()
                words.sphere_numbers[me.index, _GRAD_LARGEST] = largest
                words.sphere_numbers[me.index, _GRAD_SMALLEST] = smallest
            words.positions.bump(me.index * POSITIONS + lane % POSITIONS, 1)

    def _recover_merge(self, unit: int, permit: int) -> None:
        work = self._program.sums.units[unit]
        if isinstance(work, Merge):
            point("merge.recover")
            self._program.recover_merge(work, permit, int(self.words.descriptor[w.STEP_INDEX]))

    def _reduce(self, unit: int, _: int, me: Worker) -> None:
        square = self._program.reduce_segment(unit)
        point("reduce.segment")
        self.words.results[unit, w.SQUARES] = square
        me.count(_SEGMENTS, 1)

    def _update(self, unit: int, permit: int, me: Worker) -> None:
        words = self.words
        step, lr = int(words.descriptor[w.STEP_INDEX]), float(words.descriptor[w.STEP_LR])
        point("update.segment")
        self._program.update_segment(unit, permit, step, lr, float(words.outcome[w.CLIP]))
        me.count(_SEGMENTS, 1)
        me.count(_UPDATED, 1)

    def _recover(self, unit: int, permit: int) -> None:
        point("update.recover")
        self._program.recover(permit, unit, int(self.words.descriptor[w.STEP_INDEX]))

    def _evaluate(self, unit: int, permit: int, _: Worker) -> None:
        words = self.words
        if unit < int(words.descriptor[w.EVAL_COUNT]):
            first = int(words.descriptor[w.EVAL_FIRST])
            loss, tokens = self._program.evaluate_unit(first + unit, permit)
            point("evaluate.unit")
            words.results[unit, : w.SQUARES] = (loss, tokens, 0.0, 0.0, loss)

    def _pack(self, unit: int, _: int, me: Worker) -> None:
        point("pack.segment")
        self._program.pack_segment(unit)
        me.count(_SEGMENTS, 1)

    def _snapshot(self, unit: int, _: int, me: Worker) -> None:
        point("snapshot.unit")
        self._program.copy_segment(unit)
        me.count(_SEGMENTS, 1)

    def _diagnose(self, unit: int, _: int, __: Worker) -> None:
        words = self.words
        step, lr = int(words.descriptor[w.STEP_INDEX]), float(words.descriptor[w.STEP_LR])
        self._program.diagnose_segment(unit, step, lr)

    def _examine(self, _: int, permit: int, me: Worker) -> None:
        program, words = self._program, self.words
        losses = words.results[: program.lane_count, w.LOSS_SUM].tolist()
        step = int(words.descriptor[w.STEP_INDEX])
        epsilon = float(words.descriptor[w.STEP_EPSILON])
        program.examine(permit, step, epsilon, losses, lambda: me.count(S_BEAT, 1))

    # What follows.

    def _after_lanes(self) -> str | None:
        words = self.words
        losses = words.results[: self._program.lane_count, w.LOSS_SUM].tolist()
        finite = all(map(math.isfinite, losses))
        words.outcome[:] = 0.0
        point("compute.lanes")
        words.outcome[w.NON_FINITE] = not finite
        words.outcome[w.LANES_DONE_NS] = monotonic_ns()
        return REDUCE if finite else DIAGNOSE

    def _after_sums(self) -> str | None:
        words = self.words
        squares = words.results[: self._program.segment_count, w.SQUARES].tolist()
        norm = math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.nan
        words.outcome[w.NORM] = norm
        words.outcome[w.SUMS_DONE_NS] = monotonic_ns()
        point("reduce.segments")
        words.outcome[w.NON_FINITE] = not math.isfinite(norm)
        words.outcome[w.CLIP] = clip_factor(norm, self._grad_clip)
        return UPDATE if math.isfinite(norm) else DIAGNOSE

    def _after_update(self) -> str | None:
        return DIAGNOSE if self.words.descriptor[w.DIAGNOSES] else None

    def _after_diagnosis(self) -> str | None:
        return EXAMINE if self.words.outcome[w.NON_FINITE] else None


def clip_factor(norm: float, grad_clip: float) -> float:
    """Return what gradients are multiplied by; `grad_clip` 0 means no clipping.

    >>> clip_factor(4.0, 1.0), clip_factor(0.5, 1.0), clip_factor(4.0, 0.0)
    (0.25, 1.0, 1.0)
    """
    return grad_clip / norm if grad_clip and norm > grad_clip else 1.0
