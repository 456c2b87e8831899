"""The full training step on the whole machine: share of the measured peak, scaling over spheres.

    python3 tools/dev.py bench bench/bench_step.py                    # all of it
    python3 tools/dev.py bench bench/bench_step.py -k "share and small"

A round is: peak of all cores, run, peak of all cores.  Rates are those of a run's second
half (`workloads.steady_rate`).  The share is the run's model FLOPs per
second over the mean of the two peaks around it; the table gives the median over the rounds.
Scaling alternates its worker counts within each round, against 2 spheres in the same round.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from bench.peak import peak_flops
from bench.workloads import WORKLOADS, run, steady_rate, steps_for
from crystalline.ipc.permits import usable_cores
from crystalline.train.stats import Snapshot

SECONDS = 12.0  # of training per run, about
ROUNDS = 3
WORKERS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 63)
CHOSEN = os.environ.get("BENCH_WORKERS")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_share_of_peak(name: str, precision: str, benchmark: Any, tmp_path: Path) -> None:
    """Train with the default 12 spheres between two measurements of the peak."""
    cores = usable_cores()
    steps = steps_for(name, SECONDS, peak_flops(cores, 0.2, precision))
    rows = []

    def round_() -> None:
        before = peak_flops(cores, precision=precision)
        watch: list[Snapshot] = []
        run(name, tmp_path, steps=steps, workers=12, precision=precision, watch=watch)
        peak = (before + peak_flops(cores, precision=precision)) / 2
        rate = steady_rate(watch)
        rows.append((rate * WORKLOADS[name].flops_per_token / peak, rate, peak))

    benchmark.pedantic(round_, rounds=ROUNDS, iterations=1)
    share, rate, peak = (statistics.median(column) for column in zip(*rows, strict=True))
    benchmark.extra_info["tokens/s"] = round(rate)
    benchmark.extra_info["peak GFLOP/s"] = round(peak / 1e9)
    benchmark.extra_info["share of peak"] = round(share, 3)
    benchmark.extra_info["cores"] = cores


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_scaling(name: str, benchmark: Any, tmp_path: Path) -> None:
    """Throughput of each number of spheres over that of 2, in the same round."""
    counts = tuple(map(int, CHOSEN.split(","))) if CHOSEN else WORKERS
    peak = peak_flops(usable_cores(), 0.2)
    ratios: dict[int, list[float]] = {count: [] for count in counts}

    def rate_of(workers: int) -> float:
        watch: list[Snapshot] = []
        steps = steps_for(name, SECONDS / 2, peak, workers)
        run(name, tmp_path, steps=steps, workers=workers, watch=watch)
        return steady_rate(watch)

    def round_() -> None:
        base = rate_of(2)
        for count in counts:
            rate, again = rate_of(count), rate_of(2)
            ratios[count].append(2 * rate / (base + again))
            base = again

    benchmark.pedantic(round_, rounds=ROUNDS, iterations=1)
    for count, values in ratios.items():
        benchmark.extra_info[f"{count} spheres"] = round(statistics.median(values), 3)
