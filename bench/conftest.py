"""Prints what the benchmarks note beside their times, as one Markdown table."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Write a row per benchmark: name, median, and everything in `extra_info`."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    columns: list[str] = []
    for row in session.benchmarks:
        columns += [key for key in row.extra_info if key not in columns]
    write = terminalreporter.write_line
    write("")
    write("| benchmark | median | " + " | ".join(columns) + " |")
    write("|---|---|" + "---|" * len(columns))
    for row in session.benchmarks:
        name = row.name.partition("[")[2].rstrip("]") or row.name
        values = [str(row.extra_info.get(key, "")) for key in columns]
        write(f"| {name} | {_seconds(row.stats.median)} | " + " | ".join(values) + " |")


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"
