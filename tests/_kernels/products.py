"""A product of the compiled kernels between guards, in a number format that is named."""

from __future__ import annotations

import numpy as np

from crystalline._kernels import matmul as mm
from tests._kernels.buffers import F32, guards_intact, place


def operand(name: str, x: F32) -> F32:
    out = place(np.full(mm.operand_shape(*x.shape, name), np.nan), offset=3)
    mm.to_operand(x, out, name)
    assert guards_intact(out)
    return out


def packed(name: str, b: F32, sums: F32 | None = None) -> F32:
    out = place(np.full(mm.packed_size(*b.shape, name), np.nan))
    mm.pack_matrix(b, out, sums, precision=name)
    assert guards_intact(out)
    return out


def multiply(
    name: str,
    a: F32,
    b: F32,
    bias: F32 | None = None,
    residual: F32 | None = None,
    out: F32 | None = None,
) -> F32:
    c = place(np.full((len(a), b.shape[1]), np.nan) if out is None else out)
    left, right = operand(name, a), packed(name, b)
    mm.matmul(left, right, c, bias, residual, out is not None, precision=name, inner=a.shape[1])
    assert guards_intact(c, left, right)
    return c


def with_terms(product: F32, *terms: F32 | None) -> F32:
    """What is expected of `multiply`: bias, residual and former values added, in this order."""
    for term in terms:
        if term is not None:
            product = product + term
    assert product.dtype == np.float32
    return product
