"""Opening what somebody else may have put there.

To read, links may be followed, but at their end there must be a regular file of a size
that such a file can have; a pipe or a device is refused before anything is read.  To
write or to remove, nothing is followed: a name must be the thing itself.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_OURS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
_BLOCK_BYTES = 1 << 20

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link"),
)


class RefusedFile(OSError):
    """A file that could be opened and must not be; `strerror` says why, as a clause."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(errno.EINVAL, reason, os.fspath(path))


def kind_of(mode: int) -> str:
    """Return what a file of this mode is, in words.

    >>> kind_of(stat.S_IFIFO), kind_of(stat.S_IFREG)
    ('a pipe', 'a file')
    """
    return next((name for test, name in _KINDS if test(mode)), "a file")


def open_regular(path: str | os.PathLike[str], *, limit_bytes: int | None = None) -> BinaryIO:
    """Open a regular file to read, unbuffered; never waits, whatever stands there.

    Raises `RefusedFile` for anything but a regular file and for one of more than
    `limit_bytes`, and `OSError` as `open` does.
    """
    try:
        descriptor = os.open(path, _READ)
    except ValueError:  # a NUL byte in the name
        raise RefusedFile(path, "its name is impossible") from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise RefusedFile(path, "it is not a file that can be read") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedFile(path, f"it is {kind_of(status.st_mode)}, not a file")
        if limit_bytes is not None and status.st_size > limit_bytes:
            raise RefusedFile(path, _too_long(status.st_size, limit_bytes))
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """Return the content of a regular file of at most `limit_bytes`.

    Raises `OSError`, as `open_regular` does; also when it grows beyond the limit meanwhile.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pipe = pathlib.Path(folder, "pipe")
    ...     os.mkfifo(pipe)
    ...     try:
    ...         read_bytes(pipe, 100)
    ...     except OSError as error:
    ...         print(error.strerror)
    it is a pipe, not a file
    """
    with open_regular(path, limit_bytes=limit_bytes) as file:
        return read_stream(file, os.fspath(path), limit_bytes)


def read_stream(stream: BinaryIO, name: str, limit_bytes: int) -> bytes:
    """Return all of a stream that need not be a file, such as standard input.

    Raises `RefusedFile` as soon as there are more than `limit_bytes`.
    """
    parts: list[bytes] = []
    size_bytes = 0
    while part := stream.read(min(_BLOCK_BYTES, limit_bytes + 1 - size_bytes)):
        size_bytes += len(part)
        if size_bytes > limit_bytes:
            raise RefusedFile(name, _too_long(None, limit_bytes))
        parts.append(part)
    return b"".join(parts)


def real_directory(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a folder at `path`; False where there is nothing.

    Raises `RefusedFile` where something else has its name, a link to a folder included:
    what is written there would land elsewhere.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        raise RefusedFile(path, f"it is {kind_of(mode)}, not a folder")
    return True


def open_ours(path: str | os.PathLike[str], *, append: bool = False) -> int:
    """Return a descriptor of a file of ours, to read and write; made where it is missing.

    With `append` everything is written at its end.

    The name must be a regular file, no link.  Where it may have further names, see
    `atomic.replace_shared`.

    Raises `RefusedFile` for anything else, `OSError` when it cannot be opened.
    """
    try:
        descriptor = os.open(path, _OURS | os.O_APPEND * append, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise RefusedFile(path, _what_is_there(path)) from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise RefusedFile(path, f"it is {kind_of(status.st_mode)}, not a file")
    return descriptor


def _what_is_there(path: str | os.PathLike[str]) -> str:
    try:
        return f"it is {kind_of(os.lstat(path).st_mode)}, not a file"
    except OSError:
        return "it is not a file"


def _too_long(size_bytes: int | None, limit_bytes: int) -> str:
    has = "it has more" if size_bytes is None else f"it has {size_bytes:,} bytes, more"
    return f"{has} than the {limit_bytes:,} bytes that such a file may have"
