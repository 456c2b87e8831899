"""Random bases for the tests of searches: rows as lists of integers, from a seed."""

from __future__ import annotations

import random


def rows_of(n: int, m: int, bits: int, seed: int) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randint(-(2**bits), 2**bits) for _ in range(m)] for _ in range(n)]


def qary(n: int, k: int, q: int, seed: int) -> list[list[int]]:
    generator = random.Random(seed)
    top = [
        [int(i == j) for j in range(k)] + [generator.randrange(q) for _ in range(n - k)]
        for i in range(k)
    ]
    return top + [[0] * k + [q * (i == j) for j in range(n - k)] for i in range(n - k)]
