"""Log files: every message of a session with its time, level and logger.

    2026-05-04T03:02:01.250Z INFO crystalline.train: epoch 1: mean loss 2.3391, val 2.1702

Times are UTC.  The further lines of a message are indented, so that every line that begins with a
time is a message of its own.  One process writes a file: what other processes of a run have to say
comes to the launcher, in order.  A line is written whole or not at all; a file that cannot be
written is told of once, and whatever runs goes on.

A file of `ROTATE_BYTES` becomes FILE.1, that FILE.2, and so on up to FILE.5, whose content goes.
A file that somebody else has moved away is made anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from crystalline.atomic import replace_shared
from crystalline.errors import CrystallineError
from crystalline.log import add_sink, get_logger, remove_sink, sinks
from crystalline.untrusted import open_ours, printable

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

ROTATE_BYTES = 10_000_000
OLDER_FILES = 5
LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ crystalline[.:]")
_KEPT_EARLY = 1000  # records of before `open`

_log = get_logger("log")


class LogFile(logging.Handler):
    """A sink of the package's loggers; a context manager, or call `close`.

    Without a `path` records are kept until `open` names one.  The exception that ends the block
    is the last record.
    """

    def __init__(
        self, path: Path | None = None, level: int = logging.INFO, *, one_thread: bool = False
    ) -> None:
        """`one_thread` takes records of the calling thread only: others have runs of their own."""
        super().__init__(level)
        self._thread = threading.get_ident() if one_thread else None
        self._early: deque[logging.LogRecord] = deque(maxlen=_KEPT_EARLY)
        self._path: Path | None = None
        self._fd = -1
        self._failed = False
        self._closed = False
        self.setFormatter(_LineFormatter())
        add_sink(self)
        if path is not None:
            self.open(path)

    def open(self, path: Path) -> None:
        """Write to a file from now on, and what came before."""
        with _lock_of(self):
            self._path = path
            early, self._early = list(self._early), deque(maxlen=0)
            for record in early:
                self.emit(record)

    @property
    def descriptor(self) -> int:
        """The open file, -1 while there is none."""
        return self._fd

    def close(self) -> None:
        """Take no more records; a second call does nothing."""
        remove_sink(self)
        self._closed = True
        self._close_file()
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if error is not None and not self._closed:
            self.handle(_record_of(error))
        self.close()

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record, unless another thread's run is what it is about."""
        if self._thread is not None and record.thread != self._thread:
            return False
        return bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or keep it until there is a file."""
        if self._closed:
            return
        if self._path is None:
            self._early.append(record)
            return
        line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._append(self._path, line)
        except OSError as error:
            if not self._failed:  # and then nothing: what tells of it comes here, too
                self._failed = True
                _log.warning(
                    "%s cannot be written (%s): what happens may be missing there",
                    self._path,
                    error.strerror,
                )

    def _append(self, path: Path, line: bytes) -> None:
        if self._fd >= 0 and not self._is_ours(path):
            self._close_file()
        if self._fd < 0:
            replace_shared(path)
            self._fd = open_ours(path, append=True)
            self._end_line()
        size = os.fstat(self._fd).st_size
        if size and size + len(line) > ROTATE_BYTES:
            self._rotate(path)
            size = 0
        try:
            written = os.write(self._fd, line)
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            os.ftruncate(self._fd, size)  # never a line cut off before the next one
            raise

    def _end_line(self) -> None:
        """Complete a last line that a crash cut off."""
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")

    def _is_ours(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except FileNotFoundError:
            return False

    def _rotate(self, path: Path) -> None:
        for number in range(OLDER_FILES, 0, -1):
            before = path if number == 1 else older(path, number - 1)
            if os.path.lexists(before):
                os.replace(before, older(path, number))
        fresh = open_ours(path, append=True)
        self._close_file()
        self._fd = fresh

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = printable(record.getMessage()).replace("\n", "\n    ")
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        milliseconds = int(record.created * 1000) % 1000
        return f"{moment}.{milliseconds:03d}Z {record.levelname} {record.name}: {text}"


def older(path: Path, number: int) -> Path:
    """Return where the content of a log file goes that has been rotated so many times.

    >>> older(Path("runs/a/train.log"), 2).name
    'train.log.2'
    """
    return path.with_name(f"{path.name}.{number}")


def log_descriptors() -> list[int]:
    """Return the descriptors of the log files that this process writes now."""
    return [sink.descriptor for sink in sinks() if isinstance(sink, LogFile)]


def _lock_of(handler: logging.Handler) -> contextlib.AbstractContextManager[object]:
    return handler.lock or contextlib.nullcontext()


def _record_of(error: BaseException) -> logging.LogRecord:
    """Return the record that tells how a session ended: one line, or a traceback of our own bug."""
    if isinstance(error, CrystallineError):
        text = str(error)
    elif isinstance(error, (KeyboardInterrupt, SystemExit)):
        text = f"ended by {type(error).__name__}"
    else:
        text = "".join(traceback.format_exception(error)).rstrip()
    return _log.makeRecord(_log.name, logging.ERROR, __file__, 0, text, (), None)
