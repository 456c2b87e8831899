"""What a team of threads costs: a barrier, and the start and end of a run, in microseconds.

    python bench/team.py                # 1, 2, 3 and 5 members, and as many as cores
    python bench/team.py --seconds 3    # of each measurement

The median of many runs of 100 stages of two barriers each, less the empty run; and of empty runs,
one after the other and after a pause in which the members fell asleep.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

STAGES = 100
PAUSE_S = 0.002  # longer than members spin


def cost(threads: int, seconds: float) -> tuple[float, float, float]:
    """Return microseconds: a barrier, a run after another, a run after a pause."""
    from crystalline._kernels.team import Team, exercise

    with Team(threads) as team:

        def median(stages: int, pause_s: float = 0.0) -> float:
            taken: list[float] = []
            end = time.perf_counter() + seconds
            while not taken or time.perf_counter() < end:
                if pause_s:
                    time.sleep(pause_s)
                mistakes, once = exercise(team, stages=stages)
                assert mistakes == 0
                taken.append(once)
            return statistics.median(taken) * 1e6

        empty = median(0)
        return (median(STAGES) - empty) / (2 * STAGES), empty, median(0, PAUSE_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    from crystalline.machine.cores import usable_cores

    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python bench/team.py", description=description, epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    options = parser.parse_args(arguments)
    print(f"{usable_cores()} cores\n{'members':>8}{'barrier':>10}{'run':>10}{'woken run':>11}  µs")
    for threads in sorted({1, 2, 3, 5, usable_cores()}):
        barrier, run, woken = cost(threads, options.seconds)
        print(f"{threads:8}{barrier:10.2f}{run:10.2f}{woken:11.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
