"""Tokenizers of other models: the library's own ids, with and without what begins a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_facts import TokenizerFacts
from crystalline.data.tokenizer_file import check_tokenizer, prompt_start, to_text
from crystalline.untrusted import BadContent
from tests.data.foreign import MAKERS, TEXT, document, special, texts
from tests.data.mutants import require_refused_or_harmless

each = pytest.mark.parametrize("name", MAKERS)


def load(folder: Path, name: str, facts: TokenizerFacts | None = None) -> Tokenizer:
    path = folder / "tokenizer.json"
    path.write_text(document(name), "utf-8")
    return Tokenizer.load(path, facts or TokenizerFacts(special=special(name)))


@each
def test_ids_are_those_of_the_library(tmp_path: Path, name: str) -> None:
    own = load(tmp_path, name)
    library = tokenizers.Tokenizer.from_str(document(name))
    assert own.vocab_size == library.get_vocab_size()
    for text in texts():
        ids = own.encode(text).tolist()
        assert ids == library.encode(text, add_special_tokens=False).ids, repr(text)
        assert own.encode_prompt(text).tolist() == library.encode(text).ids, repr(text)
        assert own.decode(ids) == library.decode(ids, skip_special_tokens=False), repr(text)


@each
def test_it_stays_itself_when_it_is_saved(tmp_path: Path, name: str) -> None:
    own = load(tmp_path, name)
    own.save(tmp_path / "again.json")
    again = Tokenizer.load(tmp_path / "again.json")
    assert (again.kind, again.prompt_start) == (own.kind, own.prompt_start)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "again.json"))
    assert library.encode(TEXT).ids == own.encode_prompt(TEXT).tolist()


def test_what_begins_and_ends_a_text(tmp_path: Path) -> None:
    llama = load(tmp_path, "llama3")
    begin, end, turn = (
        llama.inner.token_to_id(one)
        for one in ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
    )
    assert llama.prompt_start == (begin,)
    assert (llama.eot_id, llama.end_ids) == (turn, {turn})  # all that tokenizer_config.json says
    told = load(tmp_path, "llama3", TokenizerFacts((end, turn), special("llama3")))
    assert (told.eot_id, told.end_ids) == (end, {end, turn})
    alone = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (alone.eot_id, alone.end_ids) == (end, {end})  # by its name
    assert told.encode_documents(["a", "b"]).tolist().count(end) == 1
    qwen = load(tmp_path, "qwen2")
    text_end, turn = (qwen.inner.token_to_id(one) for one in ("<|endoftext|>", "<|im_end|>"))
    assert (qwen.prompt_start, qwen.eot_id, qwen.end_ids) == ((), text_end, {text_end, turn})
    spm = load(tmp_path, "llama2")
    assert (spm.kind, spm.prompt_start, spm.eot_id) == ("spm", (1,), 2)


def test_numbers_beyond_the_vocabulary_end_nothing(tmp_path: Path) -> None:
    facts = TokenizerFacts((10**6, 5), {"eos_token": "<|nowhere|>", "bos_token": "a"}, "{{ x }}")
    own = load(tmp_path, "gpt2", facts)
    assert own.end_ids == {5, own.inner.token_to_id("<|endoftext|>")}
    assert own.special == {"bos_token": "a"}
    assert own.chat_template == "{{ x }}"


def test_our_own_tokenizers_begin_with_nothing() -> None:
    for kind in ("bpe", "char", "word", "byte"):
        own = Tokenizer.train(kind, ["a b", "c"], 300)
        assert own.prompt_start == ()
        assert own.encode_prompt("a b").tolist() == own.encode("a b").tolist()
        assert own.end_ids == ({own.eot_id} if own.eot_id is not None else set())


def test_a_stream_keeps_the_spaces_of_sentencepiece(tmp_path: Path) -> None:
    own = load(tmp_path, "llama2")
    ids = own.encode("the quick ☃").tolist()
    stream = own.stream_decoder()
    assert "".join(map(stream.push, ids)) + stream.flush() == " the quick ☃"
    assert own.decode(ids) == "the quick ☃"
    assert own.token_bytes(own.inner.token_to_id("<0xE2>")) == b"\xe2"


# --- what of a stranger's file reaches the library ------------------------------------------------


@each
def test_every_field_of_another_type_is_refused_or_harmless(name: str) -> None:
    def use(checked: dict[str, Any]) -> None:
        prompt_start(checked)
        tokenizers.Tokenizer.from_str(to_text(checked)).encode("the quick <s> ☃")

    require_refused_or_harmless(document(name), use)


@pytest.mark.parametrize(
    ("name", "part", "value"),
    [
        ("llama2", "normalizer", {"type": "Prepend", "prepend": "x" * 1000}),
        ("llama2", "normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "▁"}),
        ("llama2", "normalizer", {"type": "Replace", "pattern": {"Regex": " "}, "content": "▁"}),
        ("llama2", "pre_tokenizer", {"type": "Metaspace", "replacement": "x"}),
        ("llama2", "pre_tokenizer", {"type": "Metaspace", "replacement": "▁", "prepend_scheme": 1}),
        ("llama2", "decoder", {"type": "Strip", "content": " ", "start": 10**9, "stop": 0}),
        ("llama2", "decoder", {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}),
        ("llama2", "decoder", None),
        ("gpt2", "normalizer", {"type": "Prepend", "prepend": "▁"}),
        ("gpt2", "pre_tokenizer", {"type": "Metaspace", "replacement": "▁"}),
    ],
)
def test_parts_that_grow_or_do_not_belong_are_refused(name: str, part: str, value: Any) -> None:
    with pytest.raises(BadContent):
        check_tokenizer(json.loads(document(name)) | {part: value})


def test_a_token_for_unknown_words_that_is_missing_is_refused() -> None:
    """The library raises in the middle of a text; byte-level BPE, which knows all, is harmless."""
    made = json.loads(document("llama2"))
    made["model"]["unk_token"] = "<nowhere>"
    with pytest.raises(BadContent, match="not in its vocabulary"):
        check_tokenizer(made)
    made = json.loads(document("gpt2"))
    made["model"]["unk_token"] = "<|endoftext|>"  # added to the vocabulary, not in the model's
    check_tokenizer(made)


def test_older_layouts_of_a_space(tmp_path: Path) -> None:
    made = json.loads(document("metaspace"))
    old = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
    made["pre_tokenizer"] = old
    checked, _ = check_tokenizer(made)
    assert checked["pre_tokenizer"]["prepend_scheme"] == "always"
    made["pre_tokenizer"] = old | {"add_prefix_space": False}
    checked, _ = check_tokenizer(made)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(made))
    assert Tokenizer.load(path).decode(Tokenizer.load(path).encode(" a")) == "a"


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {"x": {"id": "x", "ids": [3, 5], "tokens": ["a", "b"]}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, (3, 5)),
        ({"single": [*reversed(TEMPLATE["single"])]}, ()),
        ({"single": [TEMPLATE["single"][0]]}, ()),
        ({"single": TEMPLATE["single"] * 20}, ()),
        ({"single": [{"SpecialToken": {"id": "y"}}, {"Sequence": {"id": "A"}}]}, ()),
        ({"special_tokens": {"x": {"ids": [10**7], "tokens": ["a"]}}}, ()),
        ({"special_tokens": {"x": {"ids": [3, 5], "tokens": ["a"]}}}, ()),
        ({"special_tokens": {"x": {"ids": [True], "tokens": ["a"]}}}, ()),
        ({"type": "BertProcessing"}, ()),
    ],
)
def test_what_is_put_before_a_text(changes: dict[str, Any], start: tuple[int, ...]) -> None:
    made = json.loads(document("gpt2"))
    for processor in (
        TEMPLATE | changes,
        {"type": "Sequence", "processors": [{"type": "ByteLevel"}, TEMPLATE | changes]},
    ):
        checked, dropped = check_tokenizer(made | {"post_processor": processor})
        assert (prompt_start(checked), dropped) == (start, [])
        loaded = tokenizers.Tokenizer.from_str(to_text(checked))
        plain = loaded.encode("a b", add_special_tokens=False).ids
        assert [*start, *plain] == loaded.encode("a b").ids or changes
