"""Folders of text for tests: filled, or closed to us."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn


def put(folder: Path, *files: str) -> None:
    """Write files that say their names."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}\n")


def denied(path: Path, *_: object) -> NoReturn:
    """Stand in for a method of `Path` that the system refuses."""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
