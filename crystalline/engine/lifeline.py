"""A line that ends a process at once when Node Zero is gone, however deep in the tree it is.

Node Zero holds the writing end of a pipe and nobody else does.  The kernel tells each process that
waits for input on the reading end when the last writer has gone, by the signal that it asked for:
SIGKILL, which no computation can put off.  (The signal for the death of a parent will not do: a
node outlives the control that forked it.)
"""

from __future__ import annotations

import fcntl
import os
import select
import signal


class Lifeline:
    """The pipe; made by Node Zero before its first fork."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def let_go(self) -> None:
        """Close the writing end, in a process that was just forked."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def hold_on(self) -> None:
        """Ask for SIGKILL when Node Zero goes; in a forked process.

        Raises `OSError` where the kernel does not offer that.
        """
        # An open file of its own: to whom the signal goes is kept with that.
        reader = os.open(
            f"/proc/self/fd/{self._reader}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )
        fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        poll = select.poll()
        poll.register(reader, 0)
        if poll.poll(0):  # it went before we asked
            os._exit(1)

    def close(self) -> None:
        """Close both ends, in Node Zero, when all are gone."""
        self.let_go()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
