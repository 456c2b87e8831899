"""The figures that a run tells of itself: one row each, and everything else derives from the row.

A row is a field of a class below, with its `Figure`:

    dropped_steps: Annotated[int, Figure("steps skipped for …", by="Node Zero", word=Word("counts"),
                                         cell=Cell("dropped", "count", (4, 1)))]

* its **word** in the arena, where it has one: `train.words` lays the regions out by it, Node Zero
  and the spheres write it by the figure's name, and the launcher reads it (`train.control`);
* its field of a `Snapshot` (`train.stats`), and thereby of status.json and `cllm control status`;
* its **line** in metrics.jsonl (`train.metrics`): "step" or "evaluation", under its key;
* its **column** in the dashboard's table of spheres, or its **cell** beside the curve
  (`crystalline.ui.frame`); their formats are functions of `crystalline.ui.format`, by name;
* its row of docs/FIGURES.md, which `python -m crystalline.train.figures` writes.

A new figure is a new row, and the line of code that knows its value.  What is no number of one
moment (histories, diagnostics) is no figure, and stands in `train.stats`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

NODE_ZERO, SPHERE, PARENT, LAUNCHER, WATCHER = (
    "Node Zero", "the sphere", "its parent", "the launcher", "the dashboard",
)  # fmt: skip


@dataclass(frozen=True)
class Word:
    """Where in the arena a figure stands."""

    # "counts" (whole numbers) and "status" (float64, NaN while unknown) have a word for each
    # figure of the run; "spheres" has one in each sphere's row; "state" is the engine's; another
    # region has a row for each sphere, and the figure is the whole row.
    region: str
    engine: tuple[str, ...] = ()  # words of the engine's, named in `engine.board`, and summed
    divisor: float = 1.0  # from the word's unit to the figure's
    unknown: float | None = None  # what stands for NaN, and for 0 where a 0 means nothing
    of_step: bool = False  # of the newest step: None before the first
    nothing: bool = False  # of a count: 0 is written for None


@dataclass(frozen=True)
class Line:
    """Which lines of metrics.jsonl have a figure; an optional one comes last, where it is known."""

    kind: str  # "step" or "evaluation"
    key: str = ""  # default: the figure's name
    optional: bool = False


@dataclass(frozen=True)
class Column:
    """How the dashboard's table of spheres shows a figure."""

    name: str
    width: int
    write: str  # a function of `ui.format`
    place: int = 1000  # from left to right
    keep: int = 0  # 0: always there; the highest is left out first where there is no room
    total: str = ""  # in the line of totals: "sum", "mean" or nothing
    left: bool = False


@dataclass(frozen=True)
class Cell:
    """How the dashboard shows a figure of the run beside the curve."""

    label: str
    write: str  # a function of `ui.format`
    place: tuple[int, int] | None = None  # row and side; None: after the others
    alarm: bool = False  # in red while it is not 0
    optional: bool = False  # left out while it is unknown


@dataclass(frozen=True)
class Figure:
    """What is said of a figure; its name and type are those of the field."""

    help: str
    unit: str = ""
    by: str = LAUNCHER  # who writes it
    word: Word | None = None
    line: Line | None = None
    column: Column | None = None
    cell: Cell | None = None


_OWN = Word("spheres")


def _time(*words: str) -> Word:
    return Word("spheres", words, 1e9)


@dataclass(frozen=True)
class SphereStats:
    """One node of the tree of spheres; counts and times are totals since its place was filled."""

    index: Annotated[int, Figure("number of its row", column=Column("#", 3, "plain", 10))]
    position: Annotated[
        int,
        Figure(
            "symmetry position whose work it prefers, 0 to 11: its home where it was given one, "
            "else its group",
            column=Column("pos", 3, "plain", 20, keep=1),
        ),
    ]
    level: Annotated[
        int,
        Figure(
            "depth in the tree of spheres: 1 for a child of Node Zero",
            column=Column("lvl", 3, "plain", 30, keep=6),
        ),
    ]
    parent: Annotated[
        int,
        Figure(
            "index of its parent, -1 for Node Zero", by=PARENT,
            word=Word("spheres", ("S_PARENT",)),
        ),
    ]  # fmt: skip
    pid: Annotated[
        int, Figure("process id, 0 for none", by=PARENT, word=Word("spheres", ("S_PID",)))
    ]
    state: Annotated[
        str,
        Figure("what it does", by=SPHERE, column=Column("state", 8, "line", 40, left=True)),
    ]
    lanes_done: Annotated[
        int,
        Figure(
            "lanes (batches of sequences) whose gradient it computed", "lanes", SPHERE, _OWN,
            column=Column("batches", 7, "count", 50, keep=2, total="sum"),
        ),
    ]  # fmt: skip
    steals: Annotated[
        int,
        Figure(
            "of these, lanes of another position", "lanes", SPHERE, _OWN,
            column=Column("steals", 6, "count", 110, keep=5, total="sum"),
        ),
    ]  # fmt: skip
    segments_done: Annotated[
        int, Figure("segments that it reduced, updated or packed", "segments", SPHERE, _OWN)
    ]
    tokens: Annotated[int, Figure("tokens of its lanes", "tokens", SPHERE, _OWN)]
    compute_s: Annotated[float, Figure("computing", "s", SPHERE, _time("S_COMPUTE_NS"))]
    sync_s: Annotated[
        float,
        Figure(
            "reducing, updating, and waiting at the barriers with a permit", "s", SPHERE,
            _time("S_SYNC_NS", "S_WAIT_NS"),
        ),
    ]  # fmt: skip
    wait_s: Annotated[
        float, Figure("of these, waiting and handing over", "s", SPHERE, _time("S_WAIT_NS"))
    ]
    idle_s: Annotated[
        float, Figure("waiting for work or for a permit", "s", SPHERE, _time("S_IDLE_NS"))
    ]
    grad_norm: Annotated[
        float,
        Figure(
            "L2 norm of the gradient of its last lane in a logged step", by=SPHERE, word=_OWN,
            column=Column("|grad|", 7, "short", 100, keep=3),
        ),
    ]  # fmt: skip
    memory_bytes: Annotated[
        int,
        Figure(
            "memory of its own, and its part of what it shares", "bytes",
            column=Column("memory", 7, "megabytes", 120, keep=4, total="sum"),
        ),
    ]  # fmt: skip
    respawns: Annotated[
        int,
        Figure(
            "times this place was filled again after a death", by=PARENT,
            word=Word("spheres", ("S_RESPAWNS",)),
            column=Column("died", 4, "count", 130, keep=7, total="sum"),
        ),
    ]  # fmt: skip
    id: Annotated[
        int,
        Figure(
            "of the node, never used again in a session", by=PARENT,
            word=Word("spheres", ("S_ID",)),
        ),
    ] = 0  # fmt: skip
    place: Annotated[
        int,
        Figure("among its siblings, from 0", by=PARENT, word=Word("spheres", ("S_PLACE",))),
    ] = 0
    group: Annotated[
        int,
        Figure(
            "symmetry position by its place in the tree", by=PARENT,
            word=Word("spheres", ("S_GROUP",)),
        ),
    ] = 0  # fmt: skip
    pace_s: Annotated[
        float,
        Figure(
            "time of a unit of some position lately, 0: it did none", "s", SPHERE,
            Word("spheres", ("S_PACE_NS",), 1e9),
        ),
    ] = 0.0  # fmt: skip
    quiet_s: Annotated[float, Figure("since its last sign of life", "s")] = 0.0
    health: Annotated[str, Figure("OK, SLOW, STALLED or DEAD")] = "OK"


@dataclass(frozen=True)
class Activity:
    """What a sphere did lately; None where nothing was measured yet (`ui.activity`)."""

    tokens_per_second: Annotated[
        float | None,
        Figure(
            "tokens of its lanes lately", "tokens/s", WATCHER,
            column=Column("tok/s", 6, "count", 60, total="sum"),
        ),
    ] = None  # fmt: skip
    compute: Annotated[
        float | None,
        Figure(
            "share of its time lately: computing", "0 to 1", WATCHER,
            column=Column("comp", 4, "percent", 70, total="mean"),
        ),
    ] = None  # fmt: skip
    sync: Annotated[
        float | None,
        Figure(
            "in step with others: reducing, updating, waiting at the barriers", "0 to 1", WATCHER,
            column=Column("sync", 4, "percent", 80, total="mean"),
        ),
    ] = None  # fmt: skip
    idle: Annotated[
        float | None,
        Figure(
            "waiting for work or a permit", "0 to 1", WATCHER,
            column=Column("idle", 4, "percent", 90, total="mean"),
        ),
    ] = None  # fmt: skip


_NATS = "nats/token"


@dataclass(frozen=True)
class RunFigures:
    """The whole run at one moment; those of the newest step are None before the first."""

    run_dir: Annotated[str, Figure("folder of the run")]
    state: Annotated[str, Figure("what it does", by=NODE_ZERO)]
    step: Annotated[int, Figure("finished steps", "steps", NODE_ZERO, Word("counts"), Line("step"))]
    max_steps: Annotated[
        int,
        Figure("steps of the whole run, as planned now", "steps", NODE_ZERO, Word("counts")),
    ]
    epoch: Annotated[float, Figure("passes over the training split so far")]
    elapsed_s: Annotated[float, Figure("this session, pauses left out", "s")]
    eta_s: Annotated[float | None, Figure("until the end; null until it can be estimated", "s")]
    loss: Annotated[
        float | None,
        Figure(
            "training loss of the newest step that has one", _NATS, NODE_ZERO,
            Word("status", of_step=True), Line("step"), cell=Cell("loss", "loss", (0, 0)),
        ),
    ]  # fmt: skip
    val_loss: Annotated[
        float | None,
        Figure(
            "loss over the held-out split", _NATS, NODE_ZERO, Word("status"),
            Line("evaluation"), cell=Cell("val loss", "loss", (0, 1)),
        ),
    ]  # fmt: skip
    best_val_loss: Annotated[
        float | None,
        Figure(
            "the lowest of these", _NATS, NODE_ZERO, Word("status"),
            cell=Cell("best val", "loss", (2, 1)),
        ),
    ]  # fmt: skip
    val_bits_per_byte: Annotated[
        float | None,
        Figure(
            "the loss over the held-out split, in bits per byte of its text", "bits/byte",
            NODE_ZERO, Word("status"), Line("evaluation"),
            cell=Cell("bits/byte", "loss", (2, 0)),
        ),
    ]  # fmt: skip
    learning_rate: Annotated[
        float,
        Figure(
            "learning rate of the newest step", "", NODE_ZERO, Word("status", unknown=0.0),
            Line("step", "lr"), cell=Cell("lr", "rate", (4, 0)),
        ),
    ]  # fmt: skip
    grad_norm: Annotated[
        float | None,
        Figure(
            "L2 norm of the gradient before clipping", "", NODE_ZERO,
            Word("status", of_step=True), Line("step"), cell=Cell("grad norm", "short", (3, 0)),
        ),
    ]  # fmt: skip
    clip_factor: Annotated[
        float,
        Figure(
            "what the gradient was multiplied by; 1 where it was not clipped", "", NODE_ZERO,
            Word("status", unknown=1.0), cell=Cell("clip", "factor", (3, 1)),
        ),
    ]  # fmt: skip
    tokens: Annotated[
        int,
        Figure(
            "processed since step 0", "tokens", NODE_ZERO, Word("counts"), Line("step"),
            cell=Cell("tokens", "count", (8, 0)),
        ),
    ]  # fmt: skip
    tokens_per_second: Annotated[
        float,
        Figure(
            "rate of steps: over the last 10 s; in metrics.jsonl since the line before",
            "tokens/s", line=Line("step"), cell=Cell("tokens/s", "count", (5, 0)),
        ),
    ]  # fmt: skip
    flops_per_token: Annotated[
        float,
        Figure(
            "floating-point operations of forward and backward", "1/token",
            cell=Cell("flop/tok", "count", (8, 1)),
        ),
    ]  # fmt: skip
    peak_share: Annotated[
        float | None,
        Figure(
            "the model's operations over the measured peak of the cores in use", "0 to 1",
            cell=Cell("of peak", "percent", (5, 1)),
        ),
    ]  # fmt: skip
    dropped_steps: Annotated[
        int,
        Figure(
            "steps skipped because their gradient or loss was not finite", "steps", NODE_ZERO,
            Word("counts"), cell=Cell("dropped", "count", (4, 1), alarm=True),
        ),
    ]  # fmt: skip
    workers: Annotated[
        int, Figure("spheres wanted now", "", NODE_ZERO, Word("state", ("SPHERES",)))
    ]
    permits: Annotated[int, Figure("spheres that may compute at a time")]
    lanes: Annotated[int, Figure("gradient accumulators of a step")]
    parameters: Annotated[int, Figure("numbers that are trained")]
    precision: Annotated[str, Figure("number format of the products")]
    isa: Annotated[str, Figure("instruction-set level of the kernels")]
    last_checkpoint: Annotated[str | None, Figure("folder of the newest checkpoint")]
    message: Annotated[
        str | None, Figure('the newest line worth reading, e.g. "sphere 3 was replaced"')
    ]
    crystalline_loss: Annotated[
        float | None,
        Figure(
            "loss against the smoothed targets; null where they are plain", _NATS, NODE_ZERO,
            Word("status", of_step=True), Line("step", optional=True),
            cell=Cell("crystal", "loss", (1, 0), optional=True),
        ),
    ] = None  # fmt: skip
    state_s: Annotated[
        float, Figure("how long the state, or the step in hand, has lasted", "s")
    ] = 0.0
    saving_step: Annotated[
        int | None,
        Figure(
            "whose checkpoint is written while training goes on", "steps", NODE_ZERO,
            Word("counts", nothing=True),
        ),
    ] = None  # fmt: skip
    work_done: Annotated[
        int,
        Figure(
            "of what the state is about: tokens evaluated", "tokens", NODE_ZERO,
            Word("state", ("WORK_DONE",)),
        ),
    ] = 0  # fmt: skip
    work_total: Annotated[
        int,
        Figure("of it in all; 0: not known", "tokens", NODE_ZERO, Word("state", ("WORK_TOTAL",))),
    ] = 0
    lr_factor: Annotated[
        float,
        Figure(
            "what the schedule's learning rates are multiplied by", "", NODE_ZERO,
            Word("status", unknown=1.0),
        ),
    ] = 1.0  # fmt: skip
    dropped_lately: Annotated[
        int,
        Figure("of the last hundred steps, those dropped", "steps", NODE_ZERO, Word("counts")),
    ] = 0
    health: Annotated[str, Figure("OK, DEGRADED or FAILED")] = "OK"


@dataclass(frozen=True)
class LineFigures:
    """What only the lines of metrics.jsonl have."""

    seconds: Annotated[
        float, Figure("time of the whole run, pauses left out", "s", NODE_ZERO, line=Line("step"))
    ]
    val_tokens: Annotated[
        int,
        Figure(
            "tokens that the evaluation predicted", "tokens", NODE_ZERO, line=Line("evaluation")
        ),
    ]


_TABLE = (RunFigures, SphereStats, Activity, LineFigures)


@cache
def figures_of(kind: type) -> dict[str, Figure]:
    """Return the figures among the fields of a class, by name, in order."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        for extra in get_args(hints[field.name])[1:]:
            if get_origin(hints[field.name]) is Annotated and isinstance(extra, Figure):
                found[field.name] = extra
    return found


@cache
def own_words(kind: type, region: str) -> tuple[str, ...]:
    """Return the figures that have a word of their own in a region, in the order of the words."""
    return tuple(
        name
        for name, figure in figures_of(kind).items()
        if figure.word and figure.word.region == region and not figure.word.engine
    )


def is_whole(kind: type, name: str) -> bool:
    """Return whether a figure is a whole number."""
    return get_type_hints(kind)[name] is int


@cache
def lines_of(kind: str) -> tuple[tuple[str, Line], ...]:
    """Return the figures of a kind of line in metrics.jsonl, in the order of their keys."""
    found = [
        (name, figure.line)
        for table in (RunFigures, LineFigures)
        for name, figure in figures_of(table).items()
        if figure.line and figure.line.kind == kind
    ]
    return tuple(sorted(found, key=lambda item: item[1].optional))


def shown(attribute: str, *kinds: type) -> Iterator[tuple[type, str, Any]]:
    """Yield (class, name, column or cell) of the figures of `kinds` that have one."""
    for kind in kinds:
        for name, figure in figures_of(kind).items():
            look = getattr(figure, attribute)
            if look is not None:
                yield kind, name, look


def document() -> str:
    """Return docs/FIGURES.md."""
    parts = [_HEAD]
    for kind in _TABLE:
        hints = get_type_hints(kind)
        title, _, text = (kind.__doc__ or "").partition("; ")
        parts.append(f"\n## {title.rstrip('.')}\n\n")
        if text:
            parts.append(f"{text[0].upper()}{text[1:]}\n\n")
        parts.append("| figure | type | unit | what it is | by | word | line | shown as |\n")
        parts.append("|---|---|---|---|---|---|---|---|\n")
        for name, figure in figures_of(kind).items():
            look = figure.column.name if figure.column else figure.cell.label if figure.cell else ""
            cells = (
                f"`{name}`", _type_words(hints[name]), figure.unit, figure.help, figure.by,
                figure.word.region if figure.word else "",
                f"{figure.line.kind}: `{figure.line.key or name}`" if figure.line else "",
                look.replace("|", "\\|"),
            )  # fmt: skip
            parts.append(f"| {' | '.join(cells)} |\n")
    return "".join(parts)


_HEAD = """# What a run tells

The figures of `status.json`, `cllm control RUN status --json`, `metrics.jsonl` and the dashboard,
from their table in `crystalline/train/figures.py`: `python -m crystalline.train.figures` writes
this page.  *by* is who measures a figure, *word* the region of the shared memory where it stands,
*line* the kind of line of `metrics.jsonl` that has it, with its key there.  A value that is not
known, or not finite, is null.
"""


def _type_words(hint: Any) -> str:
    names = {int: "whole", float: "number", str: "text", type(None): "null"}
    kinds = get_args(hint) if hint not in names else (hint,)
    return " or ".join(names[kind] for kind in kinds if kind in names) or "list"


if __name__ == "__main__":
    print(document(), end="")
