"""Shortest and closest lattice vectors by exact rational enumeration: slow, and no float in it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

Rational = int | Fraction


def orthogonalize(
    rows: Sequence[Sequence[int]],
) -> tuple[list[list[Fraction]], list[Fraction], list[list[Fraction]]]:
    """Return mu, the squared norms, and the orthogonalized rows themselves, as fractions."""
    stars: list[list[Fraction]] = []
    norms: list[Fraction] = []
    mu: list[list[Fraction]] = []
    for row in rows:
        star = [Fraction(x) for x in row]
        line = []
        for other, norm in zip(stars, norms, strict=True):
            m = sum((x * y for x, y in zip(row, other, strict=True)), Fraction(0)) / norm
            star = [s - m * o for s, o in zip(star, other, strict=True)]
            line.append(m)
        mu.append(line)
        stars.append(star)
        norms.append(sum((s * s for s in star), Fraction(0)))
        assert norms[-1] > 0, "the oracle needs independent rows"
    return mu, norms, stars


def closest(
    rows: Sequence[Sequence[int]], target: Sequence[Rational], *, nonzero: bool = False
) -> Fraction:
    """Return the least squared distance of a lattice vector from the target.

    With `nonzero`, the zero vector does not count: a target of zeros then gives the squared
    length of a shortest vector.
    """
    n = len(rows)
    mu, norms, stars = orthogonalize(rows)
    t = [Fraction(x) for x in target]
    coordinates = [
        sum((a * b for a, b in zip(t, star, strict=True)), Fraction(0)) / norm
        for star, norm in zip(stars, norms, strict=True)
    ]
    outside = sum((a * a for a in t), Fraction(0)) - sum(
        (c * c * r for c, r in zip(coordinates, norms, strict=True)), Fraction(0)
    )
    best = Fraction(min(sum(x * x for x in row) for row in rows)) - outside if nonzero else None
    x = [0] * n

    def walk(k: int, used: Fraction) -> None:
        nonlocal best
        if k < 0:
            if nonzero and not any(x):
                return
            if best is None or used < best:
                best = used
            return
        center = coordinates[k] - sum((x[i] * mu[i][k] for i in range(k + 1, n)), Fraction(0))
        nearest = round(center)
        reach = 0
        while True:
            candidates = {nearest - reach, nearest + reach}
            alive = False
            for value in sorted(candidates, key=lambda v: abs(v - center)):
                total = used + (value - center) ** 2 * norms[k]
                if best is not None and total >= best:
                    continue
                alive = True
                x[k] = value
                walk(k - 1, total)
            x[k] = 0
            if not alive and best is not None:
                return
            reach += 1

    walk(n - 1, Fraction(0))
    assert best is not None
    return best + outside
