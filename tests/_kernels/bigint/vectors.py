"""Limb vectors for tests: to and from int, and the shapes in which carries go wrong."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

Limbs = npt.NDArray[np.uint64]

BASE = 1 << 64
KINDS = ("random", "ones", "sparse", "runs", "top", "one", "zero")


def to_int(a: Limbs) -> int:
    """Return the number that the limbs of `a` are."""
    return int.from_bytes(a.astype("<u8").tobytes(), "little")


def to_limbs(value: int, n: int) -> Limbs:
    """Return `value` in n limbs."""
    return np.frombuffer(value.to_bytes(8 * n, "little"), "<u8").astype(np.uint64)


def vector(kind: str, n: int, seed: int) -> Limbs:
    """Return n limbs of the named shape, the same for the same seed."""
    rng = random.Random(f"{kind} {n} {seed}")
    if kind == "random":
        value = rng.getrandbits(64 * n)
    elif kind == "ones":
        value = BASE**n - 1
    elif kind == "sparse":  # a few bits, mostly at the edges of limbs
        value = 0
        for _ in range(3):
            value |= 1 << min(64 * rng.randrange(n + 1) + rng.choice((-1, 0, 1)), 64 * n - 1) % (
                64 * n
            )
    elif kind == "runs":  # long stretches of ones and of zeros
        value = 0
        for _ in range(4):
            value ^= (1 << rng.randrange(64 * n)) - 1
    elif kind == "top":
        value = BASE**n // 2 + rng.randrange(2)
    elif kind == "one":
        value = 1
    else:
        value = 0
    return to_limbs(value, n)
