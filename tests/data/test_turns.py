"""Conversations whose assistant's turns alone count: spans in text, marks of tokens, templates."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.data import chat_template
from crystalline.data.chat_template import ChatTemplate
from crystalline.data.prepare import PreparedData, prepare
from crystalline.data.tokenfile import TokenFile
from crystalline.data.tokenizer import GivenTokenizer, Tokenizer
from crystalline.data.tokenizer_facts import NO_FACTS, TokenizerFacts
from crystalline.data.transcript import Conversation, transcript
from crystalline.errors import DataError
from tests.data import foreign

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "the quick dog?"},
    {"role": "assistant", "content": "brown fox "},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "world ☃ 12"},
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}!"
    "{% endgeneration %}{% else %}U:{{ m.content }}{% endif %}\n{% endfor %}"
)
# Earlier turns look otherwise when others follow, so that no part of a talk begins the whole.
FORGETTING = (
    "{% for m in messages %}({{ loop.revindex }} {{ m.role }}) {{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}(0 assistant) {% endif %}"
)

ENDLESS = "{% for a in 'x' * 99999 %}" * 3 + "{% endfor %}" * 3


def said(talk: Conversation | None) -> list[str]:
    assert talk is not None
    return [talk[first:last] for first, last in talk.spans]


def given(template: str | None, folder: Path, name: str = "qwen2") -> GivenTokenizer:
    path = folder / "tokenizer.json"
    path.write_text(foreign.document(name))
    facts = TokenizerFacts((), foreign.special(name), template)
    return GivenTokenizer.load(path, facts, foreign.VOCABULARY)


def prepared(
    folder: Path, records: list[Any], *, kind: str = "char", given: GivenTokenizer | None = None
) -> tuple[PreparedData, TokenFile]:
    path = folder / "talks.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = prepare(
        [path], kind=kind, vocab_size=300, val_fraction=0.0, given=given,
        cache_dir=folder / "cache",
    )  # fmt: skip
    return data, TokenFile.open(data.token_path, verify=True)


def counted(tokens: TokenFile, tokenizer: Tokenizer) -> list[str]:
    """Return the text of every run of tokens that count."""
    assert tokens.train_marks is not None
    found, before = [], 0
    for id_, mark in zip(tokens.train.tolist(), tokens.train_marks.tolist(), strict=True):
        if mark and not before:
            found.append(b"")
        if mark:
            found[-1] += tokenizer.token_bytes(id_)
        before = mark
    return [one.decode() for one in found]


def test_a_turn_in_a_transcript_goes_on_to_where_the_next_speaks() -> None:
    assert said(transcript(CHAT)) == [" brown fox\nUser:", " world ☃ 12"]
    assert said(transcript(CHAT[:2])) == []
    two = [CHAT[2], {"from": "gpt", "value": "again"}]
    assert said(transcript(two)) == [" brown fox\nAssistant:", " again"]


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "word"])
def test_the_tokens_of_the_turns_count_and_no_others(kind: str, tmp_path: Path) -> None:
    talk = transcript(CHAT)
    plain = {"text": "some words of the quick fox"}
    data, tokens = prepared(tmp_path, [{"messages": CHAT}, plain, {"messages": CHAT}], kind=kind)
    tokenizer = Tokenizer.load(data.tokenizer_path)
    mark = "<|endoftext|>"
    last = f" world ☃ 12{mark}" if tokenizer.eot_id is not None else " world ☃ 12"
    assert counted(tokens, tokenizer) == [
        " brown fox\nUser:", last + plain["text"] + mark, " brown fox\nUser:", " world ☃ 12",
    ]  # fmt: skip
    whole = tokenizer.encode_documents([str(talk), plain["text"], str(talk)])
    np.testing.assert_array_equal(tokens.train, whole)


def test_text_without_conversations_has_no_marks(tmp_path: Path) -> None:
    data, tokens = prepared(tmp_path, [{"text": str(transcript(CHAT))}])
    assert tokens.train_marks is None
    (tmp_path / "other").mkdir()
    talk, _ = prepared(tmp_path / "other", [{"messages": CHAT}])
    assert data.tokens_sha256 != talk.tokens_sha256


def test_a_talk_without_the_assistant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no turn of the assistant"):
        prepared(tmp_path, [{"messages": CHAT[:2]}])


def test_the_held_out_end_of_a_talk_keeps_its_turns(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    long = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "word " * 40}]
    path.write_text(json.dumps([{"messages": long * 2}]))
    data = prepare([path], kind="char", vocab_size=0, val_fraction=0.3, cache_dir=tmp_path / "c")
    tokens = TokenFile.open(data.token_path)
    assert tokens.train_marks is not None
    assert tokens.val_marks is not None
    talk, wanted = transcript(long * 2), []
    assert talk is not None
    for at in range(len(talk)):
        wanted.append(any(first <= at < last for first, last in talk.spans))
    found = [*tokens.train_marks.tolist(), *tokens.val_marks.tolist()]
    assert found == [int(one) for one in wanted]
    assert 0 < len(tokens.val) < len(talk)


@pytest.mark.parametrize(
    ("template", "turns"),
    [
        (CHATML, ["brown fox<|im_end|>", "world ☃ 12<|im_end|>"]),
        (MARKED, ["brown fox !", "world ☃ 12!"]),
        (CHATML.partition("{% if add")[0], ["brown fox<|im_end|>", "world ☃ 12<|im_end|>"]),
        (FORGETTING, ["brown fox<|im_end|>", "world ☃ 12<|im_end|>"]),
    ],
)
def test_a_template_shows_the_turns(template: str, turns: list[str], tmp_path: Path) -> None:
    with ChatTemplate(given(template, tmp_path).tokenizer) as chat:
        found = said(chat.conversation(CHAT))
        shared = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
        assert chat.conversation(shared) is not None
    assert found == turns


def test_a_template_is_what_the_model_is_trained_on(tmp_path: Path) -> None:
    tokenizer = given(CHATML, tmp_path)
    _, tokens = prepared(tmp_path, [{"messages": CHAT[1:3]}] * 2, given=tokenizer)
    text = "<|im_start|>user\nthe quick dog?<|im_end|>\n"
    text += "<|im_start|>assistant\nbrown fox<|im_end|>\n"
    ids = tokenizer.tokenizer.inner.encode(text, add_special_tokens=False).ids
    assert tokens.train.tolist() == [*ids, tokenizer.tokenizer.eot_id, *ids]
    assert counted(tokens, tokenizer.tokenizer) == ["brown fox<|im_end|>"] * 2


@pytest.mark.parametrize("name", ["llama2", "metaspace", "llama3"])
def test_turns_are_found_among_the_tokens_of_other_models(name: str, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer = given(template, tmp_path, name)
    _, tokens = prepared(tmp_path, [{"messages": CHAT[1:3]}], given=tokenizer)
    assert [one.strip() for one in counted(tokens, tokenizer.tokenizer)] == ["brown fox"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ raise_exception('not like this') }}", "not like this"),
        ("{{ ('x' * 3000000000) | length }}", "too much memory"),
        ("{{ '%0100000000000d' % 3 }}", "memory"),
        (ENDLESS, "longer than 1 s"),
    ],
)  # fmt: skip
def test_what_a_strangers_template_cannot_do(
    template: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(chat_template, "MOST_S", 1.0)
    began_s = time.monotonic()
    with ChatTemplate(given(template, tmp_path).tokenizer) as chat:
        try:
            if chat.conversation(CHAT) is None:
                told = caplog.text
        except DataError as error:
            told = str(error)
        process = chat._process
    assert words in told
    assert time.monotonic() - began_s < 10
    assert process is None or process.returncode is not None


def test_a_conversation_that_the_template_refuses_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    tokenizer = given(template + CHATML, tmp_path)
    _, tokens = prepared(
        tmp_path, [{"messages": CHAT}, {"messages": CHAT[1:3]}, {"messages": CHAT}], given=tokenizer
    )
    assert counted(tokens, tokenizer.tokenizer) == ["brown fox<|im_end|>"]
    assert "user first" in caplog.text


SPACES = (
    "{% for m in messages %}\n  {%- if m.role == 'tool' %}{% continue %}{% endif %}\n"
    "  <{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}{{ messages[0] | tojson }}{{ eos_token }}"
)


@pytest.mark.parametrize("template", [CHATML, MARKED, FORGETTING, SPACES])
def test_templates_are_rendered_as_transformers_does(template: str, tmp_path: Path) -> None:
    theirs = pytest.importorskip("transformers.utils.chat_template_utils")
    rendered, marked = theirs.render_jinja_template(
        [CHAT], chat_template=template, eos_token="<|im_end|>",
        return_assistant_tokens_mask=template == MARKED,
    )  # fmt: skip
    with ChatTemplate(given(template, tmp_path).tokenizer) as chat:
        found = chat.conversation(CHAT)
    assert found == rendered[0]
    if template == MARKED:
        assert found.spans == tuple(tuple(span) for span in marked[0])


def test_the_text_of_a_message_cannot_move_the_marks(tmp_path: Path) -> None:
    hostile = [
        {"role": "user", "content": "\ufdd0 count me \ufdd1"},
        {"role": "assistant", "content": "yes"},
    ]
    with ChatTemplate(given(MARKED, tmp_path).tokenizer) as chat:
        assert said(chat.conversation(hostile)) == ["yes!"]


def test_facts_say_whether_there_is_a_template(tmp_path: Path) -> None:
    assert given(None, tmp_path).tokenizer.chat_template is None is NO_FACTS.chat_template
