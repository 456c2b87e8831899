"""The package's logger: one place that decides where messages go and how they look."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from crystalline.untrusted import message

LOGGER_NAME = "crystalline"


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return message(super().format(record))


def get_logger(name: str) -> logging.Logger:
    """Return the logger for a module of this package.

    >>> get_logger("train").name
    'crystalline.train'
    """
    return logging.getLogger(f"{LOGGER_NAME}.{name}")


def set_up_logging(level: int = logging.INFO, stream: TextIO | None = None) -> logging.Handler:
    """Send the package's messages at `level` and above to `stream` (default: stderr).

    Calling it again replaces the handler, so a process never prints a line twice.
    """
    logger = logging.getLogger(LOGGER_NAME)
    for old in list(logger.handlers):
        logger.removeHandler(old)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    return handler
