"""Paths to files: which files a list of files and folders means, and in which order.

Folders are searched at every depth.  What is passed over is counted, so that a command can
say it: other kinds of files, and what programs keep beside text (see `artifacts`).  What
the files hold is left to `corpus`.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crystalline.data.artifacts import (
    CACHE,
    MODEL_FOLDER,
    RUN_DIRECTORY,
    is_log,
    is_trace,
    recognize,
)
from crystalline.errors import DataError
from crystalline.log import get_logger
from crystalline.logfile import log_descriptors
from crystalline.untrusted import printable

JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
_PROSE_AND_DATA = """
    .txt .text .md .markdown .rst .tex .org .adoc .asciidoc .log .srt .vtt .bib .po
    .csv .tsv .json .xml .yaml .yml .toml .ini .cfg .conf
"""
_SOURCE_CODE = """
    .py .pyi .pyx .pxd .c .h .cc .cpp .cxx .hh .hpp .hxx .cu .cs .rs .go .java .kt .scala .swift
    .js .mjs .jsx .ts .tsx .css .scss .sh .bash .pl .rb .lua .php .r .jl .hs .ml .el .lisp .clj
    .sql .f .f90 .asm .s .cmake
"""
PLAIN_SUFFIXES = frozenset((_PROSE_AND_DATA + _SOURCE_CODE).split())
SUFFIXES = PLAIN_SUFFIXES | JSON_LINES_SUFFIXES | HTML_SUFFIXES

_OWN_OUTPUT = "file of this command's own output"
_PLURALS = {
    RUN_DIRECTORY: "run directories",
    MODEL_FOLDER: "model folders",
    CACHE: "caches",
    _OWN_OUTPUT: "files of this command's own output",
}
_SHOWN_KINDS = 5

_log = get_logger("data")


@dataclass(frozen=True)
class Source:
    """A file to read, with what tells whether it has changed since it was found."""

    path: Path
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    explicit: bool  # named by the user: it must be text; otherwise it may be skipped

    @property
    def identity(self) -> tuple[str, int, int, int]:
        """Path and state of the file; equal when the content need not be read again.

        The path is its bytes, each a character: a name need not be UTF-8, a record must.
        """
        name = os.fsencode(self.path).decode("latin-1")
        return (name, self.size_bytes, self.mtime_ns, self.ctime_ns)


@dataclass(frozen=True)
class Found:
    """The files that a list of paths means, and what is not among them."""

    sources: list[Source] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # folders that programs keep, by kind
    passed_over: Counter[str] = field(default_factory=Counter)  # other files, by suffix

    def left_out_words(self) -> str:
        """Return what was left out, in words; nothing when there is nothing.

        >>> Found(left_out=Counter({"run directory": 2, "cache": 1})).left_out_words()
        '2 run directories, 1 cache'
        """
        return ", ".join(
            f"{count} {kind if count == 1 else _PLURALS[kind]}"
            for kind, count in self.left_out.items()
        )

    def passed_over_words(self) -> str:
        """Return the other kinds of files, the most frequent first.

        >>> Found(passed_over=Counter({".png": 7, "without suffix": 2})).passed_over_words()
        '7 .png, 2 without suffix'
        """
        shown = self.passed_over.most_common(_SHOWN_KINDS)
        rest = self.passed_over.total() - sum(count for _, count in shown)
        words = [f"{count:,} {kind}" for kind, count in shown]
        return ", ".join([*words, f"{rest:,} others"] if rest else words)


def shown(path: str | os.PathLike[str]) -> str:
    r"""Return a path on one line, as any stream and file can take it.

    >>> shown(os.fsdecode(b"caf\xe9\n.txt"))
    'caf\\xe9\\n.txt'
    """
    return printable(os.fspath(path)).replace("\n", "\\n")


def find(paths: Sequence[str | os.PathLike[str]], *, explicit: bool = True) -> Found:
    """List the files to read, in a stable order: paths as given, folders sorted inside.

    A folder is searched at every depth for files with one of `SUFFIXES`; hidden
    files and folders are passed over, and so are run directories, model folders and
    caches, whose files are no text, and the files that this process prints to or logs to.  Links
    are followed, each file and folder is visited once.  A file given by itself is taken
    whatever its suffix.  With `explicit` false, files given by themselves are treated
    as if found in a folder.

    Raises `DataError` for a path that does not exist, is neither a file nor a folder,
    or cannot be listed, for a folder that is itself a run, a model or a cache, and for
    a folder without a usable file.
    """
    if not paths:
        raise DataError("no text was given", advice="Name files or folders of text.")
    search = _Search()
    for given in paths:
        path = Path(given).absolute()
        try:
            status = path.stat()
        except (FileNotFoundError, ValueError):  # or no name that a file can have
            raise DataError(
                f"{shown(given)} does not exist", advice="Check the path of the text to train on."
            ) from None
        except OSError as error:
            raise unreadable(path, error) from None
        if stat.S_ISDIR(status.st_mode):
            search.walk(path)
        elif stat.S_ISREG(status.st_mode):
            search.take(path, status, explicit=explicit)
        else:
            raise DataError(
                f"{shown(given)} is neither a file nor a folder",
                advice="Save the text to a file first; it is read more than once.",
            )
    return search.found


def find_sources(paths: Sequence[str | os.PathLike[str]], *, explicit: bool = True) -> list[Source]:
    """Return the files of `find` alone."""
    return find(paths, explicit=explicit).sources


def source_of(path: Path, status: os.stat_result, *, explicit: bool) -> Source:
    """Return the source that a file of this state is."""
    return Source(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, explicit)


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error for a file or folder that the system does not let us read."""
    return DataError(
        f"{shown(path)} cannot be read ({error.strerror or error})",
        advice="Check its permissions and the disk.",
    )


class _Search:
    """One search: what was found, and what has been visited."""

    def __init__(self) -> None:
        self.found = Found()
        self._seen: set[str] = set()
        self._own_outputs = _own_outputs()

    def take(self, path: Path, status: os.stat_result, *, explicit: bool) -> None:
        """Add a file that was given by itself."""
        if self._first_visit(os.path.realpath(path)):
            self.found.sources.append(source_of(path, status, explicit=explicit))

    def walk(self, folder: Path) -> None:
        """Add the usable files below `folder`; raise `DataError` when there are none."""
        found: list[Source] = []
        passed_over: Counter[str] = Counter()
        left_out: Counter[str] = Counter()
        repeated = 0
        unlisted: list[OSError] = []
        pending = [folder]
        while pending:
            here = pending.pop()
            real_here = os.path.realpath(here)
            if not self._first_visit(real_here):
                repeated += 1
                continue
            try:
                with os.scandir(here) as listing:
                    entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
            except OSError as error:
                if here == folder:
                    raise unreadable(folder, error) from None
                unlisted.append(error)
                continue
            entries = [entry for entry in entries if not entry.name.startswith(".")]
            kind = recognize(here, [entry.name for entry in entries])
            if kind is not None:
                if here == folder:
                    raise DataError(
                        f"{shown(folder)} is a {kind}, not a folder of text",
                        advice="Name a folder of text, or files of this one one by one.",
                    )
                left_out[kind] += 1
                continue
            folders: list[Path] = []
            for entry in entries:
                path = here / entry.name
                real_path = (
                    os.path.realpath(path) if entry.is_symlink() else f"{real_here}/{entry.name}"
                )
                try:
                    status = entry.stat()
                except OSError:  # a broken or circular link
                    passed_over["broken link"] += 1
                    continue
                suffix = path.suffix.lower()
                if stat.S_ISDIR(status.st_mode):
                    folders.append(path)
                elif not stat.S_ISREG(status.st_mode):
                    passed_over["special file"] += 1
                elif suffix not in SUFFIXES:
                    passed_over[shown(suffix) or "without suffix"] += 1
                elif (status.st_dev, status.st_ino) in self._own_outputs or _is_own(path):
                    left_out[_OWN_OUTPUT] += 1
                elif not self._first_visit(real_path):
                    repeated += 1
                else:
                    found.append(source_of(path, status, explicit=False))
            pending.extend(reversed(folders))
        self.found.sources.extend(found)
        self.found.left_out.update(left_out)
        self.found.passed_over.update(passed_over)
        if unlisted:
            _log.warning(
                "Left out %d folder%s that cannot be listed; the first: %s (%s).",
                len(unlisted),
                "" if len(unlisted) == 1 else "s",
                shown(unlisted[0].filename),
                unlisted[0].strerror,
            )
        if not found and not repeated:
            raise _no_text(folder, Found([], left_out, passed_over))

    def _first_visit(self, real_path: str) -> bool:
        if real_path in self._seen:
            return False
        self._seen.add(real_path)
        return True


def _is_own(path: Path) -> bool:
    """Return whether a file is what commands of this package tell of themselves."""
    return is_log(path) or is_trace(path)


def _own_outputs() -> frozenset[tuple[int, int]]:
    """Return device and inode of the files that standard output, error and logs go to."""
    files = set()
    for stream in (1, 2, *log_descriptors()):
        try:
            status = os.fstat(stream)
        except OSError:  # closed
            continue
        if stat.S_ISREG(status.st_mode):
            files.add((status.st_dev, status.st_ino))
    return frozenset(files)


def _no_text(folder: Path, found: Found) -> DataError:
    left_out = f"; left out: {found.left_out_words()}" if found.left_out else ""
    if found.passed_over:
        return DataError(
            f"the folder {shown(folder)} holds no file with a suffix of text "
            f"({found.passed_over.total()} passed over: {found.passed_over_words()}{left_out})",
            advice="Name the files themselves; such files are read whatever their suffix.",
        )
    advice = "Name a folder that holds files of text."
    if found.left_out:
        return DataError(
            f"the folder {shown(folder)} holds no text (left out: {found.left_out_words()})",
            advice=advice,
        )
    return DataError(f"the folder {shown(folder)} is empty", advice=advice)
