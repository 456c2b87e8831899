"""Fixed-width fixed-point numbers as Python integers: the slow twin of BigFixedArray."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Limbs = npt.NDArray[np.uint64]


def limbs_of(mantissas: Sequence[int], limbs: int) -> Limbs:
    """Return integers as two's complement uint64 [n, limbs]."""
    data = b"".join(m.to_bytes(8 * limbs, "little", signed=True) for m in mantissas)
    return np.frombuffer(data, np.uint64).reshape(len(mantissas), limbs).copy()


def mantissas_of(limbs: Limbs) -> list[int]:
    """Return uint64 [n, limbs] as integers."""
    return [int.from_bytes(row.tobytes(), "little", signed=True) for row in limbs]


def fits(mantissa: int, width_bits: int) -> bool:
    """Return whether an integer is one of two's complement of that width."""
    return -(1 << (width_bits - 1)) <= mantissa < 1 << (width_bits - 1)


def expected(exact: Sequence[Fraction | int], width_bits: int) -> tuple[int, list[int]]:
    """Return the first index that does not fit (or n), and the roundings before it."""
    rounded = [round(x) for x in exact]
    for i, m in enumerate(rounded):
        if not fits(m, width_bits):
            return i, rounded[:i]
    return len(rounded), rounded


def operands(
    seed: int, n: int, width_bits: int, top: Callable[[random.Random], int] | None = None
) -> list[int]:
    """Return n integers of the width: all sizes, both signs, extremes, sparse and all-ones."""
    rng = random.Random(seed)
    least, largest = -(1 << (width_bits - 1)), (1 << (width_bits - 1)) - 1
    special = [0, 1, -1, 2, -3, largest, least, largest - 1, least + 1, -(1 << 52), (1 << 52) - 1]
    special += [(1 << 63) - 1, -(1 << 64) + 1] if width_bits > 64 else []
    values = []
    for i in range(n):
        if i < len(special) and top is None:
            values.append(special[i])
            continue
        bits = top(rng) if top else rng.randrange(width_bits)
        value = rng.getrandbits(bits) if bits > 0 else 0
        if rng.random() < 0.2:  # long runs of ones
            value |= (1 << max(bits - 3, 0)) - 1
        if rng.random() < 0.2:  # and of zeros
            value &= ~((1 << (2 * bits // 3)) - 1)
        values.append(-value if rng.random() < 0.5 else value)
    return values
