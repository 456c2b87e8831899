"""LLL in integers alone: the last resort of `lll`, where floats of any precision in use fail.

After B. M. M. de Weger (1987) and H. Cohen, "A Course in Computational Algebraic Number Theory",
algorithm 2.6.7, with the dependencies of M. Pohst's MLLL removed first.  Exact and slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from crystalline.exact.lattice.gso import integral_gram_schmidt

_Rows = list[list[int]]


def integral_lll(
    rows: Sequence[Sequence[int]],
    u: Sequence[Sequence[int]] | None,
    delta: Fraction,
    eta: Fraction,
) -> tuple[_Rows, _Rows | None]:
    """Return reduced rows, zero rows first, and `u` after the same operations.

    >>> integral_lll([[4, 1], [2, 3], [6, 4]], None, Fraction(3, 4), Fraction(1, 2))[0]
    [[0, 0], [2, -2], [2, 3]]
    """
    width = len(rows[0])
    lines = [[*row, *(u[i] if u is not None else ())] for i, row in enumerate(rows)]
    zero: _Rows = []
    if not _are_independent(lines, width):
        zero, lines = _independent(lines, width)
    if lines:
        _reduce(lines, width, delta, eta)
    both = zero + lines
    return [row[:width] for row in both], [row[width:] for row in both] if u is not None else None


def _independent(lines: _Rows, width: int) -> tuple[_Rows, _Rows]:
    """Part rows into zero rows and independent rows of the same lattice, by row operations."""
    kept: _Rows = []
    zero: _Rows = []
    for line in lines:
        kept.append(line)
        if not _are_independent(kept, width):
            zero.append(_echelon(kept, width))
    return zero, kept


def _are_independent(lines: _Rows, width: int) -> bool:
    try:
        integral_gram_schmidt([line[:width] for line in lines])
    except ValueError:
        return False
    return True


def _echelon(kept: _Rows, width: int) -> list[int]:
    """Take the one zero row that a dependency makes out of `kept`."""
    top = 0
    for column in range(width):
        while True:
            below = [i for i in range(top, len(kept)) if kept[i][column]]
            if not below:
                break
            least = min(below, key=lambda i: abs(kept[i][column]))
            kept[top], kept[least] = kept[least], kept[top]
            if len(below) == 1:
                top += 1
                break
            for i in range(top + 1, len(kept)):
                factor = kept[i][column] // kept[top][column]
                if factor:
                    kept[i] = [x - factor * y for x, y in zip(kept[i], kept[top], strict=True)]
    return kept.pop()


def _reduce(lines: _Rows, width: int, delta: Fraction, eta: Fraction) -> None:
    """Reduce independent rows in place."""
    d, lam = integral_gram_schmidt([line[:width] for line in lines])

    def shrink(k: int, j: int) -> None:
        if abs(lam[k][j]) * eta.denominator <= d[j + 1] * eta.numerator:
            return
        factor = (2 * lam[k][j] + d[j + 1]) // (2 * d[j + 1])
        lines[k] = [x - factor * y for x, y in zip(lines[k], lines[j], strict=True)]
        lam[k][j] -= factor * d[j + 1]
        for i in range(j):
            lam[k][i] -= factor * lam[j][i]

    k = 1
    while k < len(lines):
        shrink(k, k - 1)
        head = lam[k][k - 1]
        rest = d[k + 1] * d[k - 1] + head * head
        if delta.numerator * d[k] ** 2 <= delta.denominator * rest:
            for j in range(k - 2, -1, -1):
                shrink(k, j)
            k += 1
            continue
        # swap rows k - 1 and k
        lines[k - 1], lines[k] = lines[k], lines[k - 1]
        lam[k - 1][: k - 1], lam[k][: k - 1] = lam[k][: k - 1], lam[k - 1][: k - 1]
        fresh = rest // d[k]
        for i in range(k + 1, len(lines)):
            old = lam[i][k]
            lam[i][k] = (d[k + 1] * lam[i][k - 1] - head * old) // d[k]
            lam[i][k - 1] = (fresh * old + head * lam[i][k]) // d[k + 1]
        d[k] = fresh
        k = max(1, k - 1)
