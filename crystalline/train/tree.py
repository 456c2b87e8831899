"""The tree of spheres of a run as others draw it, from a snapshot alone: live, or from a file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from crystalline.engine.picture import CONTROL, Ball, entropy
from crystalline.engine.shape import NODE_ZERO
from crystalline.ipc.positions import POSITIONS
from crystalline.train.stats import OK, Snapshot, SphereStats


def balls(snapshot: Snapshot) -> list[Ball]:
    """Return the nodes of a run's tree, with the share that each subtree had of the work."""
    rows = {sphere.index: sphere for sphere in snapshot.spheres}
    lanes: Counter[int] = Counter()
    for sphere in snapshot.spheres:
        row, seen = sphere.index, set[int]()
        while row in rows and row not in seen:  # a file may say anything
            seen.add(row)
            lanes[row] += sphere.lanes_done
            row = rows[row].parent
    total = sum(sphere.lanes_done for sphere in snapshot.spheres)
    parents = {sphere.parent for sphere in snapshot.spheres}
    paused = snapshot.state in ("paused", "held")
    return [
        Ball(
            id=sphere.id,
            row=sphere.index,
            parent=sphere.parent,
            level=sphere.level,
            position=sphere.place,
            group=sphere.group % POSITIONS,
            role=CONTROL if sphere.index in parents else "leaf",
            state="paused" if paused and sphere.state == "idle" else sphere.state,
            batches=sphere.lanes_done,
            share=lanes[sphere.index] / total if total else 0.0,
        )
        for sphere in snapshot.spheres
    ]


def tree_lines(snapshot: Snapshot) -> list[str]:
    """Return the tree as indented lines: a line per node, its children below it."""
    children: defaultdict[int, list[SphereStats]] = defaultdict(list)
    rows = {sphere.index for sphere in snapshot.spheres}
    for sphere in sorted(snapshot.spheres, key=lambda sphere: (sphere.place, sphere.index)):
        children[sphere.parent if sphere.parent in rows else NODE_ZERO].append(sphere)

    def below(row: int, depth: int) -> Iterator[str]:
        for sphere in children.pop(row, []):  # once, whatever the figures say
            yield (
                f"{'  ' * depth}sphere {sphere.index}: {sphere.state}, position {sphere.position}, "
                f"{sphere.lanes_done:,} batches{_unwell(sphere)}"
            )
            yield from below(sphere.index, depth + 1)

    groups: Counter[int] = Counter()
    for sphere in snapshot.spheres:
        groups[sphere.group] += sphere.lanes_done
    lines = ["Node Zero", *below(NODE_ZERO, 1)]
    if any(groups.values()):
        lines.append(
            f"work over the groups: {entropy(groups.values()):.3f} bits of "
            f"{entropy([1] * POSITIONS):.3f}"
        )
    return lines


def _unwell(sphere: SphereStats) -> str:
    return "" if sphere.health == OK else f", {sphere.health}"
