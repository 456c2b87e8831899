"""The token file: a corpus as numbers, training split first, held-out split after it.

Layout, little endian:

    0     8 bytes   magic
    8     uint32    version
    12    uint32    length of the header
    16    32 bytes  sha256 of the header
    48    header    JSON, see `Header`; zeros up to DATA_OFFSET
    1024  tokens    uint16 where the vocabulary allows it, otherwise uint32
          marks     uint8 for each token, where the header says `marked`: 1 where it counts as a
                    target of training and of evaluation, 0 where not

The file is written in one pass to a temporary name and never changed after that.  Version 2
added the header's `entry`, the name of the cache entry that the file belongs to; files with marks
are of version 3, which earlier programs refuse.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crystalline.atomic import atomic_write
from crystalline.errors import DataError
from crystalline.untrusted import BadContent, open_regular
from crystalline.untrusted import files as outside

MAGIC = b"CLLMTOK\0"
VERSION = 2  # of files in which every token counts
MARKED_VERSION = 3
DATA_OFFSET = 1024  # a multiple of 64: tokens start on a cache line

_PREFIX = struct.Struct("<8sII32s")
_HASH_TOKENS = 1 << 19  # hashed at a time
_ADVICE = "Remove it; it is made again from the text."


@dataclass(frozen=True)
class Header:
    """What a token file says about itself."""

    dtype: str  # "uint16" or "uint32"
    vocab_size: int
    train_tokens: int
    val_tokens: int
    train_bytes: int  # UTF-8 bytes of the text behind the tokens
    val_bytes: int
    documents: int
    tokenizer_sha256: str
    payload_sha256: str
    entry: str = ""  # name of the cache entry it was made for; empty outside the cache
    marked: bool = False  # whether a mark for each token follows the tokens

    @property
    def tokens_bytes(self) -> int:
        """Size of the tokens alone."""
        return (self.train_tokens + self.val_tokens) * np.dtype(self.dtype).itemsize

    @property
    def file_bytes(self) -> int:
        """Size of a whole file."""
        marks = (self.train_tokens + self.val_tokens) * self.marked
        return DATA_OFFSET + self.tokens_bytes + marks


@dataclass(frozen=True, eq=False)
class TokenFile:
    """An open token file; the arrays are read-only views of the mapped file."""

    path: Path
    header: Header
    train: npt.NDArray[np.unsignedinteger[Any]]  # (train_tokens,)
    val: npt.NDArray[np.unsignedinteger[Any]]  # (val_tokens,)
    train_marks: npt.NDArray[np.uint8] | None = None  # (train_tokens,) 1: counts; None: all do
    val_marks: npt.NDArray[np.uint8] | None = None  # (val_tokens,)

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = False) -> TokenFile:
        """Map a token file; with `verify`, read it whole: its checksum, and every id.

        Raises `DataError` when it is missing, truncated, damaged or of another version.
        """
        path = Path(path)
        try:
            with open_regular(path) as file:
                size_bytes = os.fstat(file.fileno()).st_size
                header = _read_header(path, file.read(DATA_OFFSET))
                if size_bytes != header.file_bytes:
                    raise DataError(
                        f"the token file {path} has {size_bytes:,} bytes "
                        f"instead of {header.file_bytes:,}",
                        advice=_ADVICE,
                    )
                mapped = np.memmap(file, np.uint8, "r")
        except OSError as error:
            raise DataError(
                f"the token file {path} cannot be read ({error.strerror})", advice=_ADVICE
            ) from None
        behind = DATA_OFFSET + header.tokens_bytes
        tokens, marks = mapped[DATA_OFFSET:behind].view(header.dtype), mapped[behind:]
        if verify:
            _verify(path, header, tokens, marks)
        split = header.train_tokens
        both = (marks[:split], marks[split:]) if header.marked else (None, None)
        return cls(path, header, tokens[:split], tokens[split:], *both)

    def lost(self) -> str | None:
        """Return what has become of the mapped file since it was opened, None where it is whole."""
        try:
            size_bytes = self.path.stat().st_size
        except OSError as error:  # its name is gone; what is mapped is still there
            return None if isinstance(error, FileNotFoundError) else f"{self.path} is not to be had"
        if size_bytes >= self.header.file_bytes:
            return None
        return (
            f"the token file {self.path} was cut off while it was in use "
            f"({size_bytes:,} of {self.header.file_bytes:,} bytes are left)"
        )

    @property
    def vocab_size(self) -> int:
        """V: tokens are 0 to V - 1."""
        return self.header.vocab_size

    @property
    def train_bytes(self) -> int:
        """UTF-8 bytes of the training text."""
        return self.header.train_bytes

    @property
    def val_bytes(self) -> int:
        """UTF-8 bytes of the held-out text, for bits per byte."""
        return self.header.val_bytes

    @property
    def sha256(self) -> str:
        """Checksum of the tokens."""
        return self.header.payload_sha256


@dataclass
class Split:
    """Tokens of one split, made while they are written, and a count of the text behind them."""

    tokens: Iterable[npt.NDArray[np.integer[Any]]]
    text_bytes: Callable[[], int]  # called when `tokens` is exhausted
    # uint8 for each token, called then, too; None: every token counts
    marks: Callable[[], Iterable[npt.NDArray[np.uint8]]] | None = None


def write_token_file(
    path: str | os.PathLike[str],
    train: Split,
    val: Split,
    *,
    vocab_size: int,
    documents: int,
    tokenizer_sha256: str,
    entry: str = "",
) -> Header:
    """Write both splits to `path`, atomically and without holding them in memory.

    `entry` is the name of the cache entry that the file is for.

    Raises `OSError`, and `ValueError` for a token outside the vocabulary, and where one split has
    marks and the other has none.
    """
    if (train.marks is None) != (val.marks is None):
        raise ValueError("marks of one split without those of the other")
    dtype = _dtype(vocab_size)
    digest = hashlib.sha256()
    counts: list[int] = []
    text_bytes: list[int] = []
    with atomic_write(path) as file:
        file.write(bytes(DATA_OFFSET))
        for split in (train, val):
            count = 0
            for tokens in split.tokens:
                if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
                    raise ValueError(f"a token lies outside the vocabulary of {vocab_size}")
                data = tokens.astype(dtype).tobytes()
                digest.update(data)
                file.write(data)
                count += len(tokens)
            counts.append(count)
            text_bytes.append(split.text_bytes())
        for split, count in zip((train, val), counts, strict=True):
            if split.marks is not None:
                for marks in split.marks():
                    digest.update(marks.data)
                    file.write(marks.data)
                    count -= len(marks)
                if count:
                    raise ValueError(f"{count} tokens without marks")
        header = Header(
            dtype=dtype.name,
            vocab_size=vocab_size,
            train_tokens=counts[0],
            val_tokens=counts[1],
            train_bytes=text_bytes[0],
            val_bytes=text_bytes[1],
            documents=documents,
            tokenizer_sha256=tokenizer_sha256,
            payload_sha256=digest.hexdigest(),
            entry=entry,
            marked=train.marks is not None,
        )
        file.seek(0)
        file.write(_header_bytes(header))
    return header


def _verify(
    path: Path,
    header: Header,
    tokens: npt.NDArray[np.unsignedinteger[Any]],
    marks: npt.NDArray[np.uint8],
) -> None:
    """Raise `DataError` for content without its checksum, or tokens beyond the vocabulary."""
    digest = hashlib.sha256()
    largest = 0
    for start in range(0, len(tokens), _HASH_TOKENS):
        block = tokens[start : start + _HASH_TOKENS]
        digest.update(block.data)
        largest = max(largest, int(block.max()))
    for start in range(0, len(marks), _HASH_TOKENS):
        digest.update(marks[start : start + _HASH_TOKENS].data)
    if digest.hexdigest() != header.payload_sha256:
        raise DataError(f"the token file {path} is damaged (its checksum is wrong)", advice=_ADVICE)
    if largest >= header.vocab_size:
        raise DataError(
            f"the token file {path} holds token {largest:,} of a vocabulary of "
            f"{header.vocab_size:,}",
            advice=_ADVICE,
        )


def _dtype(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _header_bytes(header: Header) -> bytes:
    values = asdict(header)
    if not header.marked:  # such files are as they always were
        del values["marked"]
    text = json.dumps(values).encode()
    version = MARKED_VERSION if header.marked else VERSION
    prefix = _PREFIX.pack(MAGIC, version, len(text), hashlib.sha256(text).digest())
    if len(prefix) + len(text) > DATA_OFFSET:
        raise ValueError(f"a header of {len(text)} bytes does not fit")
    return prefix + text


def _read_header(path: Path, block: bytes) -> Header:
    if block[: len(MAGIC)] != MAGIC:
        raise DataError(f"{path} is not a token file", advice=_ADVICE)
    if len(block) < DATA_OFFSET:
        raise DataError(f"the token file {path} is cut off in its header", advice=_ADVICE)
    _, version, length, digest = _PREFIX.unpack_from(block)
    if version not in (VERSION, MARKED_VERSION):
        raise DataError(
            f"the token file {path} has version {version}; this program reads versions "
            f"{VERSION} and {MARKED_VERSION}",
            advice=_ADVICE,
        )
    text = block[_PREFIX.size : _PREFIX.size + length]
    if hashlib.sha256(text).digest() != digest:
        raise DataError(f"the header of the token file {path} is damaged", advice=_ADVICE)
    try:
        values = outside.TOKENS.of(text)
        header = Header(**{f.name: values[f.name] for f in fields(Header) if f.name in values})
        if header.marked != (version == MARKED_VERSION):
            raise BadContent(f"its version is {version}, and 'marked' is {header.marked}")
        if header.dtype != _dtype(header.vocab_size).name:
            raise BadContent(f"{header.dtype} is not what {header.vocab_size:,} tokens are kept in")
    except BadContent as error:
        raise DataError(f"the token file {path} is damaged: {error}", advice=_ADVICE) from None
    return header
