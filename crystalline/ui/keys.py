"""Single-key controls: reads stdin without waiting and says which actions were asked for.

An action is a wish as a word of `engine.requests`, "help" or "tree"; "pause" means to go on, too.
What it does is decided elsewhere.  No thread; the terminal's mode is put
back however the process ends (see `terminal`).
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
from typing import TYPE_CHECKING, Any, TextIO

from crystalline.engine.requests import FEWER, MORE, Wish
from crystalline.ui import terminal

if TYPE_CHECKING:
    from typing_extensions import Self

HELP, TREE = "help", "tree"  # are no wishes of the run
ACTIONS = {
    "p": str(Wish("pause")),
    "c": str(Wish("checkpoint")),
    "+": str(Wish("workers", MORE)),
    "=": str(Wish("workers", MORE)),  # + without shift
    "-": str(Wish("workers", FEWER)),
    "_": str(Wish("workers", FEWER)),
    "t": TREE,
    "q": str(Wish("stop")),
    "?": HELP,
    "h": HELP,
}
# Arrow, function and Alt keys arrive as sequences whose letters are not keys of ours.
_SEQUENCE = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O.|[^\[O])")
_UNFINISHED = re.compile(rb"\x1b(\[[0-?]*[ -/]*|O)?\Z")


class Keys:
    """While entered, the terminal sends single keys, unechoed, to `poll`.

    Without a terminal on `stream` (default: stdin), or in a background job, nothing
    is changed, `active` is False and `poll` returns no actions.  Ctrl-C and Ctrl-Z
    keep their meaning.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdin if stream is None else stream
        self._saved: list[Any] = []
        self._hold: terminal.Hold | None = None
        self._rest = b""
        self._fd = -1

    @property
    def active(self) -> bool:
        """Whether keys are being read."""
        return self._hold is not None

    def __enter__(self) -> Self:
        stream = self._stream
        if stream is None or not terminal.is_terminal(stream):  # python's stdin may be None
            return self
        self._fd = stream.fileno()
        if not terminal.in_foreground(self._fd):
            return self
        self._saved = termios.tcgetattr(self._fd)
        self._hold = terminal.Hold(self._normal, self._cbreak)
        self._cbreak()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Put the terminal back; `poll` returns nothing from now on."""
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def poll(self) -> list[str]:
        """Return the actions asked for since the last call, oldest first; never waits.

        They are those of `ACTIONS`.
        """
        if self._hold is None or not terminal.ready(self._fd):
            return []
        data = b""
        while select.select([self._fd], [], [], 0)[0]:
            try:
                piece = os.read(self._fd, 4096)
            except OSError:  # the terminal is gone
                piece = b""
            if not piece:
                self.close()
                break
            data += piece
        carried, self._rest = self._rest, b""
        unfinished = _UNFINISHED.search(carried + data)
        if unfinished and data:  # the end comes with the next poll, or it was the Esc key
            self._rest = unfinished.group()
        data = (carried + data).removesuffix(self._rest)
        text = _SEQUENCE.sub(b"", data).decode("ascii", "replace")
        return [ACTIONS[key] for key in text.lower() if key in ACTIONS]

    def _cbreak(self) -> None:
        mode = [*self._saved[:6], list(self._saved[6])]
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        self._set(mode)

    def _normal(self) -> None:
        self._set(self._saved)

    def _set(self, mode: list[Any]) -> None:
        # With SIGTTOU blocked the mode can be put back even from the background.
        old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        except termios.error:  # the terminal is gone, and its mode with it
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
