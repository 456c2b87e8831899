"""Ctrl-Z: the one owner of SIGTSTP, for all who have to do something about it.

    part = join(before=give_the_terminal_back)
    ...
    leave(part)

While anybody takes part, SIGTSTP calls every `before`, then stops this process, and calls
every `after` when it goes on.  Without parts the signal has its usual meaning, and a
program that handles or ignores it itself is left alone.

The process is stopped by SIGSTOP: what the kernel does for SIGTSTP it does not do in a
process group whose session has no shell to continue it, and there `kill -TSTP` means it, too.

SIGCONT may come before the handler, which Python runs a little late, has stopped anything;
then nothing must stop any more, or it would stop for good.  The order in which the two
signals came is read from the pipe of `signal.set_wakeup_fd`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True, eq=False)
class Part:
    """What one participant does; it must not raise."""

    before: Callable[[], None]
    after: Callable[[], None]


@dataclass
class _Installed:
    """What `_install` replaced, and the pipe of signal numbers."""

    stop: Any
    go_on: Any
    wakeup: int
    read_end: int
    write_end: int
    pid: int  # a forked copy of the process shares the pipe, and has no part in it


_parts: list[Part] = []
_installed: _Installed | None = None
_newest: int | None = None  # of SIGTSTP and SIGCONT, where that is known


def join(before: Callable[[], None], after: Callable[[], None] = lambda: None) -> Part:
    """Take part from now on; those who joined last are called first, and after it last."""
    part = Part(before, after)
    _parts.append(part)
    _install()
    return part


def leave(part: Part) -> None:
    """Take part no longer; a second call does nothing."""
    if part in _parts:
        _parts.remove(part)
        if not _parts:
            _uninstall()


def _install() -> None:
    global _installed, _newest
    if _installed is not None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        return
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _newest = None
    _installed = _Installed(
        stop=signal.signal(signal.SIGTSTP, _on_stop),
        go_on=signal.signal(signal.SIGCONT, _on_continue),
        wakeup=signal.set_wakeup_fd(write_end, warn_on_full_buffer=False),
        read_end=read_end,
        write_end=write_end,
        pid=os.getpid(),
    )


def _uninstall() -> None:
    global _installed
    if _installed is None or threading.current_thread() is not threading.main_thread():
        return
    before, _installed = _installed, None
    if signal.getsignal(signal.SIGTSTP) is _on_stop:
        signal.signal(signal.SIGTSTP, before.stop)
    if signal.getsignal(signal.SIGCONT) is _on_continue:
        signal.signal(signal.SIGCONT, before.go_on)
    signal.set_wakeup_fd(before.wakeup, warn_on_full_buffer=False)
    os.close(before.read_end)
    os.close(before.write_end)


def _on_stop(_number: int, _frame: FrameType | None) -> None:
    global _newest
    parts = _parts.copy()
    for part in reversed(parts):
        part.before()
    _look()
    if _newest != signal.SIGCONT:
        os.kill(os.getpid(), signal.SIGSTOP)  # stopped here until fg, bg or SIGCONT
    _look()
    _newest = None
    for part in parts:
        part.after()


def _on_continue(_number: int, _frame: FrameType | None) -> None:
    _look()


def _look() -> None:
    """Find out which of the two signals came last."""
    global _newest
    if _installed is None or _installed.pid != os.getpid():
        return
    try:
        numbers = os.read(_installed.read_end, 1 << 16)
    except BlockingIOError:
        return
    for number in numbers:
        if number in (signal.SIGTSTP, signal.SIGCONT):
            _newest = number
