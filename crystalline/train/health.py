"""How well a run is: of each sphere and of the whole, with the reasons in words.

    OK         nothing is known that would be wrong
    SLOW       a sphere whose units take more than three times as long as the usual one's
    STALLED    a sphere that gives no sign of life, nor uses a processor, for --sphere-timeout
    DEAD       a sphere whose process is gone, until it is replaced
    DEGRADED   the run goes on, and something of this, or of the machine, is amiss
    FAILED     no sphere works any more, or the run ended with an error

`judge` is a pure function of a snapshot and of facts about the machine; `Vitals` finds the facts.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crystalline.ipc.liveness import cpu_time_ns, is_running
from crystalline.machine.memory import available_bytes, memory_limit
from crystalline.train.stats import (
    DEAD,
    DEGRADED,
    FAILED,
    OK,
    SLOW,
    STALLED,
    Snapshot,
    SphereStats,
)

SLOW_FACTOR = 3.0  # of the median time of a unit
SLOW_LOOKS = 3  # in a row that a sphere must seem slow: others' work may have delayed it once
DROPS_WINDOW = 100  # steps
LEAST_DISK_FREE, MOST_MEMORY_USED = 0.10, 0.90
NAMED = 4  # spheres that are told of one by one
BUSY_SHARE = 0.02  # of a core: who uses less is not running
TICK_S = 1.0  # the most that counts between two looks: we may have been stopped ourselves
QUIET_S = 2.0  # without a sign of life, from where on the process itself is looked at


@dataclass(frozen=True)
class Facts:
    """What is known beside the snapshot."""

    disk_free: float | None = None  # share of the run's file system; None: not known
    memory_used: float | None = None  # share of what the run may have
    gone: Collection[int] = ()  # processes of spheres that are not there any more
    busy: Collection[int] = ()  # ... that use a processor, however quiet they are


@dataclass(frozen=True)
class Health:
    """What `judge` finds."""

    state: str = OK
    reasons: tuple[str, ...] = ()
    spheres: Mapping[int, str] = field(default_factory=dict)  # by number, those that are not OK


def judge(snapshot: Snapshot, facts: Facts, timeout_s: float) -> Health:
    """Return how well a run is."""
    spheres = {sphere.index: _judge_sphere(sphere, facts, timeout_s) for sphere in snapshot.spheres}
    for index in _slow(snapshot.spheres):
        if spheres[index] == OK:
            spheres[index] = SLOW
    unwell = {index: state for index, state in spheres.items() if state != OK}
    reasons = []
    for state, words in (
        (DEAD, "dead"),
        (STALLED, f"without a sign of life for more than {timeout_s:g} s"),
        (SLOW, f"more than {SLOW_FACTOR:g} times as slow as others"),
    ):
        found = [index for index, its in unwell.items() if its == state]
        if found:
            reasons.append(f"{_named(found)} {'is' if len(found) == 1 else 'are'} {words}")
    if snapshot.dropped_lately:
        reasons.append(
            f"{snapshot.dropped_lately} of the last {DROPS_WINDOW} steps were dropped: their "
            "gradient was not finite"
        )
    if facts.disk_free is not None and facts.disk_free < LEAST_DISK_FREE:
        reasons.append(f"the disk of the run has {100 * facts.disk_free:.0f} % left")
    if facts.memory_used is not None and facts.memory_used > MOST_MEMORY_USED:
        reasons.append(f"memory is {100 * facts.memory_used:.0f} % full")
    works = [s for s in snapshot.spheres if unwell.get(s.index) not in (DEAD, STALLED)]
    if snapshot.spheres and not works:
        return Health(FAILED, ("no sphere works any more", *reasons), unwell)
    return Health(DEGRADED if reasons else OK, tuple(reasons), unwell)


def _judge_sphere(sphere: SphereStats, facts: Facts, timeout_s: float) -> str:
    if sphere.state == "dead" or sphere.pid in facts.gone:
        return DEAD
    if sphere.quiet_s > timeout_s and sphere.pid not in facts.busy:
        return STALLED
    return OK


def _slow(spheres: Collection[SphereStats]) -> list[int]:
    paces = {sphere.index: sphere.pace_s for sphere in spheres if sphere.pace_s > 0}
    if len(paces) < 2:
        return []
    usual = statistics.median(paces.values())
    return [index for index, pace in paces.items() if pace > SLOW_FACTOR * usual]


def _named(found: list[int]) -> str:
    """Return some spheres in words.

    >>> _named([3]), _named([1, 2]), _named(list(range(9)))
    ('sphere 3', 'spheres 1 and 2', '9 spheres')
    """
    if len(found) == 1:
        return f"sphere {found[0]}"
    if len(found) > NAMED:
        return f"{len(found)} spheres"
    return f"spheres {', '.join(map(str, found[:-1]))} and {found[-1]}"


class Vitals:
    """Looks after a run from outside, and judges it every so often."""

    def __init__(self, run_dir: Path, timeout_s: float, interval_s: float) -> None:
        self._run_dir = run_dir
        self._timeout_s = timeout_s
        self._interval_s = interval_s
        self._due_s = time.monotonic() + interval_s
        self._quiet: dict[int, _Quiet] = {}  # by number of the sphere
        self._slow: dict[int, int] = {}  # looks in a row
        self.health = Health()

    def quiet_s(self, index: int, pid: int, beat: int) -> float:
        """Return for how long a sphere has given no sign of life, as far as we looked."""
        quiet = self._quiet.get(index)
        if quiet is None or quiet.sign != (pid, beat):
            quiet = self._quiet[index] = _Quiet((pid, beat))
        return quiet.grow()

    def look(self, snapshot: Snapshot) -> bool:
        """Judge a run if it is time; return whether anything has changed."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._interval_s
        found = self._lasting(snapshot, self._facts(snapshot))
        before, self.health = self.health, found
        return (before.state, before.spheres) != (found.state, found.spheres)

    def _lasting(self, snapshot: Snapshot, facts: Facts) -> Health:
        """Return what `judge` finds, without spheres that have seemed slow for a moment only."""
        found = judge(snapshot, facts, self._timeout_s)
        slow = {index for index, state in found.spheres.items() if state == SLOW}
        self._slow = {index: self._slow.get(index, 0) + 1 for index in slow}
        passing = {index for index, looks in self._slow.items() if looks < SLOW_LOOKS}
        if not passing:
            return found
        spheres = tuple(s for s in snapshot.spheres if s.index not in passing)
        calm = dataclasses.replace(snapshot, spheres=spheres)
        return judge(calm, facts, self._timeout_s)

    def _facts(self, snapshot: Snapshot) -> Facts:
        gone, busy = set(), set()
        for sphere in snapshot.spheres:
            quiet = self._quiet.get(sphere.index)
            if sphere.pid and quiet is not None and sphere.quiet_s > QUIET_S:
                if not is_running(sphere.pid):
                    gone.add(sphere.pid)
                elif quiet.is_busy(sphere.pid):
                    busy.add(sphere.pid)
        return Facts(_disk_free(self._run_dir), _memory_used(), gone, busy)


class _Quiet:
    """A sphere since its last sign of life."""

    def __init__(self, sign: tuple[int, int]) -> None:
        self.sign = sign  # process, beat
        self._lasted_s = 0.0
        self._looked_s = time.monotonic()
        self._cpu_from: tuple[float, int] | None = None  # quiet for, processor time used by then

    def grow(self) -> float:
        now_s = time.monotonic()
        self._lasted_s += min(now_s - self._looked_s, TICK_S)
        self._looked_s = now_s
        return self._lasted_s

    def is_busy(self, pid: int) -> bool:
        """Return whether it has used a processor since it was first asked of."""
        used_ns = cpu_time_ns(pid)
        if self._cpu_from is None:
            self._cpu_from = (self._lasted_s, used_ns)
            return True
        since_s, before_ns = self._cpu_from
        passed_s = self._lasted_s - since_s
        return passed_s < QUIET_S or (used_ns - before_ns) / 1e9 > BUSY_SHARE * passed_s


def _disk_free(folder: Path) -> float | None:
    import psutil

    try:
        usage = psutil.disk_usage(str(folder))
    except OSError:
        return None
    return usage.free / usage.total if usage.total else None


def _memory_used() -> float | None:
    import psutil

    try:
        total = min(psutil.virtual_memory().total, memory_limit().size_bytes)
        return 1.0 - min(1.0, available_bytes() / total)
    except (OSError, KeyError, ValueError, ZeroDivisionError):  # a system that does not tell
        return None
