"""The tree of spheres as a picture (SVG) and as a graph (DOT), from plain records of its nodes.

In the picture a node's children lie around its center where `geometry` has them, seen from above
the dial: position k at k o'clock.  So seen the thirteen of a cluster lie on a triangular lattice,
and drawn with 1/√3 of their radius they touch and hide nothing of one another.  A level is drawn
as much smaller as that takes (0.224 instead of a third), so the cluster of each control lies within
the control's own disk.  A leaf fills as much of its place as its work is of that of the leaf that
worked most; colors are states.  Where Node Zero has more than twelve children, those of one
position share its place.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from crystalline.engine.geometry import kissing_direction
from crystalline.engine.shape import MOST_LEVELS, NODE_ZERO
from crystalline.ipc.positions import POSITIONS

CONTROL = "control"  # the role of a node that has children


@dataclass(frozen=True)
class Ball:
    """A node as it is drawn."""

    id: int
    row: int
    parent: int  # its row, or NODE_ZERO
    level: int
    position: int  # among its siblings; modulo 12 it is where it is drawn
    group: int
    role: str
    state: str
    batches: int  # done so far
    share: float  # of all work, 0 to 1; a control's is that of its subtree


# What states look like: a name for the legend, and a color that can be told from the others by
# those who see no red or green, too.  States that are not named here are kinds of work.
_WORKING = ("working", "#00855f")
_CONTROLLING = ("controlling", "#3b6fb6")
_IDLE = ("idle", "#7b8794")
_STARTING = ("starting", "#2f8fc4")
_LOOKS = {
    "control": _CONTROLLING,
    "controlling": _CONTROLLING,
    "idle": _IDLE,
    "waiting": _IDLE,
    "ready": _IDLE,
    "starting": _STARTING,
    "initializing": _STARTING,
    "paused": ("paused", "#c97b00"),
    "dead": ("dead", "#c93a22"),
    "retired": ("retired", "#96806e"),
}


def entropy(counts: Iterable[float]) -> float:
    """Return the entropy of a distribution, in bits: log₂ 12 = 3.585 where twelve are alike.

    >>> entropy([5] * 12) == math.log2(12), entropy([7, 0, 0]), entropy([])
    (True, 0.0, 0.0)
    """
    found = [count for count in counts if count > 0]
    total = math.fsum(found)
    return math.fsum(count / total * math.log2(total / count) for count in found)


def dot(nodes: Sequence[Ball]) -> str:
    """Return the tree in the language of Graphviz: controls are boxes, leaves ellipses.

    >>> print(dot([Ball(7, 0, -1, 1, 3, 3, "leaf", "compute", 1200, 1.0)]))
    digraph tree {
      graph [rankdir=TB];
      node [style=filled, fontname="sans-serif", fontcolor="#ffffff"];
      node_zero [label="Node Zero", shape=box, fillcolor="#3b6fb6"];
      s_7 [label="7\\nlevel 1, group 3\\ncompute\\n1,200 batches", shape=ellipse, \
fillcolor="#00855f"];
      node_zero -> s_7;
    }
    <BLANKLINE>
    """
    names = {NODE_ZERO: "node_zero"} | {node.row: f"s_{node.id:d}" for node in nodes}
    lines = [
        "digraph tree {",
        "  graph [rankdir=TB];",
        '  node [style=filled, fontname="sans-serif", fontcolor="#ffffff"];',
        f'  node_zero [label="Node Zero", shape=box, fillcolor="{_CONTROLLING[1]}"];',
    ]
    for node in nodes:
        told = [
            f"{node.id}", f"level {node.level}, group {node.group}", node.state,
            f"{node.batches:,} batches",
        ]  # fmt: skip
        shape = "box" if node.role == CONTROL else "ellipse"
        label = "\\n".join(_quoted(part) for part in told)
        lines.append(
            f'  s_{node.id:d} [label="{label}", shape={shape}, fillcolor="{_look(node)[1]}"];'
        )
    lines += [f"  {names.get(node.parent, names[NODE_ZERO])} -> s_{node.id:d};" for node in nodes]
    return "\n".join([*lines, "}", ""])


# The picture, in pixels of its own coordinates.
_SPACE = "http://www.w3.org/2000/svg"
_WIDTH, _HEIGHT = 1000, 1120
_MIDDLE = (500.0, 560.0)
_OUTSIDE = 430.0  # radius of Node Zero's disk
_LATTICE = 1 / math.sqrt(3)  # a disk's radius, of that of its sphere
_REACH = 2 / 3 + _LATTICE / 3  # from the center of a cluster to its outside, of the sphere's radius
_SMALLEST = 0.3  # of its place that a leaf fills, so that it can be seen
_GAP = 0.94  # of its place, so that disks do not run together
_STYLE = """
  .panel { fill: #ffffff; stroke: #d9dee5; }
  .space { fill: #f5f7fa; stroke: #c3cad4; }
  .empty { fill: none; stroke: #dde2e9; }
  .place { fill: #ffffff; fill-opacity: 0.6; stroke: #c3cad4; }
  .subtree { fill: #e3ebf6; stroke: #3b6fb6; }
  .ink { fill: #1f2933; }
  .faint { fill: #5f6c7b; }
  .on { fill: #ffffff; }
  text { font-family: "DejaVu Sans", "Segoe UI", Helvetica, Arial, sans-serif; }
  @media (prefers-color-scheme: dark) {
    .panel { fill: #16181d; stroke: #2c313a; }
    .space { fill: #1c2027; stroke: #444c58; }
    .empty { fill: none; stroke: #2e343e; }
    .place { fill: #000000; fill-opacity: 0.2; stroke: #444c58; }
    .subtree { fill: #1d2a3f; stroke: #6f9bd8; }
    .ink { fill: #e8ecf1; }
    .faint { fill: #98a4b3; }
  }
"""


@dataclass(frozen=True)
class _Disk:
    """Where a node is drawn, or could be."""

    node: Ball | None
    x: float
    y: float
    radius: float


def svg(nodes: Sequence[Ball], title: str = "Tree of spheres") -> str:
    """Return the picture as an SVG document; `title` is its heading.

    It carries its own background and is drawn dark where the reader prefers that.  Each disk tells
    what it is when the pointer rests on it.
    """
    leaves = [node for node in nodes if node.role != CONTROL]
    most = max((_share(node) for node in leaves), default=0.0)
    width, height = f'width="{_WIDTH}"', f'height="{_HEIGHT}"'
    about = f'role="img" aria-label="{_text(title)}"'
    parts = [
        f'<svg xmlns="{_SPACE}" viewBox="0 0 {_WIDTH} {_HEIGHT}" {width} {height} {about}>',
        f"<title>{_text(title)}</title>",
        f"<style>{_STYLE}</style>",
        _gradients(),
        f'<rect class="panel" {width} {height} rx="14"/>',
        *_heading(nodes, leaves, title),
        *_dial(),
    ]
    for disk in _disks(nodes):
        parts += _drawn(disk, most)
    x, y = _MIDDLE
    core = _core(_OUTSIDE)
    parts += [
        _circle("ball", x, y, core, fill="url(#controlling)"),
        _label(x, y - core * 0.05, "Node", core * 0.3, "on"),
        _label(x, y + core * 0.33, "Zero", core * 0.3, "on"),
        *_legend(nodes),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _disks(nodes: Sequence[Ball]) -> list[_Disk]:
    """Return where each node is drawn, parents first, and the places that are free."""
    children: defaultdict[int, list[Ball]] = defaultdict(list)
    rows = {node.row for node in nodes}
    for node in nodes:  # one whose parent is not there is drawn with Node Zero's
        children[node.parent if node.parent in rows else NODE_ZERO].append(node)
    placed: list[_Disk] = []

    def place(row: int, x: float, y: float, outside: float, level: int) -> None:
        sphere = outside / _REACH  # the radius that has its cluster reach as far as the disk
        around = children.pop(row, [])  # once, whatever the records say
        for position in range(POSITIONS):
            those = [node for node in around if node.position % POSITIONS == position]
            across, up = _seen(position)
            middle = (x + sphere * across, y - sphere * up)
            if not those:
                placed.append(_Disk(None, *middle, _core(outside)))
                continue
            spots = _ring(*middle, _core(outside) / _GAP, len(those))
            for node, (left, top, size) in zip(those, spots, strict=True):
                placed.append(_Disk(node, left, top, size * _GAP))
                if level < MOST_LEVELS and node.role == CONTROL:
                    place(node.row, left, top, size * _GAP * _GAP, level + 1)

    place(NODE_ZERO, *_MIDDLE, _OUTSIDE, 1)
    return placed


def _core(outside: float) -> float:
    """Return the radius of a child's disk, and of its parent's core, within a disk."""
    return outside / _REACH / 3 * _LATTICE * _GAP


def _seen(position: int) -> tuple[float, float]:
    """Return a child's center as seen from above the dial, right and up, its parent's radius 1.

    >>> [tuple(round(part, 3) for part in _seen(k)) for k in (0, 3, 6)]
    [(0.0, 0.667), (0.385, 0.0), (0.0, -0.667)]
    """
    x, y, z = kissing_direction(position)
    # Up is the direction of position 0, (1, -1, 0)/√2; right is across it and the axis.
    up, right = (x - y) / math.sqrt(2), (2 * z - x - y) / math.sqrt(6)
    return right * math.sqrt(2) / 3, up * math.sqrt(2) / 3


def _ring(x: float, y: float, radius: float, count: int) -> list[tuple[float, float, float]]:
    """Return the centers and the radius of so many disks, side by side in one."""
    if count == 1:
        return [(x, y, radius)]
    ratio = math.sin(math.pi / count)
    size = radius * ratio / (1 + ratio)
    turns = [math.tau * turn / count for turn in range(count)]
    away = radius - size
    return [(x + away * math.sin(turn), y - away * math.cos(turn), size) for turn in turns]


def _heading(nodes: Sequence[Ball], leaves: Sequence[Ball], title: str) -> list[str]:
    groups: Counter[int] = Counter()
    for node in leaves:
        groups[node.group] += max(0, node.batches)
    controls = len(nodes) - len(leaves)
    told = [_counted(len(leaves), "leaf", "leaves"), _counted(controls, "control", "controls")]
    even = f"work over groups: {entropy(groups.values()):.2f} of {math.log2(POSITIONS):.2f} bits"
    return [
        _label(40, 56, title[:60], 27, "ink", anchor="start", bold=True),
        _label(40, 86, ", ".join([*told, even]), 16, "faint", anchor="start"),
    ]


def _dial() -> list[str]:
    """Return Node Zero's disk, with the numbers of the positions around it."""
    x, y = _MIDDLE
    parts = [_circle("space", x, y, _OUTSIDE, width=1.5)]
    for position in range(POSITIONS):
        turn, away = math.tau * position / POSITIONS, _OUTSIDE + 20
        where = (x + away * math.sin(turn), y - away * math.cos(turn) + 5)
        parts.append(_label(*where, str(position), 15, "faint"))
    return parts


def _drawn(disk: _Disk, most: float) -> list[str]:
    """Return a node, or a free place; `most` is the largest share of a leaf."""
    x, y, node = disk.x, disk.y, disk.node
    if node is None:
        return [_circle("empty", x, y, disk.radius, width=0.8)] if disk.radius > 9 else []
    fill = f"url(#{_look(node)[0]})"
    if node.role == CONTROL:
        radius = _core(disk.radius * _GAP)
        parts = [_circle("subtree", x, y, disk.radius, width=1.2)]
    else:
        filled = math.sqrt(_share(node) / most) if most > 0 else 1.0
        radius = disk.radius * max(_SMALLEST, filled)
        parts = [_circle("place", x, y, disk.radius, width=1)]
    parts.append(_circle("ball", x, y, radius, fill=fill))
    name = str(node.id)
    fitting = radius * 2.4 / len(name)  # size of type
    if radius > 45:
        size, small = min(radius * 0.4, fitting), radius * 0.2
        share = f"{100 * _share(node):.1f} %"
        parts += [
            _label(x, y - radius * 0.06, name, size, "on", bold=True),
            _label(x, y + radius * 0.28, node.state[:14], small, "on"),
            _label(x, y + radius * 0.56, share, small, "on"),
        ]
    elif radius > 8:
        size = min(radius * 0.8, fitting)
        parts.append(_label(x, y + size * 0.36, name, size, "on"))
    return [f"<g><title>{_told(node)}</title>", *parts, "</g>"]


def _legend(nodes: Sequence[Ball]) -> list[str]:
    """Return what the colors mean, for those that are there, in one line."""
    found = Counter(_look(node) for node in nodes)
    order = list(dict.fromkeys([_WORKING, *_LOOKS.values()]))
    parts, x, y = [], 40.0, _HEIGHT - 48.0
    for look in [look for look in order if found[look]]:
        name, told = look[0], f"{found[look]:,} {look[0]}"
        parts += [
            _circle("ball", x + 9, y, 9, fill=f"url(#{name})"),
            _label(x + 26, y + 5.5, told, 16, "ink", anchor="start"),
        ]
        x += 50 + 9.2 * len(told)
    note = "Position k lies at k o'clock; a leaf's disk is as large as its share of the work."
    parts.append(_label(40, _HEIGHT - 18, note, 13, "faint", anchor="start"))
    return parts


def _gradients() -> str:
    """Return a ball's colors for each look: lighter where the light falls."""
    balls = [
        f'<radialGradient id="{name}" cx="0.38" cy="0.32" r="0.75">'
        f'<stop offset="0" stop-color="{_mixed(color, "#ffffff", 0.3)}"/>'
        f'<stop offset="0.55" stop-color="{color}"/>'
        f'<stop offset="1" stop-color="{_mixed(color, "#000000", 0.22)}"/></radialGradient>'
        for name, color in dict.fromkeys([_WORKING, *_LOOKS.values()])
    ]
    return "<defs>" + "".join(balls) + "</defs>"


def _look(node: Ball) -> tuple[str, str]:
    return _LOOKS.get(node.state.lower(), _WORKING)


def _share(node: Ball) -> float:
    return node.share if 0 <= node.share <= 1 else 0.0  # not a number: nothing


def _told(node: Ball) -> str:
    role = node.role if node.role == CONTROL else "leaf"
    return _text(
        f"sphere {node.id} ({role}): {node.state}, level {node.level}, position {node.position}, "
        f"group {node.group}, {node.batches:,} batches, {100 * _share(node):.1f} % of the work"
    )


def _circle(
    style: str, x: float, y: float, radius: float, *, fill: str = "", width: float = 0
) -> str:
    more = (f' fill="{fill}"' if fill else "") + (f' stroke-width="{width:g}"' if width else "")
    return f'<circle class="{style}" cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}"{more}/>'


def _label(
    x: float, y: float, text: str, size: float, style: str, *, anchor: str = "middle",
    bold: bool = False,
) -> str:  # fmt: skip
    more = ' font-weight="bold"' if bold else ""
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}" '
        f'text-anchor="{anchor}"{more}>{_text(text)}</text>'
    )


def _text(text: str) -> str:
    """Return a text as it may stand in XML, also between quotes."""
    return escape(_plain(text), {'"': "&quot;"})


def _quoted(text: str) -> str:
    """Return a text as it may stand between quotes in DOT."""
    return _plain(text).replace("\\", "\\\\").replace('"', '\\"')


def _plain(text: str) -> str:
    """Return a text without what no document can hold: controls, halves of surrogate pairs."""
    return re.sub("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _mixed(color: str, other: str, share: float) -> str:
    pairs = [(int(color[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
