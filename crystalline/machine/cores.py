"""How many cores this process may really keep busy."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

from crystalline.machine import cgroup

Pin = Literal["auto", "yes", "no"]  # whether work stays on processors of its own


def usable_cores() -> int:
    """Return how many cores this process may keep busy: affinity, then cgroup quotas.

    A quota of 2.5 cores counts as 3; the least is 1.
    """
    cores = float(len(os.sched_getaffinity(0)))
    for quota in _quotas(cgroup.MEMBERSHIP, cgroup.ROOT):
        cores = min(cores, quota)
    return max(1, math.ceil(cores - 1e-9))


def _quotas(membership: Path, root: Path) -> list[float]:
    """Return every processor quota that applies to this process, in cores."""
    quotas = []
    for version, directory in cgroup.directories("cpu", membership, root):
        quota = (_quota_v2 if version == 2 else _quota_v1)(directory)
        if quota is not None:
            quotas.append(quota)
    return quotas


def _quota_v2(directory: Path) -> float | None:
    fields = cgroup.read(directory / "cpu.max").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(directory: Path) -> float | None:
    quota = cgroup.whole(directory / "cpu.cfs_quota_us")
    period = cgroup.whole(directory / "cpu.cfs_period_us")
    if not quota or not period or quota <= 0:
        return None
    return quota / period
