"""How long the pure embeddings take, against what is asked of 1,000 tokens in three dimensions.

    python -m bench.bench_pure                  a Markdown table
    python -m bench.bench_pure --tokens 10000   of another vocabulary

Token i has the prime number i.  Before anything is timed, the nearest token of 10,000 random points
is compared with exact brute force: squared distances of BigFixedArrays, no tree and no doubles.
The exit status is 1 when something takes longer than it is asked to, or when an answer is wrong.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.exact import BigFixedArray, nth_prime, prime_array
from crystalline.pure import CrystallineEmbeddings

RUNS, QUERIES, SINGLE = 9, 10_000, 200
LARGE = 40  # dimension of the large basis


def embed(count: int, dimension: int = 3) -> CrystallineEmbeddings:
    """Return `count` tokens with the first primes, their places and lattice coordinates."""
    tokens = CrystallineEmbeddings(dimension)
    primes = prime_array(nth_prime(count) + 1).tolist()
    tokens.add_tokens([f"token {i}" for i in range(count)], primes)
    _ = tokens.positions, tokens.lattice_positions
    return tokens


def skewed(dimension: int) -> list[list[int]]:
    """Return a bad basis of the integer lattice: ten random row operations a dimension."""
    rng = random.Random(7)
    rows = [[int(i == j) for j in range(dimension)] for i in range(dimension)]
    for _ in range(10 * dimension):
        i, j = rng.sample(range(dimension), 2)
        factor = rng.choice([-2, -1, 1, 2])
        rows[i] = [a + factor * b for a, b in zip(rows[i], rows[j], strict=True)]
    return rows


def brute_force(positions: BigFixedArray, point: BigFixedArray) -> int:
    """Return the token nearest to a point by all exact squared distances."""
    gaps = positions - point
    return (gaps * gaps).sum(axis=1).argmin()


def median_seconds(call: Callable[[], Any], runs: int = RUNS) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def reduce(tokens: CrystallineEmbeddings, basis: list[list[int]]) -> float:
    """Set a bad basis and reduce it; return the seconds of the reduction with all positions."""
    tokens.set_basis(basis)
    start = time.perf_counter()
    tokens.optimize_basis()
    return time.perf_counter() - start


def wrong_answers(tokens: CrystallineEmbeddings, points: npt.NDArray[np.float64]) -> int:
    """Return how many of points have another nearest token than by brute force."""
    found = tokens.nearest_many(points)
    queries = BigFixedArray.of(points)
    want = [brute_force(tokens.positions, query) for query in queries]
    return int((found != np.array(want)).sum())


def main() -> int:
    """Check, measure, print the table, and say whether all is right and within what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1000, help="how many (default 1000)")
    n = parser.parse_args().tokens
    tokens = embed(n)
    reach = np.abs(tokens.positions.to_floats()).max(axis=0)
    rng = np.random.default_rng(1)
    points = rng.uniform(-1.3 * reach, 1.3 * reach, (QUERIES, 3))
    wrong = wrong_answers(tokens, points)
    print(f"{QUERIES - wrong:,} of {QUERIES:,} nearest tokens are those of exact brute force\n")

    large = embed(n, LARGE)
    pairs = rng.integers(0, n, (100, 2))
    tokens.phase_alignments(pairs)
    fresh = iter(rng.uniform(-reach, reach, (RUNS, SINGLE, 3)))  # never in the cache
    one = BigFixedArray.of(points[0])

    def singles() -> None:
        for point in next(fresh):
            tokens.nearest(point)

    rows: list[tuple[str, float | None, float]] = [
        (f"{n:,} tokens created, 3 dimensions", 1.0, median_seconds(lambda: embed(n))),
        (f"{n:,} tokens created, {LARGE} dimensions", None,
         median_seconds(lambda: embed(n, LARGE), 3)),
        ("basis reduced by LLL, 3 dimensions, all positions anew", 5.0,
         statistics.median(reduce(tokens, skewed(3)) for _ in range(RUNS))),
        (f"basis reduced by LLL, {LARGE} dimensions, all positions anew", 5.0,
         statistics.median(reduce(large, skewed(LARGE)) for _ in range(3))),
        ("nearest token, one by one", 1e-3, median_seconds(singles) / SINGLE),
        (f"nearest token, {QUERIES:,} at once, each", 1e-3,
         median_seconds(lambda: tokens.nearest_many(points)) / QUERIES),
        (f"5 nearest tokens, {QUERIES:,} at once, each", None,
         median_seconds(lambda: tokens.k_nearest_many(points, 5), 3) / QUERIES),
        ("nearest token by exact brute force", None,
         median_seconds(lambda: brute_force(tokens.positions, one))),
        ("100 similarities at once", 10e-3, median_seconds(lambda: tokens.similarities(pairs))),
        ("100 similarities, one by one", 10e-3,
         median_seconds(lambda: [tokens.similarity(a, b) for a, b in pairs])),
        ("100 phase alignments at once", None,
         median_seconds(lambda: tokens.phase_alignments(pairs))),
    ]  # fmt: skip
    print("| piece | time | asked |\n|---|---|---|")
    met = wrong == 0
    for name, at_most, seconds in rows:
        met &= at_most is None or seconds <= at_most
        print(f"| {name} | {seconds * 1e3:.3g} ms | {f'{at_most * 1e3:g} ms' if at_most else ''} |")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
