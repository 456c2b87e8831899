"""The run directory: made, found, locked and described.

    RUN/config.toml      the resolved settings; `--config` reads it
    RUN/tokenizer.json   what every checkpoint gets
    RUN/crystal.json     the vocabulary's numbers at the start, of runs that compute with them
    RUN/metrics.jsonl    written by `train.metrics`
    RUN/checkpoints/     see `checkpoint`, also for `latest` and `best`
    RUN/run.lock         locked while a process trains here; says which

The lock is flock's, so it is gone with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from crystalline.atomic import write_bytes, write_text
from crystalline.data.crystal import CRYSTAL
from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.checkpoint import TOKENIZER, list_checkpoints, tidy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG = "config.toml"
LOCK = "run.lock"
RUNS = Path("runs")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ADVICE = "Choose another --checkpoint-dir, one that you may write to."


class RunDir:
    """A run directory that this process holds the lock of, until `close`."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._fd = lock_fd

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """Make and lock a directory for a new run; an existing one must be empty.

        Raises:
            UsageError: it is in use, not empty, or cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(
                f"the run directory {path} is a file", advice="Choose another --checkpoint-dir."
            ) from None
        except OSError as error:
            raise _unwritable(path, error) from None
        if not (path / LOCK).exists():  # nothing is put into a directory of something else
            _require_empty(path)
        found = cls._locked(path)
        try:
            _require_empty(path)
        except UsageError:
            found.close()
            raise
        return found

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Lock the directory of a run that is going to be resumed, and clear it up.

        Raises:
            CheckpointError: there is no such directory.
            UsageError: it is in use or cannot be written.
        """
        if not path.is_dir():
            raise CheckpointError(
                f"there is no run at {path}", advice="Check the path for a typing error."
            )
        found = cls._locked(path)
        try:
            tidy(path)
        except OSError as error:
            found.close()
            raise _unwritable(path, error) from None
        return found

    @classmethod
    def _locked(cls, path: Path) -> RunDir:
        """Take the lock and write into it who holds it."""
        try:
            fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            owner = {"pid": os.getpid(), "host": socket.gethostname()}
            os.pwrite(fd, json.dumps(owner).encode() + b"\n", 0)
        except OSError as error:
            taken = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
            who = _owner(os.pread(fd, 4096, 0)) if taken else ""
            os.close(fd)
            if not taken:
                raise _unwritable(path, error) from None
            raise UsageError(
                f"the run directory {path} is in use by {who}",
                advice="Wait until it ends, stop it, or choose another --checkpoint-dir.",
            ) from None
        return cls(path, fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def write_config(self, values: Mapping[str, Any], *, comment: str = "") -> None:
        """Write config.toml.  Raises `UsageError` when the directory cannot be written."""
        try:
            write_text(self.path / CONFIG, to_toml(values, comment=comment))
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def keep_tokenizer(self, tokenizer: Path) -> Path:
        """Copy a tokenizer.json here, and return the copy.

        Every checkpoint gets it, however long the run takes and whatever happens to the
        original.  Raises `UsageError` when the directory cannot be written.
        """
        copy = self.path / TOKENIZER
        try:
            write_bytes(copy, tokenizer.read_bytes())
        except OSError as error:
            raise _unwritable(self.path, error) from None
        return copy

    def keep_crystal(self, content: str) -> Path:
        """Write crystal.json, and return its path.

        Raises `UsageError` when the directory cannot be written.
        """
        path = self.path / CRYSTAL
        try:
            write_text(path, content)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        return path

    def discard_unused(self) -> None:
        """Remove what this class wrote, if the run never got further."""
        with contextlib.suppress(OSError):  # what else is there keeps the directory
            ours = {CONFIG, TOKENIZER, CRYSTAL, LOCK}
            if {entry.name for entry in self.path.iterdir()} <= ours:
                for name in (CONFIG, TOKENIZER, CRYSTAL):
                    (self.path / name).unlink(missing_ok=True)
                (self.path / LOCK).unlink()
                self.path.rmdir()
                if self.path.parent == RUNS:
                    RUNS.rmdir()  # unless there are others


def run_of(checkpoint: Path) -> Path:
    """Return the run directory that a checkpoint directory belongs to.

    >>> run_of(Path("runs/a/checkpoints/step-00000500")).as_posix()
    'runs/a'
    """
    return checkpoint.parent.parent


def default_run_dir(parameters: int, *, now: datetime | None = None) -> Path:
    """Return an unused name for a new run: when it began (UTC) and the size of its model.

    >>> default_run_dir(3_214_000, now=datetime(2026, 5, 4, 3, 2, 1)).as_posix()
    'runs/20260504-030201-3.2M'
    """
    moment = now or datetime.now(timezone.utc)
    base = f"{moment:%Y%m%d-%H%M%S}-{short_count(parameters)}"
    path, number = RUNS / base, 1
    while path.exists():
        number += 1
        path = RUNS / f"{base}-{number}"
    return path


def newest_run(runs: Path = RUNS) -> Path:
    """Return the run below `runs` that was saved last.

    Raises `CheckpointError` when there is none with a checkpoint.
    """
    found = [
        (checkpoints[-1].stat().st_mtime_ns, entry)
        for entry in (runs.iterdir() if runs.is_dir() else ())
        if (checkpoints := sorted(list_checkpoints(entry), key=lambda p: p.stat().st_mtime_ns))
    ]
    if not found:
        raise CheckpointError(
            f"there is no run with a checkpoint in {runs}/",
            advice="Name the run, as in --resume RUN.",
        )
    return max(found)[1]


def short_count(count: int) -> str:
    """Return a number of parameters with a unit.

    >>> short_count(950), short_count(809_856), short_count(10_770_816), short_count(124_439_808)
    ('950', '810K', '10.8M', '124M')
    """
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return (
                f"{count / size:.1f}{unit}"
                if 1e6 <= count < 1e2 * size
                else (f"{count / size:.0f}{unit}")
            )
    return str(count)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.  Raises `UsageError` when it is missing or not TOML."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(
            f"the settings file {path} cannot be read ({error.strerror})",
            advice="Check the path.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the settings file {path} is not valid TOML ({error})",
            advice="Lines look like: learning_rate = 0.001.",
        ) from None


def to_toml(values: Mapping[str, Any], *, comment: str = "") -> str:
    """Return flat settings as TOML; None, which TOML has no word for, is left out.

    Raises `TypeError` for anything but booleans, numbers, strings and lists of them.

    >>> print(to_toml({"seed": 5, "data": ["a b"], "min_lr": None}, comment="Hello."), end="")
    # Hello.
    seed = 5
    data = ["a b"]
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [
        f"{key if _BARE_KEY.fullmatch(key) else _toml_string(key)} = {_toml_value(value)}"
        for key, value in values.items()
        if value is not None
    ]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # TOML wants a dot or an exponent, and knows inf and nan as Python writes them.
        return repr(value)
    if isinstance(value, (str, Path)):
        return _toml_string(str(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no place in a settings file")


def _toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'


def _require_empty(path: Path) -> None:
    if all(entry.name == LOCK for entry in path.iterdir()):
        return
    if list_checkpoints(path):
        advice = f"Continue it with --resume {path}, or choose another --checkpoint-dir."
    else:
        advice = "Choose another --checkpoint-dir."
    raise UsageError(f"the run directory {path} is not empty", advice=advice)


def _owner(content: bytes) -> str:
    try:
        owner = json.loads(content)
        return f"process {int(owner['pid'])} on {owner['host']}"
    except (ValueError, KeyError, TypeError):  # between taking the lock and writing into it
        return "another process"


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"the run directory {path} cannot be written ({error.strerror})", advice=_ADVICE
    )
