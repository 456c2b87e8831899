"""Slow, obvious twins of the pure embeddings: mpmath, fractions, and loops over all tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt


def ulam_places(count: int) -> list[tuple[int, int]]:
    """Return the places of 1 .. count, found by walking the spiral step by step.

    >>> ulam_places(6)
    [(0, 0), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0)]
    """
    x = y = 0
    places = [(x, y)]
    turns = itertools.cycle([(1, 0), (0, 1), (-1, 0), (0, -1)])
    for length in itertools.count(1):
        for _ in range(2):
            dx, dy = next(turns)
            for _ in range(length):
                x, y = x + dx, y + dy
                places.append((x, y))
                if len(places) >= count:
                    return places[:count]
    raise AssertionError


def golden_angle(number: int) -> Any:
    """Return number 2 pi / phi^2 modulo 2 pi; to be called at a precision of mpmath's."""
    return mpmath.fmod(number * 2 * mpmath.pi / mpmath.phi**2, 2 * mpmath.pi)


def nearest(places: Sequence[Sequence[Fraction]], point: Sequence[Fraction], k: int) -> list[int]:
    """Return the k nearest of places by rationals, ties by the lower index.

    >>> nearest([[Fraction(2)], [Fraction(0)], [Fraction(4)]], [Fraction(1)], 2)
    [0, 1]
    """
    squares = [
        (sum(((p - x) ** 2 for p, x in zip(place, point, strict=True)), Fraction(0)), i)
        for i, place in enumerate(places)
    ]
    return [i for _, i in sorted(squares)[:k]]


def nearest_of_many(
    places: Sequence[Sequence[Fraction]], queries: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the nearest place of each query: doubles where they leave no doubt, else rationals.

    For queries and places below 2^10, where a squared distance is within 2^-25 of the true one.
    """
    floats = np.array([[float(x) for x in place] for place in places])
    assert max(np.abs(floats).max(), np.abs(queries).max()) < 2**10
    result = np.empty(len(queries), np.int64)
    for i, query in enumerate(queries):
        squares = ((floats - query) ** 2).sum(axis=1)
        open_ones = np.flatnonzero(squares <= squares.min() + 2.0**-20)
        point = [Fraction(float(x)) for x in query]
        result[i] = open_ones[nearest([places[j] for j in open_ones], point, 1)[0]]
    return result


def steps(parent: Sequence[int], a: int, b: int) -> int | None:
    """Return the steps between two tokens of a forest, None for tokens of different trees.

    >>> steps([0, 0, 0, 1], 2, 3), steps([0, 1], 0, 1)
    (3, None)
    """
    paths = []
    for token in (a, b):
        path = [token]
        while parent[path[-1]] != path[-1]:
            path.append(parent[path[-1]])
        paths.append(path)
    common = [token for token in paths[0] if token in paths[1]]
    return paths[0].index(common[0]) + paths[1].index(common[0]) if common else None


def similarity(
    points: npt.NDArray[np.float64],
    numbers: Sequence[int],
    parent: Sequence[int],
    a: int,
    b: int,
    weights: Sequence[float],
) -> float:
    """Return the weighted similarity of two tokens, each part by its definition.

    >>> similarity(np.array([[0.0], [1.0]]), [5, 10], [0, 0], 0, 1, (0.5, 0.25, 0.25))
    0.5
    """
    apart = steps(parent, a, b)
    parts = (
        1 / (1 + math.dist(points[a], points[b])),
        math.gcd(numbers[a], numbers[b]) / max(numbers[a], numbers[b]),
        0 if apart is None else 1 / (1 + apart),
    )
    return math.fsum(w * part for w, part in zip(weights, parts, strict=True))
