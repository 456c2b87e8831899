"""Permits: the right to compute now, as many as cores that this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline._kernels.atomics import Words

STRIDE = 8  # words from permit to permit: a cache line


def usable_cores() -> int:
    """Return how many cores this process may keep busy: affinity, then cgroup quotas.

    A quota of 2.5 cores counts as 3; the least is 1.
    """
    cores = float(len(os.sched_getaffinity(0)))
    for quota in _cgroup_quotas(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")):
        cores = min(cores, quota)
    return max(1, math.ceil(cores - 1e-9))


def _cgroup_quotas(membership: Path, root: Path) -> list[float]:
    """Return every processor quota that applies to this process, in cores.

    A limit of any ancestor binds.  In a container the membership often names a path
    that is not visible below `root`; then the root itself is what applies.
    """
    quotas = []
    for directory, version in cgroup_directories(membership, root, "cpu"):
        quota = _quota_v2(directory) if version == 2 else _quota_v1(directory)
        if quota is not None:
            quotas.append(quota)
    return quotas


def cgroup_directories(membership: Path, root: Path, controller: str) -> list[tuple[Path, int]]:
    """Return the directories whose limits apply to this process, with the cgroup version."""
    found = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, version = root, 2
        elif controller in controllers.split(","):
            base, version = root / controllers, 1
            if not base.is_dir():
                base = root / controller
        else:
            continue
        directory = base / path.lstrip("/")
        for level in (directory, *directory.parents):
            if level != base and base not in level.parents:
                break
            found.append((level, version))
    return found


def _quota_v2(directory: Path) -> float | None:
    fields = _read(directory / "cpu.max").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(directory: Path) -> float | None:
    quota = _read(directory / "cpu.cfs_quota_us").strip()
    period = _read(directory / "cpu.cfs_period_us").strip()
    if not quota or not period or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not there, or not for us: no limit that we can know of
        return ""


class Permits:
    """The permit words of the arena (`crystalline.ipc` has the rules)."""

    def __init__(self, words: npt.NDArray[np.int64]) -> None:
        self._words = Words(words)
        self.count = len(words) // STRIDE

    @staticmethod
    def words_needed(count: int) -> int:
        """Return the size of the region for `count` permits, in words."""
        return count * STRIDE

    def acquire(self, sphere: int) -> int:
        """Take a free permit for a sphere; return its number, or -1 when all are taken."""
        word = self._words.claim_below(0, self._words.size, STRIDE, 1, sphere + 1)
        return word // STRIDE if word >= 0 else -1

    def release(self, permit: int) -> None:
        """Give a permit back."""
        self._words.store(permit * STRIDE, 0)

    def held_by(self, sphere: int) -> int:
        """Return the permit that a sphere holds, or -1."""
        for permit in range(self.count):
            if self._words.load(permit * STRIDE) == sphere + 1:
                return permit
        return -1

    def holders(self) -> list[int]:
        """Return the sphere that holds each permit, -1 where it is free."""
        return [self._words.load(p * STRIDE) - 1 for p in range(self.count)]

    def free_count(self) -> int:
        """Return how many permits are free."""
        return self.holders().count(-1)
