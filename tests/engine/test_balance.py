"""Homes by pace: against the best of all assignments, found by trying them; nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.engine.balance import balance, homes_of
from crystalline.ipc.positions import POSITIONS

PACES = st.floats(0.01, 100.0)


def arcs(homes: dict[int, int]) -> dict[int, int]:
    """How many positions each sphere has before it steals: position by position, one by one."""
    owner = {home: sphere for sphere, home in homes.items()}
    lengths: Counter[int] = Counter()
    for position in range(POSITIONS):
        while position not in owner:
            position = (position - 1) % POSITIONS
        lengths[owner[position]] += 1
    return dict(lengths)


def cuts(count: int, total: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut `total` positions into `count` arcs of one at least."""
    if count == 1:
        yield (total,)
        return
    for first in range(1, total - count + 2):
        for rest in cuts(count - 1, total - first):
            yield (first, *rest)


@settings(max_examples=60, deadline=None)
@given(st.lists(PACES, min_size=1, max_size=5))
def test_no_cut_of_the_circle_is_over_sooner(paces: list[float]) -> None:
    by_sphere = dict(enumerate(paces))
    lengths = arcs(homes_of(by_sphere))
    took = max(lengths[sphere] * pace for sphere, pace in by_sphere.items())
    best = min(
        max(length * pace for length, pace in zip(cut, paces, strict=True))
        for cut in cuts(len(paces), POSITIONS)
    )
    assert took == pytest.approx(best)


@given(st.dictionaries(st.integers(0, 300), PACES, min_size=13, max_size=80))
def test_more_spheres_than_positions_leave_no_position_without_one(paces: dict[int, float]) -> None:
    homes = homes_of(paces)
    assert homes.keys() == paces.keys()
    assert set(homes.values()) == set(range(POSITIONS))


@given(st.dictionaries(st.integers(0, 40), PACES, min_size=1, max_size=30))
def test_balance_is_of_arcs_over_speeds(paces: dict[int, float]) -> None:
    homes = homes_of(paces)
    assert balance(homes, paces) >= 1.0 - 1e-12
    if len(paces) <= POSITIONS:
        times = [length * paces[sphere] for sphere, length in arcs(homes).items()]
        assert balance(homes, paces) == pytest.approx(max(times) / (sum(times) / len(times)))


def test_equal_spheres_are_where_they_were() -> None:
    for count in (1, 2, 3, 4, 6, 12):
        homes = homes_of(dict.fromkeys(range(count), 3.0))
        assert homes == {sphere: sphere * POSITIONS // count for sphere in range(count)}
        assert balance(homes, dict.fromkeys(range(count), 3.0)) == pytest.approx(1.0)
    many = homes_of(dict.fromkeys(range(24), 1.0))
    assert Counter(many.values()) == dict.fromkeys(range(POSITIONS), 2)
