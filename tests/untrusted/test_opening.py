"""Only regular files of a bounded size are read; nothing is written through a link."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import pytest

from crystalline.untrusted import (
    RefusedFile,
    open_ours,
    open_regular,
    read_bytes,
    read_stream,
    real_directory,
)


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert read_bytes(path, 3) == b"abc"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_bytes(link, 3) == b"abc"  # reading through a link harms nobody


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket", "loop", "zero", "name"])
def test_nothing_else_is_opened_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    with socket.socket(socket.AF_UNIX) as end:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "socket":
            end.bind(str(path))
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "name":
            path = tmp_path / "a\0b"
        else:
            path.symlink_to("/dev/tty" if kind == "device" else "/dev/zero")
        with pytest.raises(OSError, match=r"."):
            read_bytes(path, 1000)


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RefusedFile) as caught:
        read_bytes(path, 1 << 20)
    assert caught.value.strerror == (
        "it has 1,099,511,627,776 bytes, more than the 1,048,576 bytes that such a file may have"
    )
    assert caught.value.filename == str(path)


def test_a_stream_without_end_is_refused() -> None:
    with pytest.raises(RefusedFile, match="more"), Path("/dev/zero").open("rb") as zeros:
        read_stream(zeros, "standard input", 5_000_000)
    assert read_stream(io.BytesIO(b"12345"), "standard input", 5) == b"12345"
    with pytest.raises(RefusedFile):
        read_stream(io.BytesIO(b"123456"), "standard input", 5)


def test_open_regular_blocks_like_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with open_regular(path) as file:
        assert os.get_blocking(file.fileno())


@pytest.mark.parametrize("target", ["file", "missing", "folder"])
def test_nothing_is_written_through_a_link(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    if target == "file":
        outside.write_bytes(b"precious")
    elif target == "folder":
        outside.mkdir()
    link = tmp_path / "metrics"
    link.symlink_to(outside)
    with pytest.raises(RefusedFile, match="a link"):
        open_ours(link)
    assert outside.exists() == (target != "missing")
    if target == "file":
        assert outside.read_bytes() == b"precious"


def test_a_pipe_is_not_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedFile, match="a pipe"):
        open_ours(tmp_path / "pipe")
    with pytest.raises(RefusedFile, match="a folder"):
        open_ours(tmp_path)


def test_a_folder_must_be_the_folder_itself(tmp_path: Path) -> None:
    assert not real_directory(tmp_path / "missing")
    assert real_directory(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RefusedFile, match="a link"):
        real_directory(tmp_path / "link")
