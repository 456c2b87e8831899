"""When the tree grows and when it shrinks: every condition alone, and all of them for a while."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from crystalline.engine import policy
from crystalline.engine.policy import (
    Collapse,
    Limits,
    Load,
    Node,
    Plan,
    Seen,
    Spawn,
    obstacle,
    plan,
)
from crystalline.engine.shape import NODE_ZERO

MB = 10**6
WIDE = Load(
    now_s=100.0, units=24, cpu_share=0.5, free_bytes=8000 * MB, total_bytes=16000 * MB,
    node_bytes=10 * MB,
)  # fmt: skip
CORES = Limits(levels=3, permits=64)


def flat(count: int, **fields: Any) -> list[Node]:
    return [Node(row, NODE_ZERO, 1, row % 12, is_leaf=True, **fields) for row in range(count)]


def below(parent: Node, rows: Sequence[int], **fields: Any) -> list[Node]:
    return [
        Node(row, parent.row, parent.level + 1, place, is_leaf=True, **fields)
        for place, row in enumerate(rows)
    ]


def two_levels(**fields: Any) -> list[Node]:
    """Three nodes; the first is the control of rows 3 to 5."""
    first, *others = flat(3, **fields)
    control = replace(first, is_leaf=False, idle_share=0.0)
    return [control, *others, *below(control, [3, 4, 5], **fields)]


def spawned(nodes: Sequence[Node], load: Load, limits: Limits = CORES) -> list[Spawn]:
    found = [action for action in plan(nodes, load, limits).actions if isinstance(action, Spawn)]
    assert len(found) == len(plan(nodes, load, limits).actions)
    return found


def collapsed(made: Plan) -> list[int]:
    assert all(isinstance(action, Collapse) for action in made.actions)
    return [action.row for action in made.actions]


def apply(nodes: Sequence[Node], made: Plan) -> list[Node]:
    """Return the tree after a plan, as Node Zero would make it."""
    tree = {node.row: node for node in nodes}
    for action in made.actions:
        if isinstance(action, Spawn):
            node = tree[action.row]
            assert node.is_leaf
            tree[action.row] = replace(node, is_leaf=False)
            for position in action.positions:
                row = next(row for row in range(1000) if row not in tree)
                tree[row] = Node(row, node.row, node.level + 1, position, is_leaf=True)
        else:
            gone = [action.row]
            for row in gone:
                gone += [node.row for node in tree.values() if node.parent == row]
            tree = {row: node for row, node in tree.items() if row not in gone[1:]}
            tree[action.row] = replace(tree[action.row], is_leaf=True)
    return list(tree.values())


def test_four_cores() -> None:
    """T1 becomes the control of T1.1 to T1.3; at most four compute at a time."""
    limits = Limits(levels=2, permits=4)
    nodes = flat(3)
    assert plan(nodes, replace(WIDE, units=3), limits).actions == []  # there is little to do
    made = plan(nodes, replace(WIDE, units=12), limits)
    assert [(a.row, len(a.positions)) for a in made.actions if isinstance(a, Spawn)] == [(0, 3)]
    nodes = apply(nodes, made)
    assert 1 + len(nodes) == 7
    assert [node.row for node in nodes if not node.is_leaf] == [0]
    # Five leaves for four permits: none free, so that it stays like that, however much there is.
    later = replace(WIDE, units=1000, now_s=200.0)
    assert plan(nodes, later, limits).actions == []


# Expanding


def test_a_leaf_is_expanded_into_as_many_as_there_are_permits() -> None:
    (only,) = spawned(flat(4), WIDE, Limits(levels=2, permits=8))
    assert (only.row, len(only.positions)) == (0, 5)  # 3 + 5 leaves


@pytest.mark.parametrize(
    ("changes", "limits"),
    [
        ({"units": 7}, CORES),  # not 2 for each of four
        ({"cpu_share": 0.91}, CORES),
        ({"watch_share": 0.051}, CORES),
        ({"free_bytes": 14000 * MB, "node_bytes": 3734 * MB}, CORES),  # three are over 80 % of it
        ({"free_bytes": 2429 * MB}, CORES),  # they would leave less than 15 % of 16 GB
        ({}, Limits(levels=1, permits=64)),
        ({}, Limits(levels=3, permits=4)),
        ({}, Limits(levels=3, permits=64, nodes=6)),
    ],
)
def test_each_condition_alone_holds_a_leaf_back(changes: dict[str, Any], limits: Limits) -> None:
    nodes = flat(4)
    assert spawned(nodes, replace(WIDE, units=8))
    assert spawned(nodes, replace(WIDE, cpu_share=0.90))
    assert spawned(nodes, replace(WIDE, watch_share=0.05))
    assert spawned(nodes, replace(WIDE, free_bytes=14000 * MB, node_bytes=3733 * MB))
    assert spawned(nodes, replace(WIDE, free_bytes=2431 * MB))
    assert spawned(nodes, WIDE, Limits(levels=2, permits=5, nodes=7))
    assert spawned(nodes, replace(WIDE, **changes), limits) == []


@pytest.mark.parametrize(
    ("changes", "limits", "children"),
    [
        ({"units": 1000}, CORES, [12, 12, 12, 12]),  # then it would be one level lower
        ({"units": 8}, CORES, [5]),  # a unit for each of 3 + 5 leaves
        ({"units": 9}, CORES, [6]),
        ({"units": 1000}, Limits(3, permits=5), [3]),  # two are too few to be worth it
        ({"units": 1000}, Limits(3, permits=12), [9]),
        ({"units": 1000}, Limits(3, permits=18), [12, 4]),
        ({"units": 1000}, Limits(3, permits=64, nodes=4 + 17), [12, 5]),
        ({"units": 1000, "node_bytes": 1000 * MB}, CORES, [5]),  # of 8 GB, to 2.4 free
    ],
)
def test_how_many_children(changes: dict[str, Any], limits: Limits, children: list[int]) -> None:
    found = spawned(flat(4), replace(WIDE, **changes), limits)
    assert [len(action.positions) for action in found] == children
    assert [action.row for action in found] == list(range(len(children)))


def test_the_highest_and_busiest_are_expanded_first() -> None:
    nodes = two_levels(idle_share=0.2)
    nodes[2] = replace(nodes[2], idle_share=0.1)
    nodes[4] = replace(nodes[4], idle_share=0.0)  # lower down
    wide = replace(WIDE, units=1000)
    assert [action.row for action in spawned(nodes, wide)] == [2, 1, 4, 3, 5][
        : len(spawned(nodes, wide))
    ]
    assert [action.row for action in spawned(nodes, wide, Limits(2, permits=64))] == [2, 1]


def test_a_parent_that_is_overloaded_keeps_its_leaves_as_they_are() -> None:
    nodes = two_levels()
    nodes[0] = replace(nodes[0], watch_share=0.06)
    wide = replace(WIDE, units=1000)
    assert [action.row for action in spawned(nodes, wide)] == [1, 2]
    busy = replace(wide, watch_share=0.06)
    nodes[0] = replace(nodes[0], watch_share=0.01)
    assert [action.row for action in spawned(nodes, busy)] == [3, 4, 5]


def test_children_take_positions_of_groups_without_leaves() -> None:
    (action,) = spawned(flat(3), WIDE, Limits(2, permits=4))
    assert action.positions == (0, 3, 4)  # 1 and 2 are those of the others
    (action,) = spawned(flat(12), WIDE, Limits(2, permits=23))
    assert action.positions == tuple(range(12))


def test_nodes_that_share_a_position_stay_leaves() -> None:
    nodes = flat(14)
    found = spawned(nodes, replace(WIDE, units=1000))
    assert 0 not in [action.row for action in found]
    assert obstacle(nodes[1], nodes, CORES) == "another node has its position"
    assert obstacle(nodes[2], nodes, CORES) is None


def test_why_a_node_can_have_no_children() -> None:
    nodes = two_levels()
    assert obstacle(nodes[0], nodes, CORES) == "it has children already"
    assert obstacle(nodes[3], nodes, Limits(2, 8)) == "the tree may have 2 levels"
    assert (
        obstacle(nodes[3], nodes, Limits(3, 8, nodes=8)) == "there are 6 nodes, and there may be 8"
    )
    assert obstacle(nodes[3], nodes, CORES) is None


# Collapsing


def test_a_queue_that_is_short_for_half_a_minute() -> None:
    nodes, seen = two_levels(), Seen()
    short = replace(WIDE, units=4)  # below one for each of five leaves
    for second in range(31):
        made = plan(nodes, replace(short, now_s=100.0 + second), CORES, seen)
        seen = made.seen
        assert collapsed(made) == ([0] if second == 30 else [])
    assert "4 units" in made.actions[0].reason


def test_a_queue_that_was_long_in_between() -> None:
    nodes, seen = two_levels(), Seen()
    for second in range(60):
        units = 5 if second == 15 else 4  # five are one for each: not short
        made = plan(nodes, replace(WIDE, units=units, now_s=100.0 + second), CORES, seen)
        seen = made.seen
        assert collapsed(made) == ([0] if second == 46 else [])


def test_children_that_do_nothing() -> None:
    assert collapsed(plan(two_levels(idle_share=0.91), replace(WIDE, units=6), CORES)) == [0]
    assert collapsed(plan(two_levels(idle_share=0.90), replace(WIDE, units=6), CORES)) == []
    nodes = two_levels(idle_share=0.99)
    nodes[4] = replace(nodes[4], idle_share=0.5)  # one of them works
    assert collapsed(plan(nodes, replace(WIDE, units=6), CORES)) == []


def test_short_memory() -> None:
    nodes = two_levels()
    load = replace(WIDE, units=6, free_bytes=1599 * MB)
    assert collapsed(plan(nodes, load, CORES)) == [0]
    assert "1599 MB" in plan(nodes, load, CORES).actions[0].reason
    assert collapsed(plan(nodes, replace(load, free_bytes=1600 * MB), CORES)) == []
    assert plan(flat(4), load, CORES).actions == []  # nothing is there to be given up


def test_the_lowest_go_first_and_one_at_a_time() -> None:
    nodes = two_levels(idle_share=0.3)
    nodes[1] = replace(nodes[1], is_leaf=False)
    nodes[3] = replace(nodes[3], is_leaf=False)
    nodes += below(nodes[3], [6, 7]) + below(nodes[1], [8, 9])
    load = replace(WIDE, units=9, free_bytes=100 * MB)
    order = []
    while collapsed(made := plan(nodes, load, CORES)):
        order += collapsed(made)
        nodes = apply(nodes, made)
    assert order == [3, 0, 1]
    assert len(nodes) == 3


def test_on_command_and_at_the_end_all_below_goes() -> None:
    nodes = two_levels()
    nodes[3] = replace(nodes[3], is_leaf=False)
    nodes += below(nodes[3], [6, 7, 8])
    asked = replace(WIDE, asked=frozenset({0, 1, 77}))
    seen = Seen(looked_s=WIDE.now_s)
    made = plan(nodes, asked, CORES, seen)  # without waiting for the next look
    assert collapsed(made) == [0]
    assert [node.row for node in apply(nodes, made)] == [0, 1, 2]
    assert collapsed(plan(nodes, replace(WIDE, ending=True), CORES, seen)) == [0]


def test_one_look_a_second() -> None:
    made = plan(flat(4), replace(WIDE, units=0), CORES)
    again = replace(WIDE, units=1000, now_s=WIDE.now_s + 0.99)
    assert plan(flat(4), again, CORES, made.seen) == Plan([], made.seen)
    assert plan(flat(4), replace(again, now_s=WIDE.now_s + 1), CORES, made.seen).actions


def test_it_rests_after_children_were_given_up() -> None:
    nodes = two_levels(idle_share=0.95)
    load = replace(WIDE, units=100)
    made = plan(nodes, load, CORES)
    nodes = apply(nodes, made)
    assert [node.row for node in nodes] == [0, 1, 2]
    soon = plan(nodes, replace(load, now_s=load.now_s + 29), CORES, made.seen)
    assert soon.actions == []
    assert plan(nodes, replace(load, now_s=load.now_s + 30), CORES, soon.seen).actions


def test_nothing_is_done_with_no_nodes() -> None:
    assert plan([], WIDE, CORES).actions == []


# For a while


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_tree_stays_within_its_limits(seed: int) -> None:
    chance = random.Random(seed)
    limits = Limits(
        chance.choice([1, 2, 3]), chance.choice([2, 4, 12, 40]), chance.choice([20, 254])
    )
    nodes, seen = flat(chance.randrange(1, 13)), Seen()
    most = max(len(nodes), limits.permits + 1)
    for second in range(300):
        load = Load(
            float(second), chance.choice([0, 3, 12, 60, 600]), chance.random(),
            chance.randrange(16000) * MB, 16000 * MB, chance.choice([0, 5, 100]) * MB,
            asked=frozenset([chance.randrange(30)] if chance.random() < 0.05 else []),
        )  # fmt: skip
        nodes = [replace(node, idle_share=chance.random() ** 0.3) for node in nodes]
        made = plan(nodes, load, limits, seen)
        assert len({action.row for action in made.actions}) == len(made.actions)
        nodes, seen = apply(nodes, made), made.seen
        by_row = {node.row: node for node in nodes}
        assert len(nodes) <= limits.nodes
        assert max(node.level for node in nodes) <= limits.levels
        assert sum(node.is_leaf for node in nodes) <= most
        for node in nodes:
            children = [other for other in nodes if other.parent == node.row]
            assert bool(children) != node.is_leaf
            assert len({child.position for child in children}) == len(children) <= 12
            assert node.parent == NODE_ZERO or not by_row[node.parent].is_leaf


@pytest.mark.parametrize("permits", [4, 16, 64])
@pytest.mark.parametrize("units", [12, 60, 144])
def test_an_even_load_brings_the_tree_to_rest(permits: int, units: int) -> None:
    nodes, seen, limits = flat(3), Seen(), Limits(3, permits)
    shapes = []
    for second in range(200):
        made = plan(nodes, replace(WIDE, units=units, now_s=float(second)), limits, seen)
        nodes, seen = apply(nodes, made), made.seen
        shapes.append(len(nodes))
    assert len(set(shapes[10:])) == 1
    leaves = sum(node.is_leaf for node in nodes)
    assert leaves <= permits + 1
    assert leaves >= permits or units < policy.LONG_QUEUE * leaves


def test_the_thresholds_leave_room_between_growing_and_shrinking() -> None:
    assert policy.SHORT_QUEUE <= policy.UNITS_PER_LEAF < policy.LONG_QUEUE
    assert policy.LOW_MEMORY < policy.KEPT_MEMORY
