"""How long the pieces of a lattice embedding of 1,000 tokens take, against what is asked.

    python -m bench.exact.latency     a Markdown table; exit status 1 when something takes too long

Token i gets the prime number i; its coordinates, exact to 192 bits after the point, are its place
on the Ulam spiral and its direction by the golden angle.  Each piece is checked before it is timed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from crystalline.exact import (
    BigFixedArray,
    gcd_similarity,
    golden_direction,
    nth_prime,
    prime_array,
    spiral_places,
)
from crystalline.exact.lattice import LatticeBasis, lll

TOKENS, RUNS = 1_000, 9


def embed() -> tuple[Any, BigFixedArray]:
    """Return the primes of the tokens and their coordinates [TOKENS, 4]."""
    primes = prime_array(0, nth_prime(TOKENS) + 1)
    places = spiral_places(primes).tolist()
    directions = [golden_direction(int(p), 192) for p in primes]
    rows = [[x, y, *direction] for (x, y), direction in zip(places, directions, strict=True)]
    return primes, BigFixedArray.of(rows)


def nearest(coordinates: BigFixedArray, place: BigFixedArray) -> int:
    """Return the token nearest to a place, by exact squared distances."""
    difference = coordinates - place
    return (difference * difference).sum(axis=1).argmin()


def median_seconds(call: Callable[[], Any]) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> int:
    """Measure, print the table, and say whether all is within what is asked."""
    primes, coordinates = embed()
    assert primes[[0, 1, -1]].tolist() == [2, 3, 7919]
    assert coordinates.shape == (TOKENS, 4)
    assert nearest(coordinates, coordinates[123]) == 123
    # A square basis of token positions and small multiples of them, with fractions of 192 bits.
    basis = LatticeBasis.from_fixed(coordinates[np.array([7, 77, 555, 999])])
    assert lll(basis).basis.same_lattice(basis)
    pairs = np.arange(100)
    rows = [
        ("1,000 tokens placed", 1.0, embed),
        ("their basis reduced by LLL", 5.0, lambda: lll(basis)),
        ("the token nearest to a place", 1e-3, lambda: nearest(coordinates, coordinates[123])),
        ("100 similarities", 10e-3, lambda: gcd_similarity(primes[pairs], primes[pairs + 300])),
    ]
    met = True
    print("| piece | time | asked |\n|---|---|---|")
    for name, at_most, call in rows:
        seconds = median_seconds(call)
        met &= seconds <= at_most
        print(f"| {name} | {seconds * 1e3:.3g} ms | {at_most * 1e3:g} ms |")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
