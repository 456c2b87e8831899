"""Lattice reduction over again, in rationals and as in the textbook; and families of bases."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import flint

Rows = list[list[int]]


def inner(a: Sequence[Fraction | int], b: Sequence[Fraction | int]) -> Fraction:
    return sum((Fraction(x) * y for x, y in zip(a, b, strict=True)), Fraction(0))


def gram_schmidt(rows: Sequence[Sequence[int]]) -> tuple[list[list[Fraction]], list[Fraction]]:
    """(mu, squared norms of b*), by the definition; mu against a zero vector is 0."""
    stars: list[list[Fraction]] = []
    norms: list[Fraction] = []
    mu: list[list[Fraction]] = []
    for row in rows:
        star = [Fraction(x) for x in row]
        line = []
        for other, norm in zip(stars, norms, strict=True):
            factor = inner(row, other) / norm if norm else Fraction(0)
            star = [x - factor * y for x, y in zip(star, other, strict=True)]
            line.append(factor)
        stars.append(star)
        norms.append(inner(star, star))
        mu.append(line)
    return mu, norms


def is_reduced(rows: Sequence[Sequence[int]], delta: Fraction, eta: Fraction) -> bool:
    mu, norms = gram_schmidt(rows)
    if any(abs(x) > eta for line in mu for x in line):
        return False
    return all(
        norms[i] > 0 and norms[i + 1] >= (delta - mu[i + 1][i] ** 2) * norms[i]
        for i in range(len(rows) - 1)
    )


def lll(rows: Sequence[Sequence[int]], delta: Fraction = Fraction(99, 100)) -> Rows:
    """The algorithm of Lenstra, Lenstra and Lovász, with everything computed anew each time."""
    b = [list(row) for row in rows]
    k = 1
    while k < len(b):
        for j in range(k - 1, -1, -1):
            factor = round(gram_schmidt(b[: k + 1])[0][k][j])
            b[k] = [x - factor * y for x, y in zip(b[k], b[j], strict=True)]
        mu, norms = gram_schmidt(b[: k + 1])
        if norms[k] >= (delta - mu[k][k - 1] ** 2) * norms[k - 1]:
            k += 1
        else:
            b[k - 1], b[k] = b[k], b[k - 1]
            k = max(1, k - 1)
    return b


def hermite(rows: Sequence[Sequence[int]]) -> Rows:
    """FLINT's Hermite normal form without zero rows: equal for equal lattices."""
    form = flint.fmpz_mat([list(row) for row in rows]).hnf()
    return [[int(x) for x in row] for row in form.tolist() if any(int(x) for x in row)]


# Families, each a function of a random generator


def uniform(rng: random.Random, d: int, n: int, bits: int) -> Rows:
    return [[rng.randrange(-(1 << bits), 1 << bits) for _ in range(n)] for _ in range(d)]


def knapsack(rng: random.Random, d: int, bits: int) -> Rows:
    return [[rng.getrandbits(bits), *(int(i == j) for j in range(d))] for i in range(d)]


def qary(rng: random.Random, d: int, bits: int) -> Rows:
    q, half = rng.getrandbits(bits) | 1 << (bits - 1) | 1, d // 2
    top = [
        [int(i == j) for j in range(half)] + [rng.randrange(q) for _ in range(d - half)]
        for i in range(half)
    ]
    return top + [[0] * half + [q * (i == j) for j in range(d - half)] for i in range(d - half)]


def ntru(rng: random.Random, n: int, q: int) -> Rows:
    h = [rng.randrange(q) for _ in range(n)]
    top = [[int(i == j) for j in range(n)] + [h[(j - i) % n] for j in range(n)] for i in range(n)]
    return top + [[0] * n + [q * (i == j) for j in range(n)] for i in range(n)]


def dependent(rng: random.Random, d: int, n: int, rank: int, bits: int) -> Rows:
    base, mix = uniform(rng, rank, n, bits), uniform(rng, d, rank, 8)
    return [
        [sum(x * row[c] for x, row in zip(line, base, strict=True)) for c in range(n)]
        for line in mix
    ]


def graded(rng: random.Random, d: int, step: int) -> Rows:
    """Rows whose Gram-Schmidt norms grow by 2^step each, mixed by a unimodular matrix."""
    rows = [[(1 << (step * i)) * (i == j) for j in range(d)] for i in range(d)]
    for _ in range(3 * d):
        i, j = rng.sample(range(d), 2)
        factor = rng.randrange(-9, 10)
        rows[i] = [x + factor * y for x, y in zip(rows[i], rows[j], strict=True)]
    return rows


def nearly_dependent(rng: random.Random, d: int, bits: int) -> Rows:
    """Every row is the first, up to one in an entry of its own."""
    first = [rng.getrandbits(bits) for _ in range(d)]
    return [[x + (i == j) * i for j, x in enumerate(first)] for i in range(d)]


FAMILIES: dict[str, Callable[[random.Random], Rows]] = {
    "uniform 12x12, 40 bits": lambda rng: uniform(rng, 12, 12, 40),
    "uniform 20x20, 100 bits": lambda rng: uniform(rng, 20, 20, 100),
    "wide 7x15, 64 bits": lambda rng: uniform(rng, 7, 15, 64),
    "tall 9x4, 20 bits": lambda rng: uniform(rng, 9, 4, 20),
    "one row": lambda rng: uniform(rng, 1, 5, 70),
    "two rows, 63 bits": lambda rng: uniform(rng, 2, 2, 63),
    "three rows, 64 bits": lambda rng: uniform(rng, 3, 3, 64),
    "three rows, 10,000 bits": lambda rng: uniform(rng, 3, 3, 10_000),
    "knapsack 15, 128 bits": lambda rng: knapsack(rng, 15, 128),
    "knapsack 6, 2,000 bits": lambda rng: knapsack(rng, 6, 2000),
    "q-ary 20, 30 bits": lambda rng: qary(rng, 20, 30),
    "ntru 2 x 11": lambda rng: ntru(rng, 11, 2048),
    "dependent 10x8, rank 5": lambda rng: dependent(rng, 10, 8, 5, 50),
    "dependent 6x6, rank 1": lambda rng: dependent(rng, 6, 6, 1, 90),
    "orthogonal": lambda rng: [
        [rng.randrange(1, 99) * (i == j) for j in range(9)] for i in range(9)
    ],
    "graded 8, 30 bits a step": lambda rng: graded(rng, 8, 30),
    "graded 6, 300 bits a step": lambda rng: graded(rng, 6, 300),
    "nearly dependent 8, 120 bits": lambda rng: nearly_dependent(rng, 8, 120),
    "zero rows between": lambda rng: [[0, 0, 0], *uniform(rng, 2, 3, 30), [0, 0, 0]],
    "all zero": lambda _: [[0, 0], [0, 0]],
}
