"""The package's loggers: one place that decides where messages go and how they look.

Who watches a program decides by Python's means which messages he sees.  The log files of a run
(`logfile`) have levels of their own, which must change nothing of that: they are *sinks*, which the
package's loggers hand records to before all else.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from crystalline.untrusted import message

LOGGER_NAME = "crystalline"

_sinks: list[logging.Handler] = []


class _Logger(logging.Logger):
    """A logger that hands records to the sinks, too, which have levels of their own."""

    def isEnabledFor(self, level: int) -> bool:
        """Return whether anybody wants a message of this level."""
        return any(level >= sink.level for sink in _sinks) or super().isEnabledFor(level)

    def handle(self, record: logging.LogRecord) -> None:
        """Hand a record to whoever wants it."""
        _to_sinks(record)
        if super().isEnabledFor(record.levelno):
            super().handle(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return message(super().format(record))


def get_logger(name: str) -> logging.Logger:
    """Return the logger for a module of this package.

    >>> get_logger("train").name
    'crystalline.train'
    """
    logger = logging.getLogger(f"{LOGGER_NAME}.{name}")
    if type(logger) is logging.Logger:  # no class of the program's own
        logger.__class__ = _Logger
    return logger


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


# Sinks.


def add_sink(sink: logging.Handler) -> None:
    """Hand records of the package's loggers to `sink` from now on, as its level says."""
    _sinks.append(sink)


def remove_sink(sink: logging.Handler) -> None:
    """Hand it none any more; a second call does nothing."""
    if sink in _sinks:
        _sinks.remove(sink)


def sinks() -> tuple[logging.Handler, ...]:
    """Return the sinks."""
    return tuple(_sinks)


def note(logger: logging.Logger, text: str, level: int = logging.INFO) -> None:
    """Tell the sinks alone: what people have been told by other means, or need not be."""
    record = logger.makeRecord(logger.name, level, __file__, 0, text, (), None)
    _to_sinks(record)


def least_level() -> int:
    """Return the lowest level that anybody wants; INFO where all want less."""
    wanted = logging.getLogger(LOGGER_NAME).getEffectiveLevel()
    return min(logging.INFO, wanted, *(sink.level for sink in _sinks))


def _to_sinks(record: logging.LogRecord) -> None:
    for sink in tuple(_sinks):
        if record.levelno >= sink.level:
            sink.handle(record)
