"""Every error a user can meet: one hierarchy, each with its exit code and its remedy.

A message is one sentence that names the thing and the value; `advice` is one
sentence that says what to do.  The commands print both and exit with
`exit_code`; a traceback is for our own mistakes only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_DATA = 3
EXIT_CHECKPOINT = 4
EXIT_DIVERGED = 5
EXIT_STOPPED = 75
EXIT_HANGUP = 129
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
EXIT_TERMINATED = 143


class CrystallineError(Exception):
    """Something a user can understand and act on.

    >>> str(CrystallineError("the disk is full", advice="Free some space."))
    'the disk is full. Free some space.'
    >>> str(CrystallineError("no prompt given"))
    'no prompt given.'
    """

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}. {self.advice}".rstrip()


class UsageError(CrystallineError):
    """A flag, a setting or a combination of them that cannot work."""

    exit_code = EXIT_USAGE


class DataError(CrystallineError):
    """Text, tokens or a tokenizer that cannot be used."""

    exit_code = EXIT_DATA


class CheckpointError(CrystallineError):
    """A checkpoint that is missing, damaged or belongs to something else.

    `undamaged` is another checkpoint of the same run to use instead, where there is one;
    with it a command can put the advice into words of its own.
    """

    exit_code = EXIT_CHECKPOINT

    def __init__(self, message: str, *, advice: str = "", undamaged: Path | None = None) -> None:
        super().__init__(message, advice=advice)
        self.undamaged = undamaged


class SaveError(CrystallineError):
    """A checkpoint that could not be written; the ones before it are intact."""


class DivergedError(CrystallineError):
    """Training met non-finite gradients too often to go on."""

    exit_code = EXIT_DIVERGED


class StoppedError(CrystallineError):
    """The run stopped before its end and can be resumed."""

    exit_code = EXIT_STOPPED


class EngineError(CrystallineError):
    """A process of the pool died or stopped answering and could not be replaced."""


class UnsupportedError(CrystallineError):
    """This machine or operating system lacks something that the engine needs."""
