"""Paths to files: what is found, in which order, and what is passed over."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from crystalline.data import finding
from crystalline.data.finding import find, find_sources
from crystalline.errors import DataError
from tests.data.folders import denied, put


def names(paths: list[Path], root: Path) -> list[str]:
    return [os.path.relpath(source.path, root) for source in find_sources(paths)]


def test_a_folder_is_read_at_every_depth_in_sorted_order(tmp_path: Path) -> None:
    put(tmp_path, "b/z.md", "b/a.TXT", "a.py", "ä.txt", "Z.rst", "b/c/d.jsonl", "a/x.html")
    expected = ["Z.rst", "a.py", "ä.txt", "a/x.html", "b/a.TXT", "b/z.md", "b/c/d.jsonl"]
    assert names([tmp_path], tmp_path) == expected


def test_hidden_and_foreign_files_are_passed_over_but_a_named_one_is_taken(tmp_path: Path) -> None:
    put(tmp_path, ".git/a.txt", ".b.txt", "c.png", "Makefile", "d.txt")
    assert names([tmp_path], tmp_path) == ["d.txt"]
    named = [tmp_path / "Makefile", tmp_path / ".b.txt", tmp_path / ".git"]
    assert names(named, tmp_path) == ["Makefile", ".b.txt", ".git/a.txt"]


def test_links_are_followed_without_loops_or_doubles(tmp_path: Path) -> None:
    put(tmp_path, "in/a.txt", "out/b.txt")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/other").symlink_to(tmp_path / "out")
    (tmp_path / "in/z.txt").symlink_to(tmp_path / "in/a.txt")
    (tmp_path / "in/broken.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in/self.txt").symlink_to(tmp_path / "in/self.txt")
    assert names([tmp_path / "in"], tmp_path) == ["in/a.txt", "in/other/b.txt"]


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    put(tmp_path, "b.txt", "a.txt")
    given = [tmp_path / "b.txt", tmp_path, tmp_path / "a.txt", tmp_path]
    assert names(given, tmp_path) == ["b.txt", "a.txt"]


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing does not exist") as info:
        find_sources([tmp_path / "missing"])
    assert info.value.exit_code == 3
    assert info.value.advice


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the folder {tmp_path} is empty"):
        find_sources([tmp_path])
    with pytest.raises(DataError, match="no text was given"):
        find_sources([])


def test_a_folder_without_text_says_what_was_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.PNG", "sub/c.bin", "LICENSE")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError) as info:
        find_sources([tmp_path])
    message = info.value.message
    assert "5 passed over: 2 .png" in message
    assert "1 .bin" in message
    assert "1 without suffix" in message
    assert "1 special file" in message


def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        find_sources([tmp_path / "pipe"])


def test_a_folder_that_cannot_be_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.txt", "locked/b.txt")
    scandir = os.scandir
    monkeypatch.setattr(
        finding.os,
        "scandir",
        lambda path: denied(path) if path.name == "locked" else scandir(path),
    )
    with caplog.at_level(logging.WARNING, "crystalline"):
        assert names([tmp_path], tmp_path) == ["a.txt"]
    assert "Left out 1 folder that cannot be listed" in caplog.text
    with pytest.raises(DataError, match=r"locked cannot be read \(Permission denied\)"):
        find_sources([tmp_path / "locked"])


# --- names and counts -------------------------------------------------------------------------


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"stra\xdfe")
    folder.mkdir()
    path = folder / os.fsdecode(b"caf\xe9.txt")
    path.write_text("text")
    (folder / os.fsdecode(b"x.p\xff")).write_text("other")
    found = find([folder])
    (source,) = found.sources
    assert source.path == path
    json.dumps(source.identity, ensure_ascii=False).encode()  # what a record must take
    assert found.passed_over_words() == "1 .p\\xff"
    (folder / "café.txt").write_text("text")
    assert len({source.identity[0] for source in find_sources([folder])}) == 2
    path.unlink()
    with pytest.raises(DataError, match=r"caf\\xe9\.txt does not exist") as info:
        find_sources([path])
    info.value.message.encode()


def test_other_kinds_of_files_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", *(f"{n}.png" for n in range(7)), "b/LICENSE", "b/x.bin", "c.bin")
    assert find([tmp_path]).passed_over_words() == "7 .png, 2 .bin, 1 without suffix"
    put(tmp_path, *(f"x.{letter}1" for letter in "abcdef"))
    assert find([tmp_path]).passed_over_words().endswith(", 4 others")
