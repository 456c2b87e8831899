"""Spawning and ending on request: the shape that is wanted, or the reason why not."""

from __future__ import annotations

import pytest

from crystalline.engine.obeying import RefusedError
from crystalline.engine.reshaping import spawned, terminated
from crystalline.engine.shape import Places, places_of, shape_of

FLAT = places_of(shape_of(3))
DEEP = places_of(shape_of("2+4"))


def test_a_leaf_gets_children() -> None:
    assert spawned(FLAT, (1,), 2, levels=2, room=2) == FLAT | {(1, 0), (1, 1)}
    deeper = spawned(DEEP, (0, 1), 12, levels=3, room=12)
    assert deeper - DEEP == {(0, 1, place) for place in range(12)}


@pytest.mark.parametrize(
    ("node", "count", "levels", "room", "words"),
    [
        ((0,), 2, 1, 99, "the tree of this run is flat"),
        ((0,), 2, 2, 99, "it has children already"),
        ((0, 0), 2, 2, 99, "it stands in the last of 2 levels"),
        ((0, 0), 0, 3, 99, "0 children were asked for"),
        ((0, 0), 13, 3, 99, "13 children were asked for"),
        ((0, 0), 3, 3, 2, "there is room for 2 more spheres"),
    ],
)
def test_what_cannot_be_is_refused(
    node: Places, count: int, levels: int, room: int, words: str
) -> None:
    with pytest.raises(RefusedError, match=words) as caught:
        spawned(DEEP, node, count, levels=levels, room=room)
    assert caught.value.advice.endswith(".")


def test_a_node_goes_with_all_below_it() -> None:
    left = terminated(DEEP, (0,))
    assert left == {path for path in DEEP if path[0] == 1}
    assert terminated(terminated(left, (1, 1)), (1, 3)) if (1, 3) in left else True
    with pytest.raises(RefusedError, match="it is the last sphere"):
        terminated(left, (1,))
