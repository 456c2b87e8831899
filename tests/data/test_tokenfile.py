"""The token file: what goes in comes out, and damage never goes unnoticed."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from crystalline.data.tokenfile import (
    DATA_OFFSET,
    MAGIC,
    VERSION,
    Header,
    Split,
    TokenFile,
    write_token_file,
)
from crystalline.errors import DataError

TRAIN = [np.array([5, 0, 299], np.int32), np.array([], np.int32), np.array([7], np.int32)]
VAL = [np.array([1, 2], np.int32)]


def write(path: Path, vocab_size: int = 300) -> Header:
    return write_token_file(
        path,
        Split(iter(TRAIN), lambda: 11),
        Split(iter(VAL), lambda: 5),
        vocab_size=vocab_size,
        documents=3,
        tokenizer_sha256="ab" * 32,
    )


def test_both_splits_come_back(tmp_path: Path) -> None:
    header = write(tmp_path / "t.bin")
    tokens = TokenFile.open(tmp_path / "t.bin", verify=True)
    assert tokens.train.tolist() == [5, 0, 299, 7]
    assert tokens.val.tolist() == [1, 2]
    assert tokens.train.dtype == np.uint16
    assert (tokens.vocab_size, tokens.train_bytes, tokens.val_bytes) == (300, 11, 5)
    assert tokens.header == header
    payload = struct.pack("<6H", 5, 0, 299, 7, 1, 2)
    assert (tmp_path / "t.bin").read_bytes()[DATA_OFFSET:] == payload
    assert tokens.sha256 == hashlib.sha256(payload).hexdigest()
    assert os.listdir(tmp_path) == ["t.bin"]


def test_tokens_are_read_only_aligned_and_mapped(tmp_path: Path) -> None:
    write(tmp_path / "t.bin")
    tokens = TokenFile.open(tmp_path / "t.bin")
    assert isinstance(tokens.train, np.memmap)
    assert tokens.train.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        tokens.val[0] = 3


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_the_width_follows_the_vocabulary(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    write(tmp_path / "t.bin", vocab_size)
    tokens = TokenFile.open(tmp_path / "t.bin", verify=True)
    assert tokens.train.dtype == dtype
    assert tokens.val.tolist() == [1, 2]


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    empty = Split(iter(()), lambda: 0)
    write_token_file(
        tmp_path / "t", empty, empty, vocab_size=2, documents=0, tokenizer_sha256="0" * 64
    )
    tokens = TokenFile.open(tmp_path / "t", verify=True)
    assert (len(tokens.train), len(tokens.val)) == (0, 0)


@pytest.mark.parametrize("bad", [300, -1])
def test_a_token_outside_the_vocabulary_is_refused(tmp_path: Path, bad: int) -> None:
    with pytest.raises(ValueError, match="vocabulary of 300"):
        write_token_file(
            tmp_path / "t.bin",
            Split([np.array([bad], np.int32)], lambda: 1),
            Split([], lambda: 0),
            vocab_size=300,
            documents=1,
            tokenizer_sha256="",
        )
    assert os.listdir(tmp_path) == []


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    write(path)
    whole = path.read_bytes()
    header_end = 48 + struct.unpack_from("<I", whole, 12)[0]
    positions = [*range(0, header_end, 7), 12, 15, *range(DATA_OFFSET, len(whole))]
    for position in positions:
        for bit in (0, 7):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(DataError):
                TokenFile.open(path, verify=True)


@pytest.mark.parametrize("size", [0, 5, 47, 100, DATA_OFFSET, DATA_OFFSET + 11])
def test_a_truncated_file_is_refused_without_reading_it(tmp_path: Path, size: int) -> None:
    path = tmp_path / "t.bin"
    write(path)
    os.truncate(path, size)
    with pytest.raises(DataError, match=str(path)) as info:
        TokenFile.open(path)
    assert info.value.advice


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    write(path)
    with path.open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(DataError, match="1,038 bytes instead of 1,036"):
        TokenFile.open(path)


def test_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    write(path)
    content = bytearray(path.read_bytes())
    content[8] = 9
    path.write_bytes(content)
    with pytest.raises(DataError, match="version 9"):
        TokenFile.open(path)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        TokenFile.open(tmp_path / "missing")


def sign(path: Path, **changes: object) -> None:
    """Change fields of the header as somebody would who knows the format."""
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    text = json.dumps(json.loads(content[48 : 48 + length]) | changes).encode()
    head = struct.pack("<8sII32s", MAGIC, VERSION, len(text), hashlib.sha256(text).digest())
    path.write_bytes((head + text).ljust(DATA_OFFSET, b"\0") + content[DATA_OFFSET:])


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "uint32"},
        {"dtype": "float16"},
        {"dtype": None},
        {"vocab_size": 0},
        {"vocab_size": 2**40},
        {"train_tokens": -4},
        {"val_tokens": 1e300},
        {"documents": "\x1b[2J"},
        {"entry": "../../etc"},
        {"payload_sha256": "0" * 63},
    ],
    ids=str,
)
def test_a_well_signed_header_is_not_believed(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "t.bin"
    write(path)
    sign(path, **changes)
    with pytest.raises(DataError, match="damaged: ") as caught:
        TokenFile.open(path)
    assert str(caught.value).isprintable()


def test_well_signed_tokens_beyond_the_vocabulary_are_found(tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    write(path)
    sign(path, vocab_size=299)
    with pytest.raises(DataError, match="token 299 of a vocabulary of 299"):
        TokenFile.open(path, verify=True)
    sign(path, vocab_size=300)
    TokenFile.open(path, verify=True)


def test_a_pipe_in_its_place_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.bin")
    with pytest.raises(DataError, match="it is a pipe"):
        TokenFile.open(tmp_path / "t.bin")


def test_a_file_that_is_cut_off_in_use_is_told(tmp_path: Path) -> None:
    write(tmp_path / "t.bin")
    tokens = TokenFile.open(tmp_path / "t.bin")
    assert tokens.lost() is None
    os.truncate(tmp_path / "t.bin", 1030)
    lost = tokens.lost()
    assert lost is not None
    assert lost.endswith("was cut off while it was in use (1,030 of 1,036 bytes are left)")
    (tmp_path / "t.bin").unlink()
    assert tokens.lost() is None  # what is mapped is whole
