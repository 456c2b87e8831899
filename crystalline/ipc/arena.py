"""One shared mapping, cut into named arrays by one table.

The creator makes the memory with `multiprocessing.shared_memory`, or, where
/dev/shm is too small, as a file in the run directory; every page is allocated at
once, so that nobody meets SIGBUS later.  Others attach by name; when all who need
it have attached, the creator removes the name, and from then on the memory goes
when the last process goes, however that ends.  The resource tracker of Python's
standard library is kept out: it unlinks memory behind its users' backs.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.errors import EngineError
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

    def __init__(self, layout: Layout, mapping: mmap.mmap, path: Path) -> None:
        self.layout = layout
        self.path = path
        self._mapping = mapping
        base = np.frombuffer(mapping, np.uint8)
        self._views: dict[str, npt.NDArray[Any]] = {}
        for region in layout.regions:
            start = layout.offset(region.name)
            raw = base[start : start + region.size_bytes]
            self._views[region.name] = raw.view(region.dtype).reshape(region.shape)

    @classmethod
    def create(cls, layout: Layout, run_dir: Path) -> Arena:
        """Allocate the arena, in /dev/shm or else as a file in `run_dir`.

        Raises:
            EngineError: neither has room for it.
        """
        size = max(layout.size_bytes, mmap.PAGESIZE)
        name = arena_name()
        try:
            return cls(layout, *_create_shared_memory(name, size))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EACCES, errno.ENOENT):
                raise
            reason = error.strerror
        logger.warning(
            "%s cannot hold %.0f MB (%s); sharing memory through a file in %s instead, "
            "which may be slower",
            SHM_DIR, size / 1e6, reason, run_dir,
        )  # fmt: skip
        try:
            return cls(layout, *_create_file(run_dir / f".{name}", size))
        except OSError as error:
            raise EngineError(
                f"{size / 1e6:.0f} MB of shared memory fit neither into {SHM_DIR} "
                f"nor into {run_dir} ({error.strerror})",
                advice=f"Free some space, or enlarge {SHM_DIR} (docker run --shm-size=…).",
            ) from error

    @classmethod
    def attach(cls, layout: Layout, path: Path) -> Arena:
        """Map an arena that another process created."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapping = mmap.mmap(descriptor, max(layout.size_bytes, mmap.PAGESIZE))
        finally:
            os.close(descriptor)
        return cls(layout, mapping, path)

    def populate(self) -> None:
        """Enter all pages into this process's page table at once, which is cheaper than one by one.

        Kernels before 5.14 cannot; then every page is entered when it is first touched.
        """
        with suppress(OSError):
            self._mapping.madvise(_MADV_POPULATE_WRITE)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._views[name]

    def unlink(self) -> None:
        """Remove the name.  Those who have attached keep the memory; nobody else can come."""
        self.path.unlink(missing_ok=True)


def arena_name() -> str:
    """Return a fresh name that tells which process it belongs to: cllm-<id>-<pid>-<start>."""
    pid = os.getpid()
    return f"{PREFIX}{secrets.token_hex(4)}-{pid}-{start_time(pid)}"


def sweep_stale(*directories: Path) -> list[Path]:
    """Remove arenas whose creator is gone, in /dev/shm and in `directories`; return them."""
    removed = []
    for directory in (SHM_DIR, *directories):
        for pattern in (f"{PREFIX}*", f".{PREFIX}*"):
            for path in directory.glob(pattern):
                creator = path.name.rsplit("-", 2)[1:]
                if len(creator) != 2 or not all(part.isdecimal() for part in creator):
                    continue
                if is_alive(int(creator[0]), int(creator[1])):
                    continue
                try:
                    path.unlink()
                except (FileNotFoundError, PermissionError):  # swept by another; another user's
                    continue
                removed.append(path)
    return removed


def _create_shared_memory(name: str, size: int) -> tuple[mmap.mmap, Path]:
    path = SHM_DIR / name
    with _untracked():
        memory = shared_memory.SharedMemory(name, create=True, size=size)
    try:
        return _map_allocated(path, size), path
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        memory.close()


def _create_file(path: Path, size: int) -> tuple[mmap.mmap, Path]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    try:
        return _map_allocated(path, size), path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _map_allocated(path: Path, size: int) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


@contextmanager
def _untracked() -> Iterator[None]:
    """Keep the resource tracker (and its process) out of the creation of shared memory."""
    register = resource_tracker.register
    resource_tracker.register = lambda *_: None
    try:
        yield
    finally:
        resource_tracker.register = register
