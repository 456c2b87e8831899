"""Cross-entropy against soft targets: a float64 twin, the plain loss at its edges, bad tables."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.crossentropy import cross_entropy, crystalline_cross_entropy
from tests._kernels.buffers import SIZES, U, guards_intact, place, same_bits
from tests.oracles import ops

N = 5
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


def _table(V: int, k: int, seed: int = 0, alone: float = 0.2) -> tuple[I32, F32]:
    """Neighbors other than the token itself; some weights are 0, some tokens have none."""
    rng = np.random.default_rng((V, k, seed))
    ids = (np.arange(V)[:, None] + rng.integers(1, max(V, 2), (V, k))) % V
    weights = rng.random((V, k)) * (rng.random((V, k)) < 0.8) * (rng.random((V, 1)) > alone)
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return ids.astype(np.int32), weights.astype(np.float32)


def _case(V: int, ld: int, spread: float = 3.0) -> tuple[F32, F32, I32]:
    """Return a guarded block [N, ld], its part [N, V] and targets that include both ends."""
    rng = np.random.default_rng(V)
    block = place(rng.standard_normal((N, ld)) * spread)
    block[:, V:] = np.nan
    targets = rng.integers(0, V, N).astype(np.int32)
    targets[0], targets[1] = 0, V - 1
    return block, block[:, :V], targets


@pytest.mark.parametrize("epsilon", [0.3, 0.999])
@pytest.mark.parametrize("k", [1, 5, 16])
@pytest.mark.parametrize("V", [*(v for v in SIZES if v > 1 and v % 4 in (1, 3)), 64, 257, 1000])
def test_losses_and_gradient(V: int, k: int, epsilon: float) -> None:
    block, logits, targets = _case(V, V + 3)
    ids, weights = _table(V, k)
    before, scale = block.copy(), 0.25
    plain, _ = ops.cross_entropy(logits, targets)
    q = ops.soft_targets(ids, weights, epsilon)[targets]
    smoothed, gradient = ops.soft_cross_entropy(logits, q, scale)
    tolerance = (8 + 2 * np.abs(logits).max()) * U * N
    got = crystalline_cross_entropy(logits, targets, ids, weights, epsilon, scale, False)
    assert same_bits(block, before), "without backward nothing is written"
    assert np.abs(np.subtract(got, (plain, smoothed))).max() <= tolerance
    again = crystalline_cross_entropy(logits, targets, ids, weights, epsilon, scale, True)
    assert np.abs(np.subtract(again, (plain, smoothed))).max() <= tolerance
    assert guards_intact(block)
    np.testing.assert_allclose(logits, gradient, rtol=0, atol=scale * 64 * U)
    assert same_bits(block[:, V:], before[:, V:]), "columns beyond V are nobody's"


@pytest.mark.parametrize("V", [2, 15, 67, 300])
def test_epsilon_zero_is_the_plain_loss_to_the_bit(V: int) -> None:
    _, logits, targets = _case(V, V)
    ids, weights = _table(V, 4)
    for backward in (False, True):
        hard, soft = logits.copy(), logits.copy()
        loss = cross_entropy(hard, targets, 0.5, backward)
        got = crystalline_cross_entropy(soft, targets, ids, weights, 0.0, 0.5, backward)
        assert got == (loss, loss)
        assert same_bits(hard, soft)


def test_a_token_without_neighbors_is_plain_to_the_bit_whatever_epsilon() -> None:
    _, logits, targets = _case(67, 67)
    ids, weights = _table(67, 4, alone=0.0)
    weights[targets] = 0.0
    hard, soft = logits.copy(), logits.copy()
    loss = cross_entropy(hard, targets, 0.5)
    assert crystalline_cross_entropy(soft, targets, ids, weights, 0.9, 0.5) == (loss, loss)
    assert same_bits(hard, soft)


def test_the_plain_loss_does_not_depend_on_epsilon() -> None:
    _, logits, targets = _case(67, 67)
    ids, weights = _table(67, 4, alone=0.0)
    expected = cross_entropy(logits, targets, 1.0, False)
    for epsilon in (1e-9, 0.1, 0.7):
        plain, smoothed = crystalline_cross_entropy(
            logits.copy(), targets, ids, weights, epsilon, 1.0, True
        )
        assert plain == expected
        assert smoothed != plain


def test_gradient_is_the_derivative_of_the_smoothed_loss() -> None:
    """A loss that ignored the logits would have passed none of this."""
    _, logits, targets = _case(11, 11)
    ids, weights = _table(11, 3, alone=0.0)
    logits, gradient = logits.copy(), logits.copy()
    crystalline_cross_entropy(gradient, targets, ids, weights, 0.4)
    for i, j in [(0, 0), (1, 10), (2, int(ids[targets[2], 1])), (4, 7)]:
        losses = []
        for step in (0.01, -0.01):
            moved = logits.copy()
            moved[i, j] += step
            losses.append(
                crystalline_cross_entropy(moved, targets, ids, weights, 0.4, 1.0, False)[1]
            )
        assert (losses[0] - losses[1]) / 0.02 == pytest.approx(gradient[i, j], abs=2e-4)


def test_the_smoothed_loss_is_least_where_softmax_is_the_target() -> None:
    V, epsilon = 23, 0.35
    ids, weights = np.int32([[(t + 1) % V, (t + 5) % V] for t in range(V)]), np.zeros((V, 2))
    weights[:] = 0.75, 0.25
    token = np.int32([7])
    q = ops.soft_targets(ids, weights, epsilon)[7]
    best = np.log(np.maximum(q, 1e-30)).astype(np.float32)[None]
    table = ids, weights.astype(np.float32)
    gradient = best.copy()
    _, least = crystalline_cross_entropy(gradient, token, *table, epsilon)
    assert least == pytest.approx(-(q[q > 0] * np.log(q[q > 0])).sum(), abs=1e-6)
    assert np.abs(gradient).max() < 1e-6
    rng = np.random.default_rng(3)
    for size in (1e-2, 0.1, 1.0):
        for _ in range(20):
            near = (best + size * rng.standard_normal((1, V))).astype(np.float32)
            assert crystalline_cross_entropy(near, token, *table, epsilon)[1] > least
    # The plain loss is not least there: it would have all the weight on the target.
    hard = best.copy()
    hard[0, 7] += 5.0
    plain, smoothed = crystalline_cross_entropy(hard.copy(), token, *table, epsilon)
    assert plain < crystalline_cross_entropy(best.copy(), token, *table, epsilon)[0]
    assert smoothed > least


def test_a_neighbor_that_stands_twice_counts_twice() -> None:
    logits = np.log(np.float32([[1, 2, 5]]))
    ids, weights = np.int32([[1, 2, 1]] * 3), np.float32([[0.25, 0.5, 0.25]] * 3)
    ids[1:], weights[1:] = 0, 0
    once = np.int32([[1, 2]] * 3), np.float32([[0.5, 0.5]] * 3)
    once[0][1:], once[1][1:] = 0, 0
    a, b = logits.copy(), logits.copy()
    got = crystalline_cross_entropy(a, np.int32([0]), ids, weights, 0.5)
    assert got == pytest.approx(crystalline_cross_entropy(b, np.int32([0]), *once, 0.5))
    np.testing.assert_allclose(a, b, atol=1e-7)


@pytest.mark.parametrize("shift", [-3e38, -1e4, 1e4, 3e38])
def test_large_logits_do_not_overflow_or_cancel(shift: float) -> None:
    logits = np.full((1, 40), np.float32(shift))
    ids, weights = _table(40, 8, alone=0.0)
    _, smoothed = crystalline_cross_entropy(logits, np.int32([3]), ids, weights, 0.3)
    assert smoothed == pytest.approx(np.log(40), rel=1e-6)
    q = ops.soft_targets(ids, weights, 0.3)[3]
    np.testing.assert_allclose(logits[0], 1 / 40 - q, atol=64 * U)


@pytest.mark.parametrize("V", [7, 16, 40])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_logit_anywhere_makes_both_losses_bad(V: int, bad: float) -> None:
    ids, weights = _table(V, 3, alone=0.0)
    for place_of_bad in range(V):
        for backward in (False, True):
            logits = np.zeros((1, V), np.float32)
            logits[0, place_of_bad] = bad
            losses = crystalline_cross_entropy(
                logits, np.int32([V // 2]), ids, weights, 0.2, 1.0, backward
            )
            assert not np.isfinite(losses).any()
            assert not np.isfinite(logits).all()


def test_minus_infinity_is_a_probability_of_zero() -> None:
    logits = np.float32([[0, 0, -np.inf]])
    weights = np.float32([[0.5, 0.5], [1, 0], [1, 0]])
    ids = np.int32([[1, 2], [0, 2], [0, 1]])
    plain, smoothed = crystalline_cross_entropy(logits.copy(), np.int32([0]), ids, weights, 0.1)
    assert plain == pytest.approx(np.log(2))
    assert smoothed == np.inf
    # Neighbor 2 of token 1 has the weight 0, which is nothing, even times infinity.
    losses = crystalline_cross_entropy(logits, np.int32([1]), ids, weights, 0.1)
    assert losses == pytest.approx([np.log(2)] * 2)
    np.testing.assert_allclose(logits, [[0.4, -0.4, 0.0]], atol=1e-7)


def test_rows_do_not_see_each_other_and_calls_repeat() -> None:
    _, logits, targets = _case(67, 67)
    ids, weights = _table(67, 5)
    first, second, single = logits.copy(), logits.copy(), logits.copy()
    losses = crystalline_cross_entropy(first, targets, ids, weights, 0.3, 0.5)
    assert crystalline_cross_entropy(second, targets, ids, weights, 0.3, 0.5) == losses
    assert same_bits(first, second)
    apart = [
        crystalline_cross_entropy(single[i : i + 1], targets[i : i + 1], ids, weights, 0.3, 0.5)
        for i in range(N)
    ]
    assert same_bits(first, single)
    assert tuple(np.cumsum(apart, axis=0)[-1]) == losses


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, np.nan, np.inf])
def test_epsilon_outside_its_range(epsilon: float) -> None:
    with pytest.raises(ValueError, match=f"epsilon is {epsilon}; it must be at least 0 and below"):
        crystalline_cross_entropy(
            np.zeros((1, 4), np.float32), np.int32([0]), *_table(4, 2), epsilon
        )


@pytest.mark.parametrize(
    ("ids", "weights", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2)), "ids are [3, 2]: they must be [4, k]"),
        (np.zeros((4, 0)), np.zeros((4, 0)), "with k at least 1"),
        (np.zeros((4, 2)), np.zeros((4, 3)), "weights are [4, 3], the ids [4, 2]"),
        (np.zeros((4, 2)), np.zeros((3, 2)), "weights are [3, 2], the ids [4, 2]"),
        (np.full((4, 1), 4), np.ones((4, 1)), "neighbor 0 of token 1 is 4, outside the vocab"),
        (np.full((4, 1), -1), np.zeros((4, 1)), "neighbor 0 of token 1 is -1, outside the vocab"),
        (np.zeros((4, 2)), np.float32([[1, np.nan]] * 4), "weight of neighbor 1 of token 1 is nan"),
        (np.zeros((4, 2)), np.float32([[2, -1]] * 4), "weight of neighbor 1 of token 1 is -1.0"),
        (np.zeros((4, 1)), np.full((4, 1), np.inf), "token 1 sum to inf, neither to 1 nor to 0"),
        (np.zeros((4, 2)), np.ones((4, 2)), "token 1 sum to 2.0, neither to 1 nor to 0"),
    ],
)
def test_tables_that_do_not_fit(
    ids: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], message: str
) -> None:
    logits = np.zeros((1, 4), np.float32)
    with pytest.raises(ValueError, match=re.escape(message)):
        crystalline_cross_entropy(
            logits, np.int32([1]), ids.astype(np.int32), weights.astype(np.float32), 0.1
        )
    assert not logits.any()


def test_what_the_plain_loss_refuses_is_refused() -> None:
    table = _table(4, 2)
    logits = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match=r"targets\[1\] is 4, outside the vocabulary of 4"):
        crystalline_cross_entropy(logits, np.int32([0, 4, 0]), *table, 0.1)
    with pytest.raises(ValueError, match="targets has 2 elements, expected 3"):
        crystalline_cross_entropy(logits, np.zeros(2, np.int32), *table, 0.1)
    with pytest.raises(ValueError, match="side by side"):
        crystalline_cross_entropy(logits.T[:3, :], np.zeros(3, np.int32), *table, 0.1)
    with pytest.raises(ValueError, match="overlap"):
        crystalline_cross_entropy(logits[::-1], np.zeros(3, np.int32), *table, 0.1)
    empty = crystalline_cross_entropy(logits[:0], np.zeros(0, np.int32), *table, 0.1)
    assert empty == (0.0, 0.0)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
