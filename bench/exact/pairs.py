"""Times this project against a peer in one run, alternating, and takes medians of the ratios.

One thread.  A row names one operation, our call, the peer's call and how their results are
compared; results are compared before anything is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

BLOCK_S = 2e-3  # the shortest stretch that is timed at once


def same(ours: Any, theirs: Any) -> None:
    """Check that two results are equal; the usual check of a row."""
    assert ours == theirs, "the two sides disagree"


@dataclass(frozen=True)
class Row:
    """One operation: our call, the peer's, the check, and the ratio ours / peer asked for."""

    name: str
    ours: Callable[[], Any]
    peer: str  # the peer's name
    theirs: Callable[[], Any]
    at_most: float  # the ratio that is asked for
    check: Callable[[Any, Any], None] = field(default=same)  # (ours, theirs), raises


@dataclass(frozen=True)
class Timing:
    """Median seconds a call of both sides, and the median of the ratios of neighbouring pairs."""

    row: Row
    ours_s: float
    theirs_s: float
    ratio: float

    @property
    def met(self) -> bool:
        """Whether the ratio is within what the row asks for."""
        return self.ratio <= self.row.at_most


def _calls_per_block(call: Callable[[], Any]) -> int:
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    if once >= BLOCK_S:
        return 1
    count = 1
    while True:  # the first call may be slow: caches, branch predictors, lazy set-up
        elapsed = _seconds(call, count)
        if elapsed >= BLOCK_S:
            return count
        count *= 2


def _seconds(call: Callable[[], Any], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start


def measure(row: Row, pairs: int = 9) -> Timing:
    """Check a row's results, then time it in `pairs` alternating pairs of blocks."""
    row.check(row.ours(), row.theirs())
    ours_count, theirs_count = _calls_per_block(row.ours), _calls_per_block(row.theirs)
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(_seconds(row.ours, ours_count) / ours_count)
        theirs.append(_seconds(row.theirs, theirs_count) / theirs_count)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Timing(
        row, statistics.median(ours), statistics.median(theirs), statistics.median(ratios)
    )


def table(timings: Sequence[Timing]) -> str:
    """Return the timings as a Markdown table."""
    lines = ["| operation | ours | peer | | ours / peer | asked |", "|---|---|---|---|---|---|"]
    for t in timings:
        mark = "" if t.met else " (short)"
        lines.append(
            f"| {t.row.name} | {_readable(t.ours_s)} | {t.row.peer} | {_readable(t.theirs_s)} "
            f"| {t.ratio:.2f}{mark} | {t.row.at_most:g} |"
        )
    return "\n".join(lines)


def _readable(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
