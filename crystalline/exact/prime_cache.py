"""Primes kept for look-up in one flat buffer: on the heap, in a file, or in shared memory.

The buffer is a header of 64 bytes and then the primes up to a bound, ascending, as little-endian
unsigned integers of 4 bytes (bound below 2^32) or 8:

    bytes   0..7    b"CRYPRIME"
            8..11   version, 1
           12..15   bytes a prime, 4 or 8
           16..23   bound: every prime p <= bound is there
           24..31   how many primes there are
           32..35   CRC-32 of the primes' bytes
           36..39   CRC-32 of bytes 0..35
           40..63   zero

A cache never changes: `grown` makes a new one on the heap.  Attached caches read the buffer in
place and copy nothing; a buffer that is too short, damaged or of another version is refused.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from crystalline._kernels.primes import sieve
from crystalline.atomic import atomic_write
from crystalline.closing import Closing
from crystalline.exact import _arguments as arguments
from crystalline.exact import primes
from crystalline.untrusted import open_regular

HEADER_BYTES = 64
_MAGIC = b"CRYPRIME"
_VERSION = 1
_FIELDS = struct.Struct("<8sIIQQI")
_PART = 1 << 22  # primes
_SHARED_MEMORY = Path("/dev/shm")
_Memory = mmap.mmap | SharedMemory | None


class PrimeCache(Closing):
    """The primes up to a bound, for look-up by number and by value.

    Make one with `PrimeCache(bound)` on the heap, `open` from a file that `save` wrote, `attach`
    from shared memory that `share` made, or `from_buffer`.  Takes 4 bytes a prime for bounds
    below 2^32 and 8 beyond.  Primes are numbered from 1, as in `nth_prime`.

    A cache that came from a file or shared memory keeps it mapped until `close`, or the end of a
    `with` block.

    >>> cache = PrimeCache(100)
    >>> len(cache), cache.prime(25), cache.index(97), cache.is_prime(91)
    (25, 97, 25, False)
    >>> cache.array[:5]
    array([ 2,  3,  5,  7, 11], dtype=uint32)
    """

    def __init__(self, bound: SupportsIndex) -> None:
        limit = arguments.word("bound", bound)
        expected = primes.count_estimate(0, limit)
        arguments.room(f"the primes up to {limit}", expected * (8 if limit >> 32 else 4))
        self._take(limit, sieve.array(0, limit, expected, limit >> 32 == 0), None)

    def _take(self, bound: int, array: npt.NDArray[Any], memory: _Memory) -> None:
        array.flags.writeable = False
        self._bound = bound
        self._array: npt.NDArray[Any] | None = array
        self._memory: _Memory = memory

    @classmethod
    def from_buffer(cls, buffer: Any, *, verify: bool = True) -> PrimeCache:
        """Return a cache that reads `buffer` (see the module's head) in place.

        Raises ValueError when the header is not one, does not fit the buffer's size, or, where
        `verify` is left on, the primes do not have their checksum.

        >>> cache = PrimeCache.from_buffer(PrimeCache(1000).tobytes())
        >>> cache.bound, len(cache)
        (1000, 168)
        """
        return cls._view(buffer, verify, None)

    @classmethod
    def _view(cls, buffer: Any, verify: bool, memory: _Memory) -> PrimeCache:
        view = memoryview(buffer).cast("B")
        bound, width, count, checksum = _read_header(view)
        array = np.frombuffer(view, dtype=f"<u{width}", count=count, offset=HEADER_BYTES)
        if verify and _checksum(array) != checksum:
            raise ValueError(f"the {count} primes of the cache do not have their checksum")
        cache = cls.__new__(cls)
        cache._take(bound, array, memory)
        return cache

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True) -> PrimeCache:
        """Return the cache in a file, mapped read-only.  Raises OSError, or ValueError as above.

        A pipe or a device is refused and not waited for.
        """
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size < HEADER_BYTES:
                raise ValueError(f"{os.fspath(path)} is too short for a cache of primes")
            memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        return cls._view(memory, verify, memory)

    @classmethod
    def attach(cls, name: str, *, verify: bool = True) -> PrimeCache:
        """Return the cache that another process put into shared memory under `name`.

        Raises FileNotFoundError when there is none, or ValueError as above.  The process that
        called `share` owns the memory; attaching neither keeps nor removes it.
        """
        if "/" in name or not name:
            raise ValueError(f"{name!r} is not the name of shared memory")
        return cls.open(_SHARED_MEMORY / name, verify=verify)

    def share(self, name: str | None = None) -> PrimeCache:
        """Return a copy in new shared memory, under `name` or one that is free (see `name`).

        Raises FileExistsError when the name is taken and OSError when /dev/shm is full.  `unlink`
        removes it; the interpreter's end does so too.

        >>> with PrimeCache(1000).share() as shared, PrimeCache.attach(shared.name) as other:
        ...     other.prime(168)
        ...     shared.unlink()
        997
        """
        memory = SharedMemory(name, create=True, size=self.size_bytes)
        try:
            # Touching a page that does not fit would be SIGBUS: take all of them first.
            descriptor = os.open(_SHARED_MEMORY / memory.name, os.O_RDWR)
            try:
                os.posix_fallocate(descriptor, 0, self.size_bytes)
            finally:
                os.close(descriptor)
            self._write(memory.buf)
        except BaseException:
            memory.close()
            memory.unlink()
            raise
        return self._view(memory.buf, False, memory)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the cache to a file, atomically.  Raises OSError.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PrimeCache(100).save(Path(folder, "primes"))
        ...     with PrimeCache.open(Path(folder, "primes")) as cache:
        ...         cache.prime(25)
        97
        """
        with atomic_write(path) as file:
            file.write(self._header())
            for part in _parts(self.array):
                file.write(part.data)

    def tobytes(self) -> bytes:
        """Return header and primes as bytes.

        >>> len(PrimeCache(100).tobytes()) - HEADER_BYTES
        100
        """
        return self._header() + self.array.tobytes()

    def _header(self) -> bytes:
        array = self.array
        fields = _FIELDS.pack(
            _MAGIC, _VERSION, array.itemsize, self._bound, array.size, _checksum(array)
        )
        return (fields + struct.pack("<I", zlib.crc32(fields))).ljust(HEADER_BYTES, b"\0")

    def _write(self, buffer: memoryview | None) -> None:
        assert buffer is not None
        at = HEADER_BYTES
        for part in _parts(self.array):
            buffer[at : at + part.nbytes] = part.view(np.uint8).data
            at += part.nbytes
        buffer[:HEADER_BYTES] = self._header()  # last: a reader never finds a header too early

    @property
    def bound(self) -> int:
        """Every prime up to this number is there, and none beyond."""
        return self._bound

    @property
    def array(self) -> npt.NDArray[np.uint32 | np.uint64]:
        """The primes, read-only; ValueError after `close`."""
        if self._array is None:
            raise ValueError("the cache of primes is closed")
        return self._array

    @property
    def size_bytes(self) -> int:
        """What header and primes take."""
        return HEADER_BYTES + self.array.nbytes

    @property
    def name(self) -> str:
        """The name of the shared memory that `share` made; ValueError for other caches."""
        if not isinstance(self._memory, SharedMemory):
            raise ValueError("the cache of primes was not made by share()")
        return self._memory.name

    def __len__(self) -> int:
        return int(self.array.size)

    def __repr__(self) -> str:
        return f"<PrimeCache of the primes up to {self._bound}>"

    def prime(self, i: SupportsIndex) -> int:
        """Return the i-th prime, counted from 1; IndexError beyond the last."""
        at = arguments.integer("i", i, least=1)
        if at > len(self):
            raise IndexError(f"the cache has {len(self)} primes, not {arguments.short(at)}")
        return int(self.array[at - 1])

    def count(self, n: SupportsIndex) -> int:
        """Return the number of primes up to n <= bound; ValueError beyond."""
        number = arguments.integer("n", n)
        if number > self._bound:
            raise ValueError(
                f"the cache knows the primes up to {self._bound}, not {arguments.short(number)}"
            )
        key = self.array.dtype.type(max(number, 0))  # of the same type, or NumPy converts them all
        return int(self.array.searchsorted(key, side="right"))

    def is_prime(self, n: SupportsIndex) -> bool:
        """Return whether n <= bound is prime, by look-up; ValueError beyond."""
        at = self.count(n)
        return at > 0 and int(self.array[at - 1]) == int(n)

    def index(self, p: SupportsIndex) -> int:
        """Return the number of the prime p, counted from 1: prime(index(p)) is p.

        Raises ValueError when p is not prime or beyond the bound.
        """
        at = self.count(p)
        if at == 0 or int(self.array[at - 1]) != int(p):
            raise ValueError(f"{int(p)} is not prime")
        return at

    def grown(self, bound: SupportsIndex) -> PrimeCache:
        """Return this cache if it reaches `bound`, otherwise a new one on the heap that does.

        The new one reaches twice as far as this at least, so growing step by step costs no more
        than a constant times the last step.

        >>> PrimeCache(100).grown(101).bound
        200
        """
        wanted = arguments.word("bound", bound)
        if wanted <= self._bound:
            return self
        return PrimeCache(max(wanted, min(2 * self._bound, arguments.LIMIT - 1)))

    def close(self) -> None:
        """Give up the primes and the mapping; views of `array` must be gone.

        Raises BufferError while they are not.  Closing twice does nothing.
        """
        self._array = None
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    def unlink(self) -> None:
        """Remove the shared memory that `share` made; attached caches stay usable."""
        if not isinstance(self._memory, SharedMemory):
            raise ValueError("the cache of primes was not made by share()")
        self._memory.unlink()


def _parts(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the primes in parts of some ten milliseconds' work: Ctrl-C is heard in between."""
    for at in range(0, array.size, _PART):
        yield array[at : at + _PART]


def _checksum(array: npt.NDArray[Any]) -> int:
    checksum = 0
    for part in _parts(array):
        checksum = zlib.crc32(part.data, checksum)
    return checksum


def _read_header(view: memoryview) -> tuple[int, int, int, int]:
    """Return (bound, bytes a prime, primes, checksum) of a buffer that is long enough for them."""
    if view.nbytes < HEADER_BYTES:
        raise ValueError(f"{view.nbytes} bytes are too short for a cache of primes")
    fields = bytes(view[: _FIELDS.size])
    magic, version, width, bound, count, checksum = _FIELDS.unpack(fields)
    if magic != _MAGIC:
        raise ValueError(f"a cache of primes begins with {_MAGIC!r}, not {magic!r}")
    if version != _VERSION:
        raise ValueError(f"the cache of primes has version {version}; {_VERSION} is known")
    if struct.unpack_from("<I", view, _FIELDS.size)[0] != zlib.crc32(fields):
        raise ValueError("the header of the cache of primes does not have its checksum")
    if width != (8 if bound >> 32 else 4):
        raise ValueError(f"primes up to {bound} do not take {width} bytes each")
    if view.nbytes < HEADER_BYTES + width * count:
        raise ValueError(
            f"a cache of {count} primes takes {HEADER_BYTES + width * count} bytes, "
            f"and the buffer has {view.nbytes}"
        )
    return bound, width, count, checksum
