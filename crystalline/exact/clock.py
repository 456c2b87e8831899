"""The clock of twelve hours: n lies at hour n mod 12 of ring n // 12.

Every prime beyond 3 lies at hour 1, 5, 7 or 11, the residues prime to 12; an hour is an angle of
2 pi hour / 12.
"""

from __future__ import annotations

from typing import Any, Final, SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline.exact import _arguments as arguments
from crystalline.exact import _parts as parts
from crystalline.exact.primes import nth_prime

HOURS: Final = 12
PRIME_HOURS: Final = (1, 5, 7, 11)


def clock_position(n: SupportsIndex) -> tuple[int, int]:
    """Return (ring, hour) of an integer n of any size and sign: n = 12 ring + hour.

    >>> clock_position(97), clock_position(-1)
    ((8, 1), (-1, 11))
    """
    return divmod(arguments.integer("n", n), HOURS)


def clock_number(ring: SupportsIndex, hour: SupportsIndex) -> int:
    """Return the number at `hour` (0 to 11) of `ring`.

    >>> clock_number(8, 1)
    97
    """
    at = arguments.integer("hour", hour, least=0)
    if at >= HOURS:
        raise ValueError(f"hour must be from 0 to 11, not {arguments.short(at)}")
    return HOURS * arguments.integer("ring", ring) + at


def clock_positions(n: Any) -> npt.NDArray[np.uint64]:
    """Return (ring, hour) for an array of integers below 2^64: shape (...) gives (..., 2).

    >>> clock_positions([2, 13, 97]).tolist()
    [[0, 2], [1, 1], [8, 1]]
    """
    numbers = arguments.words("n", n)
    flat = parts.contiguous(numbers).reshape(-1)
    positions = np.empty((flat.size, 2), dtype=np.uint64)
    for part in parts.slices(flat.size):
        positions[part, 0], positions[part, 1] = np.divmod(flat[part], np.uint64(HOURS))
    return positions.reshape(*numbers.shape, 2)


def prime_clock_position(i: SupportsIndex) -> tuple[int, int]:
    """Return (ring, hour) of the i-th prime, counted from 1.

    >>> prime_clock_position(1), prime_clock_position(25)
    ((0, 2), (8, 1))
    """
    return clock_position(nth_prime(i))


def is_prime_hour(n: SupportsIndex) -> bool:
    """Return whether n lies at an hour where primes beyond 3 can be: n is prime to 12.

    >>> [n for n in range(24) if is_prime_hour(n)]
    [1, 5, 7, 11, 13, 17, 19, 23]
    """
    return clock_position(n)[1] in PRIME_HOURS
