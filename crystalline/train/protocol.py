"""The contract between training and what is trained.

The engine knows units of work, phases and deaths; `train.step` declares the phases of a step to
it, and Node Zero takes steps; a `Program` knows models, data and files.  Steps are counted from
0: step *k* is the one that takes the run from *k* finished steps to *k* + 1.

Rules that make the bits independent of who computes:

* What a unit writes depends on its arguments and on what earlier phases wrote, never
  on the permit (which only lends scratch memory), the process, or time.
* `compute_lane`, `reduce_segment`, `pack_segment`, `copy_segment` and `evaluate_unit` may be
  killed anywhere and called again: they must not change what they read.  In particular a
  reduction must not sum into one of its own lanes.
* `update_segment` and `merge` work in place.  It must copy what it is going to change to the undo
  area of its permit, then mark that area with (step, segment), then change; and mark
  the area void before it copies the next.  `recover` puts the copy back if the mark
  fits, and does nothing if it does not; so does `recover_merge` for a merge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crystalline._kernels.marks import MarkRow
from crystalline.ipc.arena import Arena, Region
from crystalline.train.config import TrainConfig
from crystalline.train.examination import Culprit
from crystalline.train.stats import Diagnosis
from crystalline.train.sums import Merge, Sums


@dataclass(frozen=True)
class Discovery:
    """What a root discovery changed."""

    generation: int  # of the crystal that is now in use; 0 is the one of the start
    roots_changed: int  # tokens with another root than before
    affixes_gained: int
    affixes_lost: int
    words: str  # the same for people


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read and fits the program; nothing has changed yet."""

    state: dict[str, Any]  # that it was saved with
    config: dict[str, Any]  # the settings that it was saved with
    put: Callable[[], None]  # writes it into the arena.  (PACK follows.)


class Program(Protocol):
    """A model in training, as its phases see it.

    It is built once, in Node Zero, by the function that `RunSpec.program` names,
    with a spec whose `permits` is set; spheres are forks of that process.
    """

    lane_count: int  # lanes with work in a step: min(lanes, sequences per step)
    heavy_lanes: int  # the first lanes, which have a sequence more than the others; 0: all alike
    sums: Sums  # which lanes are claimed together, and how their gradients are summed
    segment_count: int
    eval_units: int  # of an evaluation; 0: there is nothing held out
    eval_tokens: int  # that an evaluation predicts
    copies: bool  # whether there is room for a copy of what a checkpoint holds
    tokens_per_step: int

    def regions(self) -> list[Region]:
        """Return what the program needs in the arena."""
        ...

    def bind(self, arena: Arena) -> None:
        """Take views into the arena.  Called once, in Node Zero, before any sphere exists."""
        ...

    def record(self, marks: MarkRow) -> None:
        """Mark there what the passes of a lane take.  Called in a sphere of a profiled run."""
        ...

    def initialize(self) -> None:
        """Fill weights and moments for step 0.  (PACK follows.)"""
        ...

    def load(self, checkpoint: Path) -> Loaded:
        """Read a checkpoint, for the arena.

        Raises `CheckpointError` for damage, and for one of another model or text.
        """
        ...

    def find(self, name: str) -> Path:
        """Return the checkpoint of this run that a step, or a name, means.

        Raises `CheckpointError` where there is none.
        """
        ...

    def copy_segment(self, segment: int) -> None:
        """Copy what a checkpoint holds of a segment to where nobody trains, with `copies` only."""
        ...

    def save(self, state: dict[str, Any], config: TrainConfig, *, copied: bool = False) -> Path:
        """Write a checkpoint of the arena, `state` and the settings; return its directory.

        With `copied`, of the copy in the arena, while training goes on: it is called in a fork of
        Node Zero then, one at a time.  `state["step"]` is the number of finished steps; `config` is
        that of the run, with the plan as it is now.  Pruning is the program's, too.  Raises
        `SaveError`.
        """
        ...

    def mark_best(self, checkpoint: Path) -> None:
        """Mark a saved checkpoint: no evaluation so far was as good as the one of its step.

        Raises `SaveError`.
        """
        ...

    def mark_latest(self, checkpoint: Path) -> None:
        """Mark a checkpoint of the run as where it is now."""
        ...

    def named(self) -> dict[str, int]:
        """Return the checkpoints of the run that were given names, as their steps."""
        ...

    def name(self, checkpoint: Path, name: str) -> None:
        """Give a checkpoint of the run a name, by which it is found, and kept for good.

        Raises `UsageError` for a name that cannot be or is taken, and `SaveError`.
        """
        ...

    def lost_file(self) -> str | None:
        """Return what is wrong with a file that the spheres have mapped, as a sentence's beginning.

        Asked when one of them died by SIGBUS, which is how a file that was cut off shows; None
        where all are whole, and memory is short.
        """
        ...

    def weights_sha256(self) -> str:
        """Return the hash of the weights, in hexadecimal."""
        ...

    def diagnose_segment(self, segment: int, step: int, lr: float) -> None:
        """Measure a segment's weights, gradients and their change by step number `step`.

        `lr` is the learning rate of that step.  It changes nothing but what `diagnosis` reads.
        """
        ...

    def diagnosis(self, step: int) -> Diagnosis:
        """Return what the segments came to, after `step` finished steps."""
        ...

    def examine(
        self, permit: int, step: int, epsilon: float, losses: Sequence[float],
        alive: Callable[[], None],
    ) -> None:  # fmt: skip
        """Find where step number `step`, which is dropped, was not finite first.

        All segments are diagnosed; `losses` are the lanes'.  It is called by one sphere while no
        other works, may overwrite gradients, and calls `alive` at least once a lane.
        """
        ...

    def culprit(self, step: int) -> Culprit | None:
        """Return what `examine` found of step number `step`; None: nothing."""
        ...

    def sequences_in(self, lane: int) -> int:
        """Return how many sequences a lane has in a step."""
        ...

    def extremes(self) -> tuple[float, float]:
        """Return the largest |gradient| of the lane that this sphere has just computed, and the
        smallest that is not 0; where its norm was computed."""
        ...

    def discover(self, commit: Callable[[], None]) -> Discovery | None:
        """Find the vocabulary's roots anew from what was learned; return what changed, if anything.

        Called in Node Zero while nobody computes, before the step that follows the evaluation
        that was due for it, and again by a run resumed at that step: it depends on the arena and
        the checkpoint only.  An exception may end it anywhere until it has called `commit`, which
        may raise, too; what others read must not change before that.
        """
        ...

    def compute_lane(
        self, lane: int, permit: int, step: int, epsilon: float
    ) -> tuple[float, int, float, float]:
        """Run a lane's sequences forward and backward into the lane's gradient.

        `epsilon` is the share of the targets that goes to similar tokens in this step.
        Returns the loss summed over tokens (nats), the number of tokens, the L2 norm of
        the lane's gradient (0.0 if not computed), and the loss against smoothed targets,
        which is what the gradient is of (the loss itself where targets are plain).
        """
        ...

    def merge(self, merge: Merge, permit: int, step: int) -> None:
        """Add the gradients in one buffer to those in another, in the merge's slice of them.

        Called where `sums` is not direct only, and then what `recover_merge` undoes.
        """
        ...

    def recover_merge(self, merge: Merge, permit: int, step: int) -> None:
        """Undo what a dead sphere left of `merge(merge, permit, step)`."""
        ...

    def reduce_segment(self, segment: int) -> float:
        """Sum what is left to be summed in the fixed tree order; return the sum of squares."""
        ...

    def update_segment(
        self, segment: int, permit: int, step: int, lr: float, clip_factor: float
    ) -> None:
        """Clip, take the optimizer's step, write weights and their packed forms."""
        ...

    def recover(self, permit: int, segment: int, step: int) -> None:
        """Undo what a dead sphere left of `update_segment(segment, permit, step, …)`."""
        ...

    def pack_segment(self, segment: int) -> None:
        """Write the packed forms of the segment's weights, after a start or a resume."""
        ...

    def evaluate_unit(self, unit: int, permit: int) -> tuple[float, int]:
        """Return the loss summed over a part of the held-out split (nats), and its tokens.

        Units take about as long as each other: an evaluation can be left, paused and watched
        only between them.
        """
        ...
