"""AdamW, SGD and fixed-order sums against twins; the sums to the last bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from crystalline._kernels import optimizer
from crystalline._kernels.memory import aligned_empty
from tests._kernels.buffers import F32, SIZES, U, guards_intact, normal, place, same_bits
from tests.oracles import ops

ADAM: dict[str, Any] = {
    "step": 3,
    "learning_rate": 0.01,
    "beta1": 0.9,
    "beta2": 0.99,
    "epsilon": 1e-6,
    "weight_decay": 0.1,
}
SGD: dict[str, Any] = {"learning_rate": 0.3, "momentum": 0.7, "weight_decay": 0.2}


def _state(n: int) -> tuple[F32, F32, F32, F32]:
    rng = np.random.default_rng(n)
    w, m, g = normal(rng, n), normal(rng, n), normal(rng, n)
    return w, m, place(rng.random(n)), g


def _as_float32(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the kernel sees: 0.99 in float32 is not 0.99."""
    names = {"epsilon": "eps"}
    return {
        names.get(k, k): float(np.float32(v)) if isinstance(v, float) else v
        for k, v in settings.items()
    }


@pytest.mark.parametrize("clip", [1.0, 0.25])
@pytest.mark.parametrize("n", SIZES)
def test_adamw_step(n: int, clip: float) -> None:
    w, m, v, g = _state(n)
    expected = ops.adamw_step(w, g * np.float64(clip), m, v, **_as_float32(ADAM))
    optimizer.adamw(w, m, v, g, clip=clip, **ADAM)
    assert guards_intact(w, m, v, g)
    for got, exact in zip((w, m, v), expected, strict=True):
        np.testing.assert_allclose(got, exact, rtol=8 * U, atol=8 * U)


def test_adamw_differs_from_adam_with_l2() -> None:
    """Decay must not pass through the moments."""
    w, m, v, g = (np.float32([x]) for x in (2.0, 0.0, 0.0, 0.0))
    optimizer.adamw(w, m, v, g, step=1, learning_rate=0.5, weight_decay=0.5)
    assert (w[0], m[0], v[0]) == (1.5, 0.0, 0.0)


def test_adamw_over_many_steps() -> None:
    w, m, v, _ = _state(33)
    m[:] = v[:] = 0
    twins = (w.copy(), m.copy(), v.copy())
    rng = np.random.default_rng(0)
    for step in range(1, 101):
        g = rng.standard_normal(33).astype(np.float32) * np.float32(10.0 ** rng.uniform(-3, 1))
        settings = ADAM | {"step": step}
        optimizer.adamw(w, m, v, g, **settings)
        twins = ops.adamw_step(twins[0], g, twins[1], twins[2], **_as_float32(settings))
    np.testing.assert_allclose(w, twins[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("g", [0.0, 1e-30, 1e15, -1e15])
def test_adamw_stays_finite(g: float) -> None:
    w, m, v = np.float32([1]), np.float32([0]), np.float32([0])
    optimizer.adamw(w, m, v, np.float32([g]), step=1, learning_rate=0.1)
    assert np.isfinite([w[0], m[0], v[0]]).all()
    assert abs(w[0] - 1) <= 0.1001


@pytest.mark.parametrize("n", SIZES)
def test_sgd_step(n: int) -> None:
    w, m, _, g = _state(n)
    expected = ops.sgd_momentum_step(w, g * 0.5, m, **_as_float32(SGD))
    optimizer.sgd(w, m, g, clip=0.5, **SGD)
    assert guards_intact(w, m, g)
    np.testing.assert_allclose(w, expected[0], rtol=8 * U, atol=8 * U)
    np.testing.assert_allclose(m, expected[1], rtol=8 * U, atol=8 * U)


def test_slices_give_the_bits_of_the_whole() -> None:
    whole, pieces = _state(1001), _state(1001)
    optimizer.adamw(*whole, **ADAM)
    for part in (slice(0, 17), slice(17, 500), slice(500, 501), slice(501, 1001)):
        optimizer.adamw(*(a[part] for a in pieces), **ADAM)
    assert all(same_bits(a, b) for a, b in zip(whole, pieces, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0}, "counted from 1, not 0"),
        ({"beta1": 1.0}, "below 1, not 1.0"),
        ({"beta2": -0.5}, "at least 0 and below 1, not -0.5"),
    ],
)
def test_settings_outside_their_range(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer.adamw(*_state(3), **(ADAM | change))


@pytest.mark.parametrize("index", range(4))
def test_lengths_that_differ(index: int) -> None:
    state = list(_state(5))
    state[index] = np.zeros(6, np.float32)
    with pytest.raises(ValueError, match="elements, expected"):
        optimizer.adamw(*state, **ADAM)
    del state[2]
    if index != 2:
        with pytest.raises(ValueError, match="elements, expected"):
            optimizer.sgd(*state, **SGD)


# --- sums in a fixed order -----------------------------------------------------------------


def _lanes(count: int, n: int) -> F32:
    """Numbers whose sum depends on its order: magnitudes from 2^-20 to 2^20."""
    rng = np.random.default_rng(1000 * count + n)
    return (rng.standard_normal((count, n)) * 2.0 ** rng.integers(-20, 21, (count, n))).astype(
        np.float32
    )


@pytest.mark.parametrize("group", [1, 5, 6, 12])
@pytest.mark.parametrize("count", [*range(1, 41), 63, 64, 65, 120, 129])
def test_tree_sum_has_the_bits_of_the_tree(count: int, group: int) -> None:
    for n in (1, 15, 16, 37):
        lanes = _lanes(count, n)
        exact = ops.tree_sum(list(lanes), ops.grouped_tree(count, group))
        block = np.full((count, n + 5), np.nan, np.float32)
        block[:, :n] = lanes
        out = place(np.zeros(n))
        squares = optimizer.tree_sum(block[:, :n], out, group)
        assert same_bits(np.array(out), exact)
        assert guards_intact(out)
        assert squares == pytest.approx(math.fsum(float(x) ** 2 for x in exact), rel=1e-14)
        optimizer.tree_sum(lanes, lanes[0], group)
        assert same_bits(lanes[0], exact)


def test_a_tree_by_twelves_is_another_than_one_over_all() -> None:
    lanes = _lanes(24, 64)
    out = np.empty(64, np.float32)
    optimizer.tree_sum(lanes, out)
    assert not same_bits(out, ops.tree_sum(list(lanes), ops.neighbor_tree(24)))


def test_another_order_would_show() -> None:
    lanes = _lanes(12, 64)
    out = np.empty(64, np.float32)
    optimizer.tree_sum(lanes, out)
    in_turn = np.zeros(64, np.float32)
    for lane in lanes:
        in_turn += lane
    assert not same_bits(out, in_turn)
    assert not same_bits(out, ops.tree_sum(list(lanes), ops.halving_tree(12)))


@pytest.mark.parametrize("n", SIZES)
def test_sizes_of_the_sums(n: int) -> None:
    lanes = _lanes(3, n)
    out, x = place(np.zeros(n)), place(lanes[0])
    optimizer.tree_sum(lanes, out)
    assert same_bits(np.array(out), (lanes[0] + lanes[1]) + lanes[2])
    assert guards_intact(out)
    squares = optimizer.sum_squares(x)
    assert squares == pytest.approx(math.fsum(float(v) ** 2 for v in x), rel=1e-14)
    assert optimizer.sum_squares(x) == squares


@pytest.mark.parametrize("shift", [0, 1])
def test_large_sums_have_the_bits_of_their_pieces(shift: int) -> None:
    """From 4 MB on they are written past the cache, if they start on a cache line."""
    n = (1 << 20) + 21
    lanes, half = _lanes(2, n), n // 2
    buffer = aligned_empty((n + 32,))
    buffer[:] = 7.0
    out = buffer[16 + shift : 16 + shift + n]
    squares = optimizer.tree_sum(lanes, out)
    assert same_bits(np.array(out), lanes[0] + lanes[1])
    assert (buffer[: 16 + shift] == 7.0).all()
    assert (buffer[16 + shift + n :] == 7.0).all()
    pieces = [optimizer.tree_sum(lanes[:, part], np.empty(n, np.float32)[part])
              for part in (slice(0, half), slice(half, n))]  # fmt: skip
    assert squares == pytest.approx(sum(pieces), rel=1e-12)


def test_sum_squares_neither_overflows_nor_forgets() -> None:
    assert optimizer.sum_squares(np.float32([3e38, 1e-30])) == float(np.float32(3e38)) ** 2
    assert optimizer.sum_squares(np.float32([1e-30])) == float(np.float32(1e-30)) ** 2
    assert np.isnan(optimizer.sum_squares(np.float32([1] * 50 + [np.nan])))
    assert optimizer.sum_squares(np.float32([1] * 50 + [-np.inf])) == np.inf


def test_lanes_that_cannot_be_summed() -> None:
    with pytest.raises(ValueError, match="at least one lane"):
        optimizer.tree_sum(np.zeros((0, 3), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="1 to 12 lanes, not 13"):
        optimizer.tree_sum(np.zeros((1, 3), np.float32), np.zeros(3, np.float32), 13)
    with pytest.raises(ValueError, match="out has 2 elements, expected 3"):
        optimizer.tree_sum(np.zeros((4, 3), np.float32), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="side by side"):
        optimizer.tree_sum(np.zeros((3, 4), np.float32).T, np.zeros(3, np.float32))


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
