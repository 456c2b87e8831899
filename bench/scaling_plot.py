"""Draw throughput over the number of spheres, from what bench_step.py measured.

python3 tools/dev.py bench bench/bench_step.py -k scaling --benchmark-json scaling.json
python -m bench.scaling_plot scaling.json docs/scaling.svg
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TARGET = 0.95  # of the throughput of 2 spheres, that 63 must reach
Curve = list[tuple[int, float]]  # (spheres, throughput relative to 2 spheres)


def curves(report: dict[str, Any]) -> dict[str, Curve]:
    """Return workload → curve, from a pytest-benchmark report.

    >>> curves({"benchmarks": [
    ...     {"name": "test_scaling[tiny-12]", "extra_info": {"of 2 spheres": 1.01, "cores": 2}},
    ...     {"name": "test_scaling[tiny-1]", "extra_info": {"of 2 spheres": 0.5, "cores": 2}},
    ... ]})
    {'tiny': [(1, 0.5), (12, 1.01)]}
    """
    found: dict[str, Curve] = {}
    for row in report["benchmarks"]:
        name = re.fullmatch(r"test_scaling\[(.+)-(\d+)\]", row["name"])
        if name:
            point = int(name[2]), row["extra_info"]["of 2 spheres"]
            found[name[1]] = sorted([*found.get(name[1], []), point])
    return found


def draw(found: dict[str, Curve], path: Path) -> None:
    """Write the plot as SVG, the same bytes for the same numbers."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    settings = {"svg.hashsalt": "crystalline", "svg.fonttype": "none", "font.size": 11}
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(7.2, 3.6), layout="constrained")
        for marker, (name, curve) in zip("osD^v", found.items(), strict=False):
            axes.plot(*zip(*curve, strict=True), marker=marker, label=name)
        ticks = sorted({count for curve in found.values() for count, _ in curve})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        axes.axhline(TARGET, color="gray", linewidth=1, linestyle="--", label=f"{TARGET}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("spheres")
        axes.set_ylabel("throughput, 2 spheres = 1")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the report, write the plot."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling_plot", description="Draw throughput over spheres."
    )
    parser.add_argument("report", type=Path, help="of pytest-benchmark, as JSON")
    parser.add_argument("plot", type=Path, nargs="?", default=Path("docs/scaling.svg"))
    options = parser.parse_args(arguments)
    found = curves(json.loads(options.report.read_text()))
    if not found:
        parser.error(f"{options.report} holds no test_scaling; was bench_step.py run?")
    draw(found, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
