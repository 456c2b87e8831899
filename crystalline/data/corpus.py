"""Files to documents: what is read, in which order, and how it becomes text.

A document is a file, a record of a `.jsonl` file, or one of a `.json` file that is an
array of records.  Text is UTF-8 without a byte order mark, with `\\n` line ends.  Files
are read in blocks and handed on in pieces (see `pieces.py`), so that the corpus is never
in memory as a whole.  Which files those are says `finding`; tokens, caches and the
held-out split are left to the other modules.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline.data.decoding import text_blocks
from crystalline.data.finding import (
    HTML_SUFFIXES,
    JSON_LINES_SUFFIXES,
    Source,
    find_sources,
    shown,
    source_of,
    unreadable,
)
from crystalline.data.html_text import html_text
from crystalline.data.pieces import cut, has_long_word
from crystalline.data.records import Render, array_values, line_values, text_of, texts
from crystalline.data.transcript import Conversation, Spans, transcript
from crystalline.errors import DataError
from crystalline.log import get_logger
from crystalline.untrusted import open_regular
from crystalline.untrusted.files import PROMPT, FileKind

DIGEST_BYTES = 16

_log = get_logger("data")


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents that have been read once: known to be text, measured and hashed."""

    sources: tuple[Source, ...]
    text_field: str | None  # of records
    doc_bytes: npt.NDArray[np.int64]  # (documents,) UTF-8 bytes
    doc_chars: npt.NDArray[np.int64]  # (documents,) characters
    doc_digests: npt.NDArray[np.uint8]  # (documents, DIGEST_BYTES)
    long_words: bool  # whether a word has the length at which `pieces` bounds them
    turns: npt.NDArray[np.int64]  # (turns, 3) the model's in conversations: see `spans`
    render: Render = transcript  # what makes text of conversations

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

    @property
    def has_turns(self) -> bool:
        """Whether there are conversations, of which the model's turns alone count."""
        return len(self.turns) > 0

    def pieces(self) -> Iterator[tuple[int, str]]:
        """Read the files again: (document number, text) with the documents in order.

        Raises `DataError` when a file has changed since it was found.
        """
        first = 0
        for source in self.sources:
            last = -1
            for last, piece in read_pieces(source, self.text_field, render=self.render):
                yield first + last, piece
            first += last + 1

    def spans(self, document: int) -> list[tuple[int, int]] | None:
        """Return the characters of a conversation that are the model's turns; None of other text.

        Each span is (first, behind the last).
        """
        first, last = np.searchsorted(self.turns[:, 0], (document, document + 1))
        if first == last:
            return None
        return [(begin, end) for _, begin, end in self.turns[first:last].tolist() if begin < end]


def read_corpus(
    sources: Sequence[Source],
    progress: Callable[[int], None] | None = None,
    *,
    text_field: str | None = None,
    render: Render = transcript,
) -> Corpus:
    """Read every source once and measure its documents; `progress` gets bytes read so far.

    `text_field` names the field of records that holds their text; None means the usual ones
    (see `records`), and `render` makes text of conversations.  Sources that were not named by the
    user and are not text are left out, with one warning that counts them, and records without
    text with another.  Raises `DataError` for a named source that is not text, and when no text
    is left.
    """
    used: list[Source] = []
    measured = _Measured()
    left_out: list[DataError] = []
    done_bytes = 0
    for source in sources:
        before = measured.mark()
        try:
            measured.add(source, text_field, progress, done_bytes, render)
        except DataError as error:
            if source.explicit:
                raise
            measured.take_back(before)
            left_out.append(error)
        else:
            used.append(source)
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
    if measured.without_text:
        where, without, of = measured.without_text[0]
        _log.warning(
            "Left out %s records that have no text in their field; the first file: %s "
            "(%s of %s records).",
            f"{sum(count for _, count, _ in measured.without_text):,}",
            where,
            f"{without:,}",
            f"{of:,}",
        )
    if not measured.n_bytes:
        if left_out:
            raise DataError(
                f"none of the {len(sources)} files found is text ({left_out[0].message})",
                advice=left_out[0].advice
                if "--text-field" in left_out[0].advice
                else "Name files or folders of UTF-8 text.",
            )
        names = ", ".join(shown(source.path) for source in sources[:3])
        more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
        raise DataError(
            f"there is no text in {names}{more}", advice="Name files or folders that hold text."
        )
    return measured.corpus(used, text_field, render)


def read_pieces(
    source: Source,
    text_field: str | None = None,
    note: Callable[[int, int], None] | None = None,
    *,
    render: Render = transcript,
    told: Callable[[int, Spans], None] | None = None,
) -> Iterator[tuple[int, str]]:
    """Yield (document number within the file from 0, text); empty documents are dropped.

    `note` is told how many records had no text, and of how many, where some had none; `told` the
    number of each conversation, and the spans of the model's turns, before its text.

    Raises `DataError` when the file cannot be read, holds NUL bytes, is not UTF-8,
    is not JSON where its suffix says so, has no record with text, or has changed since
    it was found.
    """
    number = 0
    for document in _documents(source, text_field, note, render):
        if told is not None and isinstance(document, list) and document[0]:
            for text in document:
                if isinstance(text, Conversation):
                    told(number, text.spans)
        empty = True
        for piece in cut(document):
            empty = False
            yield number, piece
        number += not empty


def read_documents(path: str | os.PathLike[str], text_field: str | None = None) -> list[str]:
    """Return the documents of one file, as training reads them; of a pipe, one.

    Raises `DataError` as `find_sources` and `read_pieces` do, for a folder, and where there
    is no text.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, ValueError):  # or no name that a file can have
        raise DataError(
            f"{shown(path)} does not exist", advice="Check the path of the text."
        ) from None
    except OSError as error:
        raise unreadable(Path(path), error) from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{shown(path)} is a folder", advice="Name one file of text.")
    if _is_inherited_pipe(path, status.st_mode):
        try:
            with Path(path).open("rb") as pipe:
                data = PROMPT.read_stream(pipe, os.fspath(path))
        except OSError as error:
            raise unreadable(Path(path), error) from None
        return ["".join(text_blocks(io.BytesIO(data).read, shown(path)))]
    (source,) = find_sources([path])
    documents: list[list[str]] = []
    for number, piece in read_pieces(source, text_field):
        if number == len(documents):
            documents.append([])
        documents[number].append(piece)
    return ["".join(pieces) for pieces in documents]


def read_lines(path: str | os.PathLike[str], kind: FileKind) -> str:
    """Return the text of a file of that kind, or of a pipe that a shell has opened, whole.

    Raises `DataError` for what cannot be read, and for anything but UTF-8 text.
    """
    try:
        if _is_inherited_pipe(path, Path(path).stat().st_mode):
            with Path(path).open("rb") as pipe:
                data = kind.read_stream(pipe, os.fspath(path))
        else:
            data = kind.read_bytes(path)
    except ValueError:
        raise DataError(f"{shown(path)} is no name of a file", advice="Check the path.") from None
    except OSError as error:
        raise unreadable(Path(path), error) from None
    return "".join(text_blocks(io.BytesIO(data).read, shown(path)))


def _is_inherited_pipe(path: str | os.PathLike[str], mode: int) -> bool:
    """Return whether a path is what a shell writes for `<(command)`: it has a writer."""
    return stat.S_ISFIFO(mode) and Path(path).parent in (Path("/dev/fd"), Path("/proc/self/fd"))


def read_text(path: str | os.PathLike[str], text_field: str | None = None) -> str:
    """Return the text of one file: its documents, one after the other.

    Raises `DataError` as `read_documents` does.
    """
    return "".join(read_documents(path, text_field))


# --- measuring --------------------------------------------------------------------------------


class _Measured:
    """What is known of the documents read so far."""

    def __init__(self) -> None:
        self.n_bytes, self.n_chars, self.digests = array("q"), array("q"), bytearray()
        self.turns = array("q")  # (document, first character, behind the last), flat
        self.long_words = False
        self.without_text: list[tuple[str, int, int]] = []  # file, records without, of how many

    def mark(self) -> tuple[int, int, bool]:
        """Return what `take_back` needs."""
        return len(self.n_bytes), len(self.turns), self.long_words

    def take_back(self, mark: tuple[int, int, bool]) -> None:
        """Forget the documents since `mark`."""
        count, turns, self.long_words = mark
        del self.turns[turns:]
        del self.n_bytes[count:], self.n_chars[count:], self.digests[count * DIGEST_BYTES :]

    def add(
        self,
        source: Source,
        text_field: str | None,
        progress: Callable[[int], None] | None,
        done_bytes: int,
        render: Render,
    ) -> None:
        """Read one source; its documents stay when it turns out not to be text."""
        before = len(self.n_bytes)
        spans: Spans | None = None
        digest = hashlib.sha256()
        current = -1
        read_bytes = 0

        def note(without: int, count: int) -> None:
            self.without_text.append((shown(source.path), without, count))

        def told(number: int, found: Spans) -> None:
            nonlocal spans
            spans = found
            for first, last in found or ((0, 0),):
                self.turns.extend((before + number, first, last))

        for number, piece in read_pieces(source, text_field, note, render=render, told=told):
            if number != current:
                if current >= 0:
                    self.digests += digest.digest()[:DIGEST_BYTES]
                digest = hashlib.sha256()
                if spans is not None:  # a conversation is not the text that looks like it
                    digest.update(repr(spans).encode())
                    spans = None
                self.n_bytes.append(0)
                self.n_chars.append(0)
                current = number
            data = piece.encode()
            digest.update(data)
            self.n_bytes[-1] += len(data)
            self.n_chars[-1] += len(piece)
            self.long_words = self.long_words or has_long_word(piece)
            read_bytes += len(data)
            if progress:
                progress(done_bytes + min(read_bytes, source.size_bytes))
        if current >= 0:
            self.digests += digest.digest()[:DIGEST_BYTES]

    def corpus(self, used: Sequence[Source], text_field: str | None, render: Render) -> Corpus:
        """Return the corpus of all that was added."""
        return Corpus(
            tuple(used),
            text_field,
            np.array(self.n_bytes, np.int64),
            np.array(self.n_chars, np.int64),
            np.frombuffer(bytes(self.digests), np.uint8).reshape(-1, DIGEST_BYTES),
            self.long_words,
            np.array(self.turns, np.int64).reshape(-1, 3),
            render,
        )


# --- reading ----------------------------------------------------------------------------------


def _documents(
    source: Source,
    text_field: str | None,
    note: Callable[[int, int], None] | None,
    render: Render,
) -> Iterator[Iterable[str]]:
    """Yield the documents of a file, each in blocks."""
    suffix, name = source.path.suffix.lower(), shown(source.path)
    if suffix in JSON_LINES_SUFFIXES:
        values = line_values(_lines(_blocks(source)), name)
        yield from ([text] for text in texts(values, name, text_field, note, render))
    elif suffix == ".json" and _is_array_of_records(source, text_field):
        values = array_values(_blocks(source))
        yield from ([text] for text in texts(values, name, text_field, note, render))
    elif suffix in HTML_SUFFIXES:
        yield html_text(_blocks(source))
    else:
        yield _blocks(source)


def _is_array_of_records(source: Source, text_field: str | None) -> bool:
    """Return whether a file is an array of objects that each have text; others are plain text.

    With a field that the user named, objects are enough: that one is missing is then an error.
    """
    try:
        return all(
            text_field is not None or text_of(value, None) is not None
            for value in array_values(_blocks(source))
        )
    except (ValueError, RecursionError):
        return False


def _blocks(source: Source) -> Iterator[str]:
    """Yield the file as text; raise `DataError` when it has changed since it was found."""
    path = source.path
    try:
        with open_regular(path) as file:
            yield from text_blocks(file.read, shown(path))
            if source_of(path, os.fstat(file.fileno()), explicit=source.explicit) != source:
                raise DataError(
                    f"{shown(path)} changed while it was being read",
                    advice="Start again when nothing writes to it.",
                )
    except OSError as error:
        raise unreadable(path, error) from None


def _lines(blocks: Iterable[str]) -> Iterator[str]:
    parts: list[str] = []
    for block in blocks:
        first, *others = block.split("\n")
        parts.append(first)
        for other in others:
            yield "".join(parts)
            parts = [other]
    yield "".join(parts)
