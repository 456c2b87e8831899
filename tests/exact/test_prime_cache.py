"""The cache of primes: look-ups, files, shared memory between processes, damaged buffers."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from crystalline.exact import PrimeCache, prime_array
from crystalline.exact.prime_cache import HEADER_BYTES

CACHE = PrimeCache(10_007)


@pytest.mark.parametrize("bound", [0, 1, 2, 3, 10, 10_006, 10_007, 10_008])
def test_look_ups(bound: int) -> None:
    cache = PrimeCache(bound)
    want = prime_array(bound + 1).tolist()
    assert cache.array.tolist() == want
    assert len(cache) == len(want)
    known = set(want)
    for n in range(min(bound, 300) + 1):
        assert cache.is_prime(n) == (n in known)
        assert cache.count(n) == sum(p <= n for p in want)
    for i in range(1, len(want) + 1, 7):
        assert cache.index(cache.prime(i)) == i
    assert cache.count(-5) == 0


def test_refusals() -> None:
    with pytest.raises(IndexError, match="has 1230 primes, not 1231"):
        CACHE.prime(1231)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        CACHE.prime(0)
    with pytest.raises(ValueError, match="up to 10007, not 10008"):
        CACHE.is_prime(10_008)
    with pytest.raises(ValueError, match="91 is not prime"):
        CACHE.index(91)
    with pytest.raises(ValueError, match="0 is not prime"):
        CACHE.index(0)
    with pytest.raises(MemoryError, match="the primes up to"):
        PrimeCache(2**60)
    with pytest.raises(OverflowError, match="bound must be below 2"):
        PrimeCache(2**64)
    with pytest.raises(TypeError, match="bound must be an integer"):
        PrimeCache(10.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="read-only"):
        CACHE.array[0] = 3


def test_growth() -> None:
    assert CACHE.grown(10_007) is CACHE
    assert CACHE.grown(10_008).bound == 20_014
    assert CACHE.grown(50_000).bound == 50_000
    assert PrimeCache(0).grown(5).array.tolist() == [2, 3, 5]


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "primes"
    CACHE.save(path)
    with PrimeCache.open(path) as cache:
        assert cache.bound == 10_007
        assert (cache.array == CACHE.array).all()
    with pytest.raises(ValueError, match="is closed"):
        cache.prime(1)
    cache.close()
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="too short"):
        PrimeCache.open(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        PrimeCache.open(tmp_path / "none")


def test_shared_memory_between_processes() -> None:
    code = (
        "import sys; from crystalline.exact import PrimeCache\n"
        "with PrimeCache.attach(sys.argv[1]) as c: print(c.bound, c.prime(1230), c.index(97))\n"
    )
    with CACHE.share() as shared:
        command = [sys.executable, "-c", code, shared.name]
        for _ in range(2):  # the first one's end must not remove it
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert (done.stdout, done.stderr) == ("10007 10007 25\n", "")
        with pytest.raises(FileExistsError):
            CACHE.share(shared.name)
        shared.unlink()
    with pytest.raises(FileNotFoundError):
        PrimeCache.attach(command[-1])


def test_views_keep_the_mapping(tmp_path: Path) -> None:
    CACHE.save(tmp_path / "primes")
    cache = PrimeCache.open(tmp_path / "primes")
    view = cache.array[10:20]
    with pytest.raises(BufferError):
        cache.close()
    assert view.tolist() == CACHE.array[10:20].tolist()
    del view
    cache.close()


@pytest.mark.parametrize("size", [0, 1, 39, 63, 64, 68, 64 + 4 * 1229, 64 + 4 * 1230 - 1])
def test_truncated_buffers_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"too short|takes 4984 bytes"):
        PrimeCache.from_buffer(CACHE.tobytes()[:size])


def test_longer_buffers_are_read() -> None:
    buffer = np.frombuffer(CACHE.tobytes() + bytes(1000), dtype=np.uint8)
    assert len(PrimeCache.from_buffer(buffer)) == 1230


def test_every_damaged_header_byte_is_refused() -> None:
    whole = CACHE.tobytes()
    for at in range(40):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        with pytest.raises(ValueError, match="prime"):
            PrimeCache.from_buffer(damaged)


def test_damaged_primes_and_headers_that_lie() -> None:
    damaged = bytearray(CACHE.tobytes())
    damaged[HEADER_BYTES + 400] ^= 4
    with pytest.raises(ValueError, match="1230 primes of the cache do not have their checksum"):
        PrimeCache.from_buffer(damaged)
    assert len(PrimeCache.from_buffer(damaged, verify=False)) == 1230
    for fields, message in [
        ((b"CRYPRIME", 2, 4, 100, 0, 0), "version 2; 1 is known"),
        ((b"CRYPRIME", 1, 8, 100, 0, 0), "up to 100 do not take 8 bytes"),
        ((b"CRYPRIME", 1, 4, 2**32, 0, 0), "do not take 4 bytes"),
        ((b"CRYPRIME", 1, 4, 100, 2**62, 0), "cache of 4611686018427387904 primes takes"),
        ((b"OTHERONE", 1, 4, 100, 25, 0), "begins with b'CRYPRIME', not b'OTHERONE'"),
    ]:
        packed = struct.pack("<8sIIQQI", *fields)
        header = packed + struct.pack("<I", zlib.crc32(packed))
        with pytest.raises(ValueError, match=message):
            PrimeCache.from_buffer(header.ljust(HEADER_BYTES, b"\0"))


def test_name_of_other_caches() -> None:
    for call in (lambda: CACHE.name, CACHE.unlink):
        with pytest.raises(ValueError, match="not made by share"):
            call()
    with pytest.raises(ValueError, match="not the name of shared memory"):
        PrimeCache.attach("../etc/passwd")
