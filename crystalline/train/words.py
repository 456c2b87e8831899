"""The words of the arena that are training's own: their table, and their names.

    region     dtype    shape         written by
    counts     int64    (24,)         Node Zero                      how far the run is
    status     float64  (24,)         Node Zero                      figures of the newest step
    descriptor float64  (8,)          Node Zero, between phases      step, learning rate, epsilon;
                                                                     round of an evaluation
    outcome    float64  (8,)          holder of the hand-over        norm, clip factor, flag
    results    float64  (units, 8)    claimant of the unit           loss, tokens, norm, time,
                                                                     smoothed loss; squares
    positions  int64    (rows, 12)    the sphere                     lanes by position
    losses     float64  (4096, 2)     Node Zero                      ring of (step, loss)
    evals      float64  (256, 3)      Node Zero                      ring of (step, loss, bits)

Which figure has which word of `counts`, `status` and a sphere's row follows from the table of
figures (`crystalline.train.figures`); words of the engine's own are in `crystalline.engine.board`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline._kernels.atomics import Words
from crystalline.engine import board
from crystalline.engine.board import S_PROGRAM, SPHERE_WORDS
from crystalline.ipc.arena import Arena, Region
from crystalline.ipc.positions import POSITIONS
from crystalline.train.figures import (
    RunFigures,
    SphereStats,
    Word,
    figures_of,
    is_whole,
    own_words,
)

LOSS_RING = 4096
EVAL_RING = 256

# counts: how far the run is: its figures, and what the launcher makes others of.
COUNT_WORDS = 24
COUNTED = own_words(RunFigures, "counts")
(
    LOSSES,  # entries ever written to the ring of losses
    EVALS,  # entries ever written to the ring of evaluations
    STEP_NS,  # time spent in training steps in this session
    SESSION_TOKENS,  # tokens processed in this session
    SAVER_PID,  # the process that writes a checkpoint while training goes on
) = range(len(COUNTED), len(COUNTED) + 5)

# status: figures of the newest finished step.
STATUS_WORDS = 24
MEASURED = own_words(RunFigures, "status")

# descriptor: what the phases in hand need: those of a step, or a round of an evaluation.
DESCRIPTOR_WORDS = 8
(
    STEP_INDEX,
    STEP_LR,
    STEP_EPSILON,  # share of the targets that goes to similar tokens
    EVAL_FIRST,  # first unit of the round: unit u of the phase is unit EVAL_FIRST + u of the split
    EVAL_COUNT,  # units of the round; the other units of the phase are empty
) = range(5)

# outcome: what a hand-over found.
OUTCOME_WORDS = 8
NORM, CLIP, NON_FINITE = range(3)

# results: a row per unit.  Reductions write SQUARES and leave the lanes' words alone.
RESULT_WORDS = 8
LOSS_SUM, TOKEN_COUNT, LANE_NORM, UNIT_NS, SMOOTHED_SUM, SQUARES = range(6)

# spheres: what a sphere counts for training, in its row of the engine's table.
SPHERE_OWN = own_words(SphereStats, "spheres")
if S_PROGRAM + len(SPHERE_OWN) > SPHERE_WORDS or len(MEASURED) > STATUS_WORDS:
    raise ValueError("there are more figures than words in the arena")


def sphere_word(figure: str) -> int:
    """Return the word of a figure in the row of a sphere.

    >>> sphere_word("lanes_done") == S_PROGRAM
    True
    """
    return S_PROGRAM + SPHERE_OWN.index(figure)


def training_regions(units: int, rows: int) -> list[Region]:
    """Return the table of training's regions.

    `units` is the most lanes or units of any phase, `rows` the most nodes of the tree of spheres.
    """
    return [
        Region("counts", "int64", (COUNT_WORDS,)),
        Region("status", "float64", (STATUS_WORDS,)),
        Region("descriptor", "float64", (DESCRIPTOR_WORDS,)),
        Region("outcome", "float64", (OUTCOME_WORDS,)),
        Region("results", "float64", (units, RESULT_WORDS)),
        Region("positions", "int64", (rows, POSITIONS)),
        Region("losses", "float64", (LOSS_RING, 2)),
        Region("evals", "float64", (EVAL_RING, 3)),
    ]


class TrainingWords:
    """Training's doors to an arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._state = Words(arena["state"])
        self.counts = Words(arena["counts"])
        self.status = arena["status"]
        self.descriptor = arena["descriptor"]
        self.outcome = arena["outcome"]
        self.results = arena["results"]  # (units, RESULT_WORDS)
        self.positions = Words(arena["positions"].reshape(-1))
        self.position_table = arena["positions"]  # (rows, POSITIONS)
        self.sphere_table = arena["spheres"]
        self.sphere_numbers = arena["spheres"].view("float64")  # those that are float64
        self.losses = arena["losses"]  # (LOSS_RING, 2)
        self.evals = arena["evals"]  # (EVAL_RING, 3)

    def enter(self, **figures: float | None) -> None:
        """Write figures of the run; None: it is not known."""
        for name, value in figures.items():
            if name in COUNTED:
                self.counts.store(COUNTED.index(name), int(value or 0))
            else:
                self.status[MEASURED.index(name)] = math.nan if value is None else value

    def count_of(self, name: str) -> int:
        """Return a figure of the run that is a count."""
        return self.counts.load(COUNTED.index(name))

    def run_figures(self) -> dict[str, Any]:
        """Return the figures of the run that have a word, by name."""
        has_steps = self.count_of("step") > 0
        values: dict[str, Any] = {}
        for name, figure in figures_of(RunFigures).items():
            if figure.word is None:
                continue
            word = figure.word
            if word.engine:
                values[name] = sum(self._state.load(getattr(board, w)) for w in word.engine)
            elif word.region == "counts":
                count = self.count_of(name)
                values[name] = None if word.nothing and not count else count
            elif word.of_step and not has_steps:
                values[name] = word.unknown
            else:
                value = float(self.status[MEASURED.index(name)])
                known = not math.isnan(value) and (value or not word.unknown)
                values[name] = value if known else word.unknown
        return values

    def sphere_figures(self, row: int) -> dict[str, Any]:
        """Return the figures of a sphere that have a word, by name."""
        words: npt.NDArray[np.int64] = self.sphere_table[row].copy()
        values: dict[str, Any] = {}
        for name, word, indices, dtype in _SPHERE_WORDS:
            if dtype is None:
                values[name] = tuple(self._arena[word.region][row].tolist())
            else:
                number = sum(words.view(dtype)[indices].tolist())
                values[name] = number / word.divisor if word.divisor != 1.0 else number
        return values


def _sphere_words() -> list[tuple[str, Word, list[int], str | None]]:
    """Return where the figures of a sphere stand: words of its row and their type, or a region."""
    found: list[tuple[str, Word, list[int], str | None]] = []
    for name, figure in figures_of(SphereStats).items():
        word = figure.word
        if word is None:
            continue
        if word.region != "spheres":
            found.append((name, word, [], None))
        elif word.engine:
            found.append((name, word, [getattr(board, w) for w in word.engine], "int64"))
        else:
            dtype = "int64" if is_whole(SphereStats, name) else "float64"
            found.append((name, word, [sphere_word(name)], dtype))
    return found


_SPHERE_WORDS = _sphere_words()
