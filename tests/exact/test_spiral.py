"""The spiral against a walk step by step, and the clock; single numbers, arrays, bad input."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from crystalline import exact


def walk() -> Iterator[tuple[int, int]]:
    """Yield the places of 1, 2, 3, ...: straight runs of 1, 1, 2, 2, 3, 3, ... turning left."""
    x, y, dx, dy = 0, 0, 1, 0
    yield x, y
    run = 1
    while True:
        for _ in range(2):
            for _ in range(run):
                x, y = x + dx, y + dy
                yield x, y
            dx, dy = -dy, dx
        run += 1


WALK = [place for place, _ in zip(walk(), range(20_000), strict=False)]
CORNERS = [
    m * m + d for m in (10**4, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2) for d in (-1, 0, 1, 2)
]


def test_against_the_walk() -> None:
    assert [exact.spiral_place(n) for n in range(1, len(WALK) + 1)] == WALK
    assert [exact.spiral_number(x, y) for x, y in WALK] == list(range(1, len(WALK) + 1))
    n = np.arange(1, len(WALK) + 1)
    assert exact.spiral_places(n).tolist() == [list(place) for place in WALK]
    assert (exact.spiral_numbers(np.array(WALK)) == n.astype(np.uint64)).all()


def test_arrays_agree_with_single_numbers_at_the_top() -> None:
    numbers = [n for n in [*CORNERS, 2**63 - 1, 2**63, 2**64 - 1, 10**19] if n < 2**64]
    places = exact.spiral_places(numbers)
    assert places.tolist() == [list(exact.spiral_place(n)) for n in numbers]
    assert exact.spiral_numbers(places).tolist() == numbers


@pytest.mark.parametrize(
    "n", [10**30, 10**60 + 1, (2 * 10**20 + 1) ** 2, (2 * 10**20 + 1) ** 2 + 1]
)
def test_big_numbers(n: int) -> None:
    x, y = exact.spiral_place(n)
    assert exact.spiral_number(x, y) == n
    ax, ay = exact.spiral_place(n + 1)
    assert abs(x - ax) + abs(y - ay) == 1
    assert (2 * max(abs(x), abs(y)) - 1) ** 2 < n <= (2 * max(abs(x), abs(y)) + 1) ** 2


def test_distances() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(1, 2**62, (2, 500))
    want = [exact.spiral_distance_squared(x, y) for x, y in zip(a, b, strict=True)]
    assert exact.spiral_distances_squared(a, b).tolist() == want
    for m, n in [(1, 1), (7, 23), (100, 3)]:
        (ax, ay), (bx, by) = WALK[m - 1], WALK[n - 1]
        assert exact.spiral_distance_squared(m, n) == (ax - bx) ** 2 + (ay - by) ** 2
    assert exact.spiral_distances_squared([[1], [2]], [1, 10]).tolist() == [[0, 5], [1, 2]]


def test_distances_that_do_not_fit() -> None:
    corner = (2 * 2147483647 + 1) ** 2  # the last number of a ring: its southeastern corner
    opposite = corner - 4 * 2147483647  # northwestern
    assert exact.spiral_distance_squared(corner, opposite) > 2**64
    with pytest.raises(OverflowError, match=f"of {corner} and {opposite} is not below"):
        exact.spiral_distances_squared([1, corner], [1, opposite])
    with pytest.raises(OverflowError, match="is not below 2\\^64"):
        exact.spiral_numbers([[0, -(2**31)]])
    with pytest.raises(OverflowError, match="is not below 2\\^64"):
        exact.spiral_numbers([[-(2**63), 0]])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        exact.spiral_place(0)
    with pytest.raises(ValueError, match="0 has no place"):
        exact.spiral_places([3, 0])
    with pytest.raises(ValueError, match="0 has no place"):
        exact.spiral_distances_squared([3, 0], 1)
    with pytest.raises(ValueError, match="must not be negative"):
        exact.spiral_places([-1])
    with pytest.raises(TypeError, match="must be an integer"):
        exact.spiral_place(2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="signed integers"):
        exact.spiral_numbers([[0.5, 1.0]])
    with pytest.raises(ValueError, match=r"the shape \(..., 2\), not \(3,\)"):
        exact.spiral_numbers([1, 2, 3])


def test_clock() -> None:
    for n in range(-30, 200):
        ring, hour = exact.clock_position(n)
        assert 0 <= hour < 12
        assert exact.clock_number(ring, hour) == n
        assert exact.is_prime_hour(n) == (math.gcd(n, 12) == 1)
    n = np.array([0, 11, 12, 2**64 - 1], dtype=np.uint64)
    assert exact.clock_positions(n).tolist() == [list(divmod(x, 12)) for x in n.tolist()]
    assert exact.clock_positions(np.arange(6).reshape(2, 3)).shape == (2, 3, 2)
    assert exact.prime_clock_position(10**6) == divmod(15485863, 12)
    for hour in (-1, 12):
        with pytest.raises(ValueError, match=f"hour must be .*{hour}"):
            exact.clock_number(0, hour)
