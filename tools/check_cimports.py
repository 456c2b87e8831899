#!/usr/bin/env python3
"""Checks that cimports and imports in compiled modules keep to the layers.

import-linter reads `.py` files only.  This reads every `.py`, `.pyi`, `.pyx`
and `.pxd` of the package against the same table, the layers contract in
pyproject.toml, so that a compiled module can neither break the layers nor hide
an import of it.  Imports inside functions count.

    python tools/check_cimports.py    prints each breach; exit status 1 when there is one
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "crystalline"
SUFFIXES = (".py", ".pyi", ".pyx", ".pxd")

# Comments and string literals, so that neither is taken for code.
_PROSE = re.compile(
    r"""\#[^\n]* | '''.*?''' | \"\"\".*?\"\"\" | '(?:\\.|[^'\\\n])*' | "(?:\\.|[^"\\\n])*" """,
    re.DOTALL | re.VERBOSE,
)
_CLAUSE = re.compile(r"^(?:.*:)?\s*(?:(from)\s+(\S+)\s+)?c?import\s+(.+)$")


@dataclass(frozen=True)
class Place:
    """Where a package stands: the index of its line, 0 the top, and of its siblings in it."""

    line: int
    seat: int  # modules parted by ':' share a seat and may import each other


@dataclass(frozen=True)
class Breach:
    """One import that the layers forbid."""

    path: str
    line: int
    imported: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.imported}: {self.reason}"


def read_layers(pyproject: Path) -> dict[str, Place]:
    """Return the place of every package in the layers contract of a pyproject.toml."""
    settings = tomllib.loads(pyproject.read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    places = {}
    for line, text in enumerate(layers):
        for seat, siblings in enumerate(text.split("|")):
            for name in siblings.split(":"):
                places[name.strip(" ()")] = Place(line, seat)
    return places


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line number, absolute dotted name) for every import and cimport in `source`.

    `module` is the dotted name of the file, which relative imports start from.

    >>> text = "from crystalline.ipc cimport arena, words as w\\nfrom . import b\\n"
    >>> list(imports(text, "crystalline.train.a", is_package=False))
    [(1, 'crystalline.ipc.arena'), (1, 'crystalline.ipc.words'), (2, 'crystalline.train.b')]
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    for number, line in _logical_lines(source):
        for statement in line.split(";"):
            found = _CLAUSE.match(statement)
            if not found:
                continue
            origin, names = found[2], found[3].strip(" ()").split(",")
            targets = [words[0] for name in names if (words := name.split())]
            for target in targets:
                if origin is None:
                    yield number, target
                elif origin.startswith("."):
                    dots = len(origin) - len(origin.lstrip("."))
                    base = package[: len(package) - dots + 1]
                    rest = [part for part in (origin.lstrip("."), target) if part]
                    yield number, ".".join([*base, *rest])
                else:
                    yield number, f"{origin}.{target}"


def _logical_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, text) with prose blanked and continuations joined."""
    code = _PROSE.sub(lambda found: "\n" * found[0].count("\n"), source)
    pending, start = "", 0
    for number, line in enumerate(code.splitlines(), 1):
        start = start if pending else number
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
        elif "import" in pending and pending.count("(") > pending.count(")"):
            pending += " "
        else:
            yield start, pending
            pending = ""
    if pending:
        yield start, pending


def judge(importer: str, imported: str, places: Mapping[str, Place]) -> str | None:
    """Return why the package `importer` must not import the package `imported`, or None."""
    if importer == imported:
        return None
    for name in (importer, imported):
        if name not in places:
            return f"{name} stands in no layer of pyproject.toml"
    mine, other = places[importer], places[imported]
    if other.line < mine.line:
        return f"{imported} stands above {importer}"
    if other.line == mine.line and other.seat != mine.seat:
        return f"{imported} and {importer} are siblings"
    return None


def check(root: Path, places: Mapping[str, Place]) -> list[Breach]:
    """Return every breach in the package under `root`, in order of files and lines."""
    breaches = []
    for path in sorted((root / PACKAGE).rglob("*")):
        parts = path.relative_to(root).with_suffix("").parts
        if path.suffix not in SUFFIXES or len(parts) < 2 or parts[1] == "__init__":
            continue
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        text = path.read_text("utf-8")
        for line, name in imports(text, module, is_package=is_package):
            levels = name.split(".")
            if levels[0] != PACKAGE or len(levels) < 2 or levels[1].startswith("__"):
                continue
            reason = judge(parts[1], levels[1], places)
            if reason:
                breaches.append(Breach(str(path.relative_to(root)), line, name, reason))
    return breaches


def main() -> int:
    """Print every breach and return the exit status."""
    breaches = check(ROOT, read_layers(ROOT / "pyproject.toml"))
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
