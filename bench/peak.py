"""What this machine can do: the float32 and bf16 peaks of one core, and of several at once.

    python bench/peak.py            # prints both, with the instruction-set level

Every share that `bench/` reports is against these, measured in the same run.
"""

from __future__ import annotations

import multiprocessing
import os


def _one(seconds: float, precision: str) -> float:
    from crystalline._kernels.formats import flops_per_second

    return flops_per_second(precision, seconds)


def peak_flops(cores: int = 1, seconds: float = 0.3, precision: str = "float32") -> float:
    """Measure the sum over `cores` processes computing at the same time, FLOP/s."""
    if cores == 1:
        return _one(seconds, precision)
    context = multiprocessing.get_context("spawn")
    with context.Pool(cores) as pool:
        # Imports are over before the clocks run.
        pool.starmap(_one, [(0.01, precision)] * cores, chunksize=1)
        return sum(pool.starmap(_one, [(seconds, precision)] * cores, chunksize=1))


if __name__ == "__main__":
    from crystalline._kernels import isa

    available = len(os.sched_getaffinity(0))
    for count in sorted({1, available}):
        for precision in ("float32", "bf16"):
            peak = peak_flops(count, precision=precision)
            print(f"{isa.level()}  {count} core(s): {peak / 1e9:.0f} GFLOP/s {precision}")
