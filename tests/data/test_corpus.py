"""Folders and files: what is found, in which order, what it reads as, and every refusal."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from crystalline.data import corpus, decoding
from crystalline.data.corpus import read_corpus, read_pieces, read_text
from crystalline.data.finding import find_sources
from crystalline.errors import DataError
from tests.data.folders import denied, put


def documents(path: Path) -> list[str]:
    """Return the documents of one file, put together from their pieces."""
    (source,) = find_sources([path])
    texts: list[str] = []
    for number, piece in read_pieces(source):
        if number == len(texts):
            texts.append("")
        texts[number] += piece
    return texts


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 2, 3, 5, 1 << 20])
def test_text_is_utf8_without_mark_and_with_plain_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", block)
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe\r\n\xf0\x9f\x98\x80\r\r\nold\rmac\r")
    assert read_text(path) == "Grüße\n😀\r\nold\rmac\r"


@pytest.mark.parametrize("block", [3, 1 << 20])
@pytest.mark.parametrize(
    ("content", "byte", "offset"),
    [
        (b"fine \xc3\xa9 then \xe9t\xe9", "0xe9", 13),
        (b"cut off \xe2\x82", "0xe2", 8),
        (b"\xef\xbb\xbf\xff", "0xff", 3),
        (b"surrogate \xed\xa0\x80", "0xed", 10),
    ],
)
def test_invalid_utf8_is_refused_with_its_offset(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    content: bytes,
    byte: str,
    offset: int,
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", block)
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as info:
        read_text(path)
    assert info.value.message == f"{path} is not UTF-8: byte {byte} at offset {offset}"


@pytest.mark.parametrize("block", [4, 1 << 20])
def test_a_binary_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", block)
    path = tmp_path / "a.txt"
    path.write_bytes(b"\x7fELF123\0\0")
    with pytest.raises(DataError, match=r"binary file \(NUL byte at offset 7\)"):
        read_text(path)


def test_utf16_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello", encoding="utf-16")
    with pytest.raises(DataError, match=r"is UTF-16 text\. .*iconv"):
        read_text(path)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.txt")
    monkeypatch.setattr(corpus, "open_regular", denied)  # chmod would not stop root
    with pytest.raises(DataError, match=r"a.txt cannot be read \(Permission denied\)"):
        read_text(tmp_path / "a.txt")


def test_a_file_that_vanishes_or_changes_is_noticed(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", "b.txt")
    gone, changed = find_sources([tmp_path])
    gone.path.unlink()
    changed.path.write_text("something else")
    with pytest.raises(DataError, match=r"a.txt cannot be read \(No such file"):
        list(read_pieces(gone))
    with pytest.raises(DataError, match=r"b.txt changed while it was being read"):
        list(read_pieces(changed))


def test_a_folder_is_not_one_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_text(tmp_path)


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_json_lines_are_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", block)
    path = tmp_path / "a.jsonl"
    lines = [
        json.dumps({"id": 1, "text": "one\ntwo é"}),
        "",
        json.dumps({"title": "no text"}),
        json.dumps({"text": ""}),
        json.dumps({"text": None}),
        '[1, "\u2028"]',
        r'{"text": "half \ud800 pair"}',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert documents(path) == ["one\ntwo é", "\u2028", "half \ufffd pair"]


def test_a_broken_json_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": \n')
    with pytest.raises(DataError, match=r"line 3 of .*a.jsonl is not JSON \(Expecting value\)"):
        documents(path)


def test_html_is_read_as_its_visible_text(tmp_path: Path) -> None:
    path = tmp_path / "a.HTM"
    path.write_text("<p>One<br>two</p>")
    assert documents(path) == ["One\ntwo\n"]


# --- measuring --------------------------------------------------------------------------------


def test_documents_are_measured_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("äb\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n{"text": "yz"}\n')
    progress: list[int] = []
    read = read_corpus(find_sources([tmp_path]), progress.append)
    assert read.documents == 3
    assert read.doc_bytes.tolist() == [4, 1, 2]
    assert read.doc_chars.tolist() == [3, 1, 2]
    assert read.total_bytes == 7
    digests = [hashlib.sha256(text.encode()).digest()[:16] for text in ("äb\n", "x", "yz")]
    assert [row.tobytes() for row in read.doc_digests] == digests
    assert list(read.pieces()) == [(0, "äb\n"), (1, "x"), (2, "yz")]
    assert progress == sorted(progress)
    assert progress[-1] == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_the_hash_follows_content_and_order_but_not_names(tmp_path: Path) -> None:
    hashes = []
    for folder, files in [
        ("1", {"a.txt": "one", "b.txt": "two"}),
        ("2", {"x.md": "one", "y.txt": "two"}),
        ("3", {"a.txt": "two", "b.txt": "one"}),
        ("4", {"a.txt": "onet", "b.txt": "wo"}),
    ]:
        for name, text in files.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_text(text)
        hashes.append(read_corpus(find_sources([tmp_path / folder])).sha256)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_bad_files_of_a_folder_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a.txt", "z.txt")
    (tmp_path / "b.txt").write_bytes(b"\0")
    (tmp_path / "c.txt").write_bytes(b"\xff")
    (tmp_path / "d.jsonl").write_text('{"text": "kept?"}\n{')
    with caplog.at_level(logging.WARNING, "crystalline"):
        read = read_corpus(find_sources([tmp_path]))
    assert [source.path.name for source in read.sources] == ["a.txt", "z.txt"]
    assert [piece for _, piece in read.pieces()] == ["text of a.txt\n", "text of z.txt\n"]
    (record,) = caplog.records
    assert "Left out 3 of 5 files" in record.getMessage()
    assert "b.txt is a binary file" in record.getMessage()


def test_a_folder_of_bad_files_and_a_bad_named_file_are_errors(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\0")
    with pytest.raises(DataError, match=r"none of the 1 files found is text .*NUL byte"):
        read_corpus(find_sources([tmp_path]))
    with pytest.raises(DataError, match=r"b.txt is a binary file"):
        read_corpus(find_sources([tmp_path / "b.txt"]))


def test_empty_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match=r"there is no text in .*a.txt, .*b.jsonl") as info:
        read_corpus(find_sources([tmp_path]))
    assert info.value.exit_code == 3
