"""The exact mathematics against gmpy2, python-flint, fpylll, NumPy and Python, side by side.

    python -m bench.bench_exact                     every row, as a Markdown table
    python -m bench.bench_exact --only integers     one part
    python -m bench.bench_exact --match exp         rows whose name contains a word

One thread; ours and the peer alternate in one run; each row's results are compared before it
is timed.  The exit status is 1 when a row takes longer than it is asked to.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from bench.exact.pairs import measure, table

PARTS = ("integers", "fixed", "arrays", "primes", "lattices")


def main() -> int:
    """Measure the rows that were asked for and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--match", default="", metavar="WORD", help="rows whose name contains it")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of blocks a row (default 9)")
    arguments = parser.parse_args()
    timings = []
    for part in arguments.only:
        for row in importlib.import_module(f"bench.exact.{part}").rows():
            if arguments.match not in row.name:
                continue
            timings.append(measure(row, arguments.pairs))
            print(f"{part}: {row.name}: {timings[-1].ratio:.2f}", file=sys.stderr, flush=True)
    print(table(timings))
    return 0 if all(timing.met for timing in timings) else 1


if __name__ == "__main__":
    sys.exit(main())
