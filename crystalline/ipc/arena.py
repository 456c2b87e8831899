"""One shared mapping, cut into named arrays by one table.

The creator makes the memory with `multiprocessing.shared_memory`, or, where
/dev/shm has no room for it, as a file in the run directory.  The memory is nameless
before it is large: it is made of one byte, opened, its name removed, and only then
does it grow through the descriptor, every page at once, so that nobody meets SIGBUS
later.  Others attach by that descriptor, which is handed to them or inherited.  So the
memory goes when the last process goes, however that ends, and a process killed at any
moment leaves at most a name of one byte, which `sweep_stale` removes at the next start.
The resource tracker of Python's standard library is kept out: it unlinks memory behind
its users' backs.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crystalline.errors import EngineError, remedy
from crystalline.ipc.liveness import is_alive, start_time
from crystalline.log import get_logger

ALIGN = 64  # bytes: a cache line
PREFIX = "cllm-"
SHM_DIR = Path("/dev/shm")
_MADV_POPULATE_WRITE = 23  # linux/mman.h; the mmap module does not name it

logger = get_logger("ipc")


@dataclass(frozen=True)
class Region:
    """One array in the arena.

    >>> Region("weights", "float32", (3, 5)).size_bytes
    60
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    align: int = ALIGN  # bytes, a power of two
    # On machines of several nodes: a row near each permit, all of it over all nodes, or anywhere.
    spread: Literal["permits", "nodes", "anywhere"] = "anywhere"

    @property
    def size_bytes(self) -> int:
        """Bytes of the array itself."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Layout:
    """Where each region lies.

    >>> layout = Layout([Region("a", "uint8", (70,)), Region("b", "float32", (2,))])
    >>> layout.offset("b"), layout.size_bytes
    (128, 136)
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self.regions = tuple(regions)
        self._offsets: dict[str, int] = {}
        offset = 0
        for region in self.regions:
            if region.name in self._offsets:
                raise ValueError(f"two regions are called {region.name!r}")
            if region.align < 8 or region.align & (region.align - 1):
                raise ValueError(f"region {region.name!r} has alignment {region.align}")
            offset = -(-offset // region.align) * region.align
            self._offsets[region.name] = offset
            offset += region.size_bytes
        self.size_bytes = offset

    def offset(self, name: str) -> int:
        """Return where a region starts, in bytes."""
        return self._offsets[name]

    def to_json(self) -> list[list[Any]]:
        """Return the table as plain values; `from_json` reads it in another process."""
        return [[r.name, r.dtype, list(r.shape), r.align] for r in self.regions]

    @classmethod
    def from_json(cls, rows: list[list[Any]]) -> Layout:
        """Return the layout that `to_json` described."""
        return cls([Region(name, dtype, tuple(shape), align) for name, dtype, shape, align in rows])


class Arena:
    """The mapping and its arrays: `arena["weights"]` is a NumPy view of shared memory.

    Fresh memory is all zeros.  The mapping lasts as long as any view of it does.
    """

    def __init__(self, layout: Layout, mapping: mmap.mmap, descriptor: int = -1) -> None:
        """`descriptor` is how others attach; the arena owns it."""
        self.layout = layout
        self._descriptor = descriptor
        self._mapping = mapping
        base = np.frombuffer(mapping, np.uint8)
        self._views: dict[str, npt.NDArray[Any]] = {}
        for region in layout.regions:
            start = layout.offset(region.name)
            raw = base[start : start + region.size_bytes]
            self._views[region.name] = raw.view(region.dtype).reshape(region.shape)

    @classmethod
    def create(cls, layout: Layout, run_dir: Path) -> Arena:
        """Allocate the arena, in /dev/shm or else as a file in `run_dir`; neither has a name.

        Raises:
            EngineError: neither has room for it.
        """
        size = max(layout.size_bytes, mmap.PAGESIZE)
        name = arena_name()
        try:
            return cls(layout, *_allocated(_open_shared_memory(name), size))
        except OSError as error:
            reason = error.strerror
        logger.warning(
            "%s cannot hold %.0f MB (%s); sharing memory through a file in %s instead, "
            "which may be slower",
            SHM_DIR, size / 1e6, reason, run_dir,
        )  # fmt: skip
        try:
            return cls(layout, *_allocated(_open_file(run_dir / f".{name}"), size))
        except OSError as error:
            advice = f"Free some space, or enlarge {SHM_DIR} (docker run --shm-size=…)."
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                advice = remedy(error)
            raise EngineError(
                f"{size / 1e6:.0f} MB of shared memory fit neither into {SHM_DIR} ({reason}) "
                f"nor into {run_dir} ({error.strerror})",
                advice=advice,
            ) from error

    @classmethod
    def attach(cls, layout: Layout, descriptor: int) -> Arena:
        """Map an arena that another process created; the caller closes its `descriptor`.

        Raises:
            EngineError: it cannot be mapped, or is too small for `layout`.
        """
        size = max(layout.size_bytes, mmap.PAGESIZE)
        try:
            return cls(layout, mmap.mmap(descriptor, size))
        except (OSError, ValueError) as error:  # ValueError: longer than the file
            reason = error.strerror if isinstance(error, OSError) else error
            raise EngineError(
                f"the {size / 1e6:.0f} MB of shared memory cannot be mapped ({reason})",
                advice="Free some memory, or raise its limit (ulimit -v).",
            ) from error

    @property
    def descriptor(self) -> int:
        """Return the open file that others attach by, until `close`."""
        if self._descriptor < 0:
            raise ValueError("the arena's descriptor is closed")
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor: nobody else can come.  The mapping stays; twice is once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def populate(self) -> None:
        """Enter all pages into this process's page table at once, which is cheaper than one by one.

        Kernels before 5.14 cannot; then every page is entered when it is first touched.
        """
        with suppress(OSError):
            self._mapping.madvise(_MADV_POPULATE_WRITE)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._views[name]


def arena_name() -> str:
    """Return a fresh name that tells which process it belongs to: cllm-<id>-<pid>-<start>."""
    pid = os.getpid()
    return f"{PREFIX}{secrets.token_hex(4)}-{pid}-{start_time(pid)}"


def sweep_stale(*directories: Path) -> list[Path]:
    """Remove arenas whose creator is gone, in /dev/shm and in `directories`; return them.

    Only a file of this user's can be one.  Whatever else carries such a name, and
    whatever cannot be looked at or removed, is passed over.
    """
    removed = []
    for directory in (SHM_DIR, *directories):
        with suppress(OSError):  # there is no such directory, or it is not for us
            removed += [path for path in directory.iterdir() if _is_stale(path) and _remove(path)]
    return removed


def _is_stale(path: Path) -> bool:
    name = path.name.removeprefix(".")
    creator = name.rsplit("-", 2)[1:]
    if not name.startswith(PREFIX) or len(creator) != 2 or not "".join(creator).isdecimal():
        return False
    try:
        found = path.lstat()
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        return ours and not is_alive(int(creator[0]), int(creator[1]))
    except (OSError, ValueError):  # swept by another; a stranger has the process's number
        return False


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _open_shared_memory(name: str) -> int:
    """Return a descriptor of new shared memory whose name is gone already."""
    with _untracked():
        memory = shared_memory.SharedMemory(name, create=True, size=1)
        try:
            return os.open(SHM_DIR / name, os.O_RDWR | os.O_CLOEXEC)
        finally:
            memory.unlink()
            memory.close()


def _open_file(path: Path) -> int:
    """Return a descriptor of a new file that has no name, or not any more."""
    flags = os.O_RDWR | os.O_CLOEXEC
    with suppress(OSError):  # some file systems have no nameless files
        return os.open(path.parent, flags | os.O_TMPFILE, 0o600)
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    path.unlink()
    return descriptor


def _allocated(descriptor: int, size: int) -> tuple[mmap.mmap, int]:
    """Return a mapping of `size` bytes that are all there, and the descriptor."""
    try:
        os.ftruncate(descriptor, size)
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size), descriptor
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def _untracked() -> Iterator[None]:
    """Keep the resource tracker (and its process) out of making and removing shared memory."""
    before = resource_tracker.register, resource_tracker.unregister
    resource_tracker.register = resource_tracker.unregister = lambda *_: None
    try:
        yield
    finally:
        resource_tracker.register, resource_tracker.unregister = before
