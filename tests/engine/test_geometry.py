"""The nested cluster of spheres: what touches what, exactly, at every level."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import combinations, permutations, product

import numpy as np
import pytest

from crystalline.engine.geometry import (
    by_distance,
    center,
    distance2,
    group,
    kissing_direction,
    linked,
    radius,
    siblings_in_contact,
    touching,
    work_order,
)

TWELVE = range(12)
PARENTS = [(), (4,), (11,), (3, 8), (0, 0)]  # of spheres of levels 1 to 3


def place(path: tuple[int, ...]) -> np.ndarray:
    """Return a center in floats: from each parent 2R/3 along a unit vector."""
    where, size = np.zeros(3), 1.0
    for position in path:
        along = np.array(kissing_direction(position), float)
        where = where + 2 * size / 3 * along / np.linalg.norm(along)
        size /= 3
    return where


def test_the_twelve_directions_are_those_of_the_cluster() -> None:
    wanted = {way for x, y in product((1, -1), repeat=2) for way in permutations((x, y, 0))}
    assert {kissing_direction(k) for k in TWELVE} == wanted
    assert len(wanted) == 12


def test_opposite_positions_are_six_apart() -> None:
    for k in TWELVE:
        opposite = kissing_direction((k + 6) % 12)
        assert opposite == tuple(-x for x in kissing_direction(k))


def test_positions_lie_like_the_hours_of_a_clock() -> None:
    """Seen along (-1, -1, -1), with position 0 at the top."""
    axis = np.ones(3) / math.sqrt(3)
    up = np.array(kissing_direction(0), float) / math.sqrt(2)
    right = np.cross(up, axis)  # of one who looks down on the dial
    for k in TWELVE:
        way = np.array(kissing_direction(k), float)
        hour = math.atan2(way @ right, way @ up) / math.tau * 12
        assert math.isclose(hour % 12, k, abs_tol=1e-9) or math.isclose(hour, k, abs_tol=1e-9)
        height = [0, 1, 0, -1][k % 4]
        assert math.isclose(way @ axis, height * 2 / math.sqrt(3), abs_tol=1e-9)


@pytest.mark.parametrize("parent", PARENTS, ids=str)
def test_each_touches_four_siblings_and_none_is_closer(parent: tuple[int, ...]) -> None:
    children = [(*parent, k) for k in TWELVE]
    twice = 2 * radius(len(parent) + 1)
    contacts = set()
    for a, b in combinations(TWELVE, 2):
        between = distance2(children[a], children[b])
        assert between >= twice**2
        assert touching(children[a], children[b]) == (between == twice**2)
        if between == twice**2:
            contacts.add((a, b))
    assert len(contacts) == 24
    for k in TWELVE:
        near = sorted({a + b - k for a, b in contacts if k in (a, b)})
        assert tuple(near) == siblings_in_contact(k)
        assert len(near) == 4


@pytest.mark.parametrize("parent", PARENTS, ids=str)
def test_children_lie_inside_and_touch_the_middle_and_the_outside(parent: tuple[int, ...]) -> None:
    level = len(parent)
    small = radius(level + 1)
    assert small * 3 == radius(level)
    for k in TWELVE:
        child = (*parent, k)
        between = distance2(child, parent)
        assert between == (radius(level) - small) ** 2  # the outside, from within
        assert between == (small + small) ** 2  # the one in the middle, as large as the child
        assert touching(child, parent)
        assert touching(parent, child)


def test_centers_are_where_floats_say() -> None:
    shuffled = random.Random(7)
    paths = [tuple(shuffled.choices(TWELVE, k=shuffled.randrange(5))) for _ in range(60)]
    for path in paths:
        vector, scale = center(path)
        assert all(type(x) is int for x in (*vector, scale))
        assert np.allclose(math.sqrt(2) * np.array(vector) / scale, place(path), atol=1e-12)
    for a, b in zip(paths[::2], paths[1::2], strict=True):
        between = distance2(a, b)
        assert isinstance(between, Fraction)
        assert between == distance2(b, a)
        assert math.isclose(between, np.sum((place(a) - place(b)) ** 2), abs_tol=1e-12)


def test_no_two_nodes_have_one_center() -> None:
    centers = {
        tuple(Fraction(x, center(path).scale) for x in center(path).vector)
        for level in range(4)
        for path in product(TWELVE, repeat=level)
    }
    assert len(centers) == 1 + 12 + 144 + 1728


@pytest.mark.parametrize("position", [-1, 12])
def test_there_are_twelve_positions(position: int) -> None:
    for asked in (kissing_direction, siblings_in_contact, lambda k: center((3, k))):
        with pytest.raises(ValueError, match=f"position is {position}"):
            asked(position)


def test_messages_run_between_parent_and_child_and_siblings_in_contact() -> None:
    for a, b in product(TWELVE, repeat=2):
        assert linked((a,), (b,)) == (b in siblings_in_contact(a))
        assert linked((5, a), (5, b)) == linked((a,), (b,))
        assert not linked((5, a), (6, b))
        assert linked((a,), (a, b))
        assert linked((a, b), (a,))
        assert not linked((a,), ((a + 1) % 12, b))
        assert not linked((), (a, b))
    assert linked((), (3,))
    assert not linked((), ())


def test_cousins_that_touch_are_not_linked() -> None:
    ours, theirs = next(
        (a, b)
        for a in product([0], TWELVE)
        for b in product([1], TWELVE)
        if touching(a, b)
    )  # fmt: skip
    assert not linked(ours, theirs)


@pytest.mark.parametrize(
    ("path", "wanted"), [((11,), 11), ((11, 0), 11), ((11, 1), 0), ((3, 9, 9), 0)]
)
def test_groups(path: tuple[int, ...], wanted: int) -> None:
    assert group(path) == wanted


def test_a_full_level_has_every_group_alike() -> None:
    groups = [group(path) for path in product(TWELVE, repeat=2)]
    assert [groups.count(g) for g in TWELVE] == [12] * 12
    with pytest.raises(ValueError, match="no symmetry group"):
        group(())


# The order of stealing


def test_work_is_looked_for_nearest_first() -> None:
    for place in range(12):
        order = by_distance(place)
        assert sorted(order) == list(range(12))
        assert order[0] == place
        assert set(order[1:5]) == set(siblings_in_contact(place))
        assert order[-1] == (place + 6) % 12  # the opposite
    # Child 9 of child 5 belongs to group 2; what its siblings in contact prefer comes next.
    order = work_order(2, 9)
    assert order[0] == group((5, 9)) == 2
    assert set(order[1:5]) == {group((5, k)) for k in siblings_in_contact(9)}
    assert sorted(order) == list(range(12))
