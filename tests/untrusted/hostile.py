"""Hostile variants of any file of ours, made from its row in `crystalline.untrusted.files`.

    for name, put in replacements(kind, path, outside): put()    # something else in its place
    for name, data in damages(content): path.write_bytes(data)   # bytes of it changed
    for name, document in forgeries(record, document): …          # fields of another type or range

`outside` is a folder whose content must be the same afterwards.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crystalline.untrusted.files import FileKind
from crystalline.untrusted.records import Record

ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202e"
DEEP: Any = []
for _ in range(500):
    DEEP = [DEEP]
# Values that no field of ours has; those of the right type are out of any range.
WRONG: dict[str, Any] = {
    "null": None,
    "true": True,
    "negative": -(10**9),
    "zero": 0,
    "fraction": 1.5,
    "2^63": 2**63,
    "10^30": 10**30,
    "10^308": 1e308,
    "text": "x",
    "escapes": ESCAPES,
    "long": "é" * 100_000,
    "surrogate": "\ud800",
    "list": [],
    "lists": [[], {}],
    "table": {},
    "path": "../../../../etc/passwd",
    "deep": DEEP,
}
CUTS = 50
FLIPS = 300


def remove(path: Path) -> None:
    """Remove whatever is at `path`, without following it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def replacements(
    kind: FileKind, path: Path, outside: Path
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what may stand in the place of a file: links, pipes, devices, folders, nothing."""

    def put(make: Callable[[], object]) -> Callable[[], None]:
        def replace() -> None:
            remove(path)
            make()

        return replace

    def bind() -> None:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(os.path.relpath(path))  # a socket's name must be short

    def huge() -> None:
        with path.open("wb") as file:
            file.truncate((kind.limit_bytes or 1 << 40) + 1)

    yield "link to a file", put(lambda: path.symlink_to(outside / "file"))
    yield "link to a folder", put(lambda: path.symlink_to(outside / "folder"))
    yield "link to nothing", put(lambda: path.symlink_to(outside / "nothing"))
    yield "link to itself", put(lambda: path.symlink_to(path))
    yield "link to a device", put(lambda: path.symlink_to("/dev/zero"))
    yield "pipe", put(lambda: os.mkfifo(path))
    yield "socket", put(bind)
    yield "folder", put(lambda: path.mkdir())
    yield "missing", put(lambda: None)
    yield "empty", put(lambda: path.touch())
    yield "huge", put(huge)


def damages(content: bytes, *, seed: int = 1, flips: int = FLIPS) -> Iterator[tuple[str, bytes]]:
    """Yield a content cut off at every fiftieth, and with single bits flipped."""
    for cut in range(CUTS):
        yield f"cut at {cut}/{CUTS}", content[: len(content) * cut // CUTS]
    draw = random.Random(seed)
    for _ in range(flips if content else 0):
        position, bit = draw.randrange(len(content)), draw.randrange(8)
        flipped = bytearray(content)
        flipped[position] ^= 1 << bit
        yield f"bit {bit} of byte {position}", bytes(flipped)


def forgeries(
    record: Record | None, document: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a document with each field, also of the tables in it, of every wrong value."""
    names = dict.fromkeys([*(record.fields if record else ()), *document])
    for name in names:
        for label, wrong in WRONG.items():
            yield f"{name}: {label}", document | {name: wrong}
        inner = document.get(name)
        if isinstance(inner, dict) and len(inner) <= 60:
            for key in inner:
                for label, wrong in WRONG.items():
                    yield f"{name}.{key}: {label}", document | {name: inner | {key: wrong}}
        yield f"{name}: missing", {key: value for key, value in document.items() if key != name}
    yield "another key", document | {ESCAPES: ESCAPES}


def texts(document: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield contents that are no JSON of ours, or none at all."""
    yield "no table", b"[1, 2]"
    yield "text", b'"' + ESCAPES.encode() + b'"'
    yield "deep", b"[" * 100_000
    yield "digits", b'{"a": ' + b"9" * 5_000 + b"}"
    yield "no number", b'{"a": NaN, "b": Infinity, "c": 1e999}'
    yield "no UTF-8", json.dumps(document).encode()[:-1] + b'"\xff\xfe": 1}'
    yield "NUL", b"\0" * 1000
    yield "two", json.dumps(document).encode() * 2


def listing(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return name → (mode, size, content) of everything below a folder, links not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes().hex() if path.is_file() and not path.is_symlink() else ""
        found[path.relative_to(folder).as_posix()] = (status.st_mode, status.st_size, content)
    return found
