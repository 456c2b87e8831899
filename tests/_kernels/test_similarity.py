"""Similarities of pairs of tokens against loops over their definition, at every level."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crystalline._kernels import similarity
from tests.oracles import tokens as oracle

RNG = np.random.default_rng(12)
N = 60
POINTS = RNG.normal(0, 5, (N, 3))
NUMBERS = RNG.integers(2, 10**6, N, dtype=np.uint64) * np.uint64(6)
PARENT = np.minimum(RNG.integers(0, N, N), np.arange(N))
DEPTH = np.array([oracle.steps(PARENT.tolist(), i, i) for i in range(N)])
for token in range(N):
    DEPTH[token] = 0 if PARENT[token] == token else DEPTH[PARENT[token]] + 1


def similarities(a: np.ndarray, b: np.ndarray, weights: tuple[float, float, float]) -> np.ndarray:
    out = np.full(len(a), np.nan)
    similarity.token_similarities(POINTS, NUMBERS, PARENT, DEPTH, a, b, *weights, out)
    return out


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1500])
@pytest.mark.parametrize(
    "weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.2, 0.5, 0.3)]
)
def test_equal_their_definition(count: int, weights: tuple[float, float, float]) -> None:
    a, b = np.random.default_rng(count).integers(0, N, (2, count))
    numbers, parent = NUMBERS.tolist(), PARENT.tolist()
    want = [
        oracle.similarity(POINTS, numbers, parent, x, y, weights)
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert similarities(a, b, weights) == pytest.approx(want, rel=1e-14)


def test_pairs_do_not_depend_on_their_company() -> None:
    a, b = np.random.default_rng(7).integers(0, N, (2, 1200))
    many = similarities(a, b, (0.4, 0.3, 0.3))
    assert (similarities(b, a, (0.4, 0.3, 0.3)) == many).all()
    for i in range(0, 1200, 7):
        assert similarities(a[i : i + 1], b[i : i + 1], (0.4, 0.3, 0.3))[0] == many[i]


def test_alignments() -> None:
    angles = RNG.uniform(0, 7, (N, 5))
    table = np.ascontiguousarray(np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(N, 10))
    a, b = RNG.integers(0, N, (2, 1100))
    out = np.empty(1100)
    similarity.phase_alignments(table, a, b, out)
    want = np.where(a == b, 1, np.cos(angles[a] - angles[b]).mean(axis=1))
    assert out == pytest.approx(want, abs=1e-15)
    assert (out[a == b] == 1).all()
    assert (np.abs(out) <= 1).all()


def test_bad_lengths() -> None:
    one, two = np.zeros(1, np.int64), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="b has 2 elements, expected 1"):
        similarity.phase_alignments(POINTS, one, two, np.empty(1))
    with pytest.raises(ValueError, match="depth has 1 elements, expected 60"):
        similarity.token_similarities(
            POINTS, NUMBERS, PARENT, one, one, one, 1.0, 0.0, 0.0, np.empty(1)
        )


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
