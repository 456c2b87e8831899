"""Every error a user can meet: one hierarchy, each with its exit code and its remedy.

A message is one sentence that names the thing and the value; `advice` is one
sentence that says what to do.  The commands print both and exit with
`exit_code`; a traceback is for our own mistakes only.
"""

from __future__ import annotations

import errno
import io
import os
import re
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


# What a user can do about the errors of the operating system.
_REMEDIES = {
    errno.ENOSPC: "Free some space.",
    errno.EDQUOT: "Free some space.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f).",
    errno.EMFILE: "Raise the limit on open files (ulimit -n).",
    errno.ENFILE: "Close other programs: the system has too many files open.",
    errno.EAGAIN: "Raise the limit on processes and threads (ulimit -u).",
    errno.ENOMEM: "Free some memory, or raise its limit (ulimit -v).",
    errno.EACCES: "Check the permissions.",
    errno.EPERM: "Check the permissions.",
    errno.EROFS: "Choose a place that can be written to.",
    errno.EIO: "Check the disk.",
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "Check the path.",
    errno.EISDIR: "Check the path.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}
# How libraries word that memory, threads or open files ran out.
_SHORT_OF = re.compile(
    "failed to map segment|cannot allocate memory|Too many open files|can't start new thread", re.I
)


def remedy(error: OSError) -> str:
    """Return what a user can do about an error of the operating system.

    >>> remedy(OSError(errno.EFBIG, "File too large"))
    'Raise the limit on the size of files (ulimit -f).'
    """
    return _REMEDIES.get(error.errno or 0, "Check that it is there and may be used.")


def environment_error(error: BaseException) -> CrystallineError | None:
    """Return, as a sentence, a failure of the machine that nobody foresaw; None for our mistakes.

    The machine's are the errors of the operating system, and that memory or threads ran out.

    >>> print(environment_error(PermissionError(errno.EACCES, "Permission denied", "a/b")))
    a/b cannot be used (Permission denied). Check the permissions.
    >>> environment_error(TypeError("our own"))
    """
    if isinstance(error, OSError) and not isinstance(error, io.UnsupportedOperation):
        return _operating_system_error(error)
    if isinstance(error, MemoryError):
        why = f" ({error})".replace("\n", " ") if str(error) else ""
        return CrystallineError(
            f"memory ran out{why}",
            advice="Free some memory, or use a smaller model, batch or text.",
        )
    if isinstance(error, RecursionError):
        return CrystallineError(
            "something that was read is nested too deeply",
            advice="Look for a damaged file among those that were named.",
        )
    causes: list[BaseException] = []
    if isinstance(error, RuntimeError):
        causes = [error]
    elif isinstance(error, ImportError):  # packages wrap what the loader said
        found: BaseException | None = error
        while found is not None:
            causes.append(found)
            found = found.__cause__ or found.__context__
    for cause in causes:
        if isinstance(cause, (OSError, MemoryError)):
            return environment_error(cause)
        if _SHORT_OF.search(str(cause)):
            last = str(cause).strip().splitlines()[-1].rstrip(".")
            return CrystallineError(
                f"the machine is short of something ({last})",
                advice="Raise the limits on memory, threads and open files (ulimit -a).",
            )
    return None


def _operating_system_error(error: OSError) -> CrystallineError:
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    if error.errno == errno.ENOENT:
        try:
            Path.cwd()
        except OSError:
            return CrystallineError(
                "the current directory does not exist any more",
                advice="Change to another one.",
            )
    if isinstance(error.filename, (str, bytes)) and error.filename:
        reason = f"{os.fsdecode(error.filename)} cannot be used ({reason})"
    return CrystallineError(reason, advice=remedy(error))
