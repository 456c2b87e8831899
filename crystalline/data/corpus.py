"""Folders and files to documents: what is read, in which order, and how it becomes text.

A document is a file, or a line of a `.jsonl` file.  Text is UTF-8 without a byte
order mark, with `\\n` line ends.  Files are read in blocks and handed on in pieces
(see `pieces.py`), so that the corpus is never in memory as a whole.  Tokens,
caches and the held-out split are left to the other modules.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline.data.pieces import cut
from crystalline.errors import DataError
from crystalline.log import get_logger

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

DIGEST_BYTES = 16

_BLOCK_BYTES = 1 << 20
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # a byte order mark, decoded
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

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
        """Path and state of the file; equal when the content need not be read again."""
        return (os.fspath(self.path), self.size_bytes, self.mtime_ns, self.ctime_ns)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents that have been read once: known to be text, measured and hashed."""

    sources: tuple[Source, ...]
    doc_bytes: npt.NDArray[np.int64]  # (documents,) UTF-8 bytes
    doc_chars: npt.NDArray[np.int64]  # (documents,) characters
    doc_digests: npt.NDArray[np.uint8]  # (documents, DIGEST_BYTES)

    @property
    def documents(self) -> int:
        """Number of documents, empty ones not counted."""
        return len(self.doc_bytes)

    @property
    def total_bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return int(self.doc_bytes.sum())

    @property
    def sha256(self) -> str:
        """Hash of the documents and their order, independent of file names."""
        return hashlib.sha256(self.doc_digests.tobytes()).hexdigest()

    def pieces(self) -> Iterator[tuple[int, str]]:
        """Read the files again: (document number, text) with the documents in order.

        Raises `DataError` when a file has changed since it was found.
        """
        first = 0
        for source in self.sources:
            last = -1
            for last, piece in read_pieces(source):
                yield first + last, piece
            first += last + 1


def find_sources(paths: Sequence[str | os.PathLike[str]], *, explicit: bool = True) -> list[Source]:
    """List the files to read, in a stable order: paths as given, folders sorted inside.

    A folder is searched at every depth for files with one of `SUFFIXES`; hidden
    files and folders are passed over.  Links are followed, each file and folder
    is visited once.  A file given by itself is taken whatever its suffix.  With
    `explicit` false, files given by themselves are treated as if found in a folder.

    Raises `DataError` for a path that does not exist, is neither a file nor a
    folder, or cannot be listed, and for a folder without a usable file.
    """
    if not paths:
        raise DataError("no text was given", advice="Name files or folders of text.")
    sources: list[Source] = []
    seen: set[str] = set()
    for given in paths:
        path = Path(given).absolute()
        try:
            status = path.stat()
        except FileNotFoundError:
            raise DataError(
                f"{given} does not exist", advice="Check the path of the text to train on."
            ) from None
        except OSError as error:
            raise _unreadable(path, error) from None
        if stat.S_ISDIR(status.st_mode):
            sources.extend(_walk(path, seen))
        elif stat.S_ISREG(status.st_mode):
            if _first_visit(os.path.realpath(path), seen):
                sources.append(_source(path, status, explicit))
        else:
            raise DataError(
                f"{given} is neither a file nor a folder",
                advice="Save the text to a file first; it is read more than once.",
            )
    return sources


def read_corpus(sources: Sequence[Source], progress: Callable[[int], None] | None = None) -> Corpus:
    """Read every source once and measure its documents; `progress` gets bytes read so far.

    Sources that were not named by the user and are not text are left out, with one
    warning that counts them.  Raises `DataError` for a named one that is not text,
    and when no text is left.
    """
    used: list[Source] = []
    n_bytes, n_chars, digests = array("q"), array("q"), bytearray()
    left_out: list[DataError] = []
    done_bytes = 0
    for source in sources:
        try:
            documents = _measure(source, progress, done_bytes)
        except DataError as error:
            if source.explicit:
                raise
            left_out.append(error)
        else:
            used.append(source)
            n_bytes.extend(documents[0])
            n_chars.extend(documents[1])
            digests.extend(documents[2])
        done_bytes += source.size_bytes
        if progress:
            progress(done_bytes)
    if left_out:
        _log.warning(
            "Left out %d of %d files that are not readable text; the first: %s.",
            len(left_out),
            len(sources),
            left_out[0].message,
        )
    if not n_bytes:
        if left_out:
            raise DataError(
                f"none of the {len(sources)} files found is text ({left_out[0].message})",
                advice="Name files or folders of UTF-8 text.",
            )
        names = ", ".join(str(source.path) for source in sources[:3])
        more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
        raise DataError(
            f"there is no text in {names}{more}", advice="Name files or folders that hold text."
        )
    return Corpus(
        tuple(used),
        np.array(n_bytes, np.int64),
        np.array(n_chars, np.int64),
        np.frombuffer(bytes(digests), np.uint8).reshape(-1, DIGEST_BYTES),
    )


def read_pieces(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (document number within the file from 0, text); empty documents are dropped.

    Raises `DataError` when the file cannot be read, holds NUL bytes, is not UTF-8,
    is not JSON where its suffix says so, or has changed since it was found.
    """
    suffix = source.path.suffix.lower()
    if suffix in JSON_LINES_SUFFIXES:
        documents: Iterable[Iterable[str]] = ([text] for text in _json_line_texts(source))
    elif suffix in HTML_SUFFIXES:
        documents = [_html_text(_blocks(source))]
    else:
        documents = [_blocks(source)]
    number = 0
    for blocks in documents:
        empty = True
        for piece in cut(blocks):
            empty = False
            yield number, piece
        number += not empty


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of one file: its documents, one after the other.

    Raises `DataError` as `find_sources` and `read_pieces` do, and for a folder.
    """
    if Path(path).is_dir():
        raise DataError(f"{path} is a folder", advice="Name one file of text.")
    (source,) = find_sources([path])
    return "".join(piece for _, piece in read_pieces(source))


# --- finding ----------------------------------------------------------------------------------


def _first_visit(real_path: str, seen: set[str]) -> bool:
    if real_path in seen:
        return False
    seen.add(real_path)
    return True


def _source(path: Path, status: os.stat_result, explicit: bool) -> Source:
    return Source(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, explicit)


def _walk(folder: Path, seen: set[str]) -> list[Source]:
    """List the usable files below `folder`; raise `DataError` when there are none."""
    found: list[Source] = []
    passed_over: Counter[str] = Counter()
    repeated = 0
    unlisted: list[OSError] = []
    pending = [folder]
    while pending:
        here = pending.pop()
        real_here = os.path.realpath(here)
        if not _first_visit(real_here, seen):
            repeated += 1
            continue
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if here == folder:
                raise _unreadable(folder, error) from None
            unlisted.append(error)
            continue
        folders: list[Path] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = here / entry.name
            real_path = (
                os.path.realpath(path) if entry.is_symlink() else f"{real_here}/{entry.name}"
            )
            try:
                status = entry.stat()
            except OSError:  # a broken or circular link
                passed_over["broken link"] += 1
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(path)
            elif not stat.S_ISREG(status.st_mode):
                passed_over["special file"] += 1
            elif path.suffix.lower() not in SUFFIXES:
                passed_over[path.suffix.lower() or "without suffix"] += 1
            elif not _first_visit(real_path, seen):
                repeated += 1
            else:
                found.append(_source(path, status, explicit=False))
        pending.extend(reversed(folders))
    if unlisted:
        _log.warning(
            "Left out %d folder%s that cannot be listed; the first: %s (%s).",
            len(unlisted),
            "" if len(unlisted) == 1 else "s",
            unlisted[0].filename,
            unlisted[0].strerror,
        )
    if not found and not repeated:
        if not passed_over:
            raise DataError(
                f"the folder {folder} is empty", advice="Name a folder that holds files of text."
            )
        kinds = ", ".join(f"{count} {kind}" for kind, count in passed_over.most_common(5))
        raise DataError(
            f"the folder {folder} holds no file with a suffix of text "
            f"({passed_over.total()} passed over: {kinds})",
            advice="Name the files themselves; such files are read whatever their suffix.",
        )
    return found


# --- reading ----------------------------------------------------------------------------------


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be read ({error.strerror or error})",
        advice="Check its permissions and the disk.",
    )


def _measure(
    source: Source, progress: Callable[[int], None] | None, done_bytes: int
) -> tuple[array[int], array[int], bytearray]:
    """Return bytes, characters and digest of every document of one source."""
    n_bytes, n_chars, digests = array("q"), array("q"), bytearray()
    digest = hashlib.sha256()
    current = -1
    read_bytes = 0
    for number, piece in read_pieces(source):
        if number != current:
            if current >= 0:
                digests += digest.digest()[:DIGEST_BYTES]
            digest = hashlib.sha256()
            n_bytes.append(0)
            n_chars.append(0)
            current = number
        data = piece.encode()
        digest.update(data)
        n_bytes[-1] += len(data)
        n_chars[-1] += len(piece)
        read_bytes += len(data)
        if progress:
            progress(done_bytes + min(read_bytes, source.size_bytes))
    if current >= 0:
        digests += digest.digest()[:DIGEST_BYTES]
    return n_bytes, n_chars, digests


def _blocks(source: Source) -> Iterator[str]:
    """Yield the file as text: UTF-8, no byte order mark, `\\n` line ends."""
    path = source.path
    try:
        with path.open("rb") as file:
            held = b""  # an incomplete UTF-8 sequence
            held_return = ""  # a carriage return whose line feed may follow
            offset = 0  # of `held` in the file
            while True:
                block = file.read(_BLOCK_BYTES)
                _refuse_binary(path, block, offset + len(held))
                held += block
                try:
                    text, used = codecs.utf_8_decode(held, "strict", not block)
                except UnicodeDecodeError as error:
                    where = offset + error.start
                    raise DataError(
                        f"{path} is not UTF-8: byte 0x{held[error.start]:02x} at offset {where}",
                        advice="Convert it to UTF-8, for example with iconv.",
                    ) from None
                if offset == 0:
                    text = text.removeprefix(_MARK)
                held = held[used:]
                offset += used
                text = held_return + text
                held_return = ""
                if block and text.endswith("\r"):
                    text, held_return = text[:-1], "\r"
                if text:
                    yield text.replace("\r\n", "\n")
                if not block:
                    break
            if _source(path, os.fstat(file.fileno()), source.explicit) != source:
                raise DataError(
                    f"{path} changed while it was being read",
                    advice="Start again when nothing writes to it.",
                )
    except OSError as error:
        raise _unreadable(path, error) from None


def _refuse_binary(path: Path, block: bytes, offset: int) -> None:
    if offset == 0 and block.startswith(_UTF16_MARKS):
        raise DataError(
            f"{path} is UTF-16 text", advice="Convert it, for example: iconv -f UTF-16 -t UTF-8."
        )
    nul = block.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"{path} is a binary file (NUL byte at offset {offset + nul})",
            advice="Name files of plain text.",
        )


def _json_line_texts(source: Source) -> Iterator[str]:
    """Yield the field "text" of every line, or the line where there is no such field."""
    for number, line in enumerate(_lines(_blocks(source)), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deeply")
            raise DataError(
                f"line {number} of {source.path} is not JSON ({reason})",
                advice="A .jsonl file holds one JSON value per line; rename it to .txt otherwise.",
            ) from None
        text = value.get("text") if isinstance(value, dict) else None
        yield _LONE_SURROGATE.sub(
            "\N{REPLACEMENT CHARACTER}", text if isinstance(text, str) else line
        )


def _lines(blocks: Iterable[str]) -> Iterator[str]:
    parts: list[str] = []
    for block in blocks:
        first, *others = block.split("\n")
        parts.append(first)
        for other in others:
            yield "".join(parts)
            parts = [other]
    yield "".join(parts)


_INLINE_TAGS = """
    a abbr b bdi bdo big cite code del dfn em font i img ins kbd mark q s samp small span strong
    sub sup time tt u var wbr
"""


class _TextOfHtml(HTMLParser):
    """Collects visible text: white space folded except in `<pre>`, a new line per block."""

    _HIDDEN = frozenset({"script", "style"})
    _INLINE = frozenset(_INLINE_TAGS.split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self._hidden += tag in self._HIDDEN
        self._verbatim += tag == "pre"
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in self._HIDDEN))
        self._verbatim = max(0, self._verbatim - (tag == "pre"))
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if not self._verbatim:
            data = re.sub(r"\s+", " ", data)
            if not self.parts or self.parts[-1].endswith("\n"):
                data = data.lstrip(" ")
        self.parts.append(data)

    def _break(self, tag: str) -> None:
        if tag not in self._INLINE and not self._hidden:
            self.parts.append("\n")


def _html_text(blocks: Iterable[str]) -> Iterator[str]:
    parser = _TextOfHtml()
    for block in blocks:
        parser.feed(block)
    parser.close()
    text = re.sub(r"[ \t]+\n", "\n", "".join(parser.parts))
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if text:
        yield text + "\n"
