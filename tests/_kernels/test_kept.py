"""Products that are kept, with GELU between them: what two layers of a network make of a row.

The oracle rounds operands to the format and computes in float64; bounds are those of the steps: a
float32 sum, GELU's own error, and half a last place where a result is kept as bfloat16.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import formats, kept
from tests._kernels.buffers import normal, place
from tests._kernels.test_bf16 import value

# M, K, N: whole tiles, and rows, pairs and columns just met and just missed
SHAPES = [(1, 1, 1), (3, 5, 33), (16, 32, 32), (33, 31, 66), (70, 69, 128), (97, 130, 31)]
A = 2 * np.sqrt(2 / np.pi)
B = 0.044715 * A
SHARE, SLOPE = 3e-6, 2e-5  # of the cubics in tiles: amx.h


def exact(x: npt.NDArray[np.float32], precision: str) -> npt.NDArray[np.float64]:
    return value(x) if precision == "bf16" else x.astype(np.float64)


def share(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(np.clip(-x * (A + B * x * x), -700, 700)))


def slope(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    s = share(x)
    return s + x * s * (1 - s) * (A + 3 * B * x * x)


def last_place(precision: str, *, always: bool = False) -> float:
    """Half of it, where a result becomes an operand, or is kept as one."""
    return 2.0**-8 if precision == "bf16" and (always or formats.keeps_operands("bf16")) else 0.0


def sums(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What rounding a float32 sum after every addition may add up to."""
    return (a.shape[1] + 4) * 2.0**-23 * (np.abs(a) @ np.abs(b)) + 1e-37


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_two_layers(shape: tuple[int, int, int], precision: str) -> None:
    M, K, N = shape
    rng = np.random.default_rng(M)
    x, w, b = normal(rng, M, K), normal(rng, K, N), normal(rng, N)
    pre, act = kept.mlp(x, w, b, place(np.eye(N)), precision)
    left, right = exact(x, precision), exact(w, precision)
    want = left @ right + b
    error = sums(left, right) + 2.0**-22 * np.abs(b)
    assert (np.abs(pre - want) <= last_place(precision) * np.abs(want) * 1.01 + error).all()
    gelu = want * share(want)
    error = 1.13 * error + (SHARE if precision == "bf16" else 1e-6) * np.abs(want) + 1e-7
    rounding = last_place(precision, always=True) * np.abs(gelu) * 1.01
    assert (np.abs(act - gelu) <= rounding + error).all()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_their_gradient(shape: tuple[int, int, int], precision: str) -> None:
    M, C, N = shape
    rng = np.random.default_rng(N)
    dy, w = normal(rng, M, C), normal(rng, N, C)
    pre = place(rng.standard_normal((M, N)) * 3)
    got = kept.mlp_gradient(dy, w, pre, precision)
    left, right = exact(dy, precision), exact(w, precision).T
    inputs = value(pre) if last_place(precision) else pre.astype(np.float64)
    back = left @ right
    want = back * slope(inputs)
    error = 1.13 * sums(left, right) + (SLOPE if precision == "bf16" else 2e-6) * np.abs(back)
    assert (np.abs(got - want) <= last_place(precision) * np.abs(want) * 1.01 + error).all()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_gelu_over_the_real_line(precision: str) -> None:
    """Segment by segment and beyond the last; what is far to the left is nothing, NaN stays NaN."""
    line = np.concatenate([np.linspace(-8, 8, 4001), [-1e30, -60, 60, 1e30, 0.0]])
    x = place(value(place(line))[:, None])
    one = place(np.ones((1, 1)))
    pre, act = kept.mlp(x, one, place([0.0]), one, precision)
    assert np.array_equal(pre, x)
    want = x.astype(np.float64) * share(x.astype(np.float64))
    tilt = slope(np.clip(x.astype(np.float64), -30, 30))
    tail = np.where(x < -5, 3e-7, 0)
    bound = 2.0**-8 * np.abs(want) + SHARE * np.minimum(np.abs(x), 10) + tail
    assert (np.abs(act - want) <= bound).all()
    gradient = kept.mlp_gradient(place(np.ones_like(x)), one, x, precision)
    assert (np.abs(gradient - tilt) <= 2.0**-8 * np.abs(tilt) + SLOPE).all()
    nan = place([[np.nan]])
    assert np.isnan(kept.mlp(nan, one, place([0.0]), one, precision)[1]).all()
    assert np.isnan(kept.mlp_gradient(one, one, nan, precision)).all()


def test_shapes_are_checked() -> None:
    one, two = place(np.ones((1, 1))), place(np.ones((2, 2)))
    with pytest.raises(ValueError, match="w2's rows has 2"):
        kept.mlp(one, one, place([0.0]), two)
    with pytest.raises(ValueError, match="pre's rows has 2"):
        kept.mlp_gradient(one, one, two)
