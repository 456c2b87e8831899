"""manifest.json: size and sha256 of every file of a checkpoint, and what is wrong with them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystalline.formats.files import FILES, FOR_OTHERS, MANIFEST, OPTIONAL_FILES
from crystalline.untrusted import open_regular
from crystalline.untrusted.files import MANIFEST as MANIFEST_FILE

_HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file of a checkpoint, as a clause that names it."""

    words: str
    denied: bool = False  # we may not read it, and nothing is known to be damaged

    def __str__(self) -> str:
        return self.words


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint.  Raises `OSError`, and `BadContent` for damage."""
    return MANIFEST_FILE.read(checkpoint / MANIFEST)


def verify(path: Path, names: Collection[str] = FILES) -> Fault | None:
    """Return what is wrong with the files of a checkpoint, or None.

    Optional files are looked at wherever the manifest has them.  The clause names the
    file: "model.safetensors is cut off (10 of 20 bytes)".
    """
    try:
        listed = read_manifest(path)["files"]
        optional = [name for name in OPTIONAL_FILES if name in listed]
        expected = {
            name: (int(listed[name]["size_bytes"]), str(listed[name]["sha256"]))
            for name in (*FILES, *optional)
        }
    except OSError as error:
        return _unreadable(MANIFEST, error)
    except (ValueError, KeyError, TypeError):
        return Fault(f"{MANIFEST} is damaged")
    for name in (*names, *optional):
        if name in FOR_OTHERS and names is not FILES:
            continue  # who edits it has not damaged the model
        size_bytes, digest = expected[name]
        try:
            found_bytes = (path / name).stat().st_size
            if found_bytes < size_bytes:
                return Fault(f"{name} is cut off ({found_bytes:,} of {size_bytes:,} bytes)")
            if found_bytes > size_bytes or fingerprint(path / name)[1] != digest:
                return Fault(f"{name} is damaged (its checksum is wrong)")
        except FileNotFoundError:
            return Fault(f"{name} is missing")
        except OSError as error:
            return _unreadable(name, error)
    return None


def _unreadable(name: str, error: OSError) -> Fault:
    return Fault(f"{name} cannot be read ({error.strerror})", isinstance(error, PermissionError))


def fingerprint(path: Path) -> tuple[int, str]:
    """Return (size in bytes, sha256) of a file."""
    digest = hashlib.sha256()
    size_bytes = 0
    block = bytearray(_HASH_BYTES)
    view = memoryview(block)
    with open_regular(path) as file:
        while count := file.readinto(block):  # type: ignore[attr-defined]
            digest.update(view[:count])
            size_bytes += count
    return size_bytes, digest.hexdigest()


def sync_file(path: Path) -> None:
    """Force a file to disk.  Raises `OSError`."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
