"""The tree of spheres on consoles of many sizes: who is below whom, and what is folded."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.cells import cell_len

from crystalline.train.stats import SphereStats
from crystalline.ui.tree_view import draw_tree
from tests.ui.fake_snapshots import extreme_snapshot, fake_snapshot, tree_snapshot
from tests.ui.test_frame import SIZES, lines_of


def drawn(spheres: tuple[SphereStats, ...] | str, width: int = 80, height: int = 20) -> list[str]:
    if isinstance(spheres, str):
        spheres = tree_snapshot(spheres).spheres
    rows = draw_tree(spheres, width, height)
    assert len(rows) == height
    return ["".join(text for text, _ in row).rstrip() for row in rows]


def test_a_small_tree_is_shown_whole() -> None:
    assert drawn("2+3", height=8) == [
        " node          lvl pos role      work  state",
        " Node Zero       0     root    100.0%",
        " ├─#0            1   0 control  87.5%  control",
        " │ ├─#2          2   0 leaf     37.5%  waiting  ━━━━━━━━━",
        " │ └─#3          2   1 leaf     50.0%  idle     ━━━━━━━━━━━━",
        " └─#1            1   1 control  12.5%  control",
        "   └─#4          2   2 leaf     12.5%  reduce   ━━━",
        "",
    ]


def test_subtrees_that_do_not_fit_are_folded_with_their_states() -> None:
    lines = drawn("12+144")
    controls = [line for line in lines if " control " in line]
    assert len(controls) == 12
    for line in controls:
        counts = re.findall(r"(\d+) (?:comp|red|upd|wait|idle)", line.split("▸")[1])
        assert sum(map(int, counts)) == 12
        assert "…" not in line
    assert not any(" leaf " in line for line in lines)


def test_a_subtree_with_a_dead_leaf_is_opened_first() -> None:
    spheres = tree_snapshot("3+30").spheres
    last = max(s.index for s in spheres)
    spheres = tuple(replace(s, state="dead") if s.index == last else s for s in spheres)
    lines = drawn(spheres, height=15)
    assert [" ▸ " in line for line in lines if " control " in line] == [True, True, False]
    assert any(f"#{last} " in line and "dead" in line for line in lines)


def test_a_wide_console_has_several_panels() -> None:
    lines = drawn("12+144", 200, 46)
    shown = [int(row) for line in lines for row in re.findall(r"#(\d+) ", line)]
    folded = sum("▸" in panel for line in lines for panel in line.split(" │ "))
    assert len(shown) == len(set(shown)) == 156 - 12 * folded
    assert 0 < folded < 5


def test_a_flat_tree_that_is_too_long_is_summed_up() -> None:
    lines = drawn("63", height=12)
    assert re.fullmatch(r" … 54 more: .*", lines[-1])
    counts = re.findall(r"(\d+) (?:comp|red|upd|wait|idle)", lines[-1])
    assert sum(map(int, counts)) == 54


def test_rows_that_are_read_while_the_tree_changes_do_no_harm() -> None:
    one, two, three, *_ = tree_snapshot("3").spheres
    lost = replace(one, parent=77)
    ring = (replace(two, parent=three.index), replace(three, parent=two.index))
    assert sum("#" in line for line in drawn((lost, *ring))) >= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", ["1", "63", "3+9", "12+144", "2+4+8"])
def test_it_fills_the_console_exactly(size: tuple[int, int], shape: str) -> None:
    lines = lines_of(tree_snapshot(shape), *size, show_tree=True)
    assert len(lines) == size[1]
    assert {cell_len(line) for line in lines} == {size[0]}
    assert "Node Zero" in "".join(lines)


def test_awkward_values_fit() -> None:
    for snapshot in (extreme_snapshot(63), replace(fake_snapshot(0), spheres=())):
        lines = lines_of(snapshot, 80, 24, show_tree=True)
        assert {cell_len(line) for line in lines} == {80}


def test_help_goes_before_the_tree() -> None:
    lines = lines_of(tree_snapshot("3+9"), 80, 24, show_tree=True, show_help=True)
    assert "show the tree of spheres" in "\n".join(lines)
