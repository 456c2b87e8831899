"""Draws the tree of spheres, a line per node; subtrees that do not fit are folded into one line.

Pure, like `frame`, which calls it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from crystalline.train.stats import SphereStats
from crystalline.ui import states
from crystalline.untrusted import one_line

Row = list[tuple[str, str]]  # text, name of its style in `frame.STYLES`

NODE_ZERO = -1
MOST_LEVELS = 3  # of what may be drawn: rows may be read while the tree changes
PANEL = 64  # the least width of a panel
_NAME, _STATE, _BAR = 13, 8, 12
_HEAD = f" {'node':<{_NAME}} lvl pos role      work  state"
_BETWEEN = " │"
_ALARMING = ("dead", "starting")


@dataclass
class _Node:
    """A node and what is below it."""

    sphere: SphereStats | None  # None: Node Zero
    children: list[_Node] = field(default_factory=list)
    folded: bool = False

    @property
    def leaves(self) -> list[SphereStats]:
        """The leaves below it; itself, where it is one."""
        if not self.children:
            return [] if self.sphere is None else [self.sphere]
        return [leaf for child in self.children for leaf in child.leaves]

    @property
    def batches(self) -> int:
        """What all have computed that are there now, itself before it was a control too."""
        own = 0 if self.sphere is None else self.sphere.lanes_done
        return own + sum(child.batches for child in self.children)


def draw_tree(spheres: Sequence[SphereStats], width: int, height: int) -> list[Row]:
    """Return exactly `height` rows of at most `width` cells."""
    root = _grow(spheres)
    nodes = 1 + len(list(_controls(root, 1))) + len(root.leaves)
    panels, lines = 1, max(height - 1, 1)
    while panels * lines < nodes and width // (panels + 1) >= PANEL:
        panels += 1
    room = panels * lines
    _fold(root, room)
    most = max((leaf.lanes_done for leaf in root.leaves), default=0)
    scale = _Scale(root.batches, most, width // panels - len(_BETWEEN))
    drawn = list(_draw(root, "", "", scale))
    if len(drawn) > room:  # even the first level is too long
        left = root.children[room - 2 :]
        rest = [leaf for child in left for leaf in child.leaves]
        drawn = drawn[: max(room - 1, 0)]
        drawn.append([(f" … {len(left)} more: {states.told(rest, short=True)}", "dim")])
    rows: list[Row] = []
    for line in range(-1, lines):
        row: Row = []
        for panel in range(panels):
            place = panel * lines + line
            if panel and panel * lines >= len(drawn):
                break
            text: Row = [(_HEAD, "head")] if line < 0 else []
            if line >= 0 and place < len(drawn):
                text = drawn[place]
            row += [(_BETWEEN, "dim")] if panel else []
            row += _cut(text, width // panels - len(_BETWEEN), pad=panel < panels - 1)
        rows.append(row)
    return rows[:height]


def _grow(spheres: Sequence[SphereStats]) -> _Node:
    """Return Node Zero with all below it; who has no parent that is there is its child."""
    there = {sphere.index for sphere in spheres}
    below: defaultdict[int, list[SphereStats]] = defaultdict(list)
    for sphere in sorted(spheres, key=lambda s: s.index):
        below[sphere.parent if sphere.parent in there else NODE_ZERO].append(sphere)

    def node(sphere: SphereStats, level: int) -> _Node:
        children = below[sphere.index] if level < MOST_LEVELS else []
        return _Node(sphere, [node(child, level + 1) for child in children])

    return _Node(None, [node(sphere, 1) for sphere in below[NODE_ZERO]])


def _controls(node: _Node, level: int) -> Iterator[tuple[int, _Node]]:
    """Yield all controls below a node, with their levels."""
    for child in node.children:
        if child.children:
            yield level, child
            yield from _controls(child, level + 1)


def _fold(root: _Node, room: int) -> None:
    """Fold controls until the tree has no more than `room` lines.

    Level by level they are opened as long as there is room, first where a leaf is dead or only
    starting.
    """
    controls = list(_controls(root, 1))
    for _, control in controls:
        control.folded = True
    lines = 1 + len(root.children)
    opened = {id(root)}
    above = {id(child): id(node) for node in (root, *(c for _, c in controls))
             for child in node.children}  # fmt: skip
    for _, control in sorted(controls, key=lambda item: (item[0], not _alarms(item[1]))):
        if lines + len(control.children) <= room and above[id(control)] in opened:
            lines += len(control.children)
            control.folded = False
            opened.add(id(control))


def _alarms(node: _Node) -> bool:
    return any(leaf.state in _ALARMING for leaf in node.leaves)


@dataclass(frozen=True)
class _Scale:
    """What shares are of."""

    total: int  # batches of all
    most: int  # of a leaf
    width: int  # of a line


def _draw(node: _Node, before: str, below: str, scale: _Scale) -> Iterator[Row]:
    """Yield the lines of a node and of all below it, as far as it is not folded.

    `before` stands before its own name, `below` before what is drawn below it.
    """
    yield _line(node, before, scale)
    if node.folded:
        return
    for child in node.children:
        last = child is node.children[-1]
        corner, beam = ("└─", "  ") if last else ("├─", "│ ")
        yield from _draw(child, below + corner, below + beam, scale)


def _line(node: _Node, before: str, scale: _Scale) -> Row:
    share = node.batches / scale.total if scale.total else 0.0
    sphere = node.sphere
    if sphere is None:
        name, level, position, role, state = "Node Zero", "0", "", "root", ""
    else:
        name, level, position = f"#{sphere.index}", str(sphere.level), str(sphere.position)
        role = "control" if node.children or sphere.state == "control" else "leaf"
        state = one_line(sphere.state)[:_STATE]
    row: Row = [
        (" " + before, "dim"),
        (f"{name:<{max(_NAME - len(before), 0)}}", "value"),
        (f" {level:>3} {position:>3} {role:<7} ", ""),
        (f"{100 * share:5.1f}%  ", "value"),
    ]
    if node.folded:
        return [*row, (f"▸ {states.told(node.leaves, short=True)}", "dim")]
    row.append((f"{state:<{_STATE}} ", states.STYLES_OF.get(state, "")))
    used = sum(len(text) for text, _ in row)
    if sphere is not None and not node.children and used + _BAR <= scale.width and scale.most:
        row.append(("━" * round(_BAR * sphere.lanes_done / scale.most), "good"))
    return row


def _cut(row: Row, width: int, *, pad: bool) -> Row:
    """Return a row cut to a width, and filled up to it if so wanted."""
    cut: Row = []
    for text, style in row:
        if len(text) > width:
            text = text[: max(width - 1, 0)] + "…" if width else ""
        width -= len(text)
        cut.append((text, style))
    return [*cut, (" " * width, "")] if pad and width else cut
