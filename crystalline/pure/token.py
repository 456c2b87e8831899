"""A token of the pure system: a text, its number, and what follows from the number.

Where tokens lie with respect to each other is for `embeddings`; which derives from which for
`morphology`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from crystalline.errors import DataError
from crystalline.exact import BigFixed, clock_position, factor
from crystalline.exact.clock import HOURS
from crystalline.pure.coordinates import coordinates, golden_angle

LARGEST_NUMBER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class CrystallineToken:
    """A token: its place in the list, its text, its number and the number's prime factors.

    number: a prime for a root, the product of a root's prime and its affixes' primes for a token
    that derives from the root; from 2 to 2^64 - 1.  factors: its primes, ascending, with
    multiplicity.  coordinates [d]: where it lies, in numbers of 256 bits, 192 of them after the
    point.  angle: its golden angle in radians, from 0 to 2 pi, likewise.

    >>> token = make_token(7, "running", 10, dimension=3)
    >>> token.factors, token.is_root, token.prime, token.symmetry_group, token.clock
    ((2, 5), False, 5, 7, (0, 10))
    >>> [round(float(c), 6) for c in token.coordinates], round(float(token.angle), 6)
    ([2.0, -1.0, 0.423846], 5.150076)
    """

    id: int
    text: str | None
    number: int
    factors: tuple[int, ...]
    coordinates: tuple[BigFixed, ...]
    angle: BigFixed

    @property
    def is_root(self) -> bool:
        """Whether the token derives from no other: its number is a prime."""
        return len(self.factors) == 1

    @property
    def prime(self) -> int:
        """The largest prime factor: a root's own, and for what derives from it the root's.

        (Affixes get smaller primes than roots.)
        """
        return self.factors[-1]

    @property
    def symmetry_group(self) -> int:
        """The one of twelve groups that the token belongs to: id mod 12."""
        return self.id % HOURS

    @property
    def clock(self) -> tuple[int, int]:
        """(ring, hour) of the number on the clock of twelve hours."""
        return clock_position(self.number)


def make_token(
    number_in_list: int,
    text: str | None,
    number: int,
    dimension: int,
    factors: Iterable[int] | None = None,
) -> CrystallineToken:
    """Return the token with everything that follows from its number; `factors` if they are known.

    DataError for a number that is below 2 or above 2^64 - 1.

    >>> make_token(0, "run", 5, 2).is_root
    True
    """
    if not 2 <= number <= LARGEST_NUMBER:
        raise DataError(
            f"token {text!r} has the number {number}",
            advice="Numbers of tokens are primes and products of primes below 2^64.",
        )
    if factors is None:
        factors = (p for p, times in factor(number).items() for _ in range(times))
    primes = tuple(sorted(factors))
    assert math.prod(primes) == number
    place = coordinates(number, dimension)
    return CrystallineToken(number_in_list, text, number, primes, place, golden_angle(number))
