"""The embedded default corpus: the Python standard library's own source on this machine.

Real text that is there on every machine that can run this program; nothing to download.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from crystalline.errors import DataError

LARGEST_BYTES = 8_000_000  # enough to learn from, small enough to be ready in seconds

# Third-party packages, tests, graphical programs, tables that are not prose or code.
_LEFT_OUT = [
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "idle_test",
    "turtledemo",
    "lib2to3",
    "encodings",
    "pydoc_data",
]


def default_corpus() -> list[Path]:
    """Return the library's `.py` files, in a fixed order, up to `LARGEST_BYTES` together.

    Raises `DataError` when this Python comes without its sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths: list[Path] = []
    total_bytes = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _LEFT_OUT and not name.startswith((".", "config-"))
        )
        for name in sorted(names):
            path = Path(folder, name)
            if not name.endswith(".py") or not path.is_file():
                continue
            size_bytes = path.stat().st_size
            if total_bytes + size_bytes <= LARGEST_BYTES:
                paths.append(path)
                total_bytes += size_bytes
    if not paths:
        raise DataError(
            f"this Python comes without the sources of its standard library ({root})",
            advice="Name files or folders of text to train on.",
        )
    return paths
