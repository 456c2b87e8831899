"""What this machine can do: the peaks of its cores, and of its caches and memory, measured.

    python bench/peak.py                # on one core, and on all at once
    python bench/peak.py --json FILE    # and the same figures into a file

Every share that `bench/` reports is against these, measured in the same run.  Products: FLOP/s of
multiply-adds on registers only, in every number format.  Memory: bytes that kernels read and write
per second, with what they touch in one of the caches or in none, whole arrays from end to end in
four streams.  "Change" reads and writes back in place; it and "copy" count bytes both ways.

A size is half of what a core has of a cache, so that it stays; "memory" is more than the caches of
small machines, and more than a machine's share of a large one.  It is mapped as training's is, in
small pages that processes share.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
MEMORY_BYTES = 256 << 20  # of a core
L3_IN_L2 = 8  # what is measured as L3 is at most this many times L2: other machines may share it
BOTH_WAYS = ("copy", "change")
LEAST_BYTES = 16 << 20  # between two looks at the clock
DEADLINE_S = 60.0


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


def caches(folder: Path = CACHES) -> dict[str, int]:
    """Return how many bytes of each data cache a core has, "L1" first; none where none are told.

    A cache that several cores share is divided among them.
    """
    sizes = {}
    for index in sorted(folder.glob("index*")):
        kind, level, size, shared = (
            (index / name).read_text().strip()
            for name in ("type", "level", "size", "shared_cpu_list")
        )
        if kind != "Instruction":
            units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
            size_bytes = int(size.rstrip("KMG")) * units.get(size[-1], 1)
            sizes[f"L{level}"] = size_bytes // _members(shared)
    return dict(sorted(sizes.items()))


def _members(cpus: str) -> int:
    """Return how many are in a list of the kernel's.

    >>> _members("0-3,8"), _members("5")
    (5, 1)
    """
    count = 0
    for part in cpus.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def working_sets(cache_bytes: dict[str, int]) -> dict[str, int]:
    """Return the bytes that a core touches to measure each cache, and "memory".

    >>> working_sets({"L1": 48 << 10, "L2": 2 << 20, "L3": 240 << 20})
    {'L1': 24576, 'L2': 1048576, 'L3': 16777216, 'memory': 268435456}
    """
    sets = {name: size // 2 for name, size in cache_bytes.items()}
    if "L3" in sets:
        sets["L3"] = min(sets["L3"], L3_IN_L2 * cache_bytes["L2"])
    return {**sets, "memory": MEMORY_BYTES}


def peak_bandwidth(traffic: str, size_bytes: int, cores: int = 1, seconds: float = 0.1) -> float:
    """Measure bytes/s of `cores` threads, each on `size_bytes` of its own.

    The best of one core, since a peak is what it can do; of several the sum of their medians,
    which is what they get while the others work.
    """
    rates: list[list[float]] = []
    ready = threading.Barrier(cores)

    def work() -> None:
        call, moved = _mover(traffic, size_bytes)
        call()
        ready.wait(timeout=DEADLINE_S)  # broken, and an error, if another thread failed
        mine: list[float] = []
        end = time.perf_counter() + seconds
        while not mine or time.perf_counter() < end:
            began = time.perf_counter()
            call()
            mine.append(moved / (time.perf_counter() - began))
        rates.append(mine)

    threads = [threading.Thread(target=work) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(rates[0]) if cores == 1 else sum(median(mine) for mine in rates)


def _mover(traffic: str, size_bytes: int) -> tuple[Callable[[], None], int]:
    """Return a call that moves what it has some times over, and how many bytes that is."""
    from crystalline._kernels.memory import move

    n = size_bytes // (8 if traffic == "copy" else 4) // 64 * 64
    b = _shared(n)
    a = _shared(n) if traffic == "copy" else b
    moved = 4 * n * (2 if traffic in BOTH_WAYS else 1)
    rounds = -(-LEAST_BYTES // moved)
    return lambda: move(traffic, a, b, rounds), moved * rounds


def _shared(n: int) -> F32:
    array = np.frombuffer(mmap.mmap(-1, 4 * n), np.float32)
    array[:] = 1.0
    return array


def measure(cores: Sequence[int], seconds: float = 0.1) -> dict[str, dict[str, list[float]]]:
    """Return FLOP/s by format, and bytes/s by place and traffic, for each number of cores."""
    from crystalline._kernels.formats import names
    from crystalline._kernels.memory import TRAFFIC

    figures = {"FLOP/s": {p: [peak_flops(c, 3 * seconds, p) for c in cores] for p in names()}}
    for place, size in working_sets(caches()).items():
        figures[place] = {
            traffic: [peak_bandwidth(traffic, size, count, seconds) for count in cores]
            for traffic in TRAFFIC
        }
    return figures


def table(figures: dict[str, dict[str, list[float]]], cores: Sequence[int]) -> str:
    """Return the figures as one table, in GFLOP/s and GB/s."""
    heads = [f"{count} core{'s' if count > 1 else ''}" for count in cores]
    lines = [f"{'':30}" + "".join(f"{head:>12}" for head in heads)]
    for place, rows in figures.items():
        for name, values in rows.items():
            unit = "GFLOP/s" if place == "FLOP/s" else "GB/s"
            label = name if place == "FLOP/s" else f"{place:7}{name}"
            lines.append(f"{label:30}" + "".join(f"{x / 1e9:12,.0f}" for x in values) + f" {unit}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what was printed where --json says."""
    from crystalline._kernels import isa
    from crystalline.machine.cores import usable_cores

    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python bench/peak.py", description=description, epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--seconds", type=float, default=0.1, help="of each measurement")
    options = parser.parse_args(arguments)
    cores = sorted({1, usable_cores()})
    figures = measure(cores, options.seconds)
    print(f"level {isa.level()}\n{table(figures, cores)}")
    if options.json:
        told = {"level": isa.level(), "cores": cores, "caches": caches(), "peaks": figures}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
