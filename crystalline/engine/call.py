"""The other end of a run's door: ask, wait for the answer, and know who did not give it.

with Call.open(folder, "control.sock", timeout_s=10) as call:
    answer = call.ask({"command": "status"})
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from crystalline.closing import Closing
from crystalline.engine.door import peer_of, place
from crystalline.errors import CrystallineError, EngineError
from crystalline.ipc.liveness import Patience, is_stopped

LONGEST_ANSWER = 16 << 20  # bytes
_BLOCK_BYTES = 1 << 16
_AGAIN_S = 0.01


class Call(Closing):
    """A connection to the door of a run."""

    def __init__(self, channel: socket.socket, timeout_s: float) -> None:
        self._channel = channel
        self._timeout_s = timeout_s
        self._text = b""  # what came after the last answer
        self.peer = peer_of(channel)

    @classmethod
    def open(cls, folder: Path, name: str, *, timeout_s: float) -> Call:
        """Connect to the socket `name` in `folder`; everything waits at most `timeout_s`.

        Raises:
            EngineError: the run does not answer.
            CrystallineError: it is another user's.
            OSError: there is no socket, or nobody listens at it.
        """
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, opened)
            unfinished = stack.enter_context(contextlib.ExitStack())
            channel = unfinished.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            channel.settimeout(timeout_s)
            _connect(channel, place(opened, name), timeout_s)
            unfinished.pop_all()
        call = cls(channel, timeout_s)
        if not call.peer.is_welcome and os.geteuid() != 0:
            call.close()
            raise CrystallineError(
                "somebody else than you answers for this run",
                advice="Ask as the user who started it.",
            )
        return call

    def close(self) -> None:
        """Hang up; the run goes on."""
        self._channel.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            EngineError: there is none in time.
            ConnectionError: the run ended meanwhile.
            ValueError: the answer is none of ours.
        """
        patience = Patience(self._timeout_s)
        try:
            self._channel.sendall(json.dumps(request).encode() + b"\n", socket.MSG_NOSIGNAL)
            while b"\n" not in self._text:
                if patience.is_over() or len(self._text) > LONGEST_ANSWER:
                    raise TimeoutError
                part = self._channel.recv(_BLOCK_BYTES)
                if not part:
                    raise ConnectionResetError("the run has ended")
                self._text += part
        except TimeoutError:
            raise self._no_answer() from None
        line, _, self._text = self._text.partition(b"\n")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("an answer is no JSON object")
        return answer

    def _no_answer(self) -> EngineError:
        pid = self.peer.pid
        if pid and is_stopped(pid):
            return EngineError(
                f"the run does not answer: its process {pid} is stopped, as by Ctrl-Z",
                advice=f"Let it go on with: kill -CONT {pid}.",
            )
        who = f"its process {pid}" if pid else "its process"
        return EngineError(
            f"the run did not answer within {self._timeout_s:g} s",
            advice=f"See what {who} does, or allow more time with --timeout.",
        )


def _connect(channel: socket.socket, address: str, timeout_s: float) -> None:
    """Connect; wait where many others wait already, which is not what the kernel does."""
    patience = Patience(timeout_s)
    while True:
        try:
            channel.connect(address)
        except BlockingIOError:
            if patience.is_over():
                raise EngineError(
                    f"the run did not answer within {timeout_s:g} s",
                    advice="If it is stopped (Ctrl-Z), let it go on with: fg.",
                ) from None
            time.sleep(_AGAIN_S)
        else:
            return
