"""LLL reduction with a proved result.

Floats guide exact integer row operations in the kernel (Nguyen and Stehlé's L^2 in the form of
Schnorr and Euchner); a rigorous bound of the floats' error then proves the result reduced.  Where
double cannot, quad (113 bits) goes on from where it stopped, and where quad cannot, the integral
algorithm of de Weger, which has no floats at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from crystalline._kernels.lattice import gso
from crystalline._kernels.lattice import lll as kernel
from crystalline._kernels.lattice.basis import IntMatrix
from crystalline.exact.lattice.babai import NearestPlane
from crystalline.exact.lattice.basis import LatticeBasis, as_basis
from crystalline.exact.lattice.certificate import Certificate
from crystalline.exact.lattice.integral import integral_lll

DELTA = 0.99
ETA = 0.51


@dataclass(frozen=True)
class Reduction:
    """What `lll` returns: a basis of the same lattice, proved LLL-reduced at (`delta`, `eta`).

    `reduced` has the independent rows only: `dependencies` rows of the original turned out to be
    combinations of the others (None where all rows are zero).  `transformation` U, where it was
    asked for: U · original = the zero rows, then the reduced rows; its first rows are the
    dependencies.  `proof` names the arithmetic of the proof: "double", "quad" or "exact".
    """

    original: LatticeBasis
    reduced: LatticeBasis | None
    dependencies: int
    delta: Fraction
    eta: Fraction
    deep: bool
    proof: str
    transformation: tuple[tuple[int, ...], ...] | None

    @property
    def basis(self) -> LatticeBasis:
        """The reduced basis; ValueError where the lattice is zero."""
        if self.reduced is None:
            raise ValueError("all rows are zero: the lattice has no basis")
        return self.reduced

    def certificate(self) -> Certificate:
        """Return what a slow check can verify; reduces again where U was not asked for.

        >>> lll(LatticeBasis([[1, 7], [0, 9]])).certificate().verify()
        """
        done = self
        if self.transformation is None:
            done = lll(self.original, self.delta, self.eta, deep=self.deep, transformation=True)
        assert done.transformation is not None
        u = done.transformation
        if self.reduced is not None and self.reduced != done.reduced:
            # Block reduction ends in other rows of the lattice: their coordinates are unimodular,
            # and the nearest plane of a lattice vector is itself, exactly.
            planes = NearestPlane(done.reduced)
            columns = list(zip(*u[self.dependencies :], strict=True))
            lines = [planes.nearest(row).coordinates for row in self.reduced.fractions()]
            u = u[: self.dependencies] + tuple(
                tuple(sum(map(int.__mul__, line, column)) for column in columns) for line in lines
            )
        return Certificate(self.original, self.reduced, u, self.delta, self.eta)


def lll(
    basis: Any,
    delta: float | Fraction = DELTA,
    eta: float | Fraction = ETA,
    *,
    deep: bool = False,
    transformation: bool = False,
    singular: str = "remove",
) -> Reduction:
    """Return an LLL-reduced basis of the same lattice; the argument is left as it is.

    basis: a LatticeBasis or what makes one.  The result is proved to be size-reduced, |mu_ij| <=
    `eta`, and to satisfy Lovász's condition with `delta`; 0.25 < delta < 1, 0.5 <= eta <
    sqrt(delta).  `deep` also inserts a vector as far ahead as it helps (Schnorr and Euchner),
    which shortens the basis and may take exponentially long.  Dependent rows are removed, or a
    ValueError with `singular="error"`.  Ctrl-C ends a long call.

    Source: P. Q. Nguyen and D. Stehlé, SIAM J. Comput. 39 (2009); G. Villard, ISSAC 2007.

    >>> lll([[1, 0, 331], [0, 1, 303], [0, 0, 1000]]).basis.rows
    ((-3, 0, 7), (1, -11, -2), (-10, 1, -7))

    A Merkle-Hellman knapsack broken as J. C. Lagarias and A. M. Odlyzko did (J. ACM 32, 1985;
    with the halves of Coster et al., 1992): the message is a short vector.

    >>> secret = [2, 5, 9, 21, 45, 103, 215, 450, 946, 2005]
    >>> public = [1019 * x % 4019 for x in secret]
    >>> message = [1, 0, 0, 1, 1, 0, 1, 0, 1, 1]
    >>> cipher = sum(x * bit for x, bit in zip(public, message))
    >>> rows = [[2 * (i == j) for j in range(10)] + [64 * x] for i, x in enumerate(public)]
    >>> rows.append([1] * 10 + [64 * cipher])
    >>> found = [row for row in lll(rows).basis.rows if set(map(abs, row[:10])) == {1}]
    >>> message in [[(1 - sign * x) // 2 for x in found[0][:10]] for sign in (1, -1)]
    True
    """
    basis = as_basis(basis)
    exact_delta, exact_eta = _validated(delta, eta)
    if singular not in ("remove", "error"):
        raise ValueError(f"singular must be 'remove' or 'error', not {singular!r}")
    size = len(basis)
    work = basis.matrix.copy()
    u = None
    if transformation:
        u = IntMatrix([[int(i == j) for j in range(size)] for i in range(size)])
    proof = _reduce(work, u, exact_delta, exact_eta, deep)
    if proof == "exact":
        rows, lines = integral_lll(
            work.to_lists(), u.to_lists() if u is not None else None, exact_delta, exact_eta
        )
        work = IntMatrix(rows)
        u = IntMatrix(lines) if lines is not None else None
    zeros = gso.zero_rows(work)
    if zeros and singular == "error":
        raise ValueError(f"{zeros} of the {size} rows of the basis depend on the others")
    reduced = None
    if zeros == 0:
        reduced = LatticeBasis.from_matrix(work, basis.denominator)
    elif zeros < size:
        reduced = LatticeBasis(work.to_lists()[zeros:], basis.denominator)
    matrix = tuple(tuple(row) for row in u.to_lists()) if u is not None else None
    return Reduction(basis, reduced, zeros, exact_delta, exact_eta, deep, proof, matrix)


def _validated(delta: float | Fraction, eta: float | Fraction) -> tuple[Fraction, Fraction]:
    for name, value in (("delta", delta), ("eta", eta)):
        if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
            raise TypeError(f"{name} is {value!r}, expected a number")
        if value != value:
            raise ValueError(f"{name} is {value}")
    if not 0.25 < delta < 1:
        raise ValueError(f"delta must be between 0.25 and 1, not {delta}")
    if not (eta >= 0.5 and eta < 1 and Fraction(eta) ** 2 < Fraction(delta)):
        raise ValueError(f"eta must be at least 0.5 and below sqrt(delta), not {eta}")
    return Fraction(delta), Fraction(eta)


def _reduce(
    work: IntMatrix, u: IntMatrix | None, delta: Fraction, eta: Fraction, deep: bool
) -> str:
    """Reduce in place; return what proved it, "exact" where that is still to be done."""
    # Strive for a little more than is to be proved, so that the proof has room for rounding.
    better_delta = min(float(delta + (1 - delta) / 64), 1 - 2.0**-53)
    better_eta = float((eta + Fraction(1, 2)) / 2)
    for precision in gso.PRECISIONS:
        kernel.reduce(work, better_delta, better_eta, u, deep, precision)
        for proof in gso.PRECISIONS:
            if gso.is_reduced(work, float(delta), float(eta), proof):
                return proof
    return "exact"
