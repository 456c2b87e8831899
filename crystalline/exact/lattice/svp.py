"""Shortest vectors of a lattice.

LLL and, from dimension 30, block reduction prepare the basis; enumeration finds the vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from crystalline.exact.lattice.ball import Ball
from crystalline.exact.lattice.basis import LatticeBasis, as_basis
from crystalline.exact.lattice.bkz import improve, linear_pruning
from crystalline.exact.lattice.certificate import CertificateError
from crystalline.exact.lattice.lll import lll
from crystalline.exact.lattice.search import check_spanned, nearer_exists

METHODS = ("proved", "fast")
# Block reduction pays once walking the tree takes longer than shaping it; measured on q-ary bases.
BLOCKS_FROM, BLOCK_SIZE, TOURS = 34, 20, 2


@dataclass(frozen=True)
class ShortestVector:
    """A shortest nonzero vector of a lattice, as `shortest_vector` found it.

    `row`: integers over the basis' denominator; `reduced`: the basis that was enumerated;
    `nodes`: how many nodes of its tree were visited.

    >>> found = shortest_vector(LatticeBasis([[2, 0], [1, 2]], denominator=2))
    >>> [abs(x) for x in found.vector], found.squared_norm
    ([Fraction(1, 1), Fraction(0, 1)], Fraction(1, 1))
    """

    basis: LatticeBasis
    row: tuple[int, ...]
    method: str
    reduced: LatticeBasis
    nodes: int

    @property
    def vector(self) -> tuple[Fraction, ...]:
        """The vector itself."""
        return tuple(Fraction(x, self.basis.denominator) for x in self.row)

    @property
    def squared_norm(self) -> Fraction:
        """Its squared Euclidean length, exact."""
        return Fraction(sum(x * x for x in self.row), self.basis.denominator**2)

    def verify(self) -> None:
        """Check in exact arithmetic that the vector is what it claims to be.

        The reduced basis spans the lattice, the vector is a nonzero member, and, for the method
        "proved", a walk over the tree in rationals finds nothing shorter.  CertificateError names
        what fails.  The walk is slow: minutes from about 200,000 nodes.
        """
        if not any(self.row):
            raise CertificateError("the vector is zero")
        check_spanned(self.basis, self.reduced, self.row)
        norm = sum(x * x for x in self.row)
        zero = [0] * len(self.row)
        if self.method == "proved" and nearer_exists(self.reduced.rows, zero, norm, nonzero=True):
            raise CertificateError("there is a shorter vector")


def prepared(basis: Any) -> tuple[LatticeBasis, LatticeBasis]:
    """Return (basis, a reduced basis of the same lattice that suits enumeration).

    ValueError where all rows are zero.
    """
    basis = as_basis(basis)
    reduced = lll(basis).basis
    if len(reduced) >= BLOCKS_FROM:
        reduced = improve(reduced, BLOCK_SIZE, max_tours=TOURS)
    return basis, reduced


def check_method(method: str) -> None:
    """Raise ValueError unless the method is one of METHODS."""
    if method not in METHODS:
        raise ValueError(f"method must be 'proved' or 'fast', not {method!r}")


def shortest_vector(basis: Any, *, method: str = "proved") -> ShortestVector:
    """Return a shortest nonzero vector of a lattice.

    basis: a LatticeBasis or what makes one; rows may be dependent.  "proved" walks the whole tree
    within a bound whose rounding margin is proved (see `crystalline._kernels.lattice.enumerate`)
    and measures in integers: no vector is shorter.  "fast" prunes the tree: the vector is short,
    most often shortest, without a guarantee.  Time grows as 2^O(n^2) in the dimension n: "proved"
    takes milliseconds at 40 and hours at 80.  Ctrl-C ends a long call.

    Source: C. P. Schnorr, M. Euchner, Mathematical Programming 66 (1994).

    >>> found = shortest_vector([[1, 0, 331], [0, 1, 303], [0, 0, 1000]])
    >>> found.row, found.squared_norm
    ((-3, 0, 7), Fraction(58, 1))
    >>> found.verify()
    """
    check_method(method)
    basis, reduced = prepared(basis)
    ball = Ball(reduced.rows)
    pruning = linear_pruning(len(reduced)) if method == "fast" else None
    x, _norm = ball.shortest(pruning)
    row = tuple(sum(map(int.__mul__, x, column)) for column in zip(*reduced.rows, strict=True))
    return ShortestVector(basis, row, method, reduced, ball.enumerator.nodes)
