"""The engine's own regions of the arena: their table, and the names of their words.

`crystalline.ipc` tells who may write what.
"""

from __future__ import annotations

import numpy as np

from crystalline._kernels.atomics import Words
from crystalline.ipc.arena import Arena, Region
from crystalline.ipc.barrier import BARRIER_WORDS, POSITIONS, Barrier, Kind
from crystalline.ipc.permits import Permits

MAX_SPHERES = 64
LOSS_RING = 4096
EVAL_RING = 256
ERROR_BYTES = 2048

# control: requests of the launcher.
CONTROL_WORDS = 16
(
    STOP,  # reason to stop after the current step, 0: none (train.spec.STOP_REASONS)
    PAUSE,  # 1: stay idle between steps
    CHECKPOINT,  # number of checkpoints asked for so far
    SET_WORKERS,  # number of spheres wanted, 0: as started
    ATTACHED,  # 1: the launcher has mapped the arena
    SUSPENDED_NS,  # time that the whole run was suspended by job control so far
) = range(6)

# state: what Node Zero does now.
STATE_WORDS = 32
(
    RUN_STATE,  # index into train.stats.RUN_STATES
    STEP,  # finished steps
    TOKENS,  # processed since step 0
    DROPPED,  # steps skipped for non-finite gradients
    SPHERES,  # spheres wanted now
    LOSSES,  # entries ever written to the ring of losses
    EVALS,  # entries ever written to the ring of evaluations
    CHECKPOINTS,  # requests for checkpoints that have been answered
    STARTED_NS,  # monotonic time at which training began in this session
    STEP_NS,  # time spent in training steps in this session
    SESSION_TOKENS,  # tokens processed in this session
    DEATHS,  # spheres that died in this session
    MAX_STEPS,  # steps of the whole run, as planned now
    PAUSED_NS,  # time that this session was paused
    SINCE_NS,  # monotonic time at which what it does now began: a state, or the step in hand
    WORK_DONE,  # of what it does now: tokens evaluated, or segments packed
    WORK_TOTAL,  # 0: not known
) = range(17)

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
) = range(8)

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

# results: a row per unit.  REDUCE writes SQUARES and leaves the lanes' words alone.
RESULT_WORDS = 8
LOSS_SUM, TOKEN_COUNT, LANE_NORM, UNIT_NS, SMOOTHED_SUM, SQUARES = range(6)

# spheres: a row per sphere.
SPHERE_WORDS = 32
(
    S_STATE,  # index into train.stats.SPHERE_STATES
    S_PID,
    S_BEAT,  # grows while the sphere is well
    S_LANES,
    S_STEALS,
    S_SEGMENTS,
    S_TOKENS,
    S_COMPUTE_NS,
    S_SYNC_NS,
    S_IDLE_NS,
    S_GRAD_NORM,  # float64
    S_RESPAWNS,
    S_WAIT_NS,
) = range(13)


def engine_regions(units: int, permits: int) -> list[Region]:
    """Return the table of the engine's regions; `units` is the most units of any phase."""
    return [
        Region("control", "int64", (CONTROL_WORDS,)),
        Region("state", "int64", (STATE_WORDS,)),
        Region("status", "float64", (STATUS_WORDS,)),
        Region("barrier", "int64", (BARRIER_WORDS,)),
        Region("permits", "int64", (Permits.words_needed(permits),)),
        Region("claims", "int64", (units,)),
        Region("descriptor", "float64", (DESCRIPTOR_WORDS,)),
        Region("outcome", "float64", (OUTCOME_WORDS,)),
        Region("results", "float64", (units, RESULT_WORDS)),
        Region("spheres", "int64", (MAX_SPHERES, SPHERE_WORDS)),
        Region("positions", "int64", (MAX_SPHERES, POSITIONS)),
        Region("errors", "uint8", (MAX_SPHERES, ERROR_BYTES)),
        Region("losses", "float64", (LOSS_RING, 2)),
        Region("evals", "float64", (EVAL_RING, 3)),
    ]


class Board:
    """The engine's doors to an arena; `units` as `Barrier` takes it (watchers need none)."""

    def __init__(
        self,
        arena: Arena,
        units: dict[Kind, int] | None = None,
        lanes_per_unit: int = 1,
        heavy_units: int = 0,
    ) -> None:
        self.barrier = Barrier(
            arena["barrier"], arena["claims"], units or {}, lanes_per_unit, heavy_units
        )
        self.permits = Permits(arena["permits"])
        self.control = Words(arena["control"])
        self.state = Words(arena["state"])
        self.spheres = Words(arena["spheres"].reshape(-1))  # row s starts at s · SPHERE_WORDS
        self.positions = Words(arena["positions"].reshape(-1))
        self.sphere_table = arena["spheres"]  # (MAX_SPHERES, SPHERE_WORDS)
        self.position_table = arena["positions"]  # (MAX_SPHERES, POSITIONS)
        self.lane_norms = arena["spheres"].view("float64")[:, S_GRAD_NORM]  # (MAX_SPHERES,)
        self.status = arena["status"]
        self.descriptor = arena["descriptor"]
        self.outcome = arena["outcome"]
        self.results = arena["results"]  # (units, RESULT_WORDS)
        self.losses = arena["losses"]  # (LOSS_RING, 2)
        self.evals = arena["evals"]  # (EVAL_RING, 3)
        self.errors = arena["errors"]  # (MAX_SPHERES, ERROR_BYTES)

    def leave_last_words(self, sphere: int, text: str) -> None:
        """Keep the end of `text` as what a failing sphere has to say."""
        raw = text.encode()[-ERROR_BYTES:].ljust(ERROR_BYTES, b"\0")
        self.errors[sphere] = np.frombuffer(raw, np.uint8)

    def last_words(self, sphere: int) -> str:
        """Return what a sphere left, and clear it."""
        raw = bytes(self.errors[sphere])
        self.errors[sphere] = 0
        return raw.rstrip(b"\0").decode("utf-8", "replace")
