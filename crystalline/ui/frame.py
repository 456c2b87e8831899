"""Lays the dashboard out: a snapshot in, exactly height x width cells of styled text out.

Pure: no terminal, no clock.  The parts from top to bottom are the header (2 lines, and one that
says what is wrong, if anything is), the chart beside the figures, the table of spheres, and the
footer (newest message, keys).  The table gets the lines that it needs, the chart what is left;
where the spheres do not fit, the busiest are shown and the others are summed up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from rich.cells import cell_len, set_cell_size

from crystalline.train.stats import (
    FAILED,
    OK,
    OVER,
    Cell,
    Column,
    RunFigures,
    Snapshot,
    SphereStats,
    shown,
)
from crystalline.ui import format as fmt
from crystalline.ui.activity import Activity
from crystalline.ui.chart import MARK, draw_chart
from crystalline.ui.plain import LASTING_S
from crystalline.untrusted import one_line

Span = tuple[str, str]  # text, name of its style in STYLES
Row = list[Span]

STYLES = {
    "": "",
    "title": "bold",
    "label": "dim",
    "value": "bold",
    "dim": "dim",
    "head": "underline",
    "curve": "cyan",
    "mark": "bold yellow",
    "good": "green",
    "busy": "bold green",
    "sync": "cyan",
    "warn": "bold yellow",
    "bad": "bold red",
}

_RUN_STYLES = {
    "training": "busy",
    "evaluating": "sync",
    "discovering": "sync",
    "saving": "sync",
    "paused": "warn",
    "stopping": "warn",
    "starting": "warn",
    "held": "warn",
    "restoring": "sync",
    "stopped": "warn",
    "finished": "busy",
}
_SPHERE_STYLES = {
    "compute": "busy",
    "reduce": "sync",
    "update": "sync",
    "starting": "warn",
    "dead": "bad",
}
_BUSY_STATES = ("compute", "reduce", "update")
_STATE_WORDS = {"compute": "computing", "reduce": "reducing", "update": "updating"}

_LASTING = ("starting", "held", "evaluating", "discovering", "saving", "restoring", "stopping")
_FIGURES_WIDTH = 34
_GROUPS_WIDTH = 34
_UNPLACED = 100  # the row from which on cells stand that have no place
STOPS = "write a checkpoint after this step and stop, like Ctrl-C"
LEAVES = "leave the view; the run goes on"
_HELP = (
    ("p", "pause, or go on"),
    ("c", "write a checkpoint now"),
    ("+ -", "one worker more, one fewer"),
    ("q", STOPS),
    ("comp sync idle", "shares of time: computing, in step with others, waiting"),
    ("pos lvl", "symmetry position, and depth in the tree of spheres"),
    ("steals died", "batches taken from other positions; times replaced"),
)


def draw_frame(
    snapshot: Snapshot,
    activity: Mapping[int, Activity],
    *,
    width: int,
    height: int,
    messages: Sequence[str] = (),
    keys: bool = False,
    show_help: bool = False,
    elsewhere: bool = False,
) -> list[Row]:
    """Return `height` rows of `width` cells each.

    `messages` are oldest first; `keys` says whether the single-key controls work, and
    `elsewhere` that the run is another process's, which goes on without us.
    """
    airy = height >= 32
    blank: list[Row] = [[]] if airy else []
    head = [_title(snapshot, width), _progress(snapshot, width), *_health(snapshot)]
    foot = [_message(text) for text in messages[-(3 if airy else 1) :]] or [[]]
    foot.append(_keys(snapshot, width, keys, elsewhere))
    room = height - len(head) - len(foot) - 3 * len(blank)
    least = max(5, min(7, room - 6))  # lines of chart and figures, even if spheres must be cut
    table = _table(snapshot, activity, width, room - least)
    middle_height = max(room - len(table), 0)
    if show_help:
        middle = _help(middle_height, elsewhere)
    else:
        middle = _middle(snapshot, width, middle_height)
    rows = [*head, *blank, *middle, *blank, *table, *blank, *foot]
    rows = [_fit(row, width) for row in rows[:height]]
    rows += [_fit([], width)] * (height - len(rows))
    return rows


# --- header and footer


def _title(snapshot: Snapshot, width: int) -> Row:
    state = snapshot.state.upper()
    if snapshot.work_share is not None:
        state += f" {_whole_percent(snapshot.work_share)}"
    if snapshot.state_s >= LASTING_S and snapshot.state in _LASTING:
        left_s = snapshot.work_eta_s
        state += f" {fmt.duration(snapshot.state_s if left_s is None else left_s)}"
        state += "" if left_s is None else " left"
    left = "Crystalline  "
    room = width - len(left) - len(state) - 4
    return [
        (" ", ""),
        (left, "title"),
        (_pad(_ellipsis(one_line(snapshot.run_dir), room, keep_end=True), room + 1), "value"),
        (" ", ""),
        (state, _RUN_STYLES.get(snapshot.state, "")),
    ]


def _progress(snapshot: Snapshot, width: int) -> Row:
    step = f" step {fmt.grouped(snapshot.step)}"
    share = None
    if snapshot.max_steps > 0:
        share = min(1.0, snapshot.step / snapshot.max_steps)
        step += f"/{fmt.grouped(snapshot.max_steps)} {_whole_percent(share)}"
    tail = (
        f"epoch {snapshot.epoch:.2f}"
        if snapshot.epoch < 1e6
        else "epoch " + fmt.count(snapshot.epoch)
    )
    tail += f"  elapsed {fmt.duration(snapshot.elapsed_s)}"
    if snapshot.state not in OVER:
        tail += f"  ETA {fmt.duration(snapshot.eta_s)}"
    bar = width - len(step) - len(tail) - 4
    if share is None or bar < 5:
        return [(step, "value"), ("  ", ""), (tail, "")]
    done = int(bar * share)
    return [
        (step + " ", "value"),
        ("━" * done, "good"),
        ("─" * (bar - done), "dim"),
        ("  " + tail, ""),
    ]


def _health(snapshot: Snapshot) -> list[Row]:
    """Return a line that says what is wrong, if anything is."""
    if snapshot.health == OK:
        return []
    style = "bad" if snapshot.health == FAILED else "warn"
    reasons = one_line("; ".join(snapshot.health_reasons))
    return [[(" ", ""), (snapshot.health, style), (f"  {reasons}", "")]]


def _whole_percent(share: float) -> str:
    return f"{int(share * 100)}%"  # rounded down: 100% means all of it


def _message(text: str) -> Row:
    return [(" " + one_line(text), "")]


def _keys(snapshot: Snapshot, width: int, keys: bool, elsewhere: bool) -> Row:
    if keys:
        go = "go on" if snapshot.state == "paused" else "pause"
        hints = [
            ("p", go),
            ("c", "checkpoint"),
            ("+ -", "workers"),
            ("q", "leave" if elsewhere else "stop"),
            ("?", "help"),
        ]
    else:
        hints = [("Ctrl-C", "leave" if elsewhere else "checkpoint and stop")]
    row: Row = []
    for key, meaning in hints:
        row += [("  " if row else " ", ""), (key, "value"), (" " + meaning, "dim")]
    if snapshot.last_checkpoint is None:
        saved = "not saved yet"
    else:
        saved = "saved " + one_line(PurePath(snapshot.last_checkpoint).name)
    if snapshot.saving_step is not None:
        saved = f"saving step {snapshot.saving_step:,}, {saved}"
    room = width - _width(row) - 3
    if room >= 12:
        saved = _ellipsis(saved, room)
        row.append((" " * (room - cell_len(saved) + 2), ""))
        row.append((saved, "dim"))
    return row


def _help(height: int, elsewhere: bool) -> list[Row]:
    rows: list[Row] = [
        [(f" {key:<16}", "value"), (LEAVES if elsewhere and key == "q" else meaning, "")]
        for key, meaning in _HELP
    ]
    rows = rows[:height]
    return rows + [[] for _ in range(height - len(rows))]


# --- chart and figures


def _middle(snapshot: Snapshot, width: int, height: int) -> list[Row]:
    figures = _figures(snapshot)
    beside = _groups(snapshot, height) if width >= 120 else []
    below = [] if beside else _groups(snapshot, height - len(figures) - 1)
    if below:
        figures += [[], *below]
    groups_width = _GROUPS_WIDTH + 3 if beside else 0
    chart_width = width - _FIGURES_WIDTH - 5 - groups_width
    chart = _chart(snapshot, chart_width, height)
    rows = []
    for i in range(height):
        row: Row = [(" ", ""), *_fit(chart[i], chart_width), ("   ", "")]
        row += _fit(figures[i] if i < len(figures) else [], _FIGURES_WIDTH)
        if beside:
            row += [("   ", ""), *(beside[i] if i < len(beside) else [])]
        rows.append(row)
    return rows


def _chart(snapshot: Snapshot, width: int, height: int) -> list[Row]:
    marks = [(float(p.step), p.loss) for p in snapshot.eval_history]
    curve = _without_the_fall(_smooth(snapshot.loss_history))
    if curve:
        marks = [mark for mark in marks if mark[1] <= max(y for _, y in curve)]
    legend = "⠤⠤ loss" + (f"   {MARK} validation" if marks else "")
    chart = draw_chart(curve, marks, width=width, height=height, legend=legend)
    if not chart.label_width:
        text = "no loss yet: the curve begins with the first step"
        rows: list[Row] = [[] for _ in range(height)]
        if rows:
            rows[height // 2] = [(text.center(width), "dim")]
        return rows
    rows = []
    for text in chart.rows[:-1]:
        row: Row = [(text[: chart.label_width], "dim")]
        for piece in _split_marks(text[chart.label_width :]):
            row.append((piece, "mark" if piece == MARK else "curve"))
        rows.append(row)
    rows.append([(chart.rows[-1], "dim")])
    return rows


def _split_marks(text: str) -> list[str]:
    pieces: list[str] = []
    for i, piece in enumerate(text.split(MARK)):
        pieces += [MARK, piece] if i else [piece]
    return [piece for piece in pieces if piece]


def _smooth(history: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Average each loss with its neighbors, a thirtieth of the run to both sides together.

    The loss of one batch says little; a wide chart would show nothing but that noise.
    Towards the ends the neighborhood shrinks, so that a slope stays where it is.

    >>> _smooth([(step, step % 2) for step in range(60)])[30]
    (30, 0.6666666666666666)
    """
    half = len(history) // 60
    sums, known = [0.0], [0]  # of the finite losses so far, and their number
    for _, loss in history:
        finite = math.isfinite(loss)
        sums.append(sums[-1] + (loss if finite else 0.0))
        known.append(known[-1] + finite)
    smooth = []
    for index, (step, loss) in enumerate(history):
        near = min(half, index, len(history) - 1 - index)
        low, high = index - near, index + near + 1
        if math.isfinite(loss):
            loss = (sums[high] - sums[low]) / (known[high] - known[low])
        smooth.append((step, loss))
    return smooth


def _without_the_fall(history: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Leave out the first steep fall once it would squeeze the rest of the curve flat.

    The first twentieth of the run does not decide the top of the chart.
    """
    points = [(float(step), loss) for step, loss in history]
    if len(points) < 40:
        return points
    start = points[0][0] + (points[-1][0] - points[0][0]) / 20
    later = [y for x, y in points if x >= start and y - y == 0]  # finite ones
    if not later:
        return points
    top = max(later)
    return [(x, y) for x, y in points if x >= start or y <= top]


def _cells() -> list[tuple[str, Cell, tuple[int, int]]]:
    """Return figure, cell and place of what stands beside the curve, from left to right."""
    cells = [(name, cell) for _, name, cell in shown("cell", RunFigures)]
    places = [(name, cell, cell.place) for name, cell in cells if cell.place]
    others = [(name, cell) for name, cell in cells if not cell.place]
    places += [
        (name, cell, (_UNPLACED + number // 2, number % 2))
        for number, (name, cell) in enumerate(others)
    ]
    return sorted(places, key=lambda found: found[2])


_CELLS = _cells()


def _figures(snapshot: Snapshot) -> list[Row]:
    """Return the figures of the run: those that have a cell, and what it computes with."""
    s = snapshot
    model = (f"{fmt.count(s.parameters)} parameters", one_line(s.precision), one_line(s.isa))
    pool = (
        _plural(s.workers, "worker"),
        _plural(s.permits, "permit"),
        _plural(s.lanes, "lane"),
    )
    rows: dict[int, Row] = {6: [(", ".join(model), "")], 7: [(", ".join(pool), "")]}
    for name, cell, (row, side) in _CELLS:
        value = getattr(s, name)
        if cell.optional and value is None:
            continue
        gap, label, width = ("  ", 8, 7) if side else ("", 9, 8)
        style = "bad" if cell.alarm and value else "value"
        text = getattr(fmt, cell.write)(value)
        rows.setdefault(row, []).extend(
            [(f"{gap}{cell.label:<{label}}", "label"), (f"{text:>{width}}", style)]
        )
    return [rows[row] for row in sorted(rows)]


def _plural(number: int, noun: str) -> str:
    return f"{fmt.grouped(number)} {noun}{'' if number == 1 else 's'}"


def _groups(snapshot: Snapshot, height: int) -> list[Row]:
    """Root mean square of weights and gradients per parameter group, in `height` lines."""
    groups = snapshot.parameter_groups
    if not groups or height < min(len(groups) + 1, 5):
        return []
    rows: list[Row] = [[(f"{'rms of':<13}{'weights':>10} {'gradients':>10}", "label")]]
    shown = groups if len(groups) < height else groups[: height - 2]
    for name, weight, gradient in shown:
        label = _pad(_ellipsis(one_line(name), 12), 13)
        rows.append([(label, ""), (f"{fmt.short(weight):>10} {fmt.short(gradient):>10}", "value")])
    if len(shown) < len(groups):
        rows.append([(f"… {len(groups) - len(shown)} more", "dim")])
    return rows


# --- the table of spheres


@dataclass(frozen=True)
class _Column:
    """A column of the table, for a figure of `SphereStats` or `Activity`."""

    field: str
    is_measured: bool  # a figure of `Activity`
    look: Column

    def cell(self, sphere: SphereStats, activity: Activity) -> str:
        return self._write(getattr(activity if self.is_measured else sphere, self.field))

    def sum_up(self, spheres: Sequence[SphereStats], activity: Sequence[Activity]) -> str:
        if not self.look.total:
            return ""
        source: Sequence[object] = activity if self.is_measured else spheres
        values = [v for item in source if (v := getattr(item, self.field)) is not None]
        if not values:
            return fmt.DASH
        return self._write(sum(values) / (len(values) if self.look.total == "mean" else 1))

    def _write(self, value: Any) -> str:
        text: str = getattr(fmt, self.look.write)(value)
        return text


_COLUMNS = tuple(
    sorted(
        (
            _Column(name, kind is Activity, look)
            for kind, name, look in shown("column", SphereStats, Activity)
        ),
        key=lambda column: column.look.place,
    )
)
_CORE_WIDTH = sum(c.look.width + 1 for c in _COLUMNS if c.look.keep == 0) - 1
_BETWEEN = " │"


def _table(
    snapshot: Snapshot, activity: Mapping[int, Activity], width: int, height: int
) -> list[Row]:
    """At most `height` rows: one header, the spheres, and what they sum up to."""
    spheres = sorted(snapshot.spheres, key=lambda s: s.index)
    if not spheres or height < 2:
        return []
    lines = height - 1
    panels = 1
    while panels * lines < len(spheres) and _panel_width(width, panels + 1) >= _CORE_WIDTH + 1:
        panels += 1
    hidden: list[SphereStats] = []
    if panels * lines < len(spheres):
        panels = 1
        spheres, hidden = _busiest(spheres, max(lines - 2, 1))
    per_panel = -(-len(spheres) // panels)
    layout = _Layout.fitting(_panel_width(width, panels))
    idle = Activity()
    cells = [layout.row(s, activity.get(s.index, idle)) for s in spheres]
    rows: list[Row] = [_join([layout.header()] * panels)]
    rows += [_join(cells[i::per_panel]) for i in range(per_panel)]
    if hidden and lines >= 3:
        rows.append([(f" … {len(hidden)} more: {_states(hidden)}", "dim")])
    if len(snapshot.spheres) > 1 and len(rows) < height:
        rows.append(layout.totals(snapshot.spheres, activity))
    return rows


def _panel_width(width: int, panels: int) -> int:
    return (width - len(_BETWEEN) * (panels - 1)) // panels


def _busiest(spheres: list[SphereStats], count: int) -> tuple[list[SphereStats], list[SphereStats]]:
    """Split into the `count` that have computed most, and the others; both stay in order."""
    ranked = sorted(spheres, key=lambda s: (-s.tokens, s.index))
    shown = {s.index for s in ranked[:count]}
    return [s for s in spheres if s.index in shown], [s for s in spheres if s.index not in shown]


def _states(spheres: Sequence[SphereStats]) -> str:
    counts = Counter(s.state for s in spheres)
    order = {state: i for i, state in enumerate(("dead", *_BUSY_STATES, "waiting", "idle"))}
    states = sorted(counts, key=lambda state: (order.get(state, len(order)), state))
    return ", ".join(
        f"{counts[state]} {_STATE_WORDS.get(state, one_line(state))}" for state in states
    )


def _join(panels: Sequence[Row]) -> Row:
    row: Row = []
    for panel in panels:
        row += [(_BETWEEN, "dim"), *panel] if row else panel
    return row


@dataclass(frozen=True)
class _Layout:
    """The columns that fit into one panel, the gap between them and the bar at the end."""

    columns: tuple[_Column, ...]
    gap: int
    bar: int  # cells of the bar of time shares, 0 for none
    width: int

    @classmethod
    def fitting(cls, width: int) -> _Layout:
        columns = list(_COLUMNS)
        while sum(c.look.width + 1 for c in columns) > width and any(c.look.keep for c in columns):
            columns.remove(max(columns, key=lambda c: c.look.keep))
        taken = sum(c.look.width for c in columns)
        gap = 2 if taken + 2 * len(columns) <= width else 1
        left = width - taken - gap * len(columns) - 2
        return cls(tuple(columns), gap, min(left, 48) if left >= 12 else 0, width)

    def header(self) -> Row:
        text = "".join(self._place(c.look, c.look.name) for c in self.columns)
        if self.bar:
            text += "  " + _ellipsis("█ compute ▒ sync · idle", self.bar)
        return [(_pad(text, self.width), "head")]

    def row(self, sphere: SphereStats, activity: Activity) -> Row:
        row: Row = []
        for column in self.columns:
            style = _SPHERE_STYLES.get(sphere.state, "dim") if column.look.left else ""
            row.append((self._place(column.look, column.cell(sphere, activity)), style))
        if self.bar:
            row += [("  ", ""), *_time_bar(activity, self.bar)]
        return _fit(row, self.width)

    def totals(self, spheres: Sequence[SphereStats], activity: Mapping[int, Activity]) -> Row:
        measured = [activity[s.index] for s in spheres if s.index in activity]
        busy = sum(s.state in _BUSY_STATES for s in spheres)
        words = {"index": "all", "state": f"{busy} busy"}
        cells = (words.get(c.field) or c.sum_up(spheres, measured) for c in self.columns)
        placed = zip(self.columns, cells, strict=True)
        text = "".join(self._place(column.look, cell) for column, cell in placed)
        return [(_pad(text, self.width), "value")]

    def _place(self, column: Column, text: str) -> str:
        text = _ellipsis(text, column.width)
        padded = text.ljust(column.width) if column.left else text.rjust(column.width)
        return " " * self.gap + padded


def _time_bar(activity: Activity, width: int) -> Row:
    if activity.compute is None or activity.sync is None:
        return [(" " * width, "")]
    compute = min(width, max(0, round(activity.compute * width)))
    sync = min(width - compute, max(0, round(activity.sync * width)))
    return [
        ("█" * compute, "good"),
        ("▒" * sync, "sync"),
        ("·" * (width - compute - sync), "dim"),
    ]


# --- cells


def _width(row: Row) -> int:
    return sum(cell_len(text) for text, _ in row)


def _pad(text: str, width: int) -> str:
    return set_cell_size(text, max(width, 0))


def _ellipsis(text: str, width: int, *, keep_end: bool = False) -> str:
    """Cut `text` to `width` cells, with … where something is missing."""
    if cell_len(text) <= width:
        return text
    if width < 1:
        return ""
    if not keep_end:
        return set_cell_size(text, width - 1).rstrip() + "…"
    while cell_len(text) > width - 1:
        text = text[1:]
    return "…" + text


def _fit(row: Row, width: int) -> Row:
    """Cut or fill `row` to exactly `width` cells."""
    fitted: Row = []
    room = width
    for text, style in row:
        size = cell_len(text)
        if size > room:
            text, size = _ellipsis(text, room), room
            text = set_cell_size(text, room)
        if text:
            fitted.append((text, style))
        room -= size
    if room:
        fitted.append((" " * room, ""))
    return fitted
