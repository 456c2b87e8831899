"""Tokenizers: exact round trips, the library's own answers, the same bytes every time."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.data.tokenizer import END_OF_TEXT, KINDS, UNKNOWN, Tokenizer
from crystalline.errors import DataError, UsageError

STDLIB = Path(os.__file__).parent
TEXTS = [(STDLIB / name).read_text("utf-8") for name in ("textwrap.py", "heapq.py", "bisect.py")]
LETTERS = st.characters(exclude_categories=["Cs"])


@pytest.fixture(scope="module")
def trained() -> dict[str, Tokenizer]:
    return {kind: Tokenizer.train(kind, TEXTS, 600) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_known_text_comes_back_exactly(trained: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = Tokenizer.train("word", TEXTS, 10**6) if kind == "word" else trained[kind]
    text = TEXTS[0] + END_OF_TEXT + TEXTS[2]
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text
    assert np.count_nonzero(ids == tokenizer.eot_id) == 1
    assert ids.max() < tokenizer.vocab_size


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_gives_the_same_ids_here_and_in_the_library(
    trained: dict[str, Tokenizer], kind: str, tmp_path: Path
) -> None:
    tokenizer = trained[kind]
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    library = tokenizers.Tokenizer.from_file(str(path))
    text = TEXTS[1][:3000] + END_OF_TEXT + END_OF_TEXT + TEXTS[2]
    ids = tokenizer.encode(text).tolist()
    assert loaded.encode(text).tolist() == ids == library.encode(text).ids
    assert loaded.kind == kind
    assert loaded.eot_id == tokenizer.eot_id == library.token_to_id(END_OF_TEXT)
    assert loaded.vocab_size == library.get_vocab_size() == tokenizer.vocab_size
    assert loaded.decode(ids) == library.decode(ids, skip_special_tokens=False)
    assert loaded.to_json() == tokenizer.to_json()


@settings(deadline=None)
@given(text=st.text(LETTERS, max_size=60))
def test_bytes_and_bpe_take_any_text(trained: dict[str, Tokenizer], text: str) -> None:
    for kind in ("bpe", "byte"):
        tokenizer = trained[kind]
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert ids.tolist() == tokenizer.inner.encode(text).ids
    assert trained["byte"].encode(text).tolist() == list(text.encode())


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 256), max_size=40))
def test_bytes_that_are_not_text_decode_as_in_the_library(
    trained: dict[str, Tokenizer], ids: list[int]
) -> None:
    tokenizer = trained["byte"]
    expected = tokenizer.inner.decode(ids, skip_special_tokens=False)
    assert tokenizer.decode(ids) == expected
    stream = tokenizer.stream_decoder()
    assert "".join(stream.push(id_) for id_ in ids) + stream.flush() == expected


def test_a_stream_holds_back_incomplete_characters(trained: dict[str, Tokenizer]) -> None:
    stream = trained["byte"].stream_decoder()
    assert [stream.push(byte) for byte in "€é".encode()] == ["", "", "€", "", "é"]
    assert stream.flush() == ""
    assert stream.push("€".encode()[0]) == ""
    assert stream.flush() == "\ufffd"
    assert stream.push(ord("a")) == "a"


def test_special_ids_come_last_in_bpe_and_byte(trained: dict[str, Tokenizer]) -> None:
    assert (trained["bpe"].vocab_size, trained["bpe"].eot_id) == (600, 599)
    assert (trained["byte"].vocab_size, trained["byte"].eot_id) == (257, 256)


def test_bpe_splits_words_as_gpt2_does(trained: dict[str, Tokenizer]) -> None:
    pre = trained["bpe"].inner.pre_tokenizer
    words = [word for word, _ in pre.pre_tokenize_str("It's  the\n\n year 1984!?")]
    assert words == ["It", "'s", "Ġ", "Ġthe", "ĊĊ", "Ġyear", "Ġ1984", "!?"]
    assert trained["bpe"].token_bytes(int(trained["bpe"].encode(" the")[0])).startswith(b" ")


def test_chars_are_sorted_by_code_point(trained: dict[str, Tokenizer]) -> None:
    alphabet = sorted(set("".join(TEXTS)))
    tokenizer = trained["char"]
    assert tokenizer.vocab_size == len(alphabet) + 1
    assert tokenizer.encode("".join(alphabet)).tolist() == list(range(len(alphabet)))
    assert tokenizer.eot_id == len(alphabet)


def test_one_document_needs_no_end_of_text_among_chars() -> None:
    tokenizer = Tokenizer.train("char", ["cab<|endoftext|>"], 0)
    assert tokenizer.eot_id is None
    assert tokenizer.decode(tokenizer.encode("<|ab|>")) == "<|ab|>"
    assert Tokenizer.train("char", ["cab"], 0, end_of_text=True).eot_id == 3
    assert Tokenizer.train("char", ["ca", "b"], 0, end_of_text=False).eot_id is None


@pytest.mark.parametrize(("char", "name"), [("é", "'é' (U+00E9)"), ("\x07", r"'\x07' (U+0007)")])
def test_an_unknown_char_is_named(trained: dict[str, Tokenizer], char: str, name: str) -> None:
    with pytest.raises(DataError) as info:
        trained["char"].encode("def " + char + " and ☃")
    assert name in info.value.message


def test_words_are_ranked_by_frequency_then_alphabetically() -> None:
    tokenizer = Tokenizer.train("word", ["b a a c b c c d", " c"], 7)
    assert [tokenizer.token_bytes(id_) for id_ in range(7)] == [
        UNKNOWN.encode(), END_OF_TEXT.encode(), b" c", b" a", b" b", b" d", b"b",
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("b c d")) == "b c d"
    assert tokenizer.encode("b x c").tolist() == [6, 0, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_the_same_bytes_in_another_process(
    trained: dict[str, Tokenizer], kind: str
) -> None:
    code = (
        "import os, sys; from pathlib import Path; "
        "from crystalline.data.tokenizer import Tokenizer; "
        "texts = [(Path(os.__file__).parent / n).read_text('utf-8') "
        "for n in ('textwrap.py', 'heapq.py', 'bisect.py')]; "
        f"sys.stdout.write(Tokenizer.train({kind!r}, texts, 600).to_json())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "5", "RAYON_NUM_THREADS": "1", "PYTHONUTF8": "1"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.decode() == trained[kind].to_json()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", "a", "aba"])
def test_tiny_corpora_work(kind: str, text: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(kind, [text], 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.kind == kind
    assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_a_batch_is_its_texts(trained: dict[str, Tokenizer]) -> None:
    for kind, tokenizer in trained.items():
        texts = [TEXTS[2][:50], "", TEXTS[0][100:190]]
        batch = tokenizer.encode_batch(texts)
        assert [ids.tolist() for ids in batch] == [tokenizer.encode(t).tolist() for t in texts], (
            kind
        )


@pytest.mark.parametrize(("kind", "size"), [("bpe", 256), ("word", 2)])
def test_a_vocabulary_too_small_is_a_usage_error(kind: str, size: int) -> None:
    with pytest.raises(UsageError, match=f"--vocab-size {size} is too small for {kind}") as info:
        Tokenizer.train(kind, ["abc"], size)
    assert info.value.exit_code == 2
    assert info.value.advice


def test_an_unknown_kind_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"'sentence'.*bpe, char, word, byte"):
        Tokenizer.train("sentence", ["abc"], 300)


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_unicode_is_refused(trained: dict[str, Tokenizer], kind: str) -> None:
    with pytest.raises(DataError, match="not valid Unicode"):
        trained[kind].encode("a\udcff")


@pytest.mark.parametrize("id_", [-1, 257])
def test_ids_outside_the_vocabulary_are_refused(trained: dict[str, Tokenizer], id_: int) -> None:
    with pytest.raises(DataError, match=f"token {id_} is outside the vocabulary of 257"):
        trained["byte"].decode([1, id_])
    with pytest.raises(DataError, match="outside"):
        trained["byte"].stream_decoder().push(id_)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"{", "cannot be used: it is n"),
        (b"[" * 100_000, "cannot be used: it is n"),
        (b"[]", "not a table of fields"),
        (b'{"model": {"type": "Unigram"}}', "of type 'Unigram'"),
        (
            b'{"model":{"type":"WordLevel"},"decoder":{"type":"Fuse"},"pre_tokenizer":{"pattern":7}}',
            "no token for unknown words",
        ),
    ],
)
def test_a_bad_file_is_a_data_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Tokenizer.load(path)


def test_a_file_that_the_library_refuses_is_a_data_error(
    trained: dict[str, Tokenizer], tmp_path: Path
) -> None:
    content = json.loads(trained["bpe"].to_json())
    content["model"]["merges"].append(["no such", "token"])
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="cannot be used"):
        Tokenizer.load(path)


# --- long words -------------------------------------------------------------------------------

DRAW = random.Random(5)
UNBROKEN = {
    "DNA": "".join(DRAW.choices("ACGT", k=150_000)),
    "digits": "".join(DRAW.choices("0123456789", k=100_000)),
    "Chinese": "".join(DRAW.choices([chr(0x4E00 + n) for n in range(800)], k=40_000)),
    "one letter": "a" * 150_000,
    "blanks": " " * 150_000,
    "emoji": "".join(DRAW.choices([chr(0x1F300 + n) for n in range(200)], k=40_000)),
}


@pytest.mark.parametrize("name", UNBROKEN)
def test_text_without_spaces_is_learned_quickly_and_read_the_same_everywhere(name: str) -> None:
    text = UNBROKEN[name]
    began = time.process_time()
    tokenizer = Tokenizer.train("bpe", [text], 1000)
    ids = tokenizer.encode(text)
    assert time.process_time() - began < 3.0
    library = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    assert ids.tolist() == library.encode(text).ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_the_bound_is_stored_only_where_a_word_is_long(tmp_path: Path, kind: str) -> None:
    ordinary = Tokenizer.train(kind, TEXTS, 600)
    assert "512" not in json.dumps(json.loads(ordinary.to_json())["pre_tokenizer"])
    assert Tokenizer.train(kind, TEXTS, 600, long_words=False).to_json() == ordinary.to_json()
    bounded = Tokenizer.train(kind, TEXTS, 600, long_words=True)
    assert "{1,512}" in json.dumps(json.loads(bounded.to_json())["pre_tokenizer"])
    for text in TEXTS:
        assert bounded.encode(text).tolist() == ordinary.encode(text).tolist()
    met = Tokenizer.train(kind, [*TEXTS, "x" * 512], 600)
    met.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.kind == kind
    text = " " + "x" * 1200 + "yz" * 400 + TEXTS[0]
    assert again.encode(text).tolist() == met.inner.encode(text).ids


def test_an_unbounded_tokenizer_reads_long_words_as_the_library_does() -> None:
    tokenizer = Tokenizer.train("bpe", [*TEXTS, "abcabcabc" * 40], 400)
    text = "see " + "abc" * 100_000 + " end"
    assert tokenizer.encode(text).tolist() == tokenizer.inner.encode(text).ids


def test_a_tokenizer_that_splits_in_its_own_way_gets_its_text_whole() -> None:
    inner = tokenizers.Tokenizer.from_str(Tokenizer.train("bpe", TEXTS, 400).to_json())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    text = "some words. " * 5000
    assert Tokenizer(inner, "bpe").encode(text).tolist() == inner.encode(text).ids


def test_a_tokenizer_nested_too_deeply_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be used"):
        Tokenizer.load(tmp_path / "tokenizer.json")
