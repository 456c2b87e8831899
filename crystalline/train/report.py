"""What Node Zero tells the launcher: lines of JSON on a socket.

    {"kind": "arena", "layout": […], "permits": n}                first, with a descriptor
    {"kind": "log", "logger": …, "level": n, "text": …}           worth reading
    {"kind": "checkpoint", "path": …}                             the newest
    {"kind": "diagnosis", "diagnosis": {…}}                       the newest
    {"kind": "result", …}  or  {"kind": "error", "type": …, "message": …, "advice": …}
                                                                  last

What the launcher makes of them is its own affair.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import Any

from crystalline.errors import EngineError, remedy
from crystalline.faults import point


def send(report: int, kind: str, *, descriptor: int | None = None, **fields: Any) -> None:
    """Write a line to the socket with the file descriptor `report`.

    An open `descriptor` goes with it; the launcher gets a copy.

    Raises:
        BrokenPipeError: the launcher is gone.
        EngineError: the system does not take the line.
    """
    try:
        _send(report, {"kind": kind, **fields}, descriptor)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EngineError(
            f"Node Zero cannot send a message to the launcher ({error.strerror})",
            advice=remedy(error),
        ) from error


def _send(report: int, fields: dict[str, Any], descriptor: int | None) -> None:
    point("message.send")
    line = memoryview(json.dumps(fields).encode() + b"\n")
    if descriptor is not None:
        with socket.socket(fileno=os.dup(report)) as channel:
            line = line[socket.send_fds(channel, [line], [descriptor]) :]
    while line:
        line = line[os.write(report, line) :]
    point("message.sent")


class ReportHandler(logging.Handler):
    """Sends log records to the launcher, which decides where they go."""

    def __init__(self, report: int) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as a line."""
        logger, text = record.name, record.getMessage()
        send(self._report, "log", logger=logger, level=record.levelno, text=text)
