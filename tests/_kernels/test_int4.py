"""Products of weights in groups, int4 and int8g32: bit for bit what `primitives/groups.h` lists.

The oracle takes the listed steps in NumPy, with sums of int64, so that a level that passes gives
the same bits as every other one; where the package `gguf` is there, its quantization judges ours.
How far such a product is from that of the matrices is held against a bound, in float64.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crystalline._kernels import formats, isa
from crystalline._kernels import matmul as mm
from crystalline.machine import cpu, levels
from tests._kernels.buffers import F32, U, guards_intact, normal, place, same_bits, same_but_nan
from tests._kernels.products import multiply, operand, packed, with_terms

GROUP, UNIT, PANEL = 32, 64, 32  # elements, elements, columns
BITS = {"int4": 4, "int8g32": 8}
SMALLEST = np.float32(2.0**-119)

SHAPES = [
    (1, 1, 1), (1, 2, 3), (3, 31, 2), (2, 33, 33), (4, 384, 96), (5, 64, 16), (7, 65, 31),
    (16, 97, 64), (17, 128, 48), (33, 63, 32), (64, 32, 20), (65, 96, 40),
    (83, 161, 65), (130, 70, 33),
]  # fmt: skip

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

pytestmark = pytest.mark.parametrize("name", list(BITS))


def in_groups(x: F32) -> F32:
    """x [rows, K] as [rows, groups, 32], zeros after its K."""
    rows, K = x.shape
    out = np.zeros((rows, -(-K // UNIT) * 2, GROUP), np.float32)
    out.reshape(rows, -1)[:, :K] = x
    return out


def weights(name: str, b: F32) -> tuple[I64, F32]:
    """The integers [N, groups, 32] of b [K, N], and the scales [N, groups]."""
    x = in_groups(b.T)
    at = np.abs(x).argmax(2)
    largest = np.take_along_axis(x, at[..., None], 2)[..., 0]
    with np.errstate(all="ignore"):
        d = largest / np.float32(-8) if name == "int4" else np.abs(largest) / np.float32(127)
        half = d.astype(np.float16).astype(np.float32)
        half[~np.isfinite(half) | ~np.isfinite(x).all(2)] = np.nan
        inverse = np.where(half == 0, np.float32(0), np.float32(1) / d)[..., None]
        if name == "int4":
            exact = x.astype(np.float64) * inverse.astype(np.float64) + 8.5
            q = np.minimum(np.trunc(exact.astype(np.float32)), 15) - 8
        else:
            y = x * inverse
            q = np.copysign(np.floor(np.abs(y).astype(np.float64) + 0.5), y)
    return np.nan_to_num(np.where(np.isnan(half)[..., None], 0, q)).astype(np.int64), half


def bytes_of(x: F32) -> tuple[I64, F32]:
    """The integers [rows, groups, 32] of a left-hand side [rows, K], and the scales."""
    x = in_groups(x)
    with np.errstate(all="ignore"):
        largest = np.abs(x).max(2)
        used = np.isfinite(largest) & (largest >= SMALLEST)
        inverse = np.where(used, np.float32(127) / largest, np.float32(0))
        scale = np.where(used, largest / np.float32(127), np.float32(0))
        scale[~np.isfinite(largest)] = np.nan
        q = np.rint(x * inverse[..., None])
    return np.nan_to_num(q).astype(np.int64), scale


def product(name: str, a: F32, b: F32, *terms: F32 | None) -> F32:
    """The result of the listed steps, each rounded to float32."""
    (qa, sa), (qb, sb) = bytes_of(a), weights(name, b)
    result = np.zeros((len(a), b.shape[1]), np.float32)
    with np.errstate(all="ignore"):
        for g in range(qa.shape[1]):
            sums = qa[:, g] @ qb[:, g].T
            result = result + sums.astype(np.float32) * sa[:, g, None] * sb[:, g]
        return with_terms(result, *terms)


def identity_rows(K: int) -> F32:
    return place(np.eye(K))


def values(name: str, b: F32) -> F64:
    """The values that packed weights stand for, from the bytes of the panels."""
    K, N = b.shape
    bits, groups = BITS[name], -(-K // UNIT) * 2
    words = packed(name, b).reshape(-1, groups, bits * PANEL + PANEL // 2)
    raw = words[..., : bits * PANEL].copy().view(np.uint8)
    raw = raw.reshape(-1, groups, bits, PANEL, 4).transpose(0, 3, 1, 2, 4)
    scales = words[..., bits * PANEL :].copy().view(np.float16).transpose(0, 2, 1)
    if name == "int4":
        low, high = ((x.reshape(*x.shape[:3], 16)) for x in (raw & 15, raw >> 4))
        q = np.concatenate([low, high], 3).astype(np.int64) - 8
    else:
        q = raw.reshape(*raw.shape[:3], GROUP).view(np.int8).astype(np.int64)
    whole: F64 = (q * scales[..., None].astype(np.float64)).reshape(-1, groups * GROUP)
    assert not whole[N:].any()
    assert not whole[:, K:].any()
    return whole[:N, :K].T


def spread(rng: np.random.Generator, *shape: int) -> F32:
    """Rows of very different sizes, within what a float16 can scale."""
    return place(rng.standard_normal(shape) * np.exp2(rng.integers(-12, 12, (shape[0], 1))))


def test_it_is_a_format_that_does_not_train(name: str) -> None:
    assert name in formats.names()
    assert not formats.trains(name)
    assert formats.flops_per_second(name, 0.0) > 0
    tiles = next(level for level in levels.LEVELS if level.name == "amx")
    native = isa.level() == "amx" and set(tiles.features) <= cpu.FEATURES and not isa.PLAIN_TILES
    assert formats.is_native(name) == native
    with pytest.raises(ValueError, match="multiplies but has no gradients"):
        mm.turned_shape(3, 5, name)


def test_bytes_of_a_weight(name: str) -> None:
    """Four bits or eight and half a bit for the scale, where K is whole pairs of groups."""
    assert 4 * mm.packed_size(768, 2304, name) == 768 * 2304 * (BITS[name] / 8 + 1 / 16)
    assert mm.packed_size(65, 1, name) == mm.packed_size(128, 32, name)
    assert mm.operand_shape(3, 65, name) == (3, 40)


@pytest.mark.parametrize("K", [1, 3, 31, 32, 33, 63, 64, 65, 127, 200])
def test_a_row_is_its_bytes_then_its_scales_then_its_sums(name: str, K: int) -> None:
    x = spread(np.random.default_rng(K), 5, K)
    x[1] = 0
    got, (q, scale) = operand(name, x), bytes_of(x)
    groups = q.shape[1]
    assert same_bits(got.view(np.int8)[:, : groups * GROUP], q.reshape(5, -1).astype(np.int8))
    assert same_bits(np.ascontiguousarray(got[:, 8 * groups : 9 * groups]), scale)
    np.testing.assert_array_equal(
        got.view(np.int32)[:, 9 * groups :], q.sum(2) * -(1 << BITS[name] - 1)
    )


@pytest.mark.parametrize("K", [1, 5, 31, 32, 33, 64, 65, 160])
@pytest.mark.parametrize("N", [1, 15, 32, 33, 70])
def test_panels_hold_the_listed_values(name: str, K: int, N: int) -> None:
    rng = np.random.default_rng(1000 * K + N)
    b, sums = place(spread(rng, N, K).T), place(np.full(N, 2.0))
    b[:, N // 2] = 0
    q, d = weights(name, b)
    want = (q * d.astype(np.float64)[..., None]).reshape(N, -1)[:, :K].T
    np.testing.assert_array_equal(values(name, b), want)
    turned = place(np.full(mm.packed_size(K, N, name), np.nan))
    mm.pack_transposed(place(b.T), turned, name)
    assert same_bits(turned, packed(name, b, sums))
    in_order = np.zeros(N, np.float32)
    for row in b:
        in_order += row
    assert same_bits(np.array(sums), np.float32(2) + in_order)
    assert guards_intact(b, sums, turned)


def test_values_of_a_file_survive(name: str) -> None:
    """What has been quantized once is what it is quantized to, denormal scales included."""
    rng = np.random.default_rng(3)
    b = place(rng.standard_normal((96, 64)) * np.exp2(rng.uniform(-24, 14, 64)))
    once = values(name, b)
    twice = values(name, place(once))
    np.testing.assert_array_equal(once, twice)
    assert (np.abs(once).max(0) > 0).sum() > 48


def test_it_is_the_quantization_of_llama_cpp(name: str) -> None:
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("the package gguf is not installed")
    from gguf import GGMLQuantizationType, quants

    kind = {"int4": GGMLQuantizationType.Q4_0, "int8g32": GGMLQuantizationType.Q8_0}[name]
    rng = np.random.default_rng(4)
    x = (rng.standard_normal((64, 256)) * np.exp2(rng.uniform(-20, 12, (64, 1)))).astype(np.float32)
    x[0], x[1, ::2] = 0, x[1, 1::2]  # no largest; two of them
    theirs = quants.dequantize(quants.quantize(x, kind), kind)
    np.testing.assert_array_equal(values(name, place(x.T)).T, theirs.astype(np.float64))


def test_the_first_of_two_largest_gives_the_sign(name: str) -> None:
    b = place(np.array([[1.0, -1.0], [-1.0, 1.0]] + [[0.25, 0.25]] * 30))
    got = values(name, b)
    cut = 7 / 8 if name == "int4" else 1.0  # what of 8 steps the other side has
    np.testing.assert_allclose(got[:2], [[1, -1], [-cut, cut]], rtol=1e-3)


def test_ties_are_rounded_as_there(name: str) -> None:
    b = place(np.zeros((32, 1)))
    if name == "int4":  # up: x / d + 8.5 is cut
        b[:5, 0] = [-8, 0.5, -0.5, 1.5, 7.5]
        assert values(name, b)[:5, 0].tolist() == [-8, 1, 0, 2, 7]
    else:  # away from zero
        b[:5, 0] = [127, 0.5, -0.5, 1.5, -2.5]
        assert values(name, b)[:5, 0].tolist() == [127, 1, -1, 2, -3]


@pytest.mark.parametrize("shape", SHAPES)
def test_products_take_the_listed_steps(name: str, shape: tuple[int, int, int]) -> None:
    M, K, N = shape
    rng = np.random.default_rng(5)
    a, b = spread(rng, M, K), place(spread(rng, N, K).T)
    a[M // 2], b[:, N // 2] = 0, 0
    v, r, c = (normal(rng, *s) for s in ((N,), (M, N), (M, N)))
    for bias, residual, out in (
        (None, None, None), (v, None, None), (v, r, None), (None, r, c), (v, r, c),
    ):  # fmt: skip
        got = multiply(name, a, b, bias, residual, out)
        assert same_but_nan(got, product(name, a, b, bias, residual, out))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_what_is_not_finite_makes_its_row_or_column_nan(name: str, value: float) -> None:
    rng = np.random.default_rng(6)
    for M in (3, 40):
        a, b = normal(rng, M, 97), normal(rng, 97, 40)
        a[0] = b[:, 0] = 0  # 0 times infinity is not 0
        a[2, 37], b[66, 33] = value, value
        got = multiply(name, a, b)
        assert same_but_nan(got, product(name, a, b))
        bad = np.zeros(got.shape, bool)
        bad[2], bad[:, 33] = True, True
        np.testing.assert_array_equal(np.isnan(got), bad)


def test_a_scale_beyond_float16_is_not_a_number(name: str) -> None:
    steps = 8.0 if name == "int4" else 127.0
    b = place(np.full((32, 3), 1.0))
    b[0] = [steps * 65504, -steps * 65519, steps * 65520]
    got = values(name, b)
    assert np.isfinite(got[:, :2]).all()
    assert np.isnan(got[:, 2]).all()


def bound(name: str, a: F32, b: F32) -> F64:
    """Of what a result can be off.

    A byte of a is off by half a step (and what rounds scale and quotient), a weight by half a step
    and at int4's far end by a whole one; float16 rounds its scale by 2^-11, or, where that is
    denormal, by 2^-25.
    """
    x, y = (in_groups(z).astype(np.float64) for z in (a, b.T))
    (_, sa), (_, sb) = bytes_of(a), weights(name, b)
    most = 8 if name == "int4" else 127
    e_a = (0.5 + 127 * 2.0**-22) * sa.astype(np.float64)
    step = np.abs(sb.astype(np.float64))
    far = 1.0 if name == "int4" else 0.5
    e_b = step * far * (1 + 2.0**-10) + most * (step * 2.0**-11 + 2.0**-25)
    off: F64 = np.einsum("mgk,ng->mn", np.abs(x), e_b) + np.einsum("mg,ngk->mn", e_a, np.abs(y))
    off += GROUP * np.einsum("mg,ng->mn", e_a, e_b)
    groups = x.shape[1] + 3
    magnitude = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    return off + groups * U / (1 - groups * U) * (magnitude + off)


@pytest.mark.parametrize("shape", [(4, 384, 96), (70, 384, 33), (1, 2048, 33)])
def test_how_far_a_product_is_from_the_exact_one(name: str, shape: tuple[int, int, int]) -> None:
    M, K, N = shape
    rng = np.random.default_rng(7)
    a, b = normal(rng, M, K), normal(rng, K, N)
    off = multiply(name, a, b) - a.astype(np.float64) @ b
    assert (np.abs(off) <= bound(name, a, b)).all()
    # errors are independent: all together they are far below the bound, and not far from one step's
    share = np.sqrt((off**2).mean() / K)
    assert (0.05 < share < 0.2) if name == "int4" else (0.003 < share < 0.02)


def test_one_large_element_spoils_its_group_only(name: str) -> None:
    """What a scale a group buys: int8, with one a row, loses everything beside the outlier."""
    rng = np.random.default_rng(8)
    a, b = normal(rng, 2, 768), normal(rng, 768, 64)
    a[:, 5] = 1000.0
    b[5] = 0
    exact = a.astype(np.float64) @ b
    judged = values(name, b)
    off = {}
    for one in (name, "int8"):
        right = place(np.full(mm.packed_size(768, 64, one), np.nan))
        mm.pack_matrix(b, right, precision=one)
        out, left = place(np.zeros((2, 64))), place(np.zeros(mm.operand_shape(2, 768, one)))
        mm.to_operand(a, left, one)
        mm.matmul(left, right, out, precision=one, inner=768)
        off[one] = np.sqrt(
            ((out - (a.astype(np.float64) @ judged if one == name else exact)) ** 2).mean()
        )
    assert off[name] < 0.3 * off["int8"]


def test_other_levels(name: str, isa_levels: Callable[..., None]) -> None:
    if name == "int4":  # once for both
        isa_levels(__file__)
