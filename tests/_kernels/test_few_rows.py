"""A row's result has the same bits among few rows and among many, however panels are shared out.

At every level and in every number format: a text must come out the same alone or with others, by
one thread or by several.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crystalline._kernels import formats
from crystalline._kernels import matmul as mm
from tests._kernels.buffers import F32, guards_intact, normal, place, same_bits

ALL = 300  # rows
FEW = [*range(1, 18), 31, 32, 33, 64, 65, 299]
# whole panels and steps; odd in all; several passes over the inner length; more columns than K
SHAPES = [(96, 64), (67, 41), (2 * 2048 + 3, 33), (33, 97)]


def product(
    a: F32, right: F32, N: int, name: str, bias: F32, residual: F32, panels: range | None = None
) -> F32:
    M, K = a.shape
    left, out = place(np.full(mm.operand_shape(M, K, name), np.nan)), place(np.full((M, N), np.nan))
    mm.to_operand(a, left, name)
    mm.matmul(left, right, out, bias, residual, precision=name, inner=K, panels=panels)
    assert guards_intact(left, out)
    return out


def packed(b: F32, name: str) -> F32:
    out = place(np.full(mm.packed_size(*b.shape, name), np.nan))
    mm.pack_matrix(b, out, precision=name)
    return out


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("shape", SHAPES)
def test_bits_do_not_depend_on_the_number_of_rows(name: str, shape: tuple[int, int]) -> None:
    K, N = shape
    rng = np.random.default_rng(K)
    rows = ALL if K < 1000 else 70
    a, b, v, r = (normal(rng, *s) for s in ((rows, K), (K, N), (N,), (rows, N)))
    right = packed(b, name)
    whole = product(a, right, N, name, v, r)
    for M in FEW:
        if rows < M:
            continue
        first = (7 * M) % (rows - M + 1)
        part = slice(first, first + M)
        got = product(place(a[part]), right, N, name, v, place(r[part]))
        assert same_bits(np.array(got), np.array(whole[part])), M


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("M", [1, 5, 40])
def test_panels_may_be_shared_out(name: str, M: int) -> None:
    K, N = 131, 3 * 32 + 5
    rng = np.random.default_rng(M)
    a, b, v, r = (normal(rng, *s) for s in ((M, K), (K, N), (N,), (M, N)))
    right = packed(b, name)
    whole = product(a, right, N, name, v, r)
    for first, stop in ((0, 1), (1, 3), (3, 4), (0, 4), (2, 2)):
        got = product(a, right, N, name, v, r, range(first, stop))
        part = slice(32 * first, 32 * stop)
        assert same_bits(np.array(got[:, part]), np.array(whole[:, part]))
        assert np.isnan(np.delete(got, np.s_[part], axis=1)).all()


@pytest.mark.parametrize("panels", [range(-1, 1), range(3), range(0, 2, 2)])
def test_panels_that_are_not_there_are_refused(panels: range) -> None:
    one, right = np.zeros((1, 1), np.float32), np.zeros(64, np.float32)
    with pytest.raises(ValueError, match=r"panels are range.*, expected a range within 0 to 2"):
        mm.matmul(one, right, np.zeros((1, 33), np.float32), panels=panels)


def test_other_levels(isa_levels: Callable[..., None]) -> None:
    isa_levels(__file__)
