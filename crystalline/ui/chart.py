"""A small line chart in braille dots with numbers on its axes: pure, no terminal.

A cell holds 2 x 4 dots.  The curve is a line through the mean of the points that
fall into each column of dots; marks are single cells drawn over it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crystalline.ui import format as fmt

MARK = "o"  # tells the marks from the curve without color

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [dot row][dot column]
_BRAILLE = 0x2800
Point = tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """Lines of equal width; the first `label_width` cells of each are the axis."""

    rows: tuple[str, ...]
    label_width: int


def draw_chart(
    curve: Sequence[Point],
    marks: Sequence[Point] = (),
    *,
    width: int,
    height: int,
    legend: str = "",
) -> Chart:
    """Draw `curve` and `marks`, both (x, y) in order of x, on width x height cells.

    The last line holds the ends of the x axis, with `legend` between them when it
    fits.  Points that are not finite are left out and interrupt the curve.  A chart
    too small for its axis (or without a finite point) is blank.

    >>> for row in draw_chart([(0, 1.0), (50, 2.0), (100, 4.0)], width=16, height=4).rows:
    ...     print(row)
    4.00┤        ⢀⠔⠊
        │     ⣀⠤⠊⠁
    1.00┤⣀⠤⠔⠊⠉
         0       100
    """
    everything = [p for p in (*curve, *marks) if math.isfinite(p[0]) and math.isfinite(p[1])]
    plot_height = height - 1
    if not everything or plot_height < 1:
        return Chart((" " * width,) * max(height, 0), 0)
    x_low, x_high = min(x for x, _ in everything), max(x for x, _ in everything)
    y_low, y_high = min(y for _, y in everything), max(y for _, y in everything)
    labels = _y_labels(y_low, y_high, plot_height)
    label_width = max(len(label) for label in labels) + 1
    plot_width = width - label_width
    if plot_width < 2:
        return Chart((" " * width,) * height, 0)

    cells = [[0] * plot_width for _ in range(plot_height)]
    for column, row in _trace(curve, x_low, x_high, y_low, y_high, plot_width, plot_height):
        cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    lines = [[chr(_BRAILLE + bits) if bits else " " for bits in row] for row in cells]
    for x, y in marks:
        if math.isfinite(x) and math.isfinite(y):
            row = _place(y, y_high, y_low, plot_height)
            lines[row][_place(x, x_low, x_high, plot_width)] = MARK
    rows = [
        f"{label:>{label_width - 1}}{'┤' if label else '│'}{''.join(line)}"
        for label, line in zip(labels, lines, strict=True)
    ]
    rows.append(" " * label_width + _x_axis(x_low, x_high, plot_width, legend))
    return Chart(tuple(rows), label_width)


def _place(value: float, first: float, last: float, size: int) -> int:
    """Index of the cell (or dot) for `value` on the way from `first` to `last`.

    The middle where they are equal.  Halves are compared, since differences may overflow.
    """
    span = last / 2 - first / 2
    if not span:
        return (size - 1) // 2
    share = (value / 2 - first / 2) / span
    return min(size - 1, max(0, math.floor(share * (size - 1) + 0.5)))


def _trace(
    curve: Sequence[Point],
    x_low: float,
    x_high: float,
    y_low: float,
    y_high: float,
    plot_width: int,
    plot_height: int,
) -> list[tuple[int, int]]:
    """Return the (column, row) of every dot of the curve."""
    columns, rows = 2 * plot_width, 4 * plot_height
    runs: list[dict[int, list[float]]] = [{}]  # unbroken stretches: column of dots -> values
    for x, y in curve:
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].setdefault(_place(x, x_low, x_high, columns), []).append(y)
        elif runs[-1]:
            runs.append({})
    dots = []
    for run in runs:
        last: tuple[int, int] | None = None
        for column, values in run.items():
            mean = sum(value / len(values) for value in values)  # their sum may overflow
            row = _place(mean, y_high, y_low, rows)
            if last is not None:
                dots += _line(last, (column, row))
            dots.append((column, row))
            last = (column, row)
    return dots


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Dots after `start` up to `end`, each column filled from the height of the one before."""
    (c0, r0), (c1, r1) = start, end
    dots = []
    above = r0
    for column in range(c0 + 1, c1 + 1):
        row = r0 + math.floor((r1 - r0) * (column - c0) / (c1 - c0) + 0.5)
        step = 1 if row > above else -1
        dots += [(column, r) for r in range(above + step, row, step)] if row != above else []
        dots.append((column, row))
        above = row
    return dots


def _y_labels(low: float, high: float, count: int) -> list[str]:
    """A label for the top and the bottom line, and about every sixth between them."""
    labels = [""] * count
    if high == low or count == 1:
        labels[(count - 1) // 2] = fmt.short(high)
        return labels
    last = count - 1
    steps = max(1, last // 5)
    for i in range(steps + 1):
        place = i * last // steps
        labels[place] = fmt.short(high * ((last - place) / last) + low * (place / last))
    return labels


def _x_axis(low: float, high: float, width: int, legend: str) -> str:
    left, right = fmt.grouped(round(low)), fmt.grouped(round(high))
    if len(left) + len(right) + 1 > width:
        return right[:width].rjust(width)
    room = width - len(left) - len(right)
    middle = legend.center(room) if len(legend) + 2 <= room else " " * room
    return left + middle + right
