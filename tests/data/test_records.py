"""JSON records: which field is the text, arrays, conversations, and what is said without any."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from crystalline.data import decoding
from crystalline.data.corpus import read_corpus, read_documents
from crystalline.data.finding import find_sources
from crystalline.errors import DataError

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TALK = "User: Hi\nAssistant: Hello"


def lines(folder: Path, *values: object, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"text": "a", "messages": CHAT}, ["a"]),
        ({"messages": CHAT}, [TALK]),
        ({"text": None, "messages": CHAT}, [TALK]),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
         [TALK]),
        ("a string", ["a string"]),
        ([{"text": "a"}, "b", {"messages": CHAT}], ["a", "b", TALK]),
        (CHAT, [TALK]),
        ({"text": ["no text"], "conversations": CHAT}, [TALK]),
    ],
)  # fmt: skip
def test_a_line_gives_its_text(tmp_path: Path, value: object, expected: list[str]) -> None:
    assert read_documents(lines(tmp_path, value)) == expected


def test_the_field_can_be_named(tmp_path: Path) -> None:
    path = lines(tmp_path, {"text": "t", "body": "one"}, {"body": CHAT}, {"body": "two"})
    assert read_documents(path, "body") == ["one", TALK, "two"]


def test_without_text_the_error_counts_the_fields(tmp_path: Path) -> None:
    path = lines(tmp_path, {"title": "a", "body": "x"}, {"title": "b"}, {"title": "c", "body": ""})
    with pytest.raises(DataError) as info:
        read_documents(path)
    assert info.value.message == (
        f"{path} has no text in a field 'text' of its 3 records; "
        "the fields are 'title' (3), 'body' (2)"
    )
    assert "--text-field NAME" in info.value.advice
    with pytest.raises(DataError, match="in a field 'bodies' of its 3 records"):
        read_documents(path, "bodies")
    with pytest.raises(DataError, match=r"none of the 1 files.*Name the field of the text"):
        read_corpus(find_sources([tmp_path]))
    with pytest.raises(DataError, match="no object and no string among its 2 records"):
        read_documents(lines(tmp_path, 1, None))


def test_some_records_without_text_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = lines(tmp_path, {"text": "a"}, {"meta": 1}, {"text": None}, {"text": "b"})
    with caplog.at_level(logging.WARNING, "crystalline"):
        corpus = read_corpus(find_sources([path]))
    assert [piece for _, piece in corpus.pieces()] == ["a", "b"]
    (record,) = caplog.records
    assert "Left out 2 records" in record.getMessage()
    assert "(2 of 4 records)" in record.getMessage()


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_a_file_that_is_an_array_of_records_is_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", block)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "one é"}, {"messages": CHAT}, {"text": ""}], indent=1))
    assert read_documents(path) == ["one é", TALK]
    path.write_text(json.dumps([{"text": "a", "body": "b"}]))
    assert read_documents(path, "body") == ["b"]
    with pytest.raises(DataError, match="has no text in a field 'bodies'"):
        read_documents(path, "bodies")


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "a"}', "[]", "[1, 2]", '["a"]', '[{"text": "a"}, {"id": 1}]', '[{"text": "a"}',
        '[{"text": "a"}] x', '[{"text": "a"} {"text": "b"}]', "[" * 100_000, '[{"a":' * 100_000, "",
    ],
)  # fmt: skip
def test_any_other_json_file_is_plain_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert read_documents(path) == [text] * bool(text)


def test_numbers_may_have_any_number_of_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "n": ' + "7" * 5000 + "}\n")
    assert read_documents(path) == ["a"]


def test_what_is_nested_too_deeply_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(DataError, match=r"line 1 .* is not JSON \(nested too deeply\)"):
        read_documents(path)
