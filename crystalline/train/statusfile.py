"""RUN/status.json: what a run does, rewritten every second, for scripts that ask nobody.

    {"over": false, "how": null, "updated_at": 1767225600.0, "pid": 4711, "host": "m",
     "state": "training", "step": 120, "loss": 2.45, …}

The fields from "state" on are those of `stats.Snapshot` without the losses of the past, which
are in metrics.jsonl.  "how" tells how it ended: "finished", "time", "patience", "stopped",
"interrupted", "terminated", "hangup", or "error: …".  A run that is killed cannot say so: its file
is as old as "updated_at", in seconds since 1970, says.  A reader sees a whole file, always.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from crystalline.atomic import atomic_write, json_text
from crystalline.faults import point
from crystalline.formats.files import STATUS
from crystalline.log import get_logger
from crystalline.train.stats import Snapshot

INTERVAL_S = 1.0
MESSAGE_CHARS = 2000  # of an error that is kept

logger = get_logger("train")


class StatusFile:
    """Writes the status of one run; when that fails, warns once and writes no more."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / STATUS
        self._due_at = 0.0
        self._is_failing = False

    def clear(self) -> None:
        """Remove what an earlier session left, which would tell of its end."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def show(self, snapshot: Snapshot) -> None:
        """Write `snapshot` if the last was written a second ago."""
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + INTERVAL_S
            self._write(snapshot, None)

    def close(self, snapshot: Snapshot, how: str) -> None:
        """Write the last status, and how the run ended."""
        self._write(snapshot, how[:MESSAGE_CHARS])

    def _write(self, snapshot: Snapshot, how: str | None) -> None:
        if self._is_failing:
            return
        values = {
            "over": how is not None,
            "how": how,
            "updated_at": time.time(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            **snapshot.to_json(history=False),
        }
        try:
            point("status.write")
            with atomic_write(self.path, durable=False) as file:
                file.write(json_text(values).encode() + b"\n")
        except OSError as error:
            self._is_failing = True
            logger.warning("%s cannot be written any more (%s)", self.path, error.strerror)
