"""Which processes are alive, and whether they run: facts from /proc."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> str:
    """Return what /proc/PID/stat says, "" when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (the state) on; none when gone."""
    text = _stat(pid)
    return text[text.rindex(")") + 2 :].split() if text else []


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


def is_running(pid: int) -> bool:
    """Return whether there is such a process, and it is not just waiting to be buried.

    >>> is_running(os.getpid())
    True
    """
    return _stat_fields(pid)[:1] not in ([], ["Z"], ["X"])


def is_stopped(pid: int) -> bool:
    """Return whether a process was stopped by a signal and not continued.

    >>> is_stopped(os.getpid())
    False
    """
    return _stat_fields(pid)[:1] == ["T"]


def parent_of(pid: int) -> int:
    """Return the parent of a process that lives; 0 when it is gone, or waits to be buried.

    >>> parent_of(os.getpid()) == os.getppid()
    True
    """
    fields = _stat_fields(pid)
    return int(fields[1]) if fields and fields[0] not in "ZX" else 0


def name_of(pid: int) -> str:
    """Return what a process calls itself, also when it is dead and not buried; "" when gone."""
    text = _stat(pid)
    return text[text.index("(") + 1 : text.rindex(")")] if text else ""


def children_of(parent: int) -> list[int]:
    """Return the children of a process, the dead that nobody has waited for among them.

    This reads the whole process table.
    """
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if _stat_fields(pid)[1:2] == [str(parent)]]


def death_of(child: int) -> int | None:
    """Return how a child ended, as `waitpid` would, but leave it to be waited for; None: it lives.

    Until somebody waits for it no other process has its pid.

    >>> child = os.posix_spawnp("sh", ["sh", "-c", "exit 3"], os.environ)
    >>> while death_of(child) is None: time.sleep(0.001)
    >>> death_of(child) == os.waitpid(child, 0)[1] == 3 << 8
    True
    """
    died = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if died is None:
        return None
    return died.si_status << 8 if died.si_code == os.CLD_EXITED else died.si_status


def dead_child() -> int:
    """Return a child that is dead and that nobody has waited for yet; 0: there is none."""
    try:
        died = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return 0 if died is None else died.si_pid


def cpu_time_ns(pid: int) -> int:
    """Return the processor time a process has used; 0 when it is gone."""
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK_NS if fields else 0


def memory_bytes(pid: int) -> int:
    """Return the memory of a process: its own pages, and its part of those it shares (PSS).

    Over all processes this sums up to what they really take.  0 when the process is gone
    or the system does not tell.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # gone, or not for us to know
        return 0
    found = re.search(r"^Pss: +(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def thread_count() -> int:
    """Return the number of threads of this process."""
    return len(os.listdir("/proc/self/task"))


class Patience:
    """A deadline that passes only while this process runs.

    A process that is stopped does not look; so no more than `tick_s` count from one look to
    the next, which must follow each other faster than that.

    >>> patience = Patience(0.0)
    >>> patience.is_over(waiting=False), time.sleep(0.001), patience.is_over()
    (False, None, True)
    """

    def __init__(self, limit_s: float, tick_s: float = 0.2) -> None:
        self._left_s = limit_s
        self._tick_s = tick_s
        self._looked = time.monotonic()

    def is_over(self, *, waiting: bool = True) -> bool:
        """Look; return whether the time is over.  Time that is not spent waiting does not count."""
        now = time.monotonic()
        passed_s, self._looked = now - self._looked, now
        if waiting:
            self._left_s -= min(passed_s, self._tick_s)
        return self._left_s < 0
