"""Signal handlers for a while, and those of before back again, below Python's too.

`signal.signal` knows the handlers that Python calls.  A library of C can have put its own below
them (cysignals does, for Ctrl-C in Sage and PARI), which `signal.signal` replaces without a word,
so that giving back what `signal.getsignal` said is not enough: Ctrl-C would then do nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

_ACTION_BYTES = 1024  # more than any system's struct sigaction, whose members are nobody's affair

Handler = Callable[[int, FrameType | None], object]


@contextlib.contextmanager
def handling(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Let `handlers`, by signal number, answer signals while the block runs.  Main thread only.

    >>> def say(number, frame):
    ...     print(signal.Signals(number).name)
    >>> with handling({signal.SIGUSR1: say}):
    ...     signal.raise_signal(signal.SIGUSR1)
    SIGUSR1
    >>> signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    True
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = []
    try:
        for number, handler in handlers.items():
            action = ctypes.create_string_buffer(_ACTION_BYTES)
            _sigaction(libc, number, None, action)
            before.append((number, signal.signal(number, handler), action))
        yield
    finally:
        for number, python_handler, action in before:
            signal.signal(number, python_handler)
            _sigaction(libc, number, action, None)


def _sigaction(
    libc: ctypes.CDLL,
    number: int,
    new: ctypes.Array[ctypes.c_char] | None,
    old: ctypes.Array[ctypes.c_char] | None,
) -> None:
    if libc.sigaction(number, new, old):
        code = ctypes.get_errno()
        raise OSError(code, f"sigaction of signal {number}: {os.strerror(code)}")
