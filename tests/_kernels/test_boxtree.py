"""Candidates of the tree of boxes: all that may be nearest are there, few others are."""

from __future__ import annotations

import numpy as np
import pytest

from crystalline._kernels import boxtree


def search(
    points: np.ndarray,
    queries: np.ndarray,
    k: int,
    slack: float = 0.0,
    cells: np.ndarray | None = None,
    query_cells: np.ndarray | None = None,
    room: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Search a tree of two levels: the halves along the first axis."""
    n = len(points)
    order = np.argsort(points[:, 0], kind="stable")
    half = n // 2
    spans = [(0, n), (0, half), (half, n)] if n > 1 else [(0, n)]
    sorted_points = np.ascontiguousarray(points[order])
    lo = np.array([sorted_points[a:b].min(axis=0) for a, b in spans])
    hi = np.array([sorted_points[a:b].max(axis=0) for a, b in spans])
    cell_of = np.zeros(n, np.int64) if cells is None else cells[order]
    by_cell = np.argsort(cell_of, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(cell_of))])
    found = np.full((len(queries), n if room is None else room), -1)
    counts = np.empty(len(queries), np.int64)
    starts = np.array([a for a, _ in spans])
    stops = np.array([b for _, b in spans])
    child = np.array([1 if n > 1 else 0, 0, 0][: len(spans)])
    none = np.full(len(queries), -1) if query_cells is None else query_cells
    boxtree.candidates(
        sorted_points, cell_of, first, by_cell, lo, hi, starts, stops, child, queries, none,
        np.full(len(queries), slack), np.empty(k), found, counts,
    )  # fmt: skip
    return np.where(found < 0, -1, order[found]), counts


@pytest.mark.parametrize("d", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [1, 2, 9, 50])
@pytest.mark.parametrize("with_cells", [False, True])
def test_candidates_are_the_nearest(n: int, d: int, with_cells: bool) -> None:
    rng = np.random.default_rng(n * 10 + d)
    points, queries = rng.normal(size=(n, d)), rng.normal(size=(40, d))
    cells = rng.integers(0, 4, n) if with_cells else None
    starts = rng.integers(-1, 4, 40) if with_cells else None
    if cells is not None:
        cells[:4] = np.arange(min(n, 4))
        starts = np.minimum(starts, cells.max())
    squares = ((queries[:, None] - points[None]) ** 2).sum(axis=2)
    for k in {1, (n + 1) // 2, n}:
        found, counts = search(points, queries, k, 0.0, cells, starts)
        assert (counts == k).all()
        want = np.sort(np.argsort(squares, axis=1)[:, :k], axis=1)
        assert (np.sort(found[:, :k], axis=1) == want).all()


def test_slack_keeps_what_is_in_doubt() -> None:
    points = np.array([[0.0], [1.0], [1.5], [3.0]])
    # From -1 they lie at 1, 2, 2.5 and 4: each may be wrong by the slack.
    for slack, want in [(0.0, 1), (0.49, 1), (0.51, 2), (0.76, 3), (1.49, 3), (1.51, 4)]:
        found, counts = search(points, np.array([[50.0], [-1.0]]), 1, slack)
        assert counts[1] == want
        assert set(found[1, :want].tolist()) == set(range(want))


def test_more_candidates_than_room() -> None:
    points = np.zeros((10, 2))
    found, counts = search(points, np.ones((3, 2)), 2, room=4)
    assert counts.tolist() == [10, 10, 10]
    assert (found >= 0).all()
    assert all(len(set(row)) == 4 for row in found.tolist())


def test_equal_points_and_borders_of_boxes() -> None:
    points = np.array([[0.0, 0.0]] * 5 + [[2.0, 0.0]] * 5)
    _, counts = search(points, np.array([[1.0, 3.0], [0.0, 0.0], [2.0, 1.0]]), 1)
    assert counts.tolist() == [10, 5, 5]


def test_bad_input() -> None:
    points = np.zeros((3, 2))
    with pytest.raises(ValueError, match="4 nearest of 3 points"):
        search(points, points, 4)
    with pytest.raises(ValueError, match="a row of queries has 1 elements, expected 2"):
        search(points, np.zeros((1, 1)), 1)
