"""How much memory this process may have, and how much of it there is still to get.

What counts is the machine, the control groups of the process and its own limits.
"""

from __future__ import annotations

import ctypes
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


def available_bytes() -> int:
    """Return the bytes that this process can still get, of the machine and of its groups.

    >>> available_bytes() > 1 << 20
    True
    """
    return _available(_MEMINFO, cgroup.MEMBERSHIP, cgroup.ROOT)


def _available(meminfo: Path, membership: Path, root: Path) -> int:
    available = _sizes(meminfo)["MemAvailable"]
    for version, directory in cgroup.directories("memory", membership, root):
        limit_name, used_name = (
            ("memory.max", "memory.current")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        limit, used = cgroup.whole(directory / limit_name), cgroup.whole(directory / used_name)
        if limit is not None and used is not None:
            used -= _idle_file_bytes(directory / "memory.stat")
            available = min(available, max(0, limit - used))
    return available


def _idle_file_bytes(stat: Path) -> int:
    """Return the bytes of files that a group is charged for and that make room when asked to."""
    fields = dict(line.split(maxsplit=1) for line in cgroup.read(stat).splitlines())
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


def give_back() -> None:
    """Let the C library give free memory back to the system, where it can (glibc keeps much).

    For the end of long work that needed more than what remains of it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


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
    size_bytes, words, raisable = min(limits)
    return MemoryLimit(size_bytes, words.format(size_words(size_bytes)), raisable)


def _limits(meminfo: Path, membership: Path, root: Path) -> list[tuple[int, str]]:
    """Return the limits on memory, swap space included, each with words for it."""
    sizes = _sizes(meminfo)
    swap = sizes.get("SwapTotal", 0)
    found = [(sizes["MemTotal"] + swap, "this machine has {}")]
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


def _sizes(meminfo: Path) -> dict[str, int]:
    """Return the bytes of every size that the kernel tells of the machine's memory."""
    found = re.findall(r"^(\w+): +(\d+) kB$", meminfo.read_text("ascii"), re.MULTILINE)
    return {name: int(kib) << 10 for name, kib in found}
