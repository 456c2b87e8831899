"""manifest.json: size and sha256 of every file of a checkpoint, and what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

from crystalline.formats.files import FILES, MANIFEST, OPTIONAL_FILES

_HASH_BYTES = 1 << 20


def verify(path: Path, names: Collection[str] = FILES) -> str | None:
    """Return what is wrong with the files of a checkpoint, as a clause, or None.

    Optional files are looked at wherever the manifest has them.  The clause names the
    file: "model.safetensors is cut off (10 of 20 bytes)".
    """
    try:
        document = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        optional = [name for name in OPTIONAL_FILES if name in document["files"]]
        files = {name: document["files"][name] for name in (*FILES, *optional)}
        expected = {
            name: (int(entry["size_bytes"]), str(entry["sha256"])) for name, entry in files.items()
        }
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name in (*names, *optional):
        size_bytes, digest = expected[name]
        try:
            found_bytes = (path / name).stat().st_size
            if found_bytes < size_bytes:
                return f"{name} is cut off ({found_bytes:,} of {size_bytes:,} bytes)"
            if found_bytes > size_bytes or fingerprint(path / name)[1] != digest:
                return f"{name} is damaged (its checksum is wrong)"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def fingerprint(path: Path) -> tuple[int, str]:
    """Return (size in bytes, sha256) of a file."""
    digest = hashlib.sha256()
    size_bytes = 0
    block = bytearray(_HASH_BYTES)
    view = memoryview(block)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(view[:count])
            size_bytes += count
    return size_bytes, digest.hexdigest()


def sync_file(path: Path) -> None:
    """Force a file to disk.  Raises `OSError`."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
