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
    "OVER", "RUN_STATES", "SPHERE_STATES", "Activity", "Cell", "Column", "Diagnosis", "EvalPoint",
    "RunFigures", "Sizes", "Snapshot", "SphereStats", "shown",
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
class Sizes:
    """What the weights and gradients of a group, or of a layer, look like; before clipping."""

    name: str
    weight_rms: float
    weight_max: float  # the largest |weight|
    gradient_rms: float
    gradient_mean: float  # of |gradient|
    gradient_max: float
    gradient_zeros: float  # share of gradients that are exactly zero, 0 to 1
    update_ratio: float | None  # rms of what the step changed over that of the weights; None: of 0


@dataclass(frozen=True)
class Diagnosis:
    """What weights and gradients look like after a step."""

    step: int
    groups: tuple[Sizes, ...]
    layers: tuple[Sizes, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as values of JSON; figures that are not finite become None."""
        return {
            "step": self.step,
            "groups": [_plain_fields(sizes) for sizes in self.groups],
            "layers": [_plain_fields(sizes) for sizes in self.layers],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Diagnosis:
        """Return what `to_json` described.  Raises `KeyError`, `TypeError` for anything else."""
        groups, layers = (
            tuple(
                Sizes(**{name: _unplain(name, value) for name, value in row.items()})
                for row in rows
            )
            for rows in (values["groups"], values["layers"])
        )
        return cls(int(values["step"]), groups, layers)


@dataclass(frozen=True)
class Snapshot(RunFigures):
    """The whole run at one moment: its figures, its past, and its spheres."""

    loss_history: tuple[tuple[int, float], ...] = ()  # (step, loss), thinned, oldest first
    eval_history: tuple[EvalPoint, ...] = ()
    diagnosis: Diagnosis | None = None  # the newest
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
        values["work_by_group"] = list(self.work_by_group)
        values["loss_history"] = [list(map(_plain, p)) for p in self.loss_history if history]
        values["eval_history"] = [_plain_fields(p) for p in self.eval_history if history]
        values["diagnosis"] = None if self.diagnosis is None else self.diagnosis.to_json()
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
            given["work_by_group"] = tuple(map(float, given["work_by_group"]))
            if given["diagnosis"] is not None:
                given["diagnosis"] = Diagnosis.from_json(given["diagnosis"])
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


def _plain_fields(row: EvalPoint | SphereStats | Sizes) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else _plain(value)
        for name, value in vars(row).items()
    }


def _sphere(values: dict[str, Any]) -> SphereStats:
    """Return a sphere; its numbers that were not finite are NaN."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else math.nan if value is None else value
        for name, value in values.items()
    }
    return SphereStats(**given)


def _unplain(name: str, value: Any) -> Any:
    return math.nan if value is None and name != "update_ratio" else value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
