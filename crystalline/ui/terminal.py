"""The terminal is borrowed: whatever was changed on it is undone however the process ends.

A `Hold` is one change (cbreak mode, the alternate screen, a hidden cursor) with the
way back.  Leaving the `with` block of its owner releases it; `atexit` and handlers
for the signals that would otherwise kill the process outright undo what is left.
Ctrl-Z gives the terminal back for as long as the process is stopped (`suspension` owns
that signal).  Signals that the program already handles are left to the program.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

from crystalline import suspension

_KILLERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_holds: list[Hold] = []
_replaced: dict[signal.Signals, Any] = {}
_part: suspension.Part | None = None
_given_back = False  # stopped by Ctrl-Z and not yet in the foreground again


class Hold:
    """One change to the terminal: `undo` takes it back, `redo` makes it again.

    Both may run inside a signal handler, so they must only make system calls.
    """

    def __init__(self, undo: Callable[[], None], redo: Callable[[], None]) -> None:
        self.undo = undo
        self.redo = redo
        self._pid = os.getpid()
        if not _holds:
            atexit.register(restore)
            _take_signals()
        _holds.append(self)

    @property
    def ours(self) -> bool:
        """False in a forked copy of the process that made the change."""
        return self._pid == os.getpid()

    def release(self) -> None:
        """Undo the change, once."""
        if self.drop() and self.ours and not _given_back:
            self.undo()

    def drop(self) -> bool:
        """Forget the change, which somebody else has undone; False if that was done before."""
        if self not in _holds:
            return False
        _holds.remove(self)
        if not _holds:
            atexit.unregister(restore)
            _return_signals()
        return True


def restore() -> None:
    """Undo every change now; for those who leave by `os._exit`, which skips `atexit`."""
    for hold in reversed(_holds.copy()):
        hold.release()


def in_foreground(fd: int) -> bool:
    """Whether this process may draw on the terminal `fd` and set its mode.

    A background job that tries is stopped by the kernel.
    """
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not our controlling terminal: no job control there
        return True


def ready(fd: int) -> bool:
    """Whether the terminal `fd` is ours to use now; takes it again after Ctrl-Z and fg."""
    global _given_back
    if not in_foreground(fd):
        return False
    if _given_back:
        _given_back = False
        for hold in _holds:
            hold.redo()
    return True


def write(fd: int, codes: bytes) -> None:
    """Write escape codes past all buffers, as a signal handler must; a lost terminal is ignored."""
    try:
        os.write(fd, codes)
    except OSError:
        return


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is an open terminal."""
    return not stream.closed and stream.isatty()


def size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal `stream`; COLUMNS and LINES take precedence."""
    columns = rows = 0
    if is_terminal(stream):
        columns, rows = os.get_terminal_size(stream.fileno())
    columns = _positive(os.environ.get("COLUMNS")) or columns or 80
    rows = _positive(os.environ.get("LINES")) or rows or 24
    return columns, rows


def _positive(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def _take_signals() -> None:
    global _part
    _part = suspension.join(_give_back)
    if threading.current_thread() is not threading.main_thread():
        return
    for killer in _KILLERS:
        if signal.getsignal(killer) is signal.SIG_DFL:
            _replaced[killer] = signal.signal(killer, _on_kill)


def _return_signals() -> None:
    if _part is not None:
        suspension.leave(_part)
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in _replaced.items():
        if signal.getsignal(number) is _on_kill:
            signal.signal(number, handler)
    _replaced.clear()


def _on_kill(number: int, _frame: FrameType | None) -> None:
    restore()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _give_back() -> None:
    """Undo every change for as long as the process is stopped; `ready` makes them again."""
    global _given_back
    if not _given_back:
        _given_back = True
        for hold in reversed([h for h in _holds if h.ours]):
            hold.undo()
