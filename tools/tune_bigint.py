#!/usr/bin/env python3
"""Measure where one exact algorithm overtakes another, and write the table of thresholds.

    python3 tools/tune_bigint.py                         every level of this machine, as a report
    python3 tools/tune_bigint.py --write                 the same, into primitives/tuning.h
    python3 tools/tune_bigint.py --only toom3 --levels avx512ifma

A threshold is measured at one size after the other: the operation with the threshold at that
size, so that the upper algorithm takes the first step and the lower one the rest, against the
same with the upper algorithm forbidden.  Both alternate, and the median of the ratios counts.
The threshold that loses least over all sizes is taken.  Thresholds are measured in the order
of MEASURES, each with those before it in force.

To measure a new threshold, add an entry to MEASURES (and see tuning.h).  Rebuild after --write.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from crystalline._kernels import exact_isa, isa  # noqa: E402
from crystalline._kernels.bigint import div, gcd, mul, powmod, radix, tuning  # noqa: E402

TABLE = ROOT / "crystalline" / "_kernels" / "primitives" / "tuning.h"
NEVER = 10**9
BLOCK_S = 4e-4  # the shortest stretch that is timed at once
PAIRS = 7

Operation = Callable[[], object]


@dataclass(frozen=True)
class Measure:
    """One threshold: its name, what makes the operation at n limbs, and the sizes to look at.

    `levels` are those whose kernels differ; elsewhere the value in the table stays.
    """

    name: str
    prepare: Callable[[int], Operation]
    low: int
    high: int
    levels: tuple[str, ...] = exact_isa.LEVELS


def _random(n: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    limbs = np.random.default_rng(n).integers(0, 2**64, n, np.uint64)
    limbs[-1] |= np.uint64(1 << 63)
    return limbs


def _product(n: int) -> Operation:
    a, b = _random(n), _random(n)[::-1].copy()
    times = max(1, 20_000 // (n * n))
    return lambda: mul.multiply(a, b, times)


def _long_product(n: int) -> Operation:
    a, b = _random(16 * n), _random(n)
    return lambda: mul.multiply(a, b)


def _square(n: int) -> Operation:
    a = _random(n)
    times = max(1, 20_000 // (n * n))
    return lambda: mul.multiply(a, a, times)


def _division(n: int) -> Operation:
    a, b = _random(2 * n), _random(n)
    q, r = np.empty(n + 1, np.uint64), np.empty(n, np.uint64)
    return lambda: div.divrem(q, r, a, b)


def _to_digits(n: int) -> Operation:
    a = _random(n)
    return lambda: radix.to_digits(a, 10)


def _to_digits_of_two(n: int) -> Operation:
    return _to_digits(2 * n + n // 4)  # so that it is divided by a power of n limbs or more


def _from_digits(n: int) -> Operation:
    digits = radix.to_digits(_random(n), 10)
    r = np.empty(radix.room_for_digits(len(digits), 10), np.uint64)
    return lambda: radix.from_digits(r, digits, 10)


def _divisor(n: int) -> Operation:
    a, b, g = _random(n), _random(n)[::-1].copy(), np.empty(n, np.uint64)
    b[-1] |= np.uint64(1 << 63)
    return lambda: gcd.gcd(g, a, b)


def _divisor_of_three(n: int) -> Operation:
    return _divisor(3 * n)  # whose first half-gcd is of n limbs


def _power(n: int) -> Operation:
    modulus, r = _random(n), np.empty(n, np.uint64)
    modulus[0] |= np.uint64(1)
    base = modulus[::-1].copy()
    return lambda: powmod.powmod(r, base, modulus[:3], modulus)


MEASURES = (
    Measure("vector", _product, 2, 64, ("avx512ifma",)),
    Measure("sqr_vector", _square, 2, 64, ("avx512ifma",)),
    Measure("karatsuba", _product, 8, 512),
    Measure("sqr_karatsuba", _square, 8, 512),
    Measure("toom3", _product, 40, 1500),
    Measure("sqr_toom3", _square, 40, 1500),
    Measure("ntt", _product, 50, 12_000),
    Measure("ntt_long", _long_product, 30, 1500),
    Measure("sqr_ntt", _square, 50, 12_000),
    Measure("div_recursive", _division, 8, 400),
    Measure("div_newton", _division, 200, 20_000),
    Measure("to_digits", _to_digits, 4, 200),
    Measure("from_digits", _from_digits, 4, 400),
    Measure("to_digits_reciprocal", _to_digits_of_two, 40, 8000),
    Measure("hgcd", _divisor_of_three, 30, 400),
    Measure("gcd_hgcd", _divisor, 60, 1500),
    Measure("redc_products", _power, 8, 300),
)


def sizes_of(measure: Measure) -> list[int]:
    """Return the sizes to measure, each about an eighth above the one before."""
    sizes = [measure.low]
    while (size := max(sizes[-1] + 1, sizes[-1] * 9 // 8)) <= measure.high:
        sizes.append(size)
    return sizes


def ratio_at(operation: Operation, name: str, size: int) -> float:
    """Return the time with the algorithm in its first step, over the time without it."""
    with tuning.forced(**{name: NEVER}):
        calls, elapsed = 1, _seconds(operation, 1)
        while elapsed < BLOCK_S:
            calls *= 2
            elapsed = _seconds(operation, calls)
    ratios = []
    for _ in range(PAIRS):
        with tuning.forced(**{name: size}):
            upper = _seconds(operation, calls)
        with tuning.forced(**{name: NEVER}):
            ratios.append(upper / _seconds(operation, calls))
    return statistics.median(ratios)


def _seconds(operation: Operation, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        operation()
    return time.perf_counter() - start


def best_threshold(sizes: Sequence[int], ratios: Sequence[float]) -> int:
    """Return the size from which the upper algorithm is to be taken, NEVER if none does.

    `ratios` are upper over lower; what a threshold loses is the sum of the logarithms of the
    ratios on its wrong side.

    >>> best_threshold([10, 20, 30, 40], [1.2, 0.99, 1.01, 0.8])
    20
    >>> best_threshold([10, 20], [1.1, 1.2])
    1000000000
    """

    def loss(first: int) -> float:
        logs = [math.log(ratio) for ratio in ratios]
        return sum(max(0.0, -log) for log in logs[:first]) + sum(
            max(0.0, log) for log in logs[first:]
        )

    first = min(range(len(sizes) + 1), key=loss)
    return sizes[first] if first < len(sizes) else NEVER


def measure_here(names: Sequence[str]) -> dict[str, int]:
    """Measure the named thresholds at the level in use; curves go to standard error."""
    found: dict[str, int] = {}
    level = exact_isa.level()
    for measure in MEASURES:
        if measure.name not in names or level not in measure.levels:
            continue
        sizes, ratios = sizes_of(measure), []
        print(f"{level}: {measure.name}", file=sys.stderr, end="", flush=True)
        forbidden = {
            later.name: NEVER
            for later in MEASURES[MEASURES.index(measure) + 1 :]
            if later.prepare is measure.prepare and later.name in names
        }
        with tuning.forced(**forbidden | found):
            for n in sizes:
                ratios.append(ratio_at(measure.prepare(n), measure.name, n))
                print(f"  {n}: {ratios[-1]:.2f}", file=sys.stderr, end="", flush=True)
                if len(ratios) >= 6 and max(ratios[-6:]) < 0.8:  # decided
                    break
        found[measure.name] = best_threshold(sizes[: len(ratios)], ratios)
        print(f"  -> {found[measure.name]}", file=sys.stderr, flush=True)
    return found


def measure_at(level: str, names: Sequence[str]) -> dict[str, int]:
    """Measure in a process of its own, since a level is chosen at import."""
    variable = level if level in isa.LEVELS else ""
    command = [sys.executable, __file__, "--here", "--only", *names]
    done = subprocess.run(
        command,
        env=os.environ | {isa.ENVIRONMENT_VARIABLE: variable},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def levels_here() -> list[str]:
    """Return the exact levels that this machine has, lowest first."""
    highest = exact_isa.level()
    return [*exact_isa.LEVELS[: exact_isa.LEVELS.index(highest) + 1]]


def rewritten(table: str, found: dict[str, dict[str, int]], machine: str) -> str:
    """Return the text of tuning.h with the new values, levels that were not measured untouched.

    >>> line = "* Measured on: x.\\n X(ntt, 1, 2, 3, 4) \\\\"
    >>> rewritten(line, {"avx2": {"ntt": 500}}, "a machine")
    '* Measured on: a machine.\\n X(ntt, 1, 500, 3, 4) \\\\'
    """

    def line(match: re.Match[str]) -> str:
        name, *values = re.split(r", ", match[1])
        for i, level in enumerate(exact_isa.LEVELS):
            if name in found.get(level, {}):
                values[i] = str(found[level][name])
        text = f"X({', '.join([name, *values])})"
        return text + (" " * max(1, len(match[0]) - 1 - len(text)) + "\\" if match[2] else "")

    table = re.sub(r"X\((\w+(?:, \d+)+)\)( *\\)?", line, table)
    return re.sub(r"(Measured on: )[^\n]*", rf"\g<1>{machine}.", table)


def machine_name() -> str:
    """Return what the CPU calls itself, with family and model, and the month."""
    text = Path("/proc/cpuinfo").read_text("utf-8")
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    name = fields.get("model name", "an unnamed CPU")
    if "model" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return f"{name}, {time.strftime('%Y-%m')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print the table, write it if told to."""
    names = [measure.name for measure in MEASURES]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--levels", nargs="+", choices=exact_isa.LEVELS, metavar="LEVEL")
    parser.add_argument("--write", action="store_true", help="write primitives/tuning.h")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        print(json.dumps(measure_here(options.only)))
        return 0
    found = {level: measure_at(level, options.only) for level in options.levels or levels_here()}
    for name in options.only:
        print(name, {level: sizes.get(name) for level, sizes in found.items()})
    if options.write:
        text = rewritten(TABLE.read_text("utf-8"), found, machine_name())
        TABLE.write_text(text, "utf-8")
        print(f"wrote {TABLE.relative_to(ROOT)}; now rebuild")
    return 0


if __name__ == "__main__":
    sys.exit(main())
