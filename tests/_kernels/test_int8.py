"""Products of signed bytes: bit for bit the steps that `primitives/int8.h` lists, at every level.

The oracle takes those steps in NumPy, with sums of int64, so that a level that passes gives the
same bits as every other one.  How far such a product is from that of the matrices themselves is
held against a bound for every element, in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import attention, formats, isa
from crystalline._kernels import matmul as mm
from crystalline.machine import cpu, levels
from crystalline.model.config import ModelConfig
from crystalline.model.transformer import Transformer
from tests._kernels import products
from tests._kernels.buffers import F32, U, guards_intact, normal, place, same_bits, same_but_nan
from tests._kernels.products import with_terms

STEP, EXTRA, PANEL = 16, 16, 32  # words, words, columns
SMALLEST = np.float32(2.0**-119)
LONGEST = 131_072
MOST = np.float32(127)

SHAPES = [
    (1, 1, 1), (1, 2, 3), (3, 1, 2), (2, 3, 33), (4, 384, 96), (5, 64, 16), (13, 31, 64),
    (14, 32, 32), (15, 33, 31), (16, 65, 17), (17, 128, 48), (33, 63, 32), (70, 69, 68),
    (27, 64, 70), (5, 4101, 3), (300, 70, 40), (129, 17, 95),
]  # fmt: skip

I8 = npt.NDArray[np.int8]
F64 = npt.NDArray[np.float64]

operand, packed, multiply = (
    functools.partial(made, "int8")
    for made in (products.operand, products.packed, products.multiply)
)


def quantized(x: F32) -> tuple[I8, F32]:
    """The bytes of x [rows, K], and the scale of each row."""
    with np.errstate(all="ignore"):
        largest = np.abs(x).max(1, initial=0)
        used = np.isfinite(largest) & (largest >= SMALLEST)
        inverse = np.where(used, MOST / largest, np.float32(0))
        scale = np.where(used, largest / MOST, np.float32(0))
        scale[~np.isfinite(largest)] = np.nan
        rounded = np.rint(x * inverse[:, None])
    return np.nan_to_num(rounded, nan=0.0).astype(np.int8), scale


def product(a: F32, b: F32, *terms: F32 | None) -> F32:
    """The result of the listed steps, each rounded to float32."""
    (qa, sa), (qb, sb) = quantized(a), quantized(b.T)
    sums = qa.astype(np.int64) @ qb.T.astype(np.int64)
    assert np.abs(sums).max(initial=0) < 1 << 31
    with np.errstate(all="ignore"):
        return with_terms(sums.astype(np.float32) * sa[:, None] * sb, *terms)


def spread(rng: np.random.Generator, *shape: int) -> F32:
    """Rows of very different sizes."""
    return place(rng.standard_normal(shape) * np.exp2(rng.integers(-40, 40, (shape[0], 1))))


def test_it_is_a_format_that_does_not_train() -> None:
    assert "int8" in formats.names()
    assert not formats.trains("int8")
    assert formats.trains("bf16")
    assert formats.flops_per_second("int8", 0.0) > 0
    tiles = next(level for level in levels.LEVELS if level.name == "amx")
    native = isa.level() == "amx" and set(tiles.features) <= cpu.FEATURES and not isa.PLAIN_TILES
    assert formats.is_native("int8") == native


@pytest.mark.parametrize("K", [1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 127, 200])
def test_a_row_is_its_bytes_then_zeros_then_its_scale_and_sum(K: int) -> None:
    rng = np.random.default_rng(K)
    x = spread(rng, 5, K)
    x[1], x[2, 0] = 0, 0.5 * np.abs(x[2]).max()  # a zero row; a byte of 63.5: a tie
    words = (K + 4 * STEP - 1) // (4 * STEP) * STEP
    assert mm.operand_shape(3, K, "int8") == (3, words + EXTRA)
    bytes_, scale = quantized(x)
    want = np.zeros((5, words + EXTRA), np.float32)
    want.view(np.int8)[:, :K] = bytes_
    want[:, words] = scale
    want.view(np.int32)[:, words + 1] = -128 * bytes_.astype(np.int64).sum(1)
    assert same_bits(operand(x), want)


def test_ties_are_rounded_to_even() -> None:
    x = place([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -127.0]])
    assert operand(x).view(np.int8)[0, :9].tolist() == [127, 0, 2, 2, 0, -2, -2, 126, -127]


def test_an_operand_may_take_the_place_of_its_matrix() -> None:
    x = normal(np.random.default_rng(2), 7, 160)
    want = operand(x)
    words = want.shape[1]
    assert words <= 160
    # as the model's passes do it: row after row, each not behind where it came from
    rows = [x[i].copy() for i in range(7)]
    flat = np.concatenate(rows).astype(np.float32)
    for i in range(7):
        row, out = flat[i * 160 :][:160].reshape(1, 160), flat[i * words :][:words].reshape(1, -1)
        mm.to_operand(row, out, "int8")
    assert same_bits(flat[: 7 * words].reshape(7, words), want)


@pytest.mark.parametrize("K", [1, 5, 63, 64, 65, 130])
@pytest.mark.parametrize("N", [1, 7, 31, 32, 33, 70])
def test_a_panel_is_bytes_by_fours_then_its_scales(K: int, N: int) -> None:
    rng = np.random.default_rng(1000 * K + N)
    b, sums = place(spread(rng, N, K).T), place(np.full(N, 2.0))
    b[:, N // 2] = 0
    height, panels = mm.operand_shape(1, K, "int8")[1], -(-N // PANEL)
    bytes_, scale = quantized(b.T)
    columns = np.zeros((panels * PANEL, height), np.float32)
    columns.view(np.int8)[:N, :K] = bytes_
    columns[:N, height - EXTRA] = scale
    want = np.ascontiguousarray(columns.reshape(panels, PANEL, height).swapaxes(1, 2)).ravel()
    assert same_bits(packed(b, sums), want)
    turned = place(np.full_like(want, np.nan))
    mm.pack_transposed(place(b.T), turned, "int8")
    assert same_bits(turned, want)
    in_order = np.full(N, 0, np.float32)
    for row in b:
        in_order += row
    assert same_bits(np.array(sums), np.float32(2) + in_order)
    assert guards_intact(b, sums, turned)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_take_the_listed_steps(shape: tuple[int, int, int]) -> None:
    M, K, N = shape
    rng = np.random.default_rng(3)
    a, b = spread(rng, M, K), place(spread(rng, N, K).T)
    a[M // 2], b[:, N // 2] = 0, 0
    a[0, K // 2] = 0
    v, r, c = (normal(rng, *s) for s in ((N,), (M, N), (M, N)))
    for bias, residual, out in (
        (None, None, None), (v, None, None), (v, r, None), (None, r, c), (v, r, c),
    ):  # fmt: skip
        assert same_but_nan(multiply(a, b, bias, residual, out), product(a, b, bias, residual, out))


@pytest.mark.parametrize("M", [*range(1, 8), 12, 13, 24, 28, 31, 32, 33, 47, 48, 49, 64])
@pytest.mark.parametrize("N", [1, 15, 16, 17, 32, 48])
def test_rows_and_columns_that_fill_no_tile(M: int, N: int) -> None:
    rng = np.random.default_rng(100 * M + N)
    a, b = normal(rng, M, 70), normal(rng, 70, N)
    assert same_but_nan(multiply(a, b), product(a, b))


def test_many_rows_of_many_words() -> None:
    """Over several blocks of the left-hand side, and longer than a pass of other formats."""
    rng = np.random.default_rng(5)
    a, b = normal(rng, 131, 4500), normal(rng, 4500, 40)
    assert same_but_nan(multiply(a, b), product(a, b))


def test_the_longest_sums_do_not_overflow() -> None:
    a, b = place(np.full((6, LONGEST), 3.0)), place(np.full((LONGEST, 2), -5.0))
    a[1], b[:, 1] = -3.0, 5.0
    got = multiply(a, b)
    assert same_but_nan(got, product(a, b))
    np.testing.assert_allclose(got[0], [-15.0 * LONGEST, 15.0 * LONGEST], rtol=1e-6)


def test_an_inner_length_beyond_that_is_refused() -> None:
    message = "the inner length is 131073, the longest that int8 can sum is 131072"
    long, out = np.zeros((1, LONGEST + 1), np.float32), np.zeros((1, 1), np.float32)
    for call in (
        lambda: mm.packed_size(LONGEST + 1, 1, "int8"),
        lambda: mm.operand_shape(1, LONGEST + 1, "int8"),
        lambda: mm.to_operand(long, out, "int8"),
        lambda: mm.pack_matrix(long.T.copy(), out[0], precision="int8"),
        lambda: mm.pack_transposed(long, out[0], "int8"),
        lambda: mm.matmul(long, out[0], out, precision="int8", inner=LONGEST + 1),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert mm.packed_size(LONGEST + 1, 1) == PANEL * (LONGEST + 1)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("k", [0, 37, 66])
def test_what_is_not_finite_makes_its_row_or_column_nan(value: float, k: int) -> None:
    rng = np.random.default_rng(6)
    for M in (3, 40):  # few rows and many
        a, b, v = normal(rng, M, 67), normal(rng, 67, 40), normal(rng, 40)
        a[0] = b[:, 0] = 0  # 0 times infinity is not 0
        a[2, k], b[k, 33] = value, value
        got = multiply(a, b, v)
        assert same_but_nan(got, product(a, b, v))
        bad = np.zeros(got.shape, bool)
        bad[2], bad[:, 33] = True, True
        np.testing.assert_array_equal(np.isnan(got), bad)
        turned = place(np.full(mm.packed_size(67, 40, "int8"), np.nan))
        mm.pack_transposed(place(b.T), turned, "int8")
        assert same_bits(turned, packed(b))
        left = operand(a)
        assert np.isnan(left[2, -EXTRA])
        assert not left.view(np.int8)[2, :67].any()


def test_large_numbers() -> None:
    """All have a scale; the sum times the row's is infinite before the result is, never wrong."""
    top = np.finfo(np.float32).max
    a, b = place(np.full((5, 64), 2.0**100)), place(np.full((64, 3), 2.0**-100))
    a[1], a[2], a[3] = -(2.0**100), 0, top
    a[2, 0] = 2.0**103
    got = multiply(a, b)
    assert same_but_nan(got, product(a, b))
    np.testing.assert_allclose(got[:3, 0], [64, -64, 8], rtol=1e-6)
    assert (got[3] == np.inf).all()


def test_what_is_too_small_for_a_scale_counts_as_zero() -> None:
    """Below 2^-119 the scale would be denormal: the error is less than 2^-119 an element."""
    rng = np.random.default_rng(7)
    below = np.nextafter(SMALLEST, np.float32(0))
    a, b = normal(rng, 6, 40), place(rng.standard_normal((40, 5)) * 2.0**60)
    a[0], a[1], a[2], a[3] = below, SMALLEST, np.float32(1e-45), -SMALLEST
    a[1, 1] = 1e-45  # a denormal beside it
    got = multiply(a, b)
    assert same_but_nan(got, product(a, b))
    assert not got[[0, 2]].any()
    assert got[[1, 3]].all()
    exact = a.astype(np.float64) @ b
    assert (np.abs(got - exact)[[0, 2]] <= float(SMALLEST) * np.abs(b).sum(0)).all()


def test_results_are_only_as_small_or_large_as_they_are() -> None:
    """The scales are multiplied in turn: their product would be below every number here."""
    rng = np.random.default_rng(8)
    a, b = (place(rng.standard_normal(shape) * 2.0**-70) for shape in ((6, 4000), (4000, 5)))
    got = multiply(a, b)
    assert same_but_nan(got, product(a, b))
    assert (np.abs(got - a.astype(np.float64) @ b) <= bound(a, b) + 2.0**-149).all()


def bound(a: F32, b: F32) -> F64:
    """Of what a result can be off.

    An element is off by e = scale (1/2 + 127 * 2^-22) at most, so a product of two by
    |a| e_b + |b| e_a + e_a e_b; the result is rounded three times.
    """
    x, y = np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64))
    half = 0.5 + 127 * 2.0**-22
    e_a = half * quantized(a)[1].astype(np.float64)[:, None]
    e_b = half * quantized(b.T)[1].astype(np.float64)
    K = a.shape[1]
    off = x.sum(1, keepdims=True) * e_b + y.sum(0) * e_a + K * e_a * e_b
    rounding: F64 = 3 * U / (1 - 3 * U) * (np.abs(a.astype(np.float64) @ b) + off)
    return off + rounding


@pytest.mark.parametrize("shape", [(4, 384, 96), (64, 384, 96), (33, 1536, 40), (1, 4096, 33)])
def test_how_far_a_product_is_from_the_exact_one(shape: tuple[int, int, int]) -> None:
    M, K, N = shape
    rng = np.random.default_rng(9)
    a, b = normal(rng, M, K), normal(rng, K, N)
    exact, got = a.astype(np.float64) @ b, multiply(a, b)
    assert (np.abs(got - exact) <= bound(a, b)).all()
    # Errors of normal numbers are independent, so that all together they are far below the bound.
    # Each is uniform: of variance scale^2 / 12.
    sa, sb = (quantized(x)[1].astype(np.float64) for x in (a, b.T))
    variance = K * (sa[:, None] ** 2 + sb**2) / 12
    ratio = np.sqrt(((got - exact) ** 2 / variance).mean())
    assert 0.8 < ratio < 1.2


def test_where_rounding_is_the_worst_the_bound_holds() -> None:
    """All elements but the largest lie half way between two bytes, and all errors add up."""
    K = 200
    a, b = place(np.full((3, K), 100.4999)), place(np.full((K, 40), 100.4999))
    a[:, 0], b[0] = 127, 127
    exact, got = a.astype(np.float64) @ b, multiply(a, b)
    off = np.abs(got - exact)
    assert (off <= bound(a, b)).all()
    assert (off >= 0.98 * bound(a, b)).all()


def test_there_are_no_gradients() -> None:
    config = ModelConfig(11, 8, num_layers=1, num_heads=2, embed_dim=16)
    x = np.zeros((8, 48), np.float32)
    out, lse = np.zeros((8, 16), np.float32), np.zeros((1, 2, 8), np.float32)
    one = np.zeros((1, 1), np.float32)
    message = (
        "precision is 'int8', which multiplies but has no gradients; expected one of float32, bf16"
    )
    for call in (
        lambda: mm.turned_shape(3, 5, "int8"),
        lambda: mm.turn_operand(one, 1, 1, one, "int8"),
        lambda: mm.matmul_transposed(one, one[0], one, precision="int8"),
        lambda: attention.attention_forward(x, 8, 2, out, lse, precision="int8"),
        lambda: attention.attention_backward(out, x, out, lse, 8, 2, x, precision="int8"),
        # the only one that packs parts of a matrix
        lambda: Transformer.allocate(config, np.zeros(4096, np.float32), precision="int8"),
        lambda: Transformer.packed_size(config, "int8"),
        lambda: Transformer.workspace_size(config, "int8"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_shapes_are_checked() -> None:
    x, words = place(np.zeros((3, 65))), mm.operand_shape(3, 65, "int8")[1]
    assert words == 48
    with pytest.raises(ValueError, match=rf"out is \[3, 32\], expected \[3, {words}\]"):
        mm.to_operand(x, place(np.zeros((3, 32))), "int8")
    right = place(np.zeros(mm.packed_size(65, 1, "int8")))
    with pytest.raises(ValueError, match=rf"a is \[3, 65\], expected \[3, {words}\]"):
        mm.matmul(x, right, place(np.zeros((3, 1))), precision="int8", inner=65)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
