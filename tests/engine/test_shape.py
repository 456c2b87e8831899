"""How wanted leaves are laid out as a tree."""

from __future__ import annotations

from collections import Counter

import pytest

from crystalline.engine.shape import (
    NODE_ZERO,
    Place,
    Shape,
    free_positions,
    level_sizes,
    placed,
    shape_of,
)
from crystalline.errors import UsageError


def leaves(shape: Shape) -> list[Place]:
    controls = {place.parent for place in shape}
    return [place for row, place in enumerate(shape) if row not in controls]


def check(shape: Shape) -> None:
    """Whatever a tree is like, this holds."""
    for row, place in enumerate(shape):
        assert NODE_ZERO <= place.parent < row
        above = () if place.parent == NODE_ZERO else shape[place.parent].path
        assert place.path == (*above, place.position)
        first, own = place.path[0], place.path[-1]
        assert place.group == (own if place.level == 1 else (first + own) % 12)
    deep = [place.path for place in shape if place.level > 1]
    assert len(set(deep)) == len(deep)


@pytest.mark.parametrize("count", [1, 2, 12, 13, 63])
def test_one_level_is_as_ever(count: int) -> None:
    """Sphere s has position s mod 12, and Node Zero for a parent."""
    shape = shape_of(count)
    assert [(place.parent, place.path) for place in shape] == [
        (-1, (s % 12,)) for s in range(count)
    ]
    check(shape)


@pytest.mark.parametrize(
    ("wanted", "depth", "sizes"),
    [(9, 2, [3, 9]), (144, 2, [12, 144]), (143, 2, [12, 143]), (12, 2, [3, 12]), (4, 2, [2, 4]),
     (3, 2, [3]), (1, 3, [1]), (7, 3, [2, 7]), (8, 3, [2, 4, 8]), (27, 3, [3, 9, 27]),
     (27, 2, [5, 27]), (200, 3, [5, 34, 200])],
)  # fmt: skip
def test_levels_grow_evenly(wanted: int, depth: int, sizes: list[int]) -> None:
    assert level_sizes(wanted, depth) == sizes
    shape = shape_of(wanted, depth)
    check(shape)
    counted = Counter(place.level for place in shape)
    assert [counted[level + 1] for level in range(len(sizes))] == sizes
    assert len(leaves(shape)) == wanted
    assert {place.level for place in leaves(shape)} == {len(sizes)}
    for level in range(1, len(sizes)):  # controls of a level are alike
        children = Counter(place.parent for place in shape if place.level == level + 1)
        assert len(children) == sizes[level - 1]
        assert max(children.values()) - min(children.values()) <= 1
        assert 2 <= min(children.values()) <= max(children.values()) <= 12


def test_every_number_of_leaves_has_a_shape_in_every_depth() -> None:
    for wanted in range(1, 180):
        for depth in (1, 2, 3):
            if wanted > {1: 63, 2: 144, 3: 1728}[depth]:
                continue
            shape = shape_of(wanted, depth)
            assert len(leaves(shape)) == wanted
            check(shape)


def test_the_texts_of_the_shapes() -> None:
    assert shape_of("1") == shape_of(1)
    assert shape_of("12") == shape_of(12)
    assert shape_of("3+9") == shape_of(9, 2)
    full = shape_of("12+144")
    assert full == shape_of(144, 2)
    assert {place.path for place in full} == {(p,) for p in range(12)} | {
        (p, k) for p in range(12) for k in range(12)
    }
    assert [place.level for place in shape_of("1+1+1")] == [1, 2, 3]


@pytest.mark.parametrize("text", ["3+9", "12+144", "2+8", "4+12", "3+12", "6+60"])
def test_leaves_of_all_groups(text: str) -> None:
    """As far as there are leaves, no group is without one while another has two."""
    count = Counter(place.group for place in leaves(shape_of(text)))
    values = [count[g] for g in range(12)]
    assert max(values) - min(values) <= 1


def test_an_uneven_tree() -> None:
    #        0    1   2  3  4  5  6
    shape = placed([-1, -1, 0, 0, 3, 3, -1])
    check(shape)
    assert [place.level for place in shape] == [1, 1, 2, 2, 3, 3, 1]
    assert [place.path[0] for place in shape] == [0, 1, 0, 0, 0, 0, 2]
    groups = [place.group for place in leaves(shape)]
    assert len(set(groups)) == len(groups) == 5


def test_positions_that_are_free() -> None:
    assert free_positions((5,), 12, Counter()) == list(range(12))
    assert free_positions((5,), 2, Counter({5: 1, 7: 1}), taken=[1]) == [3, 4]
    counted = Counter({5: 1})
    free_positions((5,), 3, counted)
    assert counted == Counter({5: 1})


@pytest.mark.parametrize(
    ("wanted", "depth", "message"),
    [
        (0, 1, "shall have 0 leaves"),
        (-3, 2, "shall have -3 leaves"),
        (255, 1, "255 leaves"),
        (9, 0, "0 levels"),
        (9, 4, "4 levels"),
        (145, 2, "145 leaves have no place in 2 levels.*at most 144"),
        (64, 1, "64 leaves have no place in one level"),
        (1729, 3, "1729 leaves have no place in 3 levels"),
        ("", 1, "'' is no shape"),
        ("3+", 1, "no shape"),
        ("+3", 1, "no shape"),
        ("3+0", 1, "no shape"),
        ("-3", 1, "no shape"),
        ("3 + 9", 1, "no shape"),
        ("³", 1, "no shape"),
        ("x" * 1000, 1, "no shape"),
        ("9" * 5000, 1, "more than 1884 nodes"),
        ("1+1+1+1", 1, "4 levels"),
        ("2+25", 1, "node [01] shall have 1[23] children"),
        ("13+14", 1, "Node Zero shall have 13 children"),
        ("12+144+1729", 1, "more than 1884 nodes"),
    ],
)
def test_what_is_no_tree_is_refused(wanted: int | str, depth: int, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        shape_of(wanted, depth)
    assert caught.value.advice
    assert len(str(caught.value)) < 200


def test_parents_come_first() -> None:
    for parents in ([1, -1], [0], [-1, -2]):
        with pytest.raises(ValueError, match="parents come first"):
            placed(parents)
    with pytest.raises(UsageError, match="4 levels"):
        placed([-1, 0, 1, 2])
    with pytest.raises(UsageError, match="0 nodes"):
        placed([])
