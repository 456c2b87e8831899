"""Python integers as limb vectors and back, and numbers at the edges of limbs."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

Limbs = npt.NDArray[np.uint64]

B = 1 << 64


def size(x: int) -> int:
    """Return how many limbs x takes, none for 0."""
    return -(-x.bit_length() // 64)


def limbs(x: int, n: int | None = None) -> Limbs:
    """Return x >= 0 as n limbs, least significant first; as many as it takes without n."""
    n = size(x) if n is None else n
    return np.frombuffer(x.to_bytes(8 * n, "little"), np.uint64).copy()


def number(a: Limbs) -> int:
    """Return the number that limbs are."""
    return int.from_bytes(a.tobytes(), "little")


def room(n: int) -> Limbs:
    """Return n limbs to write to, filled with a pattern that is no result."""
    return np.full(n, 0xDEADBEEFCAFEF00D, np.uint64)


def shaped(rng: random.Random, n: int) -> int:
    """Return a number of exactly n >= 1 limbs, often of a shape that carries far."""
    bits = 64 * n - rng.choice([0, 0, 1, 7, 62, 63])
    shape = rng.randrange(7)
    top = 1 << (bits - 1)
    if shape == 0:
        return (1 << bits) - 1
    if shape == 1:
        return top + rng.randrange(2)
    if shape == 2:  # runs of ones and zeros
        x = 0
        while x.bit_length() < bits:
            run = rng.randrange(1, 150)
            x = x << run | ((1 << run) - 1) * rng.randrange(2)
            x = x or 1
        return x >> (x.bit_length() - bits)
    if shape == 3:
        return top | sum(1 << rng.randrange(bits) for _ in range(3)) & (top - 1)
    return top | rng.getrandbits(bits)
