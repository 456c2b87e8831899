"""Matrix products in three transpositions against float64, within the rounding error bound.

A sum of K products in float32, in any order and fused or not, is within
K·u / (1 - K·u) times the sum of magnitudes (Higham, Accuracy and Stability, 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import matmul as mm
from tests._kernels.buffers import F32, U, guards_intact, normal, place, same_bits
from tests.oracles import ops


def _shapes(seed: int) -> Iterator[tuple[int, int, int]]:
    """Every size from 1 to 70 once in each role, and a few beyond one row block."""
    rng = np.random.default_rng(seed)
    columns = [rng.permutation(np.arange(1, 71)) for _ in range(3)]
    yield from ((int(a), int(b), int(c)) for a, b, c in zip(*columns, strict=True))
    yield from [(1, 1, 1), (1, 70, 3), (70, 1, 65), (14, 32, 5), (15, 33, 1), (601, 37, 700)]


def _bound(K: int, magnitude: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    n = K + 4  # bias, residual, what was there, and one to spare
    return n * U / (1 - n * U) * magnitude


def _pack(b: F32) -> F32:
    K, N = b.shape
    packed = place(np.full(mm.packed_size(K, N), 7))
    mm.pack_matrix(b, packed)
    assert guards_intact(packed, b)
    return packed


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_forward(accumulate: bool, bias: bool, residual: bool) -> None:
    rng = np.random.default_rng(1)
    for M, N, K in _shapes(1 + 4 * accumulate + 2 * bias + residual):
        a, b, out, r, v = (normal(rng, *shape) for shape in ((M, K), (K, N), (M, N), (M, N), (N,)))
        exact = ops.linear(a, b, v * np.float32(bias)) + r * residual + out * accumulate
        magnitude = np.abs(a).astype("f8") @ np.abs(b) + np.abs(v) + np.abs(r) + np.abs(out)
        if not accumulate:
            out[...] = np.nan
        packed = _pack(b)
        mm.matmul(a, packed, out, v if bias else None, r if residual else None, accumulate)
        assert guards_intact(a, packed, out, r, v)
        assert (np.abs(out - exact) <= _bound(K, magnitude)).all(), (M, N, K)


def test_input_gradient() -> None:
    """dx = dy Wᵀ with W packed as its transpose."""
    rng = np.random.default_rng(2)
    for M, N, K in _shapes(20):
        dy, w, dx = normal(rng, M, K), normal(rng, N, K), normal(rng, M, N)
        packed = place(np.full(mm.packed_size(K, N), 7))
        mm.pack_transposed(w, packed)
        mm.matmul(dy, packed, dx)
        assert guards_intact(dy, w, packed, dx)
        magnitude = np.abs(dy).astype("f8") @ np.abs(w).T
        assert (np.abs(dx - ops.linear_input_gradient(dy, w)) <= _bound(K, magnitude)).all()


@pytest.mark.parametrize("accumulate", [False, True])
def test_weight_gradient_and_bias_gradient(accumulate: bool) -> None:
    """dW = xᵀ dy, with the sums of dy over its rows taken while packing."""
    rng = np.random.default_rng(3)
    for M, N, K in _shapes(30 + accumulate):
        x, dy, dw, db = normal(rng, K, M), normal(rng, K, N), normal(rng, M, N), normal(rng, N)
        exact_db = db + ops.linear_bias_gradient(dy)
        exact = ops.linear_weight_gradient(x, dy) + dw * accumulate
        magnitude = np.abs(x).astype("f8").T @ np.abs(dy) + np.abs(dw)
        bound_db = _bound(K, np.abs(dy).astype("f8").sum(axis=0) + np.abs(db))
        packed = place(np.full(mm.packed_size(K, N), 7))
        mm.pack_matrix(dy, packed, db)
        mm.matmul_transposed(x, packed, dw, accumulate)
        assert guards_intact(x, dy, packed, dw, db)
        assert (np.abs(dw - exact) <= _bound(K, magnitude)).all(), (M, N, K)
        assert (np.abs(db - exact_db) <= bound_db).all(), (M, N, K)


@pytest.mark.parametrize("K", [127, 128, 300, 1194, 1195])
@pytest.mark.parametrize("N", [256, 261])
def test_columns_of_the_turned_side_do_not_depend_on_their_stride(K: int, N: int) -> None:
    """A stride of 512 words is copied in strips where that pays; the bits are the same."""
    rng = np.random.default_rng(6)
    x, dy, before = normal(rng, K, 512), normal(rng, K, N), normal(rng, 512, N)
    packed = _pack(dy)
    for accumulate in (False, True):
        whole = place(np.array(before))
        mm.matmul_transposed(x, packed, whole, accumulate)
        assert guards_intact(x, packed, whole)
        for columns in (slice(0, 500), slice(500, 512)):
            part = np.array(before[columns])
            mm.matmul_transposed(np.ascontiguousarray(x[:, columns]), packed, part, accumulate)
            assert same_bits(part, np.array(whole[columns]))
    exact = ops.linear_weight_gradient(x, dy) + before
    magnitude = np.abs(x).astype("f8").T @ np.abs(dy) + np.abs(before)
    assert (np.abs(whole - exact) <= _bound(K, magnitude)).all()


@pytest.mark.parametrize("shape", [(5, 7), (16, 32), (17, 33), (70, 65), (33, 1)])
def test_packed_panels_hold_the_matrix_and_zeros(shape: tuple[int, int]) -> None:
    K, N = shape
    b = normal(np.random.default_rng(4), K, N)
    panels = _pack(b).reshape(-1, K, 32)
    whole = panels.transpose(1, 0, 2).reshape(K, -1)
    assert same_bits(np.ascontiguousarray(whole[:, :N]), np.array(b))
    assert not whole[:, N:].any()
    transposed = place(np.full(mm.packed_size(K, N), 7))
    mm.pack_transposed(np.ascontiguousarray(b.T), transposed)
    assert same_bits(np.array(transposed), panels.ravel())


def test_calls_repeat_and_rows_do_not_depend_on_their_number() -> None:
    """Row i of a product has the same bits with 1 row or with 70: decoding equals training."""
    rng = np.random.default_rng(5)
    a, b = normal(rng, 70, 33), normal(rng, 33, 45)
    packed, out, again = _pack(b), place(np.zeros((70, 45))), place(np.zeros((70, 45)))
    mm.matmul(a, packed, out)
    mm.matmul(a, packed, again)
    assert same_bits(out, again)
    for rows in (1, 2, 13, 29):
        part = np.empty((rows, 45), np.float32)
        mm.matmul(a[70 - rows :], packed, part)
        assert same_bits(part, np.array(out[70 - rows :]))


def test_not_a_number_passes_through() -> None:
    a, b = np.ones((3, 5), np.float32), np.ones((5, 40), np.float32)
    a[1, 2], b[3, 35] = np.nan, np.inf
    out = np.empty((3, 40), np.float32)
    mm.matmul(a, _pack(b), out)
    assert np.isnan(out[1]).all()
    assert np.isinf(out[[0, 2], 35]).all()
    assert np.isfinite(np.delete(out[[0, 2]], 35, axis=1)).all()


def test_shapes_that_do_not_fit() -> None:
    a, b = np.zeros((2, 3), np.float32), np.zeros((3, 4), np.float32)
    packed, out = _pack(b), np.zeros((2, 4), np.float32)
    row, wrong = np.zeros(4, np.float32), np.zeros(5, np.float32)
    with pytest.raises(ValueError, match="out has 5 elements, expected 96"):
        mm.pack_matrix(b, wrong)
    with pytest.raises(ValueError, match="column_sums has 5 elements, expected 4"):
        mm.pack_matrix(b, packed, wrong)
    with pytest.raises(ValueError, match="out has 96 elements, expected 128"):
        mm.pack_transposed(b, packed)
    with pytest.raises(ValueError, match="packed has 96 elements, expected 128"):
        mm.matmul(np.zeros((2, 4), np.float32), packed, out)
    with pytest.raises(ValueError, match=r"a is \[3, 3\], expected \[2, 3\] for 2 rows"):
        mm.matmul(np.zeros((3, 3), np.float32), packed, out)
    with pytest.raises(ValueError, match="bias has 5 elements, expected 4"):
        mm.matmul(a, packed, out, wrong)
    with pytest.raises(ValueError, match=r"residual is \[2, 3\], expected \[2, 4\]"):
        mm.matmul(a, packed, out, row, a)
    with pytest.raises(ValueError, match=r"a is \[3, 3\], expected \[3, 2\] for an out of 2 rows"):
        mm.matmul_transposed(np.zeros((3, 3), np.float32), packed, out)
    empty = np.zeros((2, 0), np.float32)
    with pytest.raises(ValueError, match="no columns"):
        mm.matmul(empty, np.zeros(0, np.float32), out)
    with pytest.raises(ValueError, match="no rows"):
        mm.matmul_transposed(empty.T.copy(), np.zeros(0, np.float32), out)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
