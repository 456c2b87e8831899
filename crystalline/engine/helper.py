"""A helper: one process that Node Zero forks for one piece of work, and what came of it.

It inherits the arena and all that Node Zero knows at that moment, changes neither, and hands back
one JSON object through a pipe.  It dies with Node Zero, steps back where the spheres want the
processor, and is the first to go where memory is short.

    helper = Helper("save", 500, work)
    …                                   helper.poll() is None as long as it works
    helper.poll() → Outcome
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crystalline._kernels.atomics import fork_workers
from crystalline.engine.deaths import cause_of
from crystalline.errors import EXIT_FAILURE
from crystalline.faults import SAVER, play, point
from crystalline.ipc.liveness import Patience, cpu_time_ns

NICENESS = 5  # a third of the processor time of a sphere that wants the same core
FIRST_TO_GO = "500"  # for the kernel, of -1000 to 1000: spheres have 0
_LOOKS = 10  # at least, before a silence counts as one
_BLOCK_BYTES = 1 << 16

Work = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """How a helper ended."""

    answer: dict[str, Any] | None  # what its work returned, None where it did not get so far
    cause: str  # why there is no answer, as a predicate: "was killed by signal 9 (Killed)"


class Helper:
    """A forked process at work.  The caller has one thread, and calls `poll` or `kill` at last."""

    def __init__(self, name: str, number: int, work: Work, *, silent_s: float) -> None:
        """Fork; the process is called `name`-`number`, and killed when it gives no sign of life,
        which is processor time, for `silent_s`.

        Raises `OSError` when there is no process to be had.
        """
        self._silent_s = silent_s
        self._text = b""
        self._cpu_ns = 0
        self._hung = False
        self._patience = self._fresh_patience()
        self._pipe, inlet = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pids = np.zeros(1, np.intc)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        place = fork_workers(name, np.array([number], np.intc), pids, True)
        if place == 0:
            _become_helper(inlet, work)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.close(inlet)
        self.pid = int(pids[0])
        if place == -1:  # no child: this is why
            os.close(self._pipe)
            raise OSError(self.pid, os.strerror(self.pid))
        os.set_blocking(self._pipe, False)

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it is at work; to be called now and then until then."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._pipe, _BLOCK_BYTES):
                self._text += part
            return self._bury()
        cpu_ns = cpu_time_ns(self.pid)
        if cpu_ns != self._cpu_ns:
            self._cpu_ns, self._patience = cpu_ns, self._fresh_patience()
        elif self._patience.is_over():
            self._hung = True
            os.kill(self.pid, signal.SIGKILL)
            self._patience = self._fresh_patience()  # where it cannot even die, as on a dead disk
        return None

    def wait(self, timeout_s: float) -> None:
        """Sleep until it has something to say or has ended, at most `timeout_s`."""
        select.select([self._pipe], [], [], timeout_s)

    def kill(self) -> None:
        """End it now, whatever it does."""
        os.kill(self.pid, signal.SIGKILL)  # not waited for yet: the pid is its own
        self._bury()

    def _bury(self) -> Outcome:
        os.close(self._pipe)
        _, status = os.waitpid(self.pid, 0)
        if status == 0:
            return Outcome(json.loads(self._text), "")
        if self._hung:
            return Outcome(None, f"gave no sign of life for {self._silent_s:g} s")
        words = self._text.decode("utf-8", "replace").strip().splitlines()
        return Outcome(None, cause_of(status) + (f" ({words[-1]})" if words else ""))

    def _fresh_patience(self) -> Patience:
        return Patience(self._silent_s, tick_s=self._silent_s / _LOOKS)


def _become_helper(inlet: int, work: Work) -> None:
    """Work, answer and end."""
    code = EXIT_FAILURE
    try:
        play(SAVER)
        point("saver.born")
        os.nice(NICENESS)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
        answer = json.dumps(work()).encode()
        point("saver.answer")
        _write(inlet, answer)
        code = 0
    finally:  # never back into Node Zero's frames
        if code:
            _write(inlet, traceback.format_exc().encode())
        os._exit(code)


def _write(inlet: int, text: bytes) -> None:
    while text:
        text = text[os.write(inlet, text) :]
