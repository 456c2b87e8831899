"""Limits that control groups put on this process: a limit of any ancestor binds.

In a container the membership often names a path that is not visible below the mount; then the
root of the mount itself is what applies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def directories(controller: str, membership: Path, root: Path) -> Iterator[tuple[int, Path]]:
    """Yield (version 1 or 2, directory) of every group whose limits on `controller` may bind."""
    for line in read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, base = 2, root
        elif controller in controllers.split(","):
            version, base = 1, root / controllers
            if not base.is_dir():
                base = root / controller
        else:
            continue
        directory = base / path.lstrip("/")
        for level in (directory, *directory.parents):
            if level != base and base not in level.parents:
                break
            yield version, level


def read(path: Path) -> str:
    """Return a file's text, "" where it is not there or not for us: no limit to know of."""
    try:
        return path.read_text()
    except OSError:
        return ""


def whole(path: Path) -> int | None:
    """Return the number in a file, None where there is none ("max", nothing, no file)."""
    text = read(path).strip()
    return int(text) if text.lstrip("-").isdecimal() else None
