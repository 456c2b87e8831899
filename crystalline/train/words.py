"""The words of the arena that are training's own: their table, and their names.

    region     dtype    shape         written by
    counts     int64    (16,)         Node Zero                      how far the run is
    status     float64  (16,)         Node Zero                      figures of the newest step
    descriptor float64  (8,)          Node Zero, between phases      step, learning rate, epsilon;
                                                                     round of an evaluation
    outcome    float64  (8,)          holder of the hand-over        norm, clip factor, flag
    results    float64  (units, 8)    claimant of the unit           loss, tokens, norm, time,
                                                                     smoothed loss; squares
    positions  int64    (rows, 12)    the sphere                     lanes by position
    losses     float64  (4096, 2)     Node Zero                      ring of (step, loss)
    evals      float64  (256, 3)      Node Zero                      ring of (step, loss, bits)

Words of the engine's own are in `crystalline.engine.board`.
"""

from __future__ import annotations

from crystalline._kernels.atomics import Words
from crystalline.engine.board import S_PROGRAM
from crystalline.ipc.arena import Arena, Region
from crystalline.ipc.positions import POSITIONS

LOSS_RING = 4096
EVAL_RING = 256

# counts: how far the run is.
COUNT_WORDS = 16
(
    STEP,  # finished steps
    TOKENS,  # processed since step 0
    DROPPED,  # steps skipped for non-finite gradients
    LOSSES,  # entries ever written to the ring of losses
    EVALS,  # entries ever written to the ring of evaluations
    STEP_NS,  # time spent in training steps in this session
    SESSION_TOKENS,  # tokens processed in this session
    MAX_STEPS,  # steps of the whole run, as planned now
    SAVING,  # steps of the checkpoint that is written while training goes on, 0: none
    SAVER_PID,  # the process that writes it
    DROPPED_LATELY,  # of the last hundred steps
) = range(11)

# status: figures of the newest finished step.
STATUS_WORDS = 16
(
    LOSS,
    LEARNING_RATE,
    GRAD_NORM,
    CLIP_FACTOR,
    BEST_VAL_LOSS,
    VAL_LOSS,
    VAL_BITS,
    CRYSTALLINE_LOSS,  # against the smoothed targets
    LR_FACTOR,  # of the schedule's learning rates, from the next step on
) = range(9)

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
(
    S_LANES,
    S_STEALS,  # lanes of another position
    S_SEGMENTS,
    S_TOKENS,
    S_GRAD_NORM,  # float64, of the lane it computed last
) = range(S_PROGRAM, S_PROGRAM + 5)


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
        self.counts = Words(arena["counts"])
        self.status = arena["status"]
        self.descriptor = arena["descriptor"]
        self.outcome = arena["outcome"]
        self.results = arena["results"]  # (units, RESULT_WORDS)
        self.positions = Words(arena["positions"].reshape(-1))
        self.position_table = arena["positions"]  # (rows, POSITIONS)
        self.lane_norms = arena["spheres"].view("float64")[:, S_GRAD_NORM]  # (rows,)
        self.losses = arena["losses"]  # (LOSS_RING, 2)
        self.evals = arena["evals"]  # (EVAL_RING, 3)
