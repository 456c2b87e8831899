"""How much memory this process can still get, and how large the caches of its cores are."""

from __future__ import annotations

from pathlib import Path

from crystalline.machine import cgroup

_MEMINFO = Path("/proc/meminfo")
_CACHES = Path("/sys/devices/system/cpu")
_UNITS = {"K": 10, "M": 20, "G": 30}


def available_bytes() -> int:
    """Return the bytes that this process can still get, of the machine and of its groups.

    >>> available_bytes() > 1 << 20
    True
    """
    return _available(_MEMINFO, cgroup.MEMBERSHIP, cgroup.ROOT)


def _available(meminfo: Path, membership: Path, root: Path) -> int:
    fields = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines())
    available = int(fields["MemAvailable"].split()[0]) << 10
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


def cache_bytes(level: int, core: int = 0) -> int | None:
    """Return the size of a core's data or unified cache of this level; None if Linux knows none.

    >>> cache_bytes(9) is None
    True
    """
    return _cache_bytes(level, _CACHES / f"cpu{core}" / "cache")


def _cache_bytes(level: int, folder: Path) -> int | None:
    for index in sorted(folder.glob("index*")):
        if cgroup.whole(index / "level") == level and cgroup.read(index / "type").strip() in (
            "Data",
            "Unified",
        ):
            size = cgroup.read(index / "size").strip()
            return int(size[:-1]) << _UNITS[size[-1]]
    return None
