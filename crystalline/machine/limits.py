"""How much memory this process may have: the machine's, its control groups', its own limits."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from pathlib import Path

from crystalline.machine import cgroup

_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class MemoryLimit:
    """The most bytes that shared memory can have here, and a clause that says why."""

    size_bytes: int
    words: str
    raisable: bool = False  # by the user, with ulimit


def memory_limit() -> MemoryLimit:
    """Return the narrowest limit: no larger piece of memory can work on this machine."""
    machine = _limits(_MEMINFO, cgroup.MEMBERSHIP, cgroup.ROOT)
    limits = [(size_bytes, words, False) for size_bytes, words in machine]
    for kind, words in (
        (resource.RLIMIT_AS, "the limit on address space is {} (ulimit -v)"),
        (resource.RLIMIT_FSIZE, "the limit on files, which count, is {} (ulimit -f)"),
    ):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append((soft, words, True))
    size_bytes, words, raisable = min(limits, default=(2**62, "{}", False))
    return MemoryLimit(size_bytes, words.format(size_words(size_bytes)), raisable)


def _limits(meminfo: Path, membership: Path, root: Path) -> list[tuple[int, str]]:
    """Return the limits on memory, swap space included, each with words for it."""
    found = []
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", cgroup.read(meminfo), re.MULTILINE))
    swap = int(sizes.get("SwapTotal", 0)) * 1024
    if "MemTotal" in sizes:
        found.append((int(sizes["MemTotal"]) * 1024 + swap, "this machine has {}"))
    for version, directory in cgroup.directories("memory", membership, root):
        name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        limit = cgroup.whole(directory / name)
        if limit is not None:
            more = cgroup.whole(directory / "memory.swap.max") if version == 2 else None
            total = limit + (swap if more is None else min(swap, more))
            found.append((total, "its control group may have {}"))
    return found


def size_words(size_bytes: int) -> str:
    """Return a size with its unit.

    >>> size_words(999), size_words(25_270_000_000), size_words(224 * 10**12), size_words(10**22)
    ('999 bytes', '25.3 GB', '224 TB', '10,000 EB')
    """
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(len(units) - 1, (len(str(size_bytes)) - 1) // 3)
    number = size_bytes / 1000**power
    return (
        f"{number:,.0f} {units[power]}"
        if number >= 100 or not power
        else (f"{number:.3g} {units[power]}")
    )
