"""Which processes are alive, and whether they run: facts from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (the state) on; none when gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text[text.rindex(")") + 2 :].split()


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when it is gone.

    (pid, start time) names a process for good; pids alone are used again.
    """
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else 0


def is_alive(pid: int, started: int) -> bool:
    """Return whether the process that had `pid` and started at `started` still runs.

    >>> is_alive(os.getpid(), start_time(os.getpid()))
    True
    >>> is_alive(os.getpid(), 1)
    False
    """
    fields = _stat_fields(pid)
    return bool(fields) and int(fields[19]) == started and fields[0] not in "ZX"


def cpu_time_ns(pid: int) -> int:
    """Return the processor time a process has used; 0 when it is gone."""
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK_NS if fields else 0


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process, shared pages included; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0


def thread_count() -> int:
    """Return the number of threads of this process."""
    return len(os.listdir("/proc/self/task"))
