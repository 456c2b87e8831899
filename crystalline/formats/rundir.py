"""The run directory: made, found, locked and described.

    RUN/config.toml      the resolved settings; `--config` reads it
    RUN/tokenizer.json   what every checkpoint gets
    RUN/base/            the model that is trained on, of runs that train adapters; see `base`
    RUN/crystal.json     the vocabulary's numbers at the start, of runs that compute with them
    RUN/metrics.jsonl    written by `train.metrics`
    RUN/suite.jsonl      written by `runs.suite`, of runs with --eval-suite
    RUN/checkpoints/     see `checkpoint`, also for `latest` and `best`
    RUN/run.lock         locked while a process trains here; says which
    RUN/status.json      what the run does, rewritten every second; see `train.statusfile`
    RUN/control.sock     a socket by which that process can be asked; see `engine.door`

The lock is flock's, so it is gone with its process, however that ends.  What a killed
process leaves half-written is removed when the run is next opened; and a run that was
killed before its first checkpoint may be started over in its directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from crystalline.atomic import (
    is_temporary,
    remove,
    replace_shared,
    sweep_leftovers,
    write_bytes,
    write_text,
)
from crystalline.closing import Closing
from crystalline.data import artifacts
from crystalline.data.crystal import CRYSTAL
from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.catalog import (
    all_checkpoints,
    latest_checkpoint,
    require_directory,
    saved_at,
    tidy,
    unreadable,
)
from crystalline.formats.files import (
    BASE,
    CHECKPOINTS,
    CONTROL,
    MANIFEST,
    METRICS,
    MODEL_FILES,
    OPTIONAL_FILES,
    RUNS,
    STATUS,
    TOKENIZER,
)
from crystalline.formats.files import SETTINGS as CONFIG
from crystalline.formats.pointers import restore_pointers
from crystalline.formats.toml import read_toml, to_toml
from crystalline.ipc.arena import PREFIX
from crystalline.untrusted import (
    BadContent,
    RefusedFile,
    open_ours,
    real_directory,
    shown,
)
from crystalline.untrusted.files import RUN_LOCK
from crystalline.untrusted.files import TOKENIZER as TOKENIZER_FILE

__all__ = [
    "CONFIG", "LOCK", "RUNS", "RunDir",
    "default_run_dirs", "newest_run", "read_toml", "run_of", "short_count", "to_toml",
]  # fmt: skip

LOCK = artifacts.LOCK
BEFORE_TRAINING = (
    CONFIG,
    TOKENIZER,
    CRYSTAL,
    METRICS,
    STATUS,
    BASE,
)  # what a run writes before a checkpoint

_TRIES = 100  # against others that remove the directories we are about to use
_ADVICE = "Choose another --checkpoint-dir, one that you may write to."
_ADVICE_RESUMED = "Check its permissions, or resume a copy of the run."


class RunDir(Closing):
    """A run directory that this process holds the lock of, until `close`."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._fd = lock_fd
        self._cleared = not any(os.path.lexists(path / name) for name in BEFORE_TRAINING)

    @classmethod
    def create(cls, path: Path) -> RunDir:
        """Make and lock a directory for a new run.

        An existing one must be empty, or hold only what a run leaves that was killed before
        its first checkpoint; see `clear`.

        Raises:
            UsageError: it is in use, not empty, or cannot be written.
        """
        try:
            _make(path, exist_ok=True)
        except FileExistsError:
            raise UsageError(
                f"the run directory {path} is a file", advice="Choose another --checkpoint-dir."
            ) from None
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            if not os.path.lexists(path / LOCK):  # nothing is put into what is not ours
                _require_empty(path)
            found = cls._locked(path)
            try:
                tidy(path)
                _require_empty(path)
            except BaseException:
                found.close()
                raise
        except OSError as error:
            raise _unwritable(path, error) from None
        return found

    @classmethod
    def create_default(cls, parameters: int, *, now: datetime | None = None) -> RunDir:
        """Make and lock a directory of its own below `runs`, whoever else does so at the time.

        Raises:
            UsageError: it cannot be written.
        """
        for path in default_run_dirs(parameters, now=now):
            try:
                _make(path, exist_ok=False)
            except FileExistsError:
                continue
            except OSError as error:
                raise _unwritable(path, error) from None
            return cls._locked(path)
        raise AssertionError("the numbers never end")

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Lock the directory of a run that is going to be resumed, and put it in order.

        What killed processes left goes, and pointers that a copy made folders or files of
        become links again.

        Raises:
            CheckpointError: there is no such directory.
            UsageError: it is in use or cannot be written.
        """
        try:
            is_directory = path.is_dir()
        except PermissionError as error:
            raise unreadable(path, error) from None
        except OSError:  # no name that a directory can have
            is_directory = False
        if not is_directory:
            raise CheckpointError(
                f"there is no run at {path}", advice="Check the path for a typing error."
            )
        require_directory(path)  # and that it can be looked into
        found = cls._locked(path, resumed=True)
        try:
            sweep_leftovers(path, owned=True)
            tidy(path)
            restore_pointers(path)
        except OSError as error:
            found.close()
            raise _unwritable(path, error, _ADVICE_RESUMED) from None
        return found

    @classmethod
    def _locked(cls, path: Path, *, resumed: bool = False) -> RunDir:
        """Take the lock and write into it who holds it."""
        advice = _ADVICE_RESUMED if resumed else _ADVICE
        for _ in range(_TRIES):
            try:
                _make(path, exist_ok=True)
                fd = open_ours(path / LOCK)
            except FileNotFoundError:  # removed by a run that was never used
                continue
            except OSError as error:
                raise _unwritable(path, error, advice) from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_open_as(fd, path / LOCK):  # its owner has removed it before it ended
                    os.close(fd)
                    continue
                if os.fstat(fd).st_nlink > 1:  # a backup made by linking: not ours to write to
                    replace_shared(path / LOCK)
                    os.close(fd)
                    continue
                real_directory(path / CHECKPOINTS)  # nothing is written or removed elsewhere
                os.ftruncate(fd, 0)
                owner = {"pid": os.getpid(), "host": socket.gethostname()}
                os.pwrite(fd, json.dumps(owner).encode() + b"\n", 0)
            except OSError as error:
                taken = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
                who = _owner(os.pread(fd, 4096, 0)) if taken else ""
                os.close(fd)
                if not taken:
                    raise _unwritable(path, error, advice) from None
                raise UsageError(
                    f"the run directory {path} is in use by {who}",
                    advice="Wait until it ends, or stop it."
                    if resumed
                    else "Wait until it ends, stop it, or choose another --checkpoint-dir.",
                ) from None
            return cls(path, fd)
        raise UsageError(f"the run directory {path} is removed again and again", advice=advice)

    def close(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def clear(self) -> None:
        """Remove what an earlier run left that had no checkpoint: this one starts over."""
        for name in (*BEFORE_TRAINING, CONTROL):
            remove(self.path / name)
        with contextlib.suppress(OSError):
            (self.path / CHECKPOINTS).rmdir()
        sweep_leftovers(self.path, owned=True)
        self._cleared = True

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
            content = TOKENIZER_FILE.read_bytes(tokenizer)
        except OSError as error:
            raise unreadable(tokenizer, error) from None
        try:
            write_bytes(copy, content)
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
        """Remove what this class wrote, if the run never got further.

        What an earlier run left stays until this one has taken its place (`clear`).
        """
        if not self._cleared:
            return
        with contextlib.suppress(OSError):  # what else is there keeps the directory
            ours = {CONFIG, TOKENIZER, CRYSTAL, STATUS, BASE, LOCK}
            if {entry.name for entry in self.path.iterdir()} <= ours:
                for name in ours - {LOCK}:
                    remove(self.path / name)
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


def default_run_dirs(parameters: int, *, now: datetime | None = None) -> Iterator[Path]:
    """Yield names for a new run: when it began (UTC), the size of its model, and a number.

    >>> names = default_run_dirs(3_214_000, now=datetime(2026, 5, 4, 3, 2, 1))
    >>> next(names).as_posix(), next(names).as_posix()
    ('runs/20260504-030201-3.2M', 'runs/20260504-030201-3.2M-2')
    """
    moment = now or datetime.now(timezone.utc)
    base = f"{moment:%Y%m%d-%H%M%S}-{short_count(parameters)}"
    yield RUNS / base
    for number in itertools.count(2):
        yield RUNS / f"{base}-{number}"


def trainer_of(run_dir: Path) -> str | None:
    """Return who holds the lock of a run, in words; None where nobody does.

    The lock itself is not touched: whoever wants it just now must get it.
    """
    try:
        status = (run_dir / LOCK).stat()
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        content = RUN_LOCK.read_bytes(run_dir / LOCK)
    except OSError:
        return None
    held = {words[5].rpartition(":")[2] for words in locks if words[1:2] == ["FLOCK"]}
    return _owner(content) if str(status.st_ino) in held else None


def newest_run(runs: Path = RUNS) -> Path:
    """Return the run below `runs` that was saved last.

    That is told by the manifests (see `catalog.stamp`); times of files are when they were
    copied.  Raises `CheckpointError` when there is no run with a checkpoint.
    """
    found = []
    for entry in sorted(runs.iterdir()) if runs.is_dir() else ():
        with contextlib.suppress(CheckpointError):  # somebody else's
            latest = latest_checkpoint(entry)
            if latest is not None:
                found.append((saved_at(latest), entry))
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


def _make(path: Path, *, exist_ok: bool) -> None:
    """Make a directory and its parents, while others may remove them: `discard_unused`.

    Raises `OSError`, among them `FileExistsError` for a file, and without `exist_ok` for any.
    """
    for _ in range(_TRIES):
        try:
            path.mkdir(exist_ok=exist_ok)
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                path.parent.mkdir(parents=True, exist_ok=True)
            continue
        except ValueError:  # a NUL byte
            raise RefusedFile(path, "its name is impossible") from None
        return
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _is_open_as(fd: int, path: Path) -> bool:
    """Return whether a path leads to the very file that `fd` is."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _require_empty(path: Path) -> None:
    """Refuse a directory with anything but the leftovers of a run without a checkpoint.

    Such a run always has its lock file.
    """
    entries = [entry for entry in path.iterdir() if entry.name != LOCK]
    if not entries:
        return
    if os.path.lexists(path / LOCK) and all(map(_is_leftover, entries)):
        return
    if all_checkpoints(path):
        advice = f"Continue it with --resume {path}, or choose another --checkpoint-dir."
    else:
        advice = "Choose another --checkpoint-dir."
    raise UsageError(f"the run directory {path} is not empty", advice=advice)


def _is_leftover(entry: Path) -> bool:
    """Return whether a run without a checkpoint leaves this behind when it is killed."""
    mode = entry.lstat().st_mode
    if entry.name == CHECKPOINTS:
        return stat.S_ISDIR(mode) and all(map(is_temporary, entry.iterdir()))
    if stat.S_ISDIR(mode):
        inside = {*MODEL_FILES, *OPTIONAL_FILES, MANIFEST}
        is_base = entry.name == BASE and {one.name for one in entry.iterdir()} <= inside
        return is_base or is_temporary(entry)
    if not stat.S_ISREG(mode):
        return entry.name == CONTROL and stat.S_ISSOCK(mode)
    return (
        entry.name in BEFORE_TRAINING or is_temporary(entry) or entry.name.startswith(f".{PREFIX}")
    )


def _owner(content: bytes) -> str:
    try:
        owner = RUN_LOCK.of(content)
    except BadContent:  # between taking the lock and writing into it
        return "another process"
    return f"process {owner['pid']} on {shown(owner['host'])}"


def _unwritable(path: Path, error: OSError, advice: str = _ADVICE) -> UsageError:
    return UsageError(
        f"the run directory {path} cannot be written ({error.strerror})", advice=advice
    )
