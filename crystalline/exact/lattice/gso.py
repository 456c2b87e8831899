"""Gram-Schmidt orthogonalization of a lattice basis: exact, and in doubles with a proved error.

The exact form keeps integers only (B. M. M. de Weger, "Solving exponential Diophantine equations
using lattice basis reduction algorithms", J. Number Theory 26, 1987; H. Cohen, "A Course in
Computational Algebraic Number Theory", 2.6.3): d_i, the Gram determinant of the first i rows, and
lambda_ij = d_(j+1) mu_ij.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline._kernels.lattice import gso as kernel
from crystalline.exact.lattice.basis import as_basis


class GramSchmidt:
    """The exact Gram-Schmidt data of a basis whose rows are linearly independent.

    `d`: d[0] = 1 and d[i] the Gram determinant of the first i integer rows; `lam`: lam[i][j] =
    d[j + 1] mu_ij for j < i.  Raises ValueError for dependent rows.  O(d^3) products of integers
    as long as the determinants.

    >>> g = GramSchmidt([[2, 0], [1, 3]])
    >>> g.d, g.lam, g.mu(1, 0), g.squared_norm(1)
    ((1, 4, 36), ((), (2,)), Fraction(1, 2), Fraction(9, 1))
    """

    __slots__ = ("basis", "d", "lam")

    def __init__(self, basis: Any) -> None:
        self.basis = as_basis(basis)
        d, lam = integral_gram_schmidt(self.basis.rows)
        self.d = tuple(d)
        self.lam = tuple(tuple(row) for row in lam)

    def mu(self, i: int, j: int) -> Fraction:
        """Return mu_ij = <b_i, b*_j> / |b*_j|^2 for j < i."""
        return Fraction(self.lam[i][j], self.d[j + 1])

    def squared_norm(self, i: int) -> Fraction:
        """Return |b*_i|^2, in the scale of the lattice (integers over the denominator)."""
        return Fraction(self.d[i + 1], self.d[i] * self.basis.denominator**2)

    def project(self, vector: Sequence[int]) -> list[int]:
        """Return lambda_j = d[j + 1] <vector, b*_j> / |b*_j|^2 for every j: integers.

        `vector` has integer entries, and so have the rows that it is projected on.

        >>> GramSchmidt([[2, 0], [1, 3]]).project([1, 1])
        [2, 12]
        """
        products = [sum(map(int.__mul__, vector, row)) for row in self.basis.rows]
        return _eliminate(products, self.d, self.lam)


def integral_gram_schmidt(rows: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Return d and lambda of integer rows; ValueError where rows are dependent.

    >>> integral_gram_schmidt([[1, 1], [1, 2]])
    ([1, 2, 1], [[], [3]])
    """
    d = [1]
    lam: list[list[int]] = []
    for i, row in enumerate(rows):
        products = [sum(map(int.__mul__, row, other)) for other in rows[: i + 1]]
        line = _eliminate(products, d, lam)
        if line[i] == 0:
            raise ValueError(f"row {i} of the basis depends on the rows before it")
        lam.append(line[:i])
        d.append(line[i])
    return d, lam


def _eliminate(products: list[int], d: Sequence[int], lam: Sequence[Sequence[int]]) -> list[int]:
    """Turn inner products with rows 0, 1, ... into lambda, by fraction-free elimination."""
    line: list[int] = []
    for j, value in enumerate(products):
        row = lam[j] if j < len(lam) else line
        for k in range(j):
            value = (d[k + 1] * value - line[k] * row[k]) // d[k]
        line.append(value)
    return line


@dataclass(frozen=True)
class FloatGramSchmidt:
    """Gram-Schmidt data in doubles, and a proved bound of their error.

    The true triangular factor of the Gram matrix is (I + P) times the one that mu and r make up,
    P upper triangular with a Frobenius norm of at most `error`, beside the rounding to double:
    r, for one, is off by at most 2 error + error^2 relatively.

    >>> g = float_gram_schmidt([[3, 0], [1, 5]])
    >>> g.r * 4.0**g.exponent, g.precision
    (array([ 9., 25.]), 'double')
    """

    mu: npt.NDArray[np.float64]  # mu[d, d]: unit lower triangle
    r: npt.NDArray[np.float64]  # r[d]: |b*_i|^2 / 4^exponent
    exponent: int
    error: float
    precision: str  # "double", "quad" or "exact": what the proof needed


def float_gram_schmidt(basis: Any, max_error: float = 1e-6) -> FloatGramSchmidt:
    """Return Gram-Schmidt data in doubles, of the integer rows, proved to `max_error`.

    Computed in double, where that does not reach the bound in quad (113 bits), where that does not
    exactly.  Raises ValueError for dependent rows, OverflowError where mu is beyond double.

    >>> g = float_gram_schmidt([[2, 0], [1, 3]])
    >>> g.mu[1, 0], g.r * 4.0**g.exponent, g.error < 1e-12, g.precision
    (np.float64(0.5), array([4., 9.]), True, 'double')
    """
    if not max_error > 0:
        raise ValueError(f"max_error must be positive, not {max_error}")
    basis = as_basis(basis)
    size = len(basis)
    for precision in kernel.PRECISIONS:
        lower, r, exponents, error = kernel.gram_schmidt(basis.matrix, precision)
        if error <= max_error:
            break
    else:
        return _rounded(GramSchmidt(basis))
    exponent = max(exponents, default=0)
    mu = np.eye(size)
    for i, line in enumerate(lower):
        for j, value in enumerate(line):
            mu[i, j] = math.ldexp(value, exponents[i] - exponents[j])
    norms = [math.ldexp(x, 2 * (e - exponent)) for x, e in zip(r, exponents, strict=True)]
    return FloatGramSchmidt(mu, np.array(norms), exponent, error, precision)


def _rounded(exact: GramSchmidt) -> FloatGramSchmidt:
    size, exponent = len(exact.basis), exact.basis.bits
    mu = np.eye(size)
    for i in range(size):
        mu[i, :i] = [float(exact.mu(i, j)) for j in range(i)]
    scale = 4**exponent
    r = [float(Fraction(exact.d[i + 1], exact.d[i] * scale)) for i in range(size)]
    return FloatGramSchmidt(mu, np.array(r), exponent, 0.0, "exact")
