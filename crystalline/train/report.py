"""What Node Zero tells the launcher: lines of JSON on a pipe.

    {"kind": "arena", "path": …, "layout": […], "permits": n}     first
    {"kind": "log", "level": n, "text": …}                        worth reading
    {"kind": "checkpoint", "path": …}                             the newest
    {"kind": "groups", "groups": [[name, weight, gradient], …]}   magnitudes
    {"kind": "result", …}  or  {"kind": "error", "type": …, "message": …, "advice": …}
                                                                  last

What the launcher makes of them is its own affair.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any


def send(report: int, kind: str, **fields: Any) -> None:
    """Write a line to the file descriptor `report`."""
    line = memoryview(json.dumps({"kind": kind, **fields}).encode() + b"\n")
    while line:
        line = line[os.write(report, line) :]


class ReportHandler(logging.Handler):
    """Sends log records to the launcher, which decides where they go."""

    def __init__(self, report: int) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as a line."""
        send(self._report, "log", level=record.levelno, text=record.getMessage())
