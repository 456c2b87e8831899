"""manifest.json: size and sha256 of every file of a checkpoint, and what is wrong with them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystalline.atomic import json_text, sync_directory
from crystalline.faults import point
from crystalline.formats.files import (
    ADAPTER_FILES,
    ADAPTER_MODEL,
    FOR_OTHERS,
    FORMAT,
    MANIFEST,
    MODEL_FILES,
    OPTIONAL_FILES,
    TO_GO_ON,
)
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


def model_files(listed: Collection[str]) -> tuple[str, ...]:
    """Return the files of a model, or of adapters beside one, of those that a manifest lists."""
    return ADAPTER_FILES if ADAPTER_MODEL in listed else MODEL_FILES


def write_manifest(folder: Path, names: Collection[str], **about: Any) -> None:
    """Force files of a folder to disk, and then the manifest that lists them.  Raises `OSError`."""
    files = {}
    for name in (*names, *(name for name in OPTIONAL_FILES if (folder / name).exists())):
        sync_file(folder / name)
        size_bytes, digest = fingerprint(folder / name)
        files[name] = {"size_bytes": size_bytes, "sha256": digest}
    text = json_text({"format": FORMAT, **about, "files": files}, indent=2) + "\n"
    point("checkpoint.manifest")
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    sync_file(folder / MANIFEST)
    sync_directory(folder)


def verify(path: Path, *, to_go_on: bool = True) -> Fault | None:
    """Return what is wrong with the files of a checkpoint, or None.

    Without `to_go_on` only those that make a model are looked at.  Optional files are looked at
    wherever the manifest has them.  The clause names the file: "model.safetensors is cut off (10
    of 20 bytes)".
    """
    try:
        listed = read_manifest(path)["files"]
        optional = [name for name in OPTIONAL_FILES if name in listed]
        needed = (*model_files(listed), *(TO_GO_ON if to_go_on else ()))
        expected = {
            name: (int(listed[name]["size_bytes"]), str(listed[name]["sha256"]))
            for name in (*needed, *optional)
        }
    except OSError as error:
        return _unreadable(MANIFEST, error)
    except (ValueError, KeyError, TypeError):
        return Fault(f"{MANIFEST} is damaged")
    for name, (size_bytes, digest) in expected.items():
        if name in FOR_OTHERS and not to_go_on:
            continue  # who edits it has not damaged the model
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
    point("checkpoint.sync")
    with path.open("rb") as file:
        os.fsync(file.fileno())
