"""The full training step on the whole machine: share of the measured peak, scaling over spheres.

    python3 tools/dev.py bench bench/bench_step.py                    # all of it
    python3 tools/dev.py bench bench/bench_step.py -k "share and small"
    python3 tools/dev.py bench bench/bench_step.py -k "scaling and tiny-63"

A round is: peak of all cores, run, peak of all cores.  Rates are those of a run's second
half (`workloads.steady_rate`).  The share is the run's model FLOPs per
second over the mean of the two peaks around it; the table gives the median over the rounds.
A round of scaling is 2 spheres, the number in question, 2 spheres: throughput is over that of the
two runs around it, efficiency over what the cores that so few spheres can use would give.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

from bench.peak import peak_flops
from bench.workloads import WORKLOADS, barrier_share, run, steady_rate, steps_for
from crystalline.machine.cores import usable_cores
from crystalline.train.stats import Snapshot

SECONDS = 12.0  # of training per run, about
ROUNDS = 3
WORKERS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 63)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_share_of_peak(name: str, precision: str, benchmark: Any, tmp_path: Path) -> None:
    """Train with the default 12 spheres between two measurements of the peak."""
    cores = usable_cores()
    steps = steps_for(name, SECONDS, peak_flops(cores, 0.2, precision))
    rows = []

    def round_() -> None:
        before = peak_flops(cores, precision=precision)
        seen = run(name, tmp_path, steps=steps, workers=12, precision=precision)
        peak = (before + peak_flops(cores, precision=precision)) / 2
        rate = steady_rate(seen)
        rows.append((rate * WORKLOADS[name].flops_per_token / peak, rate, peak))

    benchmark.pedantic(round_, rounds=ROUNDS, iterations=1)
    share, rate, peak = (statistics.median(column) for column in zip(*rows, strict=True))
    benchmark.extra_info["tokens/s"] = round(rate)
    benchmark.extra_info["peak GFLOP/s"] = round(peak / 1e9)
    benchmark.extra_info["share of peak"] = round(share, 3)
    benchmark.extra_info["cores"] = cores


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", ["tiny", "small"])
def test_scaling(name: str, workers: int, benchmark: Any, tmp_path: Path) -> None:
    """Train with some number of spheres between two runs with 2."""
    cores = usable_cores()
    peak = peak_flops(cores, 0.2)
    rows = []

    def watched(workers: int) -> list[Snapshot]:
        steps = steps_for(name, SECONDS / 3, peak, workers)
        return run(name, tmp_path, steps=steps, workers=workers)

    def round_() -> None:
        before, seen, after = (watched(count) for count in (2, workers, 2))
        ratio = 2 * steady_rate(seen) / (steady_rate(before) + steady_rate(after))
        memory = max(sum(sphere.memory_bytes for sphere in now.spheres) for now in seen)
        rows.append((ratio, barrier_share(seen), memory))

    benchmark.pedantic(round_, rounds=ROUNDS, iterations=1)
    ratio, barrier, memory = (statistics.median(column) for column in zip(*rows, strict=True))
    benchmark.extra_info["of 2 spheres"] = round(ratio, 3)
    benchmark.extra_info["efficiency"] = round(ratio * min(2, cores) / min(workers, cores), 3)
    benchmark.extra_info["barrier share"] = round(barrier, 3)
    benchmark.extra_info["PSS of the spheres, MB"] = round(memory / 1e6)
    benchmark.extra_info["cores"] = cores
