"""Cross-entropy and its gradient against float64 twins, with gaps between rows."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels.crossentropy import cross_entropy
from tests._kernels.buffers import SIZES, U, guards_intact, place, same_bits
from tests.oracles import ops

N = 5


def _case(V: int, ld: int, spread: float = 3.0) -> tuple[npt.NDArray[np.float32], ...]:
    """Return a guarded block [N, ld], its part [N, V] and targets that include both ends."""
    rng = np.random.default_rng(V)
    block = place(rng.standard_normal((N, ld)) * spread)
    block[:, V:] = np.nan
    targets = rng.integers(0, V, N).astype(np.int32)
    targets[0], targets[1] = 0, V - 1
    return block, block[:, :V], targets


@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("V", [*(v for v in SIZES if v), 257, 1000])
def test_loss_and_gradient(V: int, gap: int) -> None:
    block, logits, targets = _case(V, V + gap)
    before = block.copy()
    loss, gradient = ops.cross_entropy(logits, targets, scale=0.25)
    tolerance = (8 + np.abs(logits).max()) * U * N  # the sum's rounding, and exp's of x - max
    assert abs(cross_entropy(logits, targets, 0.25, False) - loss) <= tolerance
    assert same_bits(block, before), "without backward nothing is written"
    assert abs(cross_entropy(logits, targets, 0.25, True) - loss) <= tolerance
    assert guards_intact(block)
    np.testing.assert_allclose(logits, gradient, rtol=0, atol=0.25 * 64 * U)
    assert same_bits(block[:, V:], before[:, V:]), "columns beyond V are nobody's"


def test_small_probabilities_have_small_relative_error() -> None:
    _, logits, targets = _case(100, 100, spread=10)
    _, gradient = ops.cross_entropy(logits, targets)
    cross_entropy(logits, targets)
    ordinary = np.abs(gradient) > 1e-30
    ordinary[np.arange(N), targets] = False
    assert np.count_nonzero(np.abs(gradient[ordinary]) < 1e-9) > 10
    np.testing.assert_allclose(logits[ordinary], gradient[ordinary], rtol=100 * U)


def test_gradient_is_the_derivative_of_the_loss() -> None:
    """A loss that ignored the logits would have passed none of this."""
    _, logits, targets = _case(11, 11)
    logits = logits.copy()
    gradient = logits.copy()
    cross_entropy(gradient, targets)
    for i, j in [(0, 0), (1, 10), (2, 4), (4, 7)]:
        up, down = logits.copy(), logits.copy()
        up[i, j] += 0.01
        down[i, j] -= 0.01
        slope = cross_entropy(up, targets, 1.0, False) - cross_entropy(down, targets, 1.0, False)
        width = float(up[i, j]) - float(down[i, j])
        assert slope / width == pytest.approx(gradient[i, j], abs=2e-4)


@pytest.mark.parametrize("shift", [-3e38, -1e4, 1e4, 3e38])
def test_large_logits_do_not_overflow(shift: float) -> None:
    logits = np.full((2, 40), np.float32(shift))
    logits[0, 3] = np.nextafter(np.float32(shift), np.float32(0))
    exact = ops.cross_entropy(logits, np.int32([3, 0]))
    loss = cross_entropy(logits, np.int32([3, 0]))
    assert loss == pytest.approx(exact[0], rel=1e-6)
    np.testing.assert_allclose(logits, exact[1], atol=64 * U)


def test_far_apart_logits() -> None:
    logits = np.float32([[0, 1000, -1000]])
    assert cross_entropy(logits, np.int32([2])) == 2000.0
    assert logits.tolist() == [[0.0, 1.0, -1.0]]


@pytest.mark.parametrize("V", [1, 7, 16, 40, 71])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_logit_anywhere_makes_the_loss_bad(V: int, bad: float) -> None:
    for place_of_bad in range(V):
        logits = np.zeros((1, V), np.float32)
        logits[0, place_of_bad] = bad
        assert not np.isfinite(cross_entropy(logits, np.int32([V // 2]), 1.0, False))
        assert not np.isfinite(cross_entropy(logits, np.int32([V // 2]), 1.0, True))
        assert not np.isfinite(logits).all()


def test_minus_infinity_is_a_probability_of_zero() -> None:
    logits = np.float32([[-np.inf, 0, 0]])
    assert cross_entropy(logits.copy(), np.int32([0])) == np.inf
    assert cross_entropy(logits, np.int32([1])) == pytest.approx(np.log(2))
    assert logits.tolist() == [[0.0, -0.5, 0.5]]
    assert np.isnan(cross_entropy(np.full((1, 5), -np.inf, np.float32), np.int32([1])))


def test_rows_do_not_see_each_other_and_calls_repeat() -> None:
    _, logits, targets = _case(67, 67)
    first, second, single = logits.copy(), logits.copy(), logits.copy()
    loss = cross_entropy(first, targets, 0.5)
    assert cross_entropy(second, targets, 0.5) == loss
    assert same_bits(first, second)
    losses = [cross_entropy(single[i : i + 1], targets[i : i + 1], 0.5) for i in range(N)]
    assert same_bits(first, single)
    assert sum(losses) == loss


@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1])
def test_target_outside_the_vocabulary(bad: int) -> None:
    message = re.escape(f"targets[1] is {bad}, outside the vocabulary of 4")
    with pytest.raises(ValueError, match=message):
        cross_entropy(np.zeros((2, 4), np.float32), np.int32([0, bad]))


def test_shapes_that_do_not_fit() -> None:
    logits = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="targets has 2 elements, expected 3"):
        cross_entropy(logits, np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="side by side"):
        cross_entropy(logits.T, np.zeros(4, np.int32))
    with pytest.raises(ValueError, match="overlap"):
        cross_entropy(logits[::-1], np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="outside the vocabulary of 0"):
        cross_entropy(np.zeros((1, 0), np.float32), np.zeros(1, np.int32))
    with pytest.raises(TypeError, match="must not be None"):
        cross_entropy(None, np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="Buffer dtype mismatch"):
        cross_entropy(logits.astype(np.float64), np.zeros(3, np.int32))
    assert cross_entropy(np.zeros((0, 4), np.float32), np.zeros(0, np.int32)) == 0.0


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
