"""What a watcher may know of a run: immutable snapshots, taken from shared memory.

`ui` draws a `Snapshot` and knows nothing else of training.  In another process a snapshot comes
as JSON: `to_json`, `from_json`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

SPHERE_STATES = (
    "starting", "idle", "waiting", "dead", "retired", "control", "compute", "reduce", "update",
)  # fmt: skip
RUN_STATES = (
    "starting", "training", "paused", "evaluating", "discovering", "saving", "stopping", "stopped",
    "finished", "held", "restoring",
)  # fmt: skip
OK, SLOW, STALLED, DEAD = "OK", "SLOW", "STALLED", "DEAD"  # health of a sphere; see `health`
DEGRADED, FAILED = "DEGRADED", "FAILED"  # ... of a run, which may be OK, too
OVER = ("stopped", "finished")  # of these, the last of a run: stopped before its last step, or not


@dataclass(frozen=True)
class SphereStats:
    """One worker process.  Times and counts are totals since the sphere started."""

    index: int
    position: int  # symmetry position whose work it prefers
    level: int  # depth in the tree of spheres: 1 for a child of Node Zero
    parent: int  # index of its parent, -1 for Node Zero
    pid: int
    state: str  # one of SPHERE_STATES
    lanes_done: int  # lanes (batches of sequences) computed
    steals: int  # of these, lanes of another position
    segments_done: int  # reductions and updates
    tokens: int
    compute_s: float
    sync_s: float  # reducing, updating, and waiting at the barriers with a permit
    wait_s: float  # of these, waiting and handing over
    idle_s: float  # waiting for work or for a permit
    grad_norm: float  # L2 norm of the lane it computed last
    memory_bytes: int  # its own, and its part of what it shares
    respawns: int  # times this place was filled again after a death
    id: int = 0  # of the node, never used again in a session
    place: int = 0  # among its siblings, from 0
    group: int = 0  # symmetry position by its place in the tree
    pace_s: float = 0.0  # time of a unit of some position lately, 0: it did none
    quiet_s: float = 0.0  # since its last sign of life
    health: str = OK


@dataclass(frozen=True)
class EvalPoint:
    """One evaluation over the held-out split."""

    step: int
    loss: float  # nats per token
    bits_per_byte: float


@dataclass(frozen=True)
class Snapshot:
    """The whole run at one moment."""

    run_dir: str
    state: str  # one of RUN_STATES
    step: int
    max_steps: int  # of the whole run, as planned now
    epoch: float  # passes over the training split so far
    elapsed_s: float  # this session, pauses left out
    eta_s: float | None  # None until it can be estimated
    loss: float | None  # latest training loss, nats per token
    val_loss: float | None
    best_val_loss: float | None
    val_bits_per_byte: float | None
    learning_rate: float
    grad_norm: float | None
    clip_factor: float  # 1.0 when not clipped
    tokens: int  # processed since step 0
    tokens_per_second: float
    flops_per_token: float
    peak_share: float | None  # model FLOP/s over the measured peak of the cores in use
    dropped_steps: int  # steps skipped for non-finite gradients
    workers: int
    permits: int
    lanes: int
    parameters: int
    precision: str
    isa: str
    last_checkpoint: str | None
    message: str | None  # the newest line worth reading, e.g. "sphere 3 was replaced"
    loss_history: tuple[tuple[int, float], ...] = ()  # (step, loss), thinned, oldest first
    eval_history: tuple[EvalPoint, ...] = ()
    parameter_groups: tuple[tuple[str, float, float], ...] = ()  # (group, |weight|, |gradient|) rms
    spheres: tuple[SphereStats, ...] = field(default_factory=tuple)
    crystalline_loss: float | None = None  # against the smoothed targets; None: they are plain
    state_s: float = 0.0  # how long the state, or the step in hand, has lasted
    saving_step: int | None = None  # whose checkpoint is written while training goes on
    work_done: int = 0  # of what the state is about: tokens evaluated
    work_total: int = 0  # 0: not known
    dropped_lately: int = 0  # of the last hundred steps
    health: str = OK
    health_reasons: tuple[str, ...] = ()  # why it is not OK
    lr_factor: float = 1.0  # that the schedule's learning rates are multiplied by
    named_checkpoints: tuple[tuple[str, int], ...] = ()  # name, step: kept for good

    @property
    def work_share(self) -> float | None:
        """How much of what the state is about is done, 0 to 1; None where that is not known."""
        return min(1.0, self.work_done / self.work_total) if self.work_total else None

    @property
    def work_eta_s(self) -> float | None:
        """Seconds until that is done, going by how long the first part took."""
        if not self.work_total or not self.work_done:
            return None
        return self.state_s * (self.work_total - self.work_done) / self.work_done

    def to_json(self, *, history: bool = True) -> dict[str, Any]:
        """Return the fields as values of JSON; figures that are not finite become None.

        Without `history` the losses and evaluations of the past are left out.
        """
        values = {name: _plain(getattr(self, name)) for name in _FIGURES}
        values["loss_history"] = [list(map(_plain, p)) for p in self.loss_history if history]
        values["eval_history"] = [_plain_fields(p) for p in self.eval_history if history]
        values["parameter_groups"] = [list(map(_plain, group)) for group in self.parameter_groups]
        values["health_reasons"] = list(self.health_reasons)
        values["named_checkpoints"] = [list(named) for named in self.named_checkpoints]
        values["spheres"] = [_plain_fields(sphere) for sphere in self.spheres]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Snapshot:
        """Return what `to_json` described.  Raises `ValueError` for what it does not describe."""
        try:
            given = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            given["loss_history"] = tuple(
                (int(step), _number(loss)) for step, loss in given["loss_history"]
            )
            given["eval_history"] = tuple(
                EvalPoint(int(p["step"]), _number(p["loss"]), _number(p["bits_per_byte"]))
                for p in given["eval_history"]
            )
            given["parameter_groups"] = tuple(
                (str(name), _number(weight), _number(gradient))
                for name, weight, gradient in given["parameter_groups"]
            )
            given["health_reasons"] = tuple(map(str, given["health_reasons"]))
            given["named_checkpoints"] = tuple(
                (str(name), int(step)) for name, step in given["named_checkpoints"]
            )
            given["spheres"] = tuple(
                SphereStats(**{**sphere, "grad_norm": _number(sphere["grad_norm"])})
                for sphere in given["spheres"]
            )
            snapshot = cls(**given)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError("it is no snapshot of this version") from error
        _require_types(snapshot)
        for sphere in snapshot.spheres:
            _require_types(sphere)
        return snapshot


_NESTED = (
    "loss_history", "eval_history", "parameter_groups", "named_checkpoints", "spheres",
    "health_reasons",
)  # fmt: skip
_FIGURES = tuple(f.name for f in dataclasses.fields(Snapshot) if f.name not in _NESTED)


_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


def _require_types(record: Snapshot | SphereStats) -> None:
    """Raise `ValueError` for a plain field that is not what it is declared to be."""
    for one in dataclasses.fields(record):
        kind, _, optional = str(one.type).partition(" | ")
        value = getattr(record, one.name)
        if kind not in _KINDS or (value is None and (optional or kind == "float")):
            continue  # figures that are not finite come as None
        if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
            raise ValueError(f"'{one.name}' is no {kind}")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain_fields(row: EvalPoint | SphereStats) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(row).items()}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
