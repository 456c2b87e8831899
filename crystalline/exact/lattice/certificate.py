"""A certificate of a reduction: what a slow, exact check needs to believe it.

The check shares nothing with the kernels: Python's integers and rationals only.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from crystalline.exact.lattice.basis import LatticeBasis, integer_determinant
from crystalline.exact.lattice.gso import integral_gram_schmidt


class CertificateError(ValueError):
    """A certificate that does not prove what it claims."""


@dataclass(frozen=True)
class Certificate:
    """The claim that `transformation` takes `original` to `reduced`, which is LLL-reduced.

    transformation U [d, d], |det U| = 1: U · original = the zero rows, one for each dependency,
    then the rows of `reduced`, which are linearly independent (None where all rows are zero),
    size-reduced (|mu_ij| <= `eta` for j < i) and satisfy Lovász's condition with `delta`:
    delta |b*_i|^2 <= |b*_(i+1)|^2 + mu_(i+1,i)^2 |b*_i|^2.

    >>> from crystalline.exact.lattice import lll
    >>> certificate = lll([[1, 7], [0, 9]]).certificate()
    >>> certificate.verify()
    >>> len(certificate.transformation), certificate.delta < 1
    (2, True)
    """

    original: LatticeBasis
    reduced: LatticeBasis | None
    transformation: tuple[tuple[int, ...], ...]
    delta: Fraction
    eta: Fraction

    def verify(self) -> None:
        """Check every claim in exact arithmetic; CertificateError names the first that fails."""
        reduced = self.reduced.rows if self.reduced is not None else ()
        size, width = self.original.shape
        u = self.transformation
        if len(u) != size or any(len(row) != size for row in u):
            raise CertificateError(f"the transformation is not of {size} x {size}")
        if abs(integer_determinant(u)) != 1:
            raise CertificateError("the transformation is not unimodular")
        if self.reduced is not None and self.reduced.denominator != self.original.denominator:
            raise CertificateError("the bases have different denominators")
        target = [(0,) * width] * (size - len(reduced)) + list(reduced)
        columns = list(zip(*self.original.rows, strict=True))
        for i, row in enumerate(u):
            if tuple(sum(map(int.__mul__, row, column)) for column in columns) != target[i]:
                raise CertificateError(f"row {i} of the transformation does not give row {i}")
        check_reduced(reduced, self.delta, self.eta)


def check_reduced(rows: tuple[tuple[int, ...], ...], delta: Fraction, eta: Fraction) -> None:
    """Check that integer rows are independent and LLL-reduced; CertificateError names what fails.

    >>> check_reduced(((1, 0), (0, 2)), Fraction(99, 100), Fraction(51, 100))
    >>> check_reduced(((0, 2), (1, 0)), Fraction(99, 100), Fraction(51, 100))
    Traceback (most recent call last):
    crystalline.exact.lattice.certificate.CertificateError: rows 0 and 1 break Lovász's condition
    """
    try:
        d, lam = integral_gram_schmidt(rows)
    except ValueError as error:
        raise CertificateError(str(error)) from None
    for i in range(len(rows)):
        for j in range(i):
            if abs(lam[i][j]) * eta.denominator > d[j + 1] * eta.numerator:
                raise CertificateError(f"row {i} is not size-reduced against row {j}")
    for i in range(len(rows) - 1):
        # delta r_i <= r_(i+1) + mu^2 r_i, times d_i d_(i+1)
        if delta * d[i + 1] ** 2 > d[i + 2] * d[i] + lam[i + 1][i] ** 2:
            raise CertificateError(f"rows {i} and {i + 1} break Lovász's condition")
