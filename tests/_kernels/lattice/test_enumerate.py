"""Enumeration against an exact rational one, and against vectors planted on purpose."""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from flint import fmpz_mat

from crystalline._kernels.lattice.enumerate import Enumerator, shortest_rounded
from tests.oracles import enumeration as oracle

Rows = list[list[int]]


def reduced(rows: Rows) -> Rows:
    return [[int(x) for x in row] for row in fmpz_mat(rows).lll().tolist()]


def random_rows(n: int, m: int, bits: int, seed: int) -> Rows:
    generator = random.Random(seed)
    while True:
        rows = [[generator.randint(-(2**bits), 2**bits) for _ in range(m)] for _ in range(n)]
        if fmpz_mat(rows).rank() == n:
            return reduced(rows)


def gram(rows: Rows) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    exact = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    high = np.array([[float(g) for g in line] for line in exact])
    low = np.array([[float(g - int(float(g))) for g in line] for line in exact])
    return high, low


def enumerator(rows: Rows, *, with_rows: bool = True) -> Enumerator:
    return Enumerator(*gram(rows), np.array(rows, np.int64) if with_rows else None)


def combine(x: list[int], rows: Rows) -> list[int]:
    return [sum(c * row[j] for c, row in zip(x, rows, strict=True)) for j in range(len(rows[0]))]


SHAPES = [
    (1, 1, 8),
    (1, 4, 8),
    (2, 2, 5),
    (3, 5, 10),
    (5, 5, 30),
    (8, 8, 4),
    (9, 11, 12),
    (11, 11, 3),
]


@pytest.mark.parametrize(("n", "m", "bits"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_shortest_is_the_oracles(n: int, m: int, bits: int, seed: int) -> None:
    rows = random_rows(n, m, bits, 100 * n + seed)
    x, norm = enumerator(rows).shortest(min(sum(a * a for a in row) for row in rows) + 1)
    vector = combine(x, rows)
    assert sum(a * a for a in vector) == norm
    assert norm == oracle.closest(rows, [0] * m, nonzero=True)


def test_shortest_below_the_minimum_is_none() -> None:
    rows = random_rows(6, 6, 8, 5)
    least = oracle.closest(rows, [0] * 6, nonzero=True)
    assert enumerator(rows).shortest(int(least)) is None
    assert enumerator(rows).shortest(int(least) + 1)[1] == least


@pytest.mark.parametrize(("n", "m", "bits"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_closest_is_the_oracles(n: int, m: int, bits: int, seed: int) -> None:
    rows = random_rows(n, m, bits, 100 * n + seed)
    generator = random.Random(seed)
    targets = [
        [generator.randint(-(2 ** (bits + 9)), 2 ** (bits + 9)) for _ in range(m)] for _ in range(4)
    ]
    targets.append(combine([generator.randint(-50, 50) for _ in range(n)], rows))
    coefficients = np.zeros((5, n), np.int64)
    distances = np.zeros((5, 2), np.uint64)
    enumerator(rows).closest(np.array(targets, np.int64), coefficients, distances)
    for target, x, (low, high) in zip(
        targets, coefficients.tolist(), distances.tolist(), strict=True
    ):
        vector = combine(x, rows)
        distance = sum((t - v) ** 2 for t, v in zip(target, vector, strict=True))
        assert distance == low + (high << 64)
        assert distance == oracle.closest(rows, target)
    assert not distances[4].any()


def test_ties_are_all_seen_and_none_is_better() -> None:
    # Every corner of the cube around the target is equally near.
    rows = [[2 * (i == j) for j in range(5)] for i in range(5)]
    seen: list[list[int]] = []
    e = enumerator(rows, with_rows=False)
    e.closest_called(np.full(5, 0.5), np.zeros(5), 5.0, seen.append)
    assert sorted(map(tuple, seen)) == sorted(
        tuple(i >> k & 1 for k in range(5)) for i in range(32)
    )


@pytest.mark.parametrize("center", [[0.3, -0.2, 0.45, 0.0], [0.0] * 4, [-0.49, 0.5, 7.1, -3.3]])
def test_every_vector_of_a_wide_ball_is_seen_once(center: list[float]) -> None:
    rows = [[3, 1, 0, 0], [-1, 4, 1, 0], [0, 1, 3, 1], [1, 0, -1, 4]]
    e = enumerator(rows, with_rows=False)
    mu, norms, _ = oracle.orthogonalize(rows)
    bound = 130.5  # reaches several steps to either side
    seen: list[list[int]] = []
    e.closest_called(np.array(center), np.zeros(4), bound, seen.append)
    middle = [round(c) for c in center]
    box = np.array(list(itertools.product(*(range(m - 8, m + 9) for m in middle))))
    squared = np.zeros(len(box))
    for j in range(4):
        row = box[:, j] + sum(box[:, i] * float(mu[i][j]) for i in range(j + 1, 4)) - center[j]
        squared += row**2 * float(norms[j])
    assert np.abs(squared - bound).min() > 1e-9  # floats decide safely
    inside = set(map(tuple, box[squared <= bound].tolist()))
    assert len(seen) == len(set(map(tuple, seen)))
    assert set(map(tuple, seen)) == inside
    assert max(abs(x[3] - middle[3]) for x in inside) >= 2
    assert all(max(abs(x[i] - middle[i]) for x in inside) < 8 for i in range(4))


def test_a_judge_sees_one_of_each_pair_of_shortest_vectors() -> None:
    # D_4 has 24 shortest vectors, x and -x counted apart.
    rows = [[1, 1, 0, 0], [1, -1, 0, 0], [0, 1, -1, 0], [0, 0, 1, -1]]
    rows = reduced(rows)
    seen: list[list[int]] = []
    enumerator(rows, with_rows=False).shortest(2.0, seen.append)
    vectors = {tuple(combine(x, rows)) for x in seen}
    vectors |= {tuple(-a for a in v) for v in vectors}
    assert len(seen) == 12
    assert len(vectors) == 24


def test_a_lower_bound_from_the_judge_ends_the_search_sooner() -> None:
    rows = random_rows(12, 12, 6, 3)
    bound = float(max(sum(a * a for a in row) for row in rows))
    all_of_them, fewer = enumerator(rows), enumerator(rows)
    all_of_them.shortest(bound, lambda _x: None)

    def judge(x: list[int]) -> float:
        return float(sum(a * a for a in combine(x, rows))) - 1

    fewer.shortest(bound, judge)
    assert 0 < fewer.nodes < all_of_them.nodes


def test_what_the_judge_raises_comes_out() -> None:
    def judge(_x: list[int]) -> None:
        raise KeyError("judged")

    with pytest.raises(KeyError, match="judged"):
        enumerator([[1, 0], [0, 2]]).shortest(9.0, judge)


def test_orthogonalization_is_the_rational_one() -> None:
    rows = random_rows(14, 17, 25, 8)
    mu, norms, _ = oracle.orthogonalize(rows)
    e = enumerator(rows)
    assert e.worst < 2.0**-52
    for i in range(14):
        assert abs(Fraction(e.r[i]) / norms[i] - 1) <= Fraction(e.worst)
        for j in range(i):
            error = abs(Fraction(e.mu[j, i]) - mu[i][j])
            assert error <= Fraction(e.worst) * max(abs(mu[i][j]), Fraction(1, 2**20))


def test_shortest_rounded_finds_the_shortest_and_pruning_cuts_nodes() -> None:
    rows = random_rows(10, 10, 10, 4)
    e = enumerator(rows)
    x, norm, nodes = shortest_rounded(e.mu, e.r, e.r[0] * 1.0001)
    exact = oracle.closest(rows, [0] * 10, nonzero=True)
    assert sum(a * a for a in combine(x, rows)) == exact
    assert norm == pytest.approx(float(exact))
    shares = np.linspace(1.0, 0.1, 10)
    pruned = shortest_rounded(e.mu, e.r, e.r[0] * 1.0001, shares)
    assert pruned is None or pruned[2] < nodes
    assert shortest_rounded(e.mu, e.r, 1e-9) is None


@pytest.mark.parametrize("rows", [[[1, 2], [2, 4]], [[0, 0], [1, 3]]])
def test_dependent_rows_are_refused(rows: Rows) -> None:
    with pytest.raises(ValueError, match="reduce the basis first"):
        enumerator(rows)


def test_targets_beyond_the_range_are_refused() -> None:
    coefficients, distances = np.zeros((2, 2), np.int64), np.zeros((2, 2), np.uint64)
    targets = np.array([[5, 5], [2**60, 0]], np.int64)
    with pytest.raises(OverflowError, match="target 1 "):
        enumerator([[1, 0], [0, 2]]).closest(targets, coefficients, distances)


def test_shapes_are_checked() -> None:
    e = enumerator([[1, 0], [0, 2]])
    with pytest.raises(ValueError, match="a target has 3 elements"):
        e.closest(
            np.zeros((1, 3), np.int64), np.zeros((1, 2), np.int64), np.zeros((1, 2), np.uint64)
        )
    with pytest.raises(ValueError, match="square"):
        Enumerator(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="a judge"):
        enumerator([[1, 0], [0, 2]], with_rows=False).shortest(9)


def test_a_signal_ends_a_long_search() -> None:
    n = 90
    shares = np.ones(n)
    shares[0] = 1e-9  # no vector passes the last level, so that the bound stays
    e = Enumerator(np.eye(n), np.zeros((n, n)))

    def alarm(_number: int, _frame: object) -> None:
        raise InterruptedError("alarm")

    previous = signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(InterruptedError, match="alarm"):
            shortest_rounded(e.mu, e.r, 20.0, shares)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_the_search_lets_other_threads_run() -> None:
    rows = random_rows(26, 26, 30, 2)
    e = enumerator(rows)
    ticks = 0
    done = threading.Event()

    def count() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = ticks
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            e.shortest(min(sum(a * a for a in row) for row in rows) * 2)
        assert ticks > before
    finally:
        done.set()
        thread.join()
