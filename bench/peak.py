"""What this machine can do: the float32 peak of one core, and of several at once.

    python bench/peak.py            # prints both, with the instruction-set level

Every share that `bench/` reports is against these, measured in the same run.
"""

from __future__ import annotations

import multiprocessing
import os


def _one(seconds: float) -> float:
    from crystalline._kernels import isa

    return isa.fma_flops_per_second(seconds)


def peak_flops(cores: int = 1, seconds: float = 0.3) -> float:
    """Measure the sum over `cores` processes computing at the same time, FLOP/s."""
    if cores == 1:
        return _one(seconds)
    context = multiprocessing.get_context("spawn")
    with context.Pool(cores) as pool:
        pool.map(_one, [0.01] * cores, chunksize=1)  # imports are over before the clocks run
        return sum(pool.map(_one, [seconds] * cores, chunksize=1))


if __name__ == "__main__":
    from crystalline._kernels import isa

    available = len(os.sched_getaffinity(0))
    for count in sorted({1, available}):
        print(f"{isa.level()}  {count} core(s): {peak_flops(count) / 1e9:.0f} GFLOP/s float32")
