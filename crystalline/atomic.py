"""Write files so that a reader sees the old content or the new, never a part of it.

The bytes go to a temporary file in the same directory, are forced to disk, and
take the final name in one rename.  What an `OSError` means to a user (disk full,
no permission) is left to the callers.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_NAME_BYTES = 200  # of the final name kept in the temporary one: names end at 255


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary file, readable and seekable, that becomes `path` when the block ends.

    The directory must exist.  When the block raises, `path` is left as it was and
    the temporary file is removed.  The file gets the mode that the umask allows.

    Raises `OSError` when the file cannot be written, synced or renamed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder, "notes.txt")
    ...     with atomic_write(target) as file:
    ...         _ = file.write(b"all of it")
    ...         seen = target.exists()
    ...     seen, target.read_bytes()
    (False, b'all of it')
    """
    target = Path(path)
    stem = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    temporary = target.with_name(f".{stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write `data` to `path` atomically.  Raises `OSError`."""
    with atomic_write(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8.  Raises `OSError`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON in UTF-8.

    Raises `OSError`; `TypeError` or `ValueError` (NaN and infinities included) for a
    value that JSON cannot hold, before anything is written.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Force the names in a directory to disk.  Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
