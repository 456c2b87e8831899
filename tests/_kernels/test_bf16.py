"""Products of bfloat16 pairs: rounding bit by bit, then every transposition against float64.

The oracle rounds to bfloat16 by integer arithmetic of its own and multiplies in float64, where
the products of two bfloat16 are exact; what is left is the rounding of float32 sums.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import matmul as mm
from tests._kernels.buffers import F32, U, guards_intact, normal, place

SHAPES = [
    (1, 1, 1), (1, 2, 3), (3, 1, 2), (2, 3, 33), (13, 31, 64), (14, 32, 32), (15, 33, 31),
    (70, 69, 68), (27, 64, 70), (5, 2051, 3), (300, 70, 40), (129, 17, 95),
]  # fmt: skip


def rounded(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """The bits of the nearest bfloat16, ties to even, in the low half."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint32)


def value(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """x rounded to bfloat16."""
    return (rounded(x) << np.uint32(16)).view(np.float32).astype(np.float64)


def bound(terms: int, magnitude: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A pair's two products and every sum round once; the instruction may also truncate a pair."""
    n = 2 * terms + 8
    return n * U / (1 - n * U) * magnitude + 1e-38


def pairs(x: F32) -> F32:
    """The operand: pairs along the columns, the first in the low half, zeros after the last."""
    out = place(np.full(mm.operand_shape(*x.shape, "bf16"), np.nan))
    mm.to_operand(x, out, "bf16")
    assert guards_intact(x, out)
    return out


def rows_of(operand: F32, rows: int) -> F32:
    """The operand row by row, where groups of rows lie side by side in tiles of 16 words."""
    group, words = mm.operand_shape(1, 1, "bf16")[0], operand.shape[1]
    if group == 1:
        return operand
    tiles = operand.reshape(-1, words // 16, group, 16)
    return np.ascontiguousarray(tiles.swapaxes(1, 2)).reshape(-1, words)[:rows]


def test_pairs_are_rounded_to_nearest_even() -> None:
    rng = np.random.default_rng(1)
    for columns in range(1, 71):
        exponents = rng.integers(-100, 100, (3, columns))
        x = normal(rng, 3, columns) * np.exp2(exponents).astype(np.float32)
        x[0, : columns // 2] = x.view(np.uint32)[0, : columns // 2].__and__(0xFFFF8000).view("f4")
        even = np.zeros((3, 2 * mm.operand_shape(3, columns, "bf16")[1]), np.uint32)
        even[:, :columns] = rounded(x)
        want = even[:, ::2] | (even[:, 1::2] << np.uint32(16))
        np.testing.assert_array_equal(rows_of(pairs(x), 3).view(np.uint32), want)


def test_what_is_not_finite_stays_so() -> None:
    x = place(np.array([[np.inf, -np.inf, np.nan, -np.nan, 3.4e38]]))
    got = rows_of(pairs(x), 1).view(np.uint32)[0]
    back = np.array([got[0] << 16, got[0] & 0xFFFF0000, got[1] << 16, got[1] & 0xFFFF0000])
    back = back.astype(np.uint32).view(np.float32)
    assert back[0] == np.inf
    assert back[1] == -np.inf
    assert np.isnan(back[2:]).all()
    # a NaN whose payload lies in the half that is cut off
    x = place(np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)[None])
    got = rows_of(pairs(x), 1).view(np.uint32)[0]
    assert np.isnan(np.array([got[0] << 16, got[0] & 0xFFFF0000], np.uint32).view("f4")).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_both_ways_of_packing_agree_and_column_sums_are_those_of_float32(
    shape: tuple[int, int, int],
) -> None:
    _, K, N = shape
    b = normal(np.random.default_rng(2), K, N)
    packed, turned = (
        place(np.full(mm.packed_size(K, N, precision="bf16"), np.nan)) for _ in range(2)
    )
    sums = place(np.full(N, 2.0))
    mm.pack_matrix(b, packed, sums, precision="bf16")
    mm.pack_transposed(place(b.T), turned, precision="bf16")
    np.testing.assert_array_equal(packed.view(np.uint32), turned.view(np.uint32))
    exact = 2.0 + b.astype(np.float64).sum(0)
    assert (np.abs(sums - exact) <= bound(K, 2.0 + np.abs(b).sum(0))).all()
    assert guards_intact(b, packed, turned, sums)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(shape: tuple[int, int, int], accumulate: bool) -> None:
    M, K, N = shape
    rng = np.random.default_rng(3)
    a, b, out, r, v = (normal(rng, *s) for s in ((M, K), (K, N), (M, N), (M, N), (N,)))
    packed = place(np.full(mm.packed_size(K, N, precision="bf16"), np.nan))
    mm.pack_matrix(b, packed, precision="bf16")
    exact = value(a) @ value(b) + v + r + out * accumulate
    size = np.abs(value(a)) @ np.abs(value(b)) + np.abs(v) + np.abs(r) + np.abs(out)
    if not accumulate:
        out[...] = np.nan
    mm.matmul(pairs(a), packed, out, v, r, accumulate, precision="bf16", inner=K)
    assert (np.abs(out - exact) <= bound(K, size)).all()
    assert guards_intact(a, packed, out, r, v)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient(shape: tuple[int, int, int], accumulate: bool) -> None:
    M, K, N = shape
    rng = np.random.default_rng(4)
    x, dy, out = normal(rng, M, K), normal(rng, M, N), normal(rng, K, N)
    turned = place(np.full(mm.turned_shape(M, K, "bf16"), np.nan))
    mm.turn_operand(pairs(x), M, K, turned, "bf16")
    packed = place(np.full(mm.packed_size(M, N, precision="bf16"), np.nan))
    mm.pack_matrix(dy, packed, precision="bf16")
    exact = value(x).T @ value(dy) + out * accumulate
    size = np.abs(value(x)).T @ np.abs(value(dy)) + np.abs(out)
    if not accumulate:
        out[...] = np.nan
    mm.matmul_transposed(turned, packed, out, accumulate, precision="bf16", inner=M)
    assert (np.abs(out - exact) <= bound(M, size)).all()
    assert guards_intact(x, turned, packed, out)


def test_shapes_are_checked() -> None:
    x = place(np.zeros((3, 65)))
    rows, words = mm.operand_shape(3, 65, "bf16")
    with pytest.raises(
        ValueError, match=rf"out is \[3, 2\], expected \[{rows}, {words}\] for 3 rows"
    ):
        mm.to_operand(x, place(np.zeros((3, 2))), "bf16")
    with pytest.raises(ValueError, match=r"out is \[2, 7\], expected "):
        mm.turn_operand(place(np.zeros((rows, words))), 3, 65, place(np.zeros((2, 7))), "bf16")
    with pytest.raises(ValueError, match=rf"x is \[3, 65\], expected \[{rows}, {words}\]"):
        mm.turn_operand(x, 3, 65, place(np.zeros(mm.turned_shape(3, 65, "bf16"))), "bf16")
    packed = place(np.zeros(mm.packed_size(65, 1, "bf16")))
    with pytest.raises(ValueError, match=rf"a is \[3, 65\], expected \[{rows}, {words}\]"):
        mm.matmul(x, packed, place(np.zeros((3, 1))), precision="bf16", inner=65)
    with pytest.raises(ValueError, match=r"a is \[3, 65\], expected "):
        mm.matmul_transposed(x, packed, place(np.zeros((65, 1))), precision="bf16", inner=65)
