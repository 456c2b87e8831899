"""The package's logger: one place that decides where messages go and how they look."""

from __future__ import annotations

import logging
import re
import sys
from typing import TextIO

LOGGER_NAME = "crystalline"

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return `text` as a terminal and UTF-8 can take it; tabs and line ends stay.

    Names of files may hold control characters, which a terminal would obey, and bytes that
    are not UTF-8, which Python keeps as lone surrogates.

    >>> printable("Zürich \x1b[2J \udcff")
    'Zürich \\x1b[2J \\xff'
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


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
