"""LayerNorm, GELU, sums and embeddings against float64 twins, at every size and off alignment."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import rows
from tests._kernels.buffers import SIZES, U, guards_intact, normal, place, same_bits
from tests.oracles import ops

F32 = npt.NDArray[np.float32]

# Float32 sums over C <= 70 numbers of size 1, a square root, a few products.
ROUNDING = 40 * U


def _layernorm(x: F32, gamma: F32, beta: F32) -> tuple[F32, F32, F32]:
    out, mean, rstd = place(np.zeros(x.shape)), place(np.zeros(len(x))), place(np.zeros(len(x)))
    rows.layernorm_forward(x, gamma, beta, out, mean, rstd)
    assert guards_intact(out, mean, rstd, x, gamma, beta)
    return out, mean, rstd


@pytest.mark.parametrize("C", [c for c in SIZES if c])
def test_layernorm_forward(C: int) -> None:
    rng = np.random.default_rng(C)
    x, gamma, beta = normal(rng, 3, C), normal(rng, C), normal(rng, C)
    x += np.float32([[0.5], [-2], [3]])
    out, mean, rstd = _layernorm(x, gamma, beta)
    exact_mean, exact_rstd = ops.layer_norm_statistics(x)
    # Each rounding error of x - mean is multiplied by rstd.
    scale = 1.0 + exact_rstd * np.abs(x).max(axis=1)
    np.testing.assert_allclose(mean, exact_mean, rtol=0, atol=ROUNDING * np.abs(x).max())
    np.testing.assert_allclose(rstd, exact_rstd, rtol=ROUNDING * scale.max())
    error = np.abs(out - ops.layer_norm(x, gamma, beta))
    assert (error <= ROUNDING * scale[:, None] * (2 + np.abs(gamma) + np.abs(beta))).all()


def test_layernorm_of_a_large_mean_keeps_its_variance() -> None:
    """The one-pass formula E[x²] - E[x]² would lose every digit here."""
    rng = np.random.default_rng(3)
    x = place(4096.0 + rng.standard_normal((2, 384)))
    one, zero = place(np.ones(384)), place(np.zeros(384))
    out, _, rstd = _layernorm(x, one, zero)
    np.testing.assert_allclose(rstd, ops.layer_norm_statistics(x)[1], rtol=1e-5)
    np.testing.assert_allclose(out, ops.layer_norm(x, one, zero), atol=4096 * 8 * U)


@pytest.mark.parametrize("C", [1, 16, 45, 200])
def test_rows_side_by_side_have_the_bits_of_rows_alone(C: int) -> None:
    rng = np.random.default_rng(C)
    x, gamma, beta = normal(rng, 11, C), normal(rng, C), normal(rng, C)
    x *= np.exp2(np.arange(11, dtype=np.float32))[:, None]  # rows that differ in every statistic
    together = _layernorm(x, gamma, beta)
    for row in range(11):
        alone = _layernorm(place(x[row : row + 1]), gamma, beta)
        for whole, part in zip(together, alone, strict=True):
            assert same_bits(whole[row : row + 1], part)


def test_layernorm_in_place_and_epsilon() -> None:
    rng = np.random.default_rng(4)
    x, gamma, beta = normal(rng, 5, 37), normal(rng, 37), normal(rng, 37)
    out, mean, rstd = _layernorm(x, gamma, beta)
    y = x.copy()
    rows.layernorm_forward(y, gamma, beta, y, mean, rstd)
    assert same_bits(y, out)
    rows.layernorm_forward(x, gamma, beta, y, mean, rstd, epsilon=0.5)
    np.testing.assert_allclose(y, ops.layer_norm(x, gamma, beta, eps=0.5), atol=2e-6)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("C", [c for c in SIZES if c])
def test_layernorm_backward(C: int, accumulate: bool) -> None:
    rng = np.random.default_rng(C)
    x, dy, gamma = normal(rng, 4, C), normal(rng, 4, C), normal(rng, C)
    held, held_gamma, held_beta = normal(rng, 4, C), normal(rng, C), normal(rng, C)
    _, mean, rstd = _layernorm(x, gamma, place(np.zeros(C)))
    dx, dgamma, dbeta = place(held), place(held_gamma), place(held_beta)
    rows.layernorm_backward(dy, x, gamma, mean, rstd, dx, dgamma, dbeta, accumulate)
    assert guards_intact(x, dy, gamma, mean, rstd, dx, dgamma, dbeta)
    exact_dx, exact_dgamma, exact_dbeta = ops.layer_norm_backward(x, gamma, dy)
    # rstd is a factor of everything; with C = 1, 2 it comes near 1 / sqrt(epsilon)
    tolerance = 4 * ROUNDING * (1 + float(rstd.max()) ** 2 * 4)
    np.testing.assert_allclose(dx, exact_dx + held * accumulate, rtol=0, atol=tolerance)
    np.testing.assert_allclose(dgamma, held_gamma + exact_dgamma, rtol=0, atol=tolerance)
    np.testing.assert_allclose(dbeta, held_beta + exact_dbeta, rtol=0, atol=tolerance)


def test_layernorm_backward_rows_in_order_whatever_the_split() -> None:
    """dgamma and dbeta after rows 0..2 and then 3..6 have the bits of one call over all rows."""
    rng = np.random.default_rng(8)
    x, dy, gamma = normal(rng, 7, 45), normal(rng, 7, 45), normal(rng, 45)
    _, mean, rstd = _layernorm(x, gamma, gamma)
    whole = [np.zeros((7, 45), np.float32), np.zeros(45, np.float32), np.zeros(45, np.float32)]
    split = [a.copy() for a in whole]
    rows.layernorm_backward(dy, x, gamma, mean, rstd, *whole)
    for part in (slice(0, 3), slice(3, 7)):
        dx, dgamma, dbeta = split
        rows.layernorm_backward(
            dy[part], x[part], gamma, mean[part], rstd[part], dx[part], dgamma, dbeta
        )
    assert all(same_bits(a, b) for a, b in zip(whole, split, strict=True))
    aliased = dy.copy()
    rows.layernorm_backward(aliased, x, gamma, mean, rstd, aliased, split[1], split[2])
    assert same_bits(aliased, whole[0])


# --- GELU ----------------------------------------------------------------------------------


def _gelu_points() -> F32:
    large = np.geomspace(1e-30, 1e10, 20_001)
    return np.concatenate([np.linspace(-12, 12, 200_001), large, -large]).astype(np.float32)


def _exponent(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    return -2.0 * ops.GELU_SLOPE * (x + ops.GELU_CUBIC * x**3)


def test_gelu_forward_error_bound() -> None:
    """The bound that rows.h derives, relative to x / (1 + exp(t)) = 0.5 x (1 + tanh(-t/2))."""
    x = _gelu_points()
    out = np.empty_like(x)
    rows.gelu_forward(x, out)
    t = _exponent(x)
    normal_range = t < 87.0
    exact = x[normal_range] / (1.0 + np.exp(t[normal_range]))
    share = np.minimum(1.0, np.exp(np.minimum(t[normal_range], 0.0)))
    bound = (2.0 + (3.0 + 5.0 * np.abs(t[normal_range])) * share) * U * 1.001
    assert (np.abs(out[normal_range] - exact) <= bound * np.abs(exact)).all()
    assert np.abs(out[~normal_range]).max() < 1e-36
    moderate = np.abs(x) < 4  # where the textbook form has digits left
    np.testing.assert_allclose(out[moderate], ops.gelu(x[moderate]), rtol=4e-6, atol=1e-18)


def test_gelu_where_its_exponential_overflows_is_minus_zero() -> None:
    """From exp(88.38) on, although float32 goes to 88.72: every level ends at the same power."""
    x = np.linspace(-10.06, -10.05, 1001).astype(np.float32)
    assert 88.4 < _exponent(x).min() < _exponent(x).max() < 88.72
    x = np.concatenate([x, np.float32([-11, -1e9, -np.finfo(np.float32).max])])
    out = np.empty_like(x)
    rows.gelu_forward(x, out)
    assert same_bits(out, np.full_like(x, -0.0))


def test_gelu_backward_error_bound() -> None:
    x = _gelu_points()
    dy = np.full_like(x, -0.75)
    dx = np.empty_like(x)
    rows.gelu_backward(x, dy, dx)
    inside = np.abs(x) < 30
    exact = np.where(x > 0, -0.75, 0.0)
    exact[inside] = ops.gelu_backward(x[inside], dy[inside])
    assert np.abs(dx - exact).max() <= 0.75 * 7 * U


def test_gelu_of_numbers_that_are_not_finite() -> None:
    x = np.float32([np.nan, np.inf, -np.inf])
    out, dx, dy = np.empty(3, np.float32), np.empty(3, np.float32), np.ones(3, np.float32)
    rows.gelu_forward(x, out)
    assert np.isnan(out[0])
    assert out[1] == np.inf
    assert not np.isfinite(out[2])
    rows.gelu_backward(x, dy, dx)
    assert np.isnan(dx[0])
    np.testing.assert_allclose(dx[1:], [1, 0], atol=1e-25)
    rows.gelu_backward(dy, x, dx)
    assert not np.isfinite(dx).any()


@pytest.mark.parametrize("n", SIZES)
def test_elementwise_sizes(n: int) -> None:
    rng = np.random.default_rng(n)
    for offset in (0, 1, 5):
        x, dy = place(rng.standard_normal(n) * 3, offset), normal(rng, n)
        out, dx, total = (place(np.zeros(n), offset) for _ in range(3))
        rows.gelu_forward(x, out)
        rows.gelu_backward(x, dy, dx)
        rows.add(x, dy, total)
        assert guards_intact(x, dy, out, dx, total)
        np.testing.assert_allclose(out, ops.gelu(x), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(dx, ops.gelu_backward(x, dy), atol=2e-6)
        assert same_bits(total, x + dy)
        held = dy.copy()
        rows.gelu_backward(x, held, held)
        assert same_bits(held, dx.copy())
        held = x.copy()
        rows.gelu_forward(held, held)
        assert same_bits(held, out.copy())


# --- embeddings ----------------------------------------------------------------------------


@pytest.mark.parametrize("C", [1, 2, 15, 16, 17, 33, 70])
@pytest.mark.parametrize("T", [1, 3, 5])
def test_embeddings(C: int, T: int) -> None:
    rng = np.random.default_rng(C + 100 * T)
    ids = np.int32([4, 0, 4, 4, 2, 1, 6, 0, 3, 4, 5, 6, 0, 1, 2])
    wte, wpe = normal(rng, 7, C), normal(rng, 6, C)
    out = place(np.zeros((15, C)))
    rows.embed_gather(ids, wte, wpe, out, T)
    places = np.arange(15, dtype=np.int32) % T
    assert same_bits(out, wte[ids] + wpe[places])
    dx, dwte, dwpe = normal(rng, 15, C), normal(rng, 7, C), normal(rng, 6, C)
    expected_wte = dwte + ops.embedding_backward(ids, dx, 7)
    expected_wpe = dwpe + ops.embedding_backward(places, dx, 6)
    in_order = dwte.copy()
    for token, row in zip(ids, dx, strict=True):
        in_order[token] += row
    rows.embed_scatter_add(ids, dx, dwte, dwpe, T)
    assert guards_intact(out, wte, wpe, dx, dwte, dwpe)
    np.testing.assert_allclose(dwte, expected_wte, atol=64 * U)
    np.testing.assert_allclose(dwpe, expected_wpe, atol=64 * U)
    assert same_bits(dwte, in_order)


@pytest.mark.parametrize("bad", [-1, 7, 2**31 - 1])
def test_token_outside_the_vocabulary(bad: int) -> None:
    ids, table = np.int32([0, bad]), np.zeros((7, 2), np.float32)
    out = np.zeros((2, 2), np.float32)
    message = re.escape(f"ids[1] is {bad}, outside the vocabulary of 7")
    with pytest.raises(ValueError, match=message):
        rows.embed_gather(ids, table, table, out, 1)
    with pytest.raises(ValueError, match=message):
        rows.embed_scatter_add(ids, out, table, table, 1)


@pytest.mark.parametrize("T", [0, -1, 8])
def test_sequence_length_that_has_no_positions(T: int) -> None:
    table, out = np.zeros((7, 2), np.float32), np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match=f"sequence length is {T}, expected 1 to 7"):
        rows.embed_gather(np.int32([0]), table, table, out, T)
    with pytest.raises(ValueError, match=f"sequence length is {T}, expected 1 to 7"):
        rows.embed_scatter_add(np.int32([0]), out, table, table, T)


# --- doors ---------------------------------------------------------------------------------

X, ROW, COLUMN = np.zeros((2, 3), "f4"), np.zeros(3, "f4"), np.zeros(2, "f4")
CALLS: dict[str, list[F32]] = {
    "layernorm_forward": [X, ROW, ROW, X, COLUMN, COLUMN],
    "layernorm_backward": [X, X, ROW, COLUMN, COLUMN, X, ROW, ROW],
    "gelu_forward": [ROW, ROW],
    "gelu_backward": [ROW, ROW, ROW],
    "add": [ROW, ROW, ROW],
}


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, args in CALLS.items() for i in range(len(args))]
)
def test_wrong_shapes_types_and_none_are_refused(name: str, index: int) -> None:
    function = getattr(rows, name)
    arguments = [a.copy() for a in CALLS[name]]
    function(*arguments)
    right = arguments[index]
    arguments[index] = np.zeros((*right.shape[:-1], right.shape[-1] + 1), "f4")
    with pytest.raises(ValueError, match="expected"):
        function(*arguments)
    arguments[index] = right.astype(np.float64)
    with pytest.raises(ValueError, match="Buffer dtype mismatch"):
        function(*arguments)
    arguments[index] = None
    with pytest.raises(TypeError, match="must not be None"):
        function(*arguments)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_arrays_are_nothing_to_do(shape: tuple[int, int]) -> None:
    N, C = shape
    x, row, column = np.zeros(shape, "f4"), np.zeros(C, "f4"), np.zeros(N, "f4")
    rows.layernorm_forward(x, row, row, x, column, column)
    rows.layernorm_backward(x, x, row, column, column, x, row, row)
    table = np.zeros((2, C), "f4")
    rows.embed_gather(np.zeros(N, np.int32), table, table, x, 2)
    rows.embed_scatter_add(np.zeros(N, np.int32), x, table, table, 2)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
