"""A terminal for tests: runs a script on a pty of its own and records what it writes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
# The child opens its terminal once more so that it becomes its controlling one.
_PREAMBLE = "import os, sys\nos.close(os.open(os.ttyname(0), os.O_RDWR))\n"


class Session:
    """A python script on a terminal of 80 x 24."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.fd = fd
        self.output = b""

    def read(self, timeout_s: float = 0.05) -> bytes:
        """Read what is there, waiting at most `timeout_s` for the first byte; return everything."""
        while select.select([self.fd], [], [], timeout_s)[0]:
            try:
                piece = os.read(self.fd, 65536)
            except OSError:  # the last process on the terminal has closed it
                break
            if not piece:
                break
            self.output += piece
        return self.output

    def wait_for(self, text: bytes, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.read():
            assert time.monotonic() < deadline, f"no {text!r} in {self.output[-3000:]!r}"
            assert self.process.poll() is None or text in self.read(), self.output[-3000:]

    def send(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def mode(self) -> tuple[bool, bool]:
        """Whether the terminal echoes, and whether it waits for whole lines."""
        flags = termios.tcgetattr(self.fd)[3]
        return bool(flags & termios.ECHO), bool(flags & termios.ICANON)

    def hang_up(self) -> None:
        """Close the person's side, as a dropped connection does."""
        os.close(self.fd)
        self.fd = -1

    def end(self, timeout_s: float = 20.0) -> int:
        """Wait for the end of the script while reading; return its status."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < deadline, self.output[-3000:]
        self.read()
        return self.process.returncode


@contextmanager
def on_terminal(script: str, *arguments: str, **environment: str) -> Iterator[Session]:
    """Run `script` with `arguments`, stdin, stdout and stderr on a new terminal that is its own."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", _PREAMBLE + script, *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=ROOT,
        env=inherited | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | environment,
        start_new_session=True,
    )
    os.close(child)
    session = Session(process, parent)
    try:
        yield session
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        if session.fd >= 0:
            os.close(session.fd)
