#!/usr/bin/env python3
"""Draw how a run works into an SVG file, as for the README: who there is, what they share, a step.

    python3 tools/architecture.py docs/architecture.svg

The picture has a ground of its own, so that it reads the same on light and dark pages.  The
protocol that it shows is written down in `crystalline/ipc/__init__.py`.
"""

from __future__ import annotations

import argparse
import math
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 960, 664  # pixels, before scaling
SPHERES = 12
AT_WORK = {1: "#7ec47e", 4: "#e2be6e"}  # sphere with a permit: its color
CLAIMED = {1: 3, 4: 7}  # sphere: the lane that it computes
LANES_DONE = (0, 1, 2, 4)
CENTER, RING, BALL = (232, 262), 158, 27  # the ring of spheres, Node Zero in the middle
MEMORY = (488, 54, 448, 386)  # x, y, width, height
SEGMENTS = 24
GUTTER = 462  # x, between the ring and the memory

GROUND, TEXT, DIM, LINE, FILL = "#16181d", "#d6dae0", "#98a0ad", "#4a505c", "#22262e"
BLUE, CYAN, PURPLE = "#6ea0e6", "#68bec8", "#be8cdc"

# The phases of a step: name, color, who and what a unit is.
PHASES = (
    ("IDLE", DIM, "Node Zero writes", "step, learning rate"),
    ("COMPUTE", BLUE, "a unit: a lane or two,", "forward and backward"),
    ("REDUCE", PURPLE, "a unit: a segment, its", "lanes summed in one tree"),
    ("UPDATE", CYAN, "a unit: a segment,", "the optimizer's step"),
    ("IDLE", DIM, "evaluate, save,", "or the next step"),
)


class Drawing:
    """The lines of an SVG document, in the order in which they are painted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def rect(
        self, x: float, y: float, width: float, height: float, *, fill: str, stroke: str = "none"
    ) -> None:
        """Add a rectangle with slightly rounded corners."""
        self.lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def circle(self, center: tuple[float, float], radius: float, *, fill: str, stroke: str) -> None:
        """Add a circle."""
        self.lines.append(
            f'<circle cx="{center[0]:.1f}" cy="{center[1]:.1f}" r="{radius:g}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="1.5"/>'
        )

    def text(
        self, x: float, y: float, text: str, *, color: str = TEXT, anchor: str = "start",
        size: int = 14, bold: bool = False,
    ) -> None:  # fmt: skip
        """Add one line of text; `y` is its base line."""
        weight = ' font-weight="bold"' if bold else ""
        self.lines.append(
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" font-size="{size}" '
            f'text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def path(self, data: str, color: str, *, arrow: bool = False, dashed: bool = False) -> None:
        """Add a line along `data` (SVG path commands)."""
        more = ' marker-end="url(#arrow)"' if arrow else ""
        more += ' stroke-dasharray="4 4"' if dashed else ""
        self.lines.append(
            f'<path d="{data}" fill="none" stroke="{color}" stroke-width="1.5"{more}/>'
        )

    def document(self) -> str:
        """Return the whole SVG document."""
        title = "Launcher, Node Zero and twelve spheres around one shared memory; a step in phases"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif">\n'
            f"<title>{title}</title>\n"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{DIM}"/></marker></defs>'
        )
        return "\n".join([head, *self.lines, "</svg>"]) + "\n"


def on_ring(sphere: int, radius: float = RING) -> tuple[float, float]:
    """Return the place of a sphere, like an hour on a clock."""
    angle = math.radians(360 / SPHERES * sphere - 90)
    return CENTER[0] + radius * math.cos(angle), CENTER[1] + radius * math.sin(angle)


def lane_cell(lane: int) -> tuple[float, float, float]:
    """Return x, y and width of a lane's cell in the shared memory."""
    width = (MEMORY[2] - 32) / SPHERES
    return MEMORY[0] + 16 + lane * width, MEMORY[1] + 204, width - 4


def draw_processes(drawing: Drawing) -> None:
    """Draw the launcher, Node Zero and the ring of spheres."""
    x, y = CENTER
    drawing.rect(20, 20, 148, 62, fill=FILL, stroke=LINE)
    drawing.text(94, 44, "Launcher", anchor="middle", bold=True)
    drawing.text(94, 66, "dashboard, Ctrl-C", anchor="middle", size=12, color=DIM)
    drawing.path(f"M{x - 176} {y - 176}L{x - 46} {y - 46}", DIM, arrow=True)
    for sphere in range(SPHERES):
        inner, outer = on_ring(sphere, 64), on_ring(sphere, RING - BALL - 2)
        drawing.path(
            f"M{inner[0]:.1f} {inner[1]:.1f}L{outer[0]:.1f} {outer[1]:.1f}", LINE, dashed=True
        )
    drawing.circle(CENTER, 62, fill=FILL, stroke=TEXT)
    drawing.text(x, y - 6, "Node Zero", anchor="middle", bold=True)
    drawing.text(x, y + 13, "plans, watches,", anchor="middle", size=12, color=DIM)
    drawing.text(x, y + 28, "never computes", anchor="middle", size=12, color=DIM)
    for sphere in range(SPHERES):
        color = AT_WORK.get(sphere)
        place = on_ring(sphere)
        drawing.circle(place, BALL, fill=color or FILL, stroke=color or LINE)
        drawing.text(
            place[0], place[1] + 5, str(sphere), anchor="middle", bold=True,
            color=GROUND if color else DIM,
        )  # fmt: skip
    for line, text in enumerate(
        (
            "Twelve spheres compute. As many as there are cores",
            "hold a permit and work (here two); the others sleep.",
        )
    ):
        drawing.text(x, 470 + 18 * line, text, anchor="middle", size=13)


def draw_memory(drawing: Drawing) -> None:
    """Draw the shared memory with what the run keeps in it."""
    x, y, width, height = MEMORY
    drawing.rect(x, y, width, height, fill="#1b1e24", stroke=LINE)
    drawing.text(x, y - 14, "Shared memory: one mapping, which all see", bold=True)

    drawing.text(x + 16, y + 30, "Weights and moments")
    drawing.text(x + width - 16, y + 30, "cut into segments", anchor="end", size=12, color=DIM)
    cell = (width - 32) / SEGMENTS
    for row, color in enumerate((CYAN, CYAN, CYAN)):
        for segment in range(SEGMENTS):
            drawing.lines.append(
                f'<rect x="{x + 16 + segment * cell:.1f}" y="{y + 42 + row * 20}" '
                f'width="{cell - 2:.1f}" height="16" fill="{color}" '
                f'fill-opacity="{0.75 - 0.2 * row:g}"/>'
            )
    drawing.text(x + 16, y + 122, "One copy, however many spheres there are.", size=12, color=DIM)

    drawing.text(x + 16, y + 172, "12 lanes of gradients")
    drawing.text(
        x + width - 16, y + 172, "fixed for the life of a run", anchor="end", size=12, color=DIM
    )
    owner = {lane: sphere for sphere, lane in CLAIMED.items()}
    for lane in range(SPHERES):
        left, top, cell = lane_cell(lane)
        state = AT_WORK[owner[lane]] if lane in owner else BLUE if lane in LANES_DONE else None
        drawing.rect(left, top, cell, 40, fill=state or FILL, stroke=state or LINE)
        drawing.text(
            left + cell / 2, top + 25, str(lane), anchor="middle", size=13,
            color=GROUND if state else DIM,
        )  # fmt: skip
    for line, text in enumerate(
        (
            "Blue: done. Green, yellow: claimed with one compare-and-swap.",
            "What a lane holds follows from seed, step and lane alone.",
        )
    ):
        drawing.text(x + 16, y + 274 + 16 * line, text, size=12, color=DIM)

    drawing.text(x + 16, y + 330, "Claims, permits, results, figures, requests")
    drawing.text(
        x + 16, y + 350, "No pipes, no locks. Whoever dies is buried by Node Zero: what", size=12,
        color=DIM,
    )  # fmt: skip
    drawing.text(
        x + 16, y + 366, "it had claimed is free again, and another computes the same bits.",
        size=12, color=DIM,
    )  # fmt: skip


def draw_claims(drawing: Drawing) -> None:
    """Draw a line from each sphere at work to the lane that it has claimed."""
    for sphere, lane in CLAIMED.items():
        place = on_ring(sphere)
        left, top, cell = lane_cell(lane)
        end, top, bottom = left + cell / 2, top - 2, top + 42
        level, edge = (bottom + 10, bottom) if place[1] > top else (top - 10, top)
        drawing.path(
            f"M{place[0] + BALL:.1f} {place[1]:.1f}H{GUTTER}V{level:.1f}H{end:.1f}V{edge:.1f}",
            AT_WORK[sphere],
        )


def draw_step(drawing: Drawing) -> None:
    """Draw the phases of one step as a row, with Points A and B between them."""
    top = 530
    drawing.path(f"M20 {top - 18}H{WIDTH - 20}", LINE)
    gap, width = 28, (WIDTH - 40 - 4 * 28) / len(PHASES)
    for number, (name, color, first, second) in enumerate(PHASES):
        left = 20 + number * (width + gap)
        middle = left + width / 2
        drawing.rect(left, top + 18, width, 34, fill=FILL, stroke=color)
        drawing.text(middle, top + 40, name, anchor="middle", bold=True, color=color)
        drawing.text(middle, top + 74, first, anchor="middle", size=12, color=DIM)
        drawing.text(middle, top + 90, second, anchor="middle", size=12, color=DIM)
        if number + 1 < len(PHASES):
            drawing.path(f"M{left + width + 3:g} {top + 35}h{gap - 6}", DIM, arrow=True)
    for point, number in (("Point A", 1), ("Point B", 2)):
        drawing.text(
            20 + number * (width + gap) - gap / 2, top + 8, point, anchor="middle", size=13,
            bold=True,
        )  # fmt: skip
    drawing.text(
        20, top + 122, size=12, color=DIM,
        text="Node Zero begins a step at Point A. From there on the spheres move by themselves: "
        "one that finds every unit done hands over to the next phase.",
    )  # fmt: skip


def draw() -> str:
    """Return the picture as an SVG document."""
    drawing = Drawing()
    drawing.rect(0, 0, WIDTH, HEIGHT, fill=GROUND)
    draw_processes(drawing)
    draw_memory(drawing)
    draw_claims(drawing)
    draw_step(drawing)
    return drawing.document()


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="the SVG file to write")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
