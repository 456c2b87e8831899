"""Text as the tokens of another model's tokenizer: the library's ids, separators and beginnings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from crystalline.data import pieces
from crystalline.data.prepare import PreparedData, prepare
from crystalline.data.tokenfile import TokenFile
from crystalline.data.tokenizer import GivenTokenizer
from crystalline.data.tokenizer_facts import TokenizerFacts
from tests.data import foreign

PADDED = foreign.VOCABULARY + 80


def given(name: str, folder: Path, facts: TokenizerFacts | None = None) -> GivenTokenizer:
    path = folder / f"{name}.json"
    path.write_text(foreign.document(name))
    return GivenTokenizer.load(path, facts or TokenizerFacts((), foreign.special(name)), PADDED)


def prepared(
    path: Path, tokenizer: GivenTokenizer, folder: Path, val_fraction: float = 0.0
) -> PreparedData:
    return prepare(
        [path], kind="bpe", vocab_size=300, val_fraction=val_fraction, given=tokenizer,
        cache_dir=folder / "cache",
    )  # fmt: skip


@pytest.mark.parametrize("name", foreign.MAKERS)
def test_documents_are_the_librarys_ids_between_the_models_marks(name: str, tmp_path: Path) -> None:
    documents = [text for text in foreign.texts() if text and "\x00" not in text]
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    tokenizer = given(name, tmp_path)
    data = prepared(path, tokenizer, tmp_path)
    library = tokenizers.Tokenizer.from_str(foreign.document(name))
    own, wanted = tokenizer.tokenizer, []
    assert own.eot_id is not None
    starts = {"llama3": "<|begin_of_text|>", "llama2": "<s>", "metaspace": "<s>"}
    start = [library.token_to_id(starts[name])] if name in starts else []
    for document in documents:
        ids = library.encode(document, add_special_tokens=False).ids
        wanted += [*([own.eot_id] if wanted else []), *start, *ids]
    tokens = TokenFile.open(data.token_path, verify=True)
    assert tokens.train.tolist() == wanted
    assert data.vocab_size == tokens.vocab_size == PADDED
    assert data.tokenizer_path.read_bytes() == tokenizer.content


@pytest.mark.parametrize("name", ["llama3", "qwen2", "gpt2", "digits"])
def test_long_texts_are_cut_where_no_token_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PART_CHARS", 50)
    monkeypatch.setattr(pieces, "LONGEST_PART_CHARS", 4000)
    text = "\n".join(one for one in foreign.texts() if "\x00" not in one)
    tokenizer = given(name, tmp_path).tokenizer
    parts = list(pieces.cut_lines([text]))
    assert len(parts) > 50
    whole = tokenizer.inner.encode(text, add_special_tokens=False).ids
    joined = [id_ for ids in tokenizer.encode_batch(parts) for id_ in ids]
    assert joined == whole


def test_lines_without_an_end_are_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PART_CHARS", 5)
    monkeypatch.setattr(pieces, "LONGEST_PART_CHARS", 8)
    text = "abcdefghij" * 3 + "\n" + "kl\nmn" * 4
    parts = list(pieces.cut_lines([text]))
    assert "".join(parts) == text
    assert max(map(len, parts)) == 8
    assert parts == list(pieces.cut_lines(iter(text)))


def test_another_tokenizer_makes_another_entry(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(foreign.TEXT * 5)
    first = prepared(path, given("llama3", tmp_path), tmp_path)
    again = prepared(path, given("llama3", tmp_path), tmp_path)
    assert (first.token_path, first.cached, again.cached) == (again.token_path, False, True)
    other = prepared(path, given("qwen2", tmp_path), tmp_path)
    ended = prepared(path, given("llama3", tmp_path, TokenizerFacts((5,))), tmp_path)
    ours = prepare([path], kind="bpe", vocab_size=300, val_fraction=0.0,
                   cache_dir=tmp_path / "cache")  # fmt: skip
    assert len({one.token_path for one in (first, other, ended, ours)}) == 4
