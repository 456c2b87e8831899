"""Cores that several runs of one user share: who keeps one busy holds its slot, in any run.

A slot is a record lock on one byte of one file that all runs of this user open.  The kernel gives
the locks of a process back when it ends, however it ends, and tells who holds one.  A process holds
one slot at most; alone it asks the kernel once a turn.

    bytes           0 … SPAN-1   SPAN-1      SPAN …          …
    what            core 0, 1 …  turnstile   the same again, where who holds the first is stopped

    keep    a slot is ours for a turn; then for another, unless somebody waits: it is given up
    take    whoever waits first gets the turnstile, and with it what comes free next; the turnstile
            makes the queue, and shows that there is one
    rest    nothing to do for a while: slot and turnstile are given back

A stopped process (Ctrl-Z) keeps its locks, so others pass it over: they take the same byte one
level higher.  When it goes on, both have the core until the other's turn ends.  Whoever has waited
for PATIENCE_NS takes a turn without a slot: the locks are manners, and nobody waits for ever.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from crystalline.ipc.liveness import is_stopped
from crystalline.log import get_logger

TURN_NS = 200_000_000
POLL_NS = 3_000_000  # between tries of one who waits
PATIENCE_NS = 30_000_000_000
LEVELS = 8
SPAN = 1 << 16  # bytes of a level
TURNSTILE = SPAN - 1
MEMBERS = LEVELS * SPAN  # the byte on which every run that uses the file has a shared lock
FILE = "cllm-cores"

_FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, pid
_LOOK = 16  # tries from one look at who is stopped to the next
_WITHOUT = -2  # a turn without a slot

logger = get_logger("ipc")


class Cores(Protocol):
    """What a sphere asks before it claims a unit.  Times are monotonic, in nanoseconds."""

    def keep(self, now_ns: int) -> bool:
        """Return whether a core is ours, and stays so for now."""
        ...

    @property
    def core(self) -> int:
        """The number of the core that we have, -1 where it may be any."""
        ...

    def take(self, now_ns: int, wanted: int = -1) -> bool:
        """Try to get one, `wanted` before others; return whether that worked.

        If not, try again after `POLL_NS`.
        """
        ...

    def rest(self) -> None:
        """Give back what we have, and leave the queue."""
        ...

    def leave(self) -> None:
        """Take part no longer, in Node Zero, when all spheres are gone; twice is once."""
        ...


class OwnCores:
    """Cores that are not shared with other runs."""

    def keep(self, now_ns: int) -> bool:  # noqa: ARG002
        """Return True: there is nobody to ask."""
        return True

    core = -1

    def take(self, now_ns: int, wanted: int = -1) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def rest(self) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Do nothing."""


class SharedCores:
    """The slots of some cores, as seen by one process; forked ones go on with it by themselves."""

    def __init__(self, path: Path, cores: Sequence[int]) -> None:
        """Open the file `path`, and take part; `cores` are the numbers of the cores.

        Raises `OSError` where it cannot be: it is not ours, or its file system has no locks.
        """
        self._path = path
        self._fd = self._join()
        self._cores = cores
        self._byte = -1  # of our slot
        self._queue = -1  # byte of the turnstile, while we have it
        self._turn_ends_ns = 0
        self._waits_since_ns = 0
        self._tries = 0

    # Asking.

    def keep(self, now_ns: int) -> bool:
        """Return whether a core is ours, and stays so for now."""
        if self._byte == -1:
            return False
        if now_ns < self._turn_ends_ns:
            return True
        if self._byte == _WITHOUT or self._is_taken_back() or self._is_waited_for():
            self.rest()
            return False
        self._turn_ends_ns = now_ns + TURN_NS
        return True

    @property
    def core(self) -> int:
        """The number of the core that we have, -1 where it may be any."""
        return self._byte % SPAN if self._byte >= 0 else -1

    def take(self, now_ns: int, wanted: int = -1) -> bool:
        """Try to get one, `wanted` before others; return whether that worked."""
        self._tries += 1
        if not self._waits_since_ns:
            self._waits_since_ns = now_ns
        if self._queue < 0:
            self._queue = self._lock_first([TURNSTILE])
        byte = -1
        if self._queue >= 0:
            byte = self._lock_first(sorted(self._cores, key=lambda core: core != wanted))
        if byte < 0:
            if now_ns - self._waits_since_ns < PATIENCE_NS:
                return False
            byte = _WITHOUT
        self._leave_queue()
        self._byte = byte
        self._turn_ends_ns = now_ns + TURN_NS
        return True

    def rest(self) -> None:
        """Give back what we have, and leave the queue."""
        if self._byte >= 0:
            self._set(fcntl.F_UNLCK, self._byte)
        self._byte = -1
        self._leave_queue()

    def _leave_queue(self) -> None:
        if self._queue >= 0:
            self._set(fcntl.F_UNLCK, self._queue)
        self._queue = -1
        self._waits_since_ns = self._tries = 0

    def _lock_first(self, places: Iterable[int]) -> int:
        """Lock the first byte that is free; return it, or -1.

        Now and then, pass over those whose holder is stopped.
        """
        levels = LEVELS if self._tries % _LOOK == 0 else 1
        for place in places:
            for byte in range(place, place + levels * SPAN, SPAN):
                if self._set(fcntl.F_WRLCK, byte):
                    return byte
                if levels > 1 and not is_stopped(self._holder(byte)):
                    break
        return -1

    def _is_taken_back(self) -> bool:
        """Return whether one whom we passed over goes on, and so has the core again."""
        below = range(self._byte - SPAN, -1, -SPAN)
        holders = [holder for byte in below if (holder := self._holder(byte))]
        return any(not is_stopped(holder) for holder in holders)

    def _is_waited_for(self) -> bool:
        for byte in range(TURNSTILE, TURNSTILE + LEVELS * SPAN, SPAN):
            holder = self._holder(byte)
            if not is_stopped(holder):
                return holder != 0
        return False

    # The file.

    def _set(self, kind: int, byte: int) -> bool:
        """Lock or unlock a byte; return False where somebody else has it.  Raises `OSError`."""
        request = struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETLK, request)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def _holder(self, byte: int) -> int:
        """Return the process that has locked a byte, 0 for nobody else."""
        request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(self._fd, fcntl.F_GETLK, request))
        return 0 if kind == fcntl.F_UNLCK else pid or -1

    def _join(self) -> int:
        """Open the file and show that it is in use; return its descriptor."""
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
            try:
                found = os.fstat(self._fd)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                    raise OSError(errno.EPERM, "it is not this user's", str(self._path))
                self._set(fcntl.F_RDLCK, MEMBERS)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(found, self._path.lstat()):
                        return self._fd
            except BaseException:
                os.close(self._fd)
                raise
            os.close(self._fd)  # another run, the last, was about to remove it

    def leave(self) -> None:
        """Take part no longer; the last run removes the file."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            if self._set(fcntl.F_WRLCK, MEMBERS):  # nobody joins until we are gone
                self._path.unlink()
        os.close(self._fd)
        self._fd = -1


def open_cores(cores: Sequence[int]) -> Cores:
    """Return the slots of some cores; where there can be none that is told, and nobody shares."""
    try:
        return SharedCores(slots_path(), cores)
    except OSError as error:
        logger.warning(
            "this run and others on the same cores will hold each other up: there is no place for "
            "what they share (%s)",
            error if error.filename else error.strerror,
        )
        return OwnCores()


def slots_path() -> Path:
    """Return where this user's runs on this machine meet.

    In $XDG_RUNTIME_DIR, which is the user's own, or else in the folder for temporary files.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    if named and _is_ours(Path(named)):
        return Path(named) / FILE
    return Path(tempfile.gettempdir()) / f"{FILE}-{os.geteuid()}"


def _is_ours(folder: Path) -> bool:
    """Return whether a folder is this user's, who alone can write there."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & others
    )
