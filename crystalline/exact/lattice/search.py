"""The slow, exact search that verifies a fast one: rationals only, nothing shared with kernels."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

from crystalline.exact.lattice.basis import LatticeBasis
from crystalline.exact.lattice.certificate import CertificateError
from crystalline.exact.lattice.gso import integral_gram_schmidt


def check_spanned(basis: LatticeBasis, reduced: LatticeBasis, row: Sequence[int]) -> None:
    """Check that both bases span one lattice and that row / denominator is in it.

    CertificateError says what fails.

    >>> basis = LatticeBasis([[2, 0], [0, 2]])
    >>> check_spanned(basis, basis, [1, 0])
    Traceback (most recent call last):
    crystalline.exact.lattice.certificate.CertificateError: the vector is not in the lattice
    """
    if not basis.same_lattice(reduced):
        raise CertificateError("the reduced basis spans another lattice")
    if not reduced.same_lattice(LatticeBasis([*reduced.rows, row], reduced.denominator)):
        raise CertificateError("the vector is not in the lattice")


def nearer_exists(
    rows: Sequence[Sequence[int]],
    target: Sequence[int],
    squared: int,
    *,
    nonzero: bool = False,
) -> bool:
    """Return whether a vector of the lattice is nearer to the target than the root of `squared`.

    rows: independent integers.  With `nonzero`, the zero vector is left out.

    >>> nearer_exists([[2, 0], [0, 3]], [1, 1], 2), nearer_exists([[2, 0], [0, 3]], [1, 1], 3)
    (False, True)
    """
    n = len(rows)
    d, lam = integral_gram_schmidt(tuple(tuple(row) for row in rows))
    norms = [Fraction(d[i + 1], d[i]) for i in range(n)]
    mu = [[Fraction(lam[i][j], d[j + 1]) for j in range(i)] for i in range(n)]
    # <target, b*_j>, by forward substitution
    sums: list[Fraction] = []
    for j in range(n):
        product = Fraction(sum(map(int.__mul__, map(int, target), rows[j])))
        sums.append(product - sum((mu[j][k] * sums[k] for k in range(j)), Fraction(0)))
    center = [s / r for s, r in zip(sums, norms, strict=True)]
    within = sum((c * s for c, s in zip(center, sums, strict=True)), Fraction(0))
    bound = squared - (sum(t * t for t in target) - within)  # what is left inside the span
    x = [0] * n

    def walk(k: int, left: Fraction) -> bool:
        if k < 0:
            return left > 0 and (any(x) or not nonzero)
        middle = center[k] - sum((x[i] * mu[i][k] for i in range(k + 1, n)), Fraction(0))
        ratio = left / norms[k]
        # |x - middle| is below the root of the ratio: an integer reach that is not too small
        reach = isqrt(ratio.numerator // ratio.denominator) + 1
        start = round(middle)
        for value in range(start - reach - 1, start + reach + 2):
            rest = left - (value - middle) ** 2 * norms[k]
            if rest > 0:
                x[k] = value
                if walk(k - 1, rest):
                    return True
        x[k] = 0
        return False

    return bound > 0 and walk(n - 1, bound)
