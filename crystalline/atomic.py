"""Write files so that a reader sees the old content or the new, never a part of it.

The bytes go to a temporary file in the same directory, are forced to disk, and
take the final name in one rename.  What an `OSError` means to a user (disk full,
no permission) is left to the callers.

A temporary name tells who writes there, so that what a killed process left behind
can be told from what a living one is writing:

    .NAME.PID-TTTTRRRRRRRR.tmp    T: where that PID counts (`_place`), R: at random
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from crystalline.faults import point
from crystalline.untrusted import open_regular

_NAME_BYTES = 200  # of the final name kept in the temporary one: names end at 255
_TEMPORARY = re.compile(r"\..*\.(\d+)-([0-9a-f]+)\.tmp", re.DOTALL)
_PLACE_DIGITS, _RANDOM_DIGITS = 4, 8
_STALE_S = 24 * 3600  # after which nobody is still at work on a temporary file elsewhere
_SURROGATE = re.compile("[\ud800-\udfff]")


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file, readable and seekable, that becomes `path` when the block ends.

    The directory must exist.  When the block raises, `path` is left as it was and
    the temporary file is removed.  The file gets the mode that the umask allows.
    Without `durable` nothing waits for the disk: after a crash of the machine the file may
    be lost or empty, which suits what is written again every second.

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
    temporary = temporary_beside(target)
    point("atomic.open")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            point("atomic.sync")
            if durable:
                os.fsync(file.fileno())
        point("atomic.replace")
        os.replace(temporary, target)
        point("atomic.replaced")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(target.parent)


def replace_shared(path: str | os.PathLike[str]) -> None:
    """Give a file with several names (hard links: a backup made so) a copy under this one.

    Anything else is left alone.  Raises `OSError`.
    """
    target = Path(path)
    try:
        status = os.lstat(target)
    except OSError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink == 1:
        return
    with open_regular(target) as source, atomic_write(target) as copy:
        os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode))
        shutil.copyfileobj(source, copy)


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
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that UTF-8 can hold, whatever is in the strings.

    A file name that is not UTF-8 reaches Python with lone surrogates in it.  They are
    escaped, and come back from any reader of JSON.  Raises `ValueError` for NaN.

    >>> print(json_text({"name": "Zürich-\\udcff"}))
    {"name": "Zürich-\\udcff"}
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def temporary_beside(target: Path) -> Path:
    """Return a fresh name in the same directory, for what is going to be `target`."""
    stem = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    token = _place() + secrets.token_hex(_RANDOM_DIGITS // 2)
    return target.with_name(f".{stem}.{os.getpid()}-{token}.tmp")


def is_temporary(path: Path) -> bool:
    """Return whether a name is one of `temporary_beside`.

    >>> is_temporary(temporary_beside(Path("a/latest"))), is_temporary(Path("notes.tmp"))
    (True, False)
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def sweep_leftovers(folder: Path, *, owned: bool) -> list[Path]:
    """Remove temporary files and folders whose writers were killed; return them.

    With `owned` the caller holds a lock without which nobody writes into `folder`.
    Without it, what a process of another machine or container wrote, of which we cannot
    know whether it lives, stays for a day.  What cannot be removed harms nobody and stays.
    """
    removed = []
    with suppress(OSError):
        for entry in sorted(folder.iterdir()):
            match = _TEMPORARY.fullmatch(entry.name)
            if match and _is_abandoned(entry, int(match[1]), match[2], owned):
                remove(entry)
                if not os.path.lexists(entry):
                    removed.append(entry)
    return removed


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as that is allowed."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(entry: Path, pid: int, token: str, owned: bool) -> bool:
    if len(token) == _PLACE_DIGITS + _RANDOM_DIGITS and not token.startswith(_place()):
        return owned or _age_s(entry) > _STALE_S
    return not _is_running(pid)  # older names do not tell their place, and had this one


def _age_s(entry: Path) -> float:
    try:
        return time.time() - entry.lstat().st_mtime
    except OSError:  # its owner has just finished
        return 0.0


@cache
def _place() -> str:
    """Return four hexadecimal digits for where a pid means a process: machine and container."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # no Linux
        namespace = ""
    name = f"{socket.gethostname()} {namespace}"
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:_PLACE_DIGITS]


def _is_running(pid: int) -> bool:
    """Return whether a process of that number is at work here; a zombie is not.

    >>> _is_running(os.getpid()), _is_running(0), _is_running(1 << 40)
    (True, False, False)
    """
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    return text[text.rindex(")") + 2] not in "ZX"


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Force the names in a directory to disk.  Raises `OSError`."""
    point("atomic.folder")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
