"""What a watcher may know of a run: immutable snapshots, taken from shared memory.

`ui` draws a `Snapshot` and knows nothing else of training.  Its numbers are the figures of
`train.figures`.  In another process a snapshot comes
as JSON: `to_json`, `from_json`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_type_hints

from crystalline.train.figures import (
    Activity,
    Cell,
    Column,
    RunFigures,
    SphereStats,
    figures_of,
    shown,
)

__all__ = [
    "OVER", "RUN_STATES", "SPHERE_STATES", "Activity", "Cell", "Column", "EvalPoint", "RunFigures",
    "Snapshot", "SphereStats", "shown",
]  # fmt: skip

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
class EvalPoint:
    """One evaluation over the held-out split."""

    step: int
    loss: float  # nats per token
    bits_per_byte: float


@dataclass(frozen=True)
class Snapshot(RunFigures):
    """The whole run at one moment: its figures, its past, and its spheres."""

    loss_history: tuple[tuple[int, float], ...] = ()  # (step, loss), thinned, oldest first
    eval_history: tuple[EvalPoint, ...] = ()
    parameter_groups: tuple[tuple[str, float, float], ...] = ()  # (group, |weight|, |gradient|) rms
    health_reasons: tuple[str, ...] = ()  # why it is not OK
    named_checkpoints: tuple[tuple[str, int], ...] = ()  # name, step: kept for good
    spheres: tuple[SphereStats, ...] = field(default_factory=tuple)

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
            given["spheres"] = tuple(_sphere(sphere) for sphere in given["spheres"])
            snapshot = cls(**given)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError("it is no snapshot of this version") from error
        _require_types(snapshot)
        for sphere in snapshot.spheres:
            _require_types(sphere)
        return snapshot


_FIGURES = tuple(figures_of(RunFigures))


_KINDS: dict[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,)}


def _require_types(record: Snapshot | SphereStats) -> None:
    """Raise `ValueError` for a plain field that is not what it is declared to be."""
    for name, hint in get_type_hints(type(record)).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        value = getattr(record, name)
        if kinds[0] not in _KINDS or (value is None and (len(kinds) > 1 or kinds[0] is float)):
            continue  # figures that are not finite come as None
        if isinstance(value, bool) or not isinstance(value, _KINDS[kinds[0]]):
            raise ValueError(f"'{name}' is no {kinds[0].__name__}")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain_fields(row: EvalPoint | SphereStats) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(row).items()}


def _sphere(values: dict[str, Any]) -> SphereStats:
    """Return a sphere; its numbers that were not finite are NaN."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else math.nan if value is None else value
        for name, value in values.items()
    }
    return SphereStats(**given)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
