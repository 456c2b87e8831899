"""The form in which a model gets a conversation: its chat template's, or plain lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from crystalline.data import chat_template
from crystalline.data.tokenizer import Tokenizer
from crystalline.data.tokenizer_facts import TokenizerFacts
from crystalline.errors import DataError
from crystalline.infer.chat import Transcript
from crystalline.infer.chat_form import PlainForm, open_form
from tests.data import foreign

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (  # as published: pairs of turns, the system's text within the first of the user's
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ALPACA = (
    "{% for m in messages %}\n\n### {{ m.role }}:\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}\n\n### assistant:\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}!"
    "{% endgeneration %}{% else %}U:{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHATML
)
ONE_TURN = "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + CHATML


def tokenizer_of(name: str, template: str | None, folder: Path, **special: str) -> Tokenizer:
    path = folder / "tokenizer.json"
    path.write_text(foreign.document(name))
    return Tokenizer.load(path, TokenizerFacts((), foreign.special(name) | special, template))


def talk() -> Transcript:
    found = Transcript("Be brief.")
    found.ask("the fox?")
    found.answer(" brown\n")
    found.ask("hello")
    return found


def test_a_conversation_is_rendered_and_its_special_tokens_are_recognized(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen2", CHATML, tmp_path)
    text = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nthe fox?<|im_end|>\n"
        "<|im_start|>assistant\nbrown<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    with open_form(tokenizer, None, "Be brief.") as form:
        tokens = talk().prompt(form, 999)
        assert form.text(talk()) == text
    assert tokens == tokenizer.inner.encode(text, add_special_tokens=False).ids
    assert tokens.count(tokenizer.inner.token_to_id("<|im_start|>")) == 5


def test_what_begins_a_text_is_there_once(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("llama2", LLAMA2, tmp_path)
    with open_form(tokenizer, "model") as form:
        tokens = talk().prompt(form, 999)
        assert form.stops == ()  # </s>, which ends a turn, is an end token of the model
    assert [token for token in tokens if token in (1, 2)] == [1, 2, 1]
    assert tokens[0] == 1


def test_whole_turns_are_forgotten_and_the_system_text_stays(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("llama2", LLAMA2, tmp_path)
    with open_form(tokenizer, None) as form:
        conversation = talk()
        whole = len(conversation.prompt(form, 999))
        assert conversation.left_out == 0
        tokens = conversation.prompt(form, whole - 1)
        assert conversation.left_out == 1
    text = "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nhello [/INST]"
    assert tokens == tokenizer.inner.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("template", "special", "stops"),
    [
        (CHATML, {"eos_token": "<|im_end|>"}, ()),
        (CHATML, {"eos_token": "<|endoftext|>"}, ("<|im_end|>",)),  # a base model's
        (CHATML.replace("<|im_end|>", ""), {}, ("<|im_start|>",)),
        (ALPACA, {}, ("\n### user:",)),
        (MARKED, {}, ("!\nU:",)),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", {}, ()),
        ("{{ messages[-1].content }}", {}, ()),
        (ONE_TURN, {}, ()),
    ],
)
def test_the_template_shows_where_an_answer_ends(
    template: str, special: dict[str, str], stops: tuple[str, ...], tmp_path: Path
) -> None:
    with open_form(tokenizer_of("qwen2", template, tmp_path, **special), None) as form:
        assert form.stops == stops


def test_marks_of_generation_blocks_are_not_in_a_prompt(tmp_path: Path) -> None:
    with open_form(tokenizer_of("qwen2", MARKED, tmp_path), None) as form:
        assert form.text(talk()) == "U:Be brief.\nU:the fox?\nA:brown!\nU:hello\nA:"


def test_the_plain_form_is_for_others_and_can_be_chosen(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen2", CHATML, tmp_path)
    with open_form(tokenizer, "plain") as form:
        assert isinstance(form, PlainForm)
        assert form.text(talk()).endswith("brown\nUser: hello\nAssistant:")
        assert "not used" in form.title
    without = tokenizer_of("qwen2", None, tmp_path)
    with open_form(without, None) as form:
        assert isinstance(form, PlainForm)
        assert "not used" not in form.title
    with pytest.raises(DataError, match="has no chat template"), open_form(without, "model"):
        pass


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (NO_SYSTEM, "System role not supported"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].__class__.__mro__ }}", "unsafe"),
        ("{{ ('x' * 3000000000) | length }}", "too much memory"),
        ("{% for a in 'x' * 99999 %}" * 3 + "{% endfor %}" * 3, "longer than 1 s"),
    ],
)
def test_a_template_that_fails_is_told_in_one_sentence(
    template: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "MOST_S", 1.0)
    tokenizer = tokenizer_of("qwen2", template, tmp_path)
    with pytest.raises(DataError, match=words) as raised, open_form(tokenizer, None, "Be brief."):
        pass
    assert raised.value.message.startswith("the chat template of the model ")
    assert "\n" not in raised.value.message
    assert raised.value.advice is not None
    assert raised.value.advice.startswith("Use --chat-template plain")


def test_a_template_that_writes_nothing_is_told(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen2", "{% if false %}{% endif %}", tmp_path)
    with (
        open_form(tokenizer, None) as form,
        pytest.raises(DataError, match="writes nothing"),
    ):
        talk().prompt(form, 99)
