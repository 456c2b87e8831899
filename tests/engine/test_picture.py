"""The tree as a graph and as a picture: well formed, true to scale, whatever the names are."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from crystalline.engine.picture import CONTROL, Ball, dot, entropy, svg
from crystalline.engine.shape import placed, shape_of

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'a"b\\c</text><script>&amp;\n\0\x1b\ud800]]>--{;}'
MIDDLE = (500.0, 560.0)


def balls(wanted: int | str | list[int], **fields: Any) -> list[Ball]:
    """Return the nodes of a shape; every leaf does as much as the others."""
    shape = placed(wanted) if isinstance(wanted, list) else shape_of(wanted)
    controls = {place.parent for place in shape}
    leaves = [row for row in range(len(shape)) if row not in controls]
    share = {row: 1 / len(leaves) for row in leaves}
    for row in reversed(range(len(shape))):
        above = shape[row].parent
        share[above] = share.get(above, 0) + share[row]
    return [
        replace(
            Ball(
                row + 1, row, place.parent, place.level, place.position, place.group,
                CONTROL if row in controls else "leaf",
                "control" if row in controls else "compute",
                100, share[row],
            ),
            **fields,
        )
        for row, place in enumerate(shape)
    ]  # fmt: skip


UNEVEN = [-1] * 5 + [0] * 4 + [1] * 2 + [5] * 7 + [6] * 3 + [2] * 12
TREES = [1, 12, 13, 63, "3+9", "12+144", "1+1+1", UNEVEN]


# Entropy


def test_entropy() -> None:
    assert entropy([7] * 12) == pytest.approx(3.585, abs=5e-4)
    assert entropy([1, 1]) == entropy([10**12, 10**12, 0]) == 1
    assert entropy([3, 1]) == pytest.approx(0.811278, abs=1e-6)  # 2 - 3/4 · log2 3
    assert entropy([5]) == entropy([]) == entropy([0, 0]) == 0


# DOT


TOKEN = re.compile(r'\s*(?:("(?:[^"\\\n]|\\.)*")|([A-Za-z_0-9.]+)|(->|[{}\[\]=;,]))')


def parse(text: str) -> tuple[dict[str, dict[str, str]], list[tuple[str, str]]]:
    """Read what `dot` writes: the attributes of each node, and the edges."""
    tokens: list[str] = []
    at = 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        assert match, text[at : at + 40]
        tokens.append(match.group(0).strip())
        at = match.end()
    assert tokens[:3] == ["digraph", "tree", "{"]
    assert tokens[-1] == "}"
    nodes: dict[str, dict[str, str]] = {}
    edges = []
    statement: list[str] = []
    for token in tokens[3:-1]:
        if token != ";":
            statement.append(token)
            continue
        name, *rest = statement
        if rest[0] == "->":
            edges.append((name, rest[1]))
            assert len(rest) == 2
        else:
            assert (rest[0], rest[-1]) == ("[", "]")
            inside = rest[1:-1]
            assert inside[1::4] == ["="] * len(inside[::4])
            assert set(inside[3::4]) <= {","}
            nodes[name] = dict(zip(inside[::4], inside[2::4], strict=True))
        statement = []
    assert not statement
    return nodes, edges


@pytest.mark.parametrize("wanted", TREES, ids=str)
def test_the_graph_is_the_tree(wanted: int | str | list[int]) -> None:
    tree = balls(wanted)
    nodes, edges = parse(dot(tree))
    assert set(nodes) == {"graph", "node", "node_zero"} | {f"s_{node.id}" for node in tree}
    assert sorted(edges) == sorted(
        ("node_zero" if node.parent < 0 else f"s_{tree[node.parent].id}", f"s_{node.id}")
        for node in tree
    )
    for node in tree:
        about = nodes[f"s_{node.id}"]
        assert about["shape"] == ("box" if node.role == CONTROL else "ellipse")
        assert re.fullmatch('"#[0-9a-f]{6}"', about["fillcolor"])
        assert about["label"] == (
            f'"{node.id}\\nlevel {node.level}, group {node.group}\\n{node.state}\\n100 batches"'
        )


def test_the_graph_quotes_what_it_shows() -> None:
    nodes, _ = parse(dot([replace(balls(1)[0], state=HOSTILE)]))
    assert set(nodes) == {"graph", "node", "node_zero", "s_1"}
    assert '\\"b\\\\c</text>' in nodes["s_1"]["label"]


def test_a_node_whose_parent_is_gone_hangs_from_node_zero() -> None:
    """The tree changes while it is looked at."""
    tree = [node for node in balls("3+9") if node.row != 1]
    _, edges = parse(dot(tree))
    assert Counter(parent for parent, _ in edges) == {"node_zero": 2 + 3, "s_1": 3, "s_3": 3}
    assert len(disks(svg(tree))) == len(tree)


# SVG


def disks(text: str) -> dict[int, tuple[str, float, float, float, float]]:
    """Return of each node its outline's style, center and radius, and the radius of its ball."""
    found = {}
    for group in ET.fromstring(text).iter(f"{SVG}g"):
        title = group.findtext(f"{SVG}title") or ""
        outline, ball = group.findall(f"{SVG}circle")
        x, y, radius, size = (
            float(each.attrib[name])
            for each, name in [(outline, "cx"), (outline, "cy"), (outline, "r"), (ball, "r")]
        )
        assert (ball.attrib["cx"], ball.attrib["cy"]) == (
            outline.attrib["cx"], outline.attrib["cy"],
        )  # fmt: skip
        number = int(title.split()[1])
        assert number not in found
        found[number] = (outline.attrib["class"], x, y, radius, size)
    return found


def apart(
    a: tuple[str, float, float, float, float], b: tuple[str, float, float, float, float]
) -> float:
    return math.dist(a[1:3], b[1:3])


@pytest.mark.parametrize("wanted", TREES, ids=str)
def test_every_node_has_a_disk_and_none_hides_another(wanted: int | str | list[int]) -> None:
    tree = balls(wanted)
    found = disks(svg(tree))
    assert set(found) == {node.id for node in tree}
    core = 430 * 0.2  # of Node Zero
    for node in tree:
        mine = found[node.id]
        assert mine[0] == ("subtree" if node.role == CONTROL else "place")
        assert math.dist(mine[1:3], MIDDLE) + mine[3] <= 430
        assert math.dist(mine[1:3], MIDDLE) > mine[3] + core
        if node.parent >= 0:  # within its parent's disk, beside its core
            above = found[tree[node.parent].id]
            assert apart(mine, above) + mine[3] < above[3]
            assert apart(mine, above) > mine[3] + above[4] - 0.02
    for a, b in combinations(tree, 2):
        if a.parent == b.parent:
            assert apart(found[a.id], found[b.id]) > found[a.id][3] + found[b.id][3] - 0.02


def test_positions_lie_at_their_hours() -> None:
    found = disks(svg(balls(12)))
    for position in range(12):
        _, x, y, _, _ = found[position + 1]
        hour = math.atan2(x - MIDDLE[0], MIDDLE[1] - y) / math.tau * 12
        assert math.isclose(hour % 12, position, abs_tol=0.01) or math.isclose(
            hour, 0, abs_tol=0.01
        )


def test_a_ball_is_as_large_as_its_share() -> None:
    tree = balls(12)
    tree[4] = replace(tree[4], share=tree[4].share / 4)
    tree[5] = replace(tree[5], share=0.0)
    tree[6] = replace(tree[6], share=math.nan)
    tree[7] = replace(tree[7], share=-1.0)
    tree[8] = replace(tree[8], share=math.inf)
    assert "nan" not in svg(tree)
    found = disks(svg(tree))
    whole = found[1]
    assert whole[3] == whole[4]  # the one that did most fills its place
    assert found[5][4] == pytest.approx(whole[4] / 2, abs=0.01)
    assert found[6][4] == found[7][4] == found[8][4] == found[9][4]
    assert 0 < found[6][4] < whole[4] / 2  # it can still be seen
    fresh = disks(svg(balls(12, share=0.0)))  # nobody did anything yet
    assert {size for *_, size in fresh.values()} == {whole[4]}


@pytest.mark.parametrize("wanted", [12, "12+144", UNEVEN], ids=str)
def test_the_picture_is_well_formed_and_tells_what_it_shows(wanted: int | str | list[int]) -> None:
    tree = balls(wanted)
    tree[0] = replace(tree[0], state="paused", batches=1234567)
    text = svg(tree, "A run")
    root = ET.fromstring(text)
    assert (root.tag, root.findtext(f"{SVG}title")) == (f"{SVG}svg", "A run")
    said = [each.text or "" for each in root.iter(f"{SVG}text")]
    leaves = sum(node.role != CONTROL for node in tree)
    assert said[0] == "A run"
    assert said[1].startswith(f"{leaves} leaves, {len(tree) - leaves} control")
    assert "bits" in said[1]
    assert {str(hour) for hour in range(12)} <= set(said)
    assert "1 paused" in said
    assert f"{leaves - (leaves == len(tree))} working" in said
    assert any("1,234,567 batches" in (each.text or "") for each in root.iter(f"{SVG}title"))
    used = set(re.findall(r"url\(#([a-z]+)\)", text))
    assert used <= {each.attrib["id"] for each in root.iter(f"{SVG}radialGradient")}
    assert all(name in used for name in ("working", "paused"))
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # nothing to be fetched
    assert svg(tree, "A run") == text


@pytest.mark.parametrize("state", ["compute", HOSTILE, "", "x" * 10_000])
def test_names_do_no_harm(state: str) -> None:
    tree = [replace(node, state=state, role=state) for node in balls(12)]
    root = ET.fromstring(svg(tree, title=HOSTILE))
    assert len(list(root.iter(f"{SVG}g"))) == 12
    assert not list(root.iter(f"{SVG}script"))
    svg(tree).encode()
    parse(dot(tree).encode().decode())


def test_no_node_yet() -> None:
    assert "0 leaves, 0 controls" in svg([])
    nodes, edges = parse(dot([]))
    assert (set(nodes), edges) == ({"graph", "node", "node_zero"}, [])


def test_nodes_that_go_round_in_a_circle_end() -> None:
    """A file may say anything."""
    tree = [replace(node, parent=node.row, role=CONTROL) for node in balls(2)]
    ET.fromstring(svg(tree))
    tree = [replace(node, row=-1, parent=-1, role=CONTROL) for node in balls("12+144")]
    assert len(list(ET.fromstring(svg(tree)).iter(f"{SVG}g"))) <= len(tree)


def test_figures_of_many_digits_fit_into_their_disks() -> None:
    tree = [replace(node, id=node.id + 1_000_000) for node in balls("12+144")]
    root = ET.fromstring(svg(tree))
    for group in root.iter(f"{SVG}g"):
        ball = group.findall(f"{SVG}circle")[1]
        for label in group.findall(f"{SVG}text"):
            assert len(label.text or "") * float(label.attrib["font-size"]) * 0.66 < 2 * float(
                ball.attrib["r"]
            )
