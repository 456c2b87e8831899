"""cllm-infer --chat with a model that has a chat template: it is asked in its own form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crystalline.cli.infer import main
from crystalline.data.chat_template import ChatTemplate
from crystalline.data.tokenizer import Tokenizer
from crystalline.infer.scheduler import Scheduler
from tests.cli.test_chat import prompts_seen
from tests.data.test_turns import CHATML, ENDLESS, given

STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    + CHATML
)


def answering(tokenizer: Tokenizer, answer: str):
    """A model that says the answer and ends its turn, whatever it is asked."""
    ids = [*tokenizer.encode(answer).tolist(), next(iter(tokenizer.end_ids))]
    asked = tokenizer.encode("<|im_start|>assistant\n").tolist()

    def rule(cache):
        read = list(cache)
        begin = max(i for i in range(len(read)) if read[i : i + len(asked)] == asked)
        row = np.full(tokenizer.vocab_size, -np.inf)
        row[ids[len(read) - begin - len(asked)]] = 0.0
        return row

    return rule


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return given(CHATML, tmp_path).tokenizer


def asked(*turns: str, system: str = "", last: str) -> str:
    """What CHATML makes of turns, written down here once more."""
    said = [("system", system)] * bool(system)
    for number, text in enumerate(turns):
        said.append((("user", "assistant")[number % 2], text))
    said.append(("user", last))
    lines = [f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said]
    return "".join(lines) + "<|im_start|>assistant\n"


def test_the_model_is_asked_as_it_was_taught(use, tokenizer, stdin, capsys, monkeypatch) -> None:
    use(answering(tokenizer, "brown fox"), tokenizer, seq_len=400)
    seen = prompts_seen(monkeypatch, tokenizer)
    stdin(b"hello\nthe quick dog?\n/system Be brief.\nhello\n")
    assert main(["m", "--chat", "--max-tokens", "20"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "brown fox\n" * 3
    assert seen == [
        asked(last="hello"),
        asked("hello", "brown fox", last="the quick dog?"),
        asked(
            "hello", "brown fox", "the quick dog?", "brown fox", system="Be brief.", last="hello"
        ),
    ]
    assert "The model is asked in its own form." in captured.err
    assert "cut off" not in captured.err


def test_marks_are_tokens_of_their_own(use, tokenizer, stdin, monkeypatch) -> None:
    prompts = []
    submit = Scheduler.submit

    def spy(self, job):
        prompts.append(list(job.prompt))
        submit(self, job)

    monkeypatch.setattr(Scheduler, "submit", spy)
    use(answering(tokenizer, "brown fox"), tokenizer, seq_len=400)
    stdin(b"hello\n")
    assert main(["m", "--chat"]) == 0
    start = tokenizer.inner.token_to_id("<|im_start|>")
    assert prompts[0].count(start) == 2
    assert prompts[0][0] == start


def test_a_plain_transcript_can_be_had(use, tokenizer, stdin, capsys, monkeypatch) -> None:
    use(lambda _: np.eye(tokenizer.vocab_size)[next(iter(tokenizer.end_ids))], tokenizer, 400)
    seen = prompts_seen(monkeypatch, tokenizer)
    stdin(b"hello\n")
    assert main(["m", "--chat", "--chat-template", "plain"]) == 0
    assert seen == ["User: hello\nAssistant:"]
    assert "continues a transcript of User: and Assistant:" in capsys.readouterr().err


def test_oldest_turns_go_first_and_the_system_text_stays(
    use, tokenizer, stdin, capsys, monkeypatch
) -> None:
    use(answering(tokenizer, "brown fox"), tokenizer, seq_len=90)
    seen = prompts_seen(monkeypatch, tokenizer)
    stdin(b"hello\n" * 5)
    assert main(["m", "--chat", "--prompt", "Be brief.", "--max-tokens", "12"]) == 0
    room = 90 - 12
    whole = [
        asked(*["hello", "brown fox"] * turns, system="Be brief.", last="hello")
        for turns in range(5)
    ]
    fits = [one for one in whole if len(tokenizer.encode(one)) <= room]
    assert 1 < len(fits) < 5
    assert seen == [whole[min(turn, len(fits) - 1)] for turn in range(5)]
    assert "from here on turn 1 is forgotten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (STRICT, "refuses the conversation: TemplateError: no system here"),
        ("{% for m in messages %}", "cannot be used: TemplateSyntaxError"),
    ],
)
def test_a_template_that_does_not_work_is_told_with_a_way_out(
    use, tmp_path, stdin, capsys, template: str, words: str
) -> None:
    tokenizer = given(template, tmp_path).tokenizer
    use(answering(tokenizer, "brown fox"), tokenizer, seq_len=400)
    stdin(b"hello\n")
    assert main(["m", "--chat", "--prompt", "Be brief."]) == 3
    err = capsys.readouterr().err
    assert words in err
    assert "--chat-template plain" in err


def test_a_system_text_that_is_refused_later_is_taken_back(
    use, tmp_path, stdin, capsys, monkeypatch
) -> None:
    tokenizer = given(STRICT, tmp_path).tokenizer
    use(answering(tokenizer, "brown fox"), tokenizer, seq_len=400)
    seen = prompts_seen(monkeypatch, tokenizer)
    stdin(b"/system Be brief.\nhello\n")
    assert main(["m", "--chat"]) == 0
    assert seen == [asked(last="hello")]
    assert "no system here" in capsys.readouterr().err


def test_an_endless_template_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crystalline.data import chat_template
    from crystalline.errors import DataError

    monkeypatch.setattr(chat_template, "MOST_S", 1.0)
    with (
        ChatTemplate(given(ENDLESS, tmp_path).tokenizer, "Do something else.") as template,
        pytest.raises(DataError, match="longer than 1 s") as caught,
    ):
        template.prompt([{"role": "user", "content": "hello"}])
    assert caught.value.advice == "Do something else."


def test_what_is_not_there_cannot_be_used(use, char, stdin, capsys) -> None:
    use(lambda _: np.zeros(char.vocab_size), char, seq_len=64)
    stdin(b"")
    assert main(["m", "--chat", "--chat-template", "model"]) == 3
    assert "has no chat template" in capsys.readouterr().err


def test_it_is_about_chats_only(use, tokenizer, capsys) -> None:
    use(lambda _: np.eye(tokenizer.vocab_size)[next(iter(tokenizer.end_ids))], tokenizer)
    assert main(["m", "--prompt", "hello", "--chat-template", "plain", "--max-tokens", "1"]) == 0
    assert "--chat-template has no effect without --chat." in capsys.readouterr().err


def test_saved_conversations_do_not_know_of_forms(use, tokenizer, stdin, tmp_path) -> None:
    use(answering(tokenizer, "brown fox"), tokenizer, seq_len=400)
    stdin(f"hello\n/save {tmp_path / 'talk.json'}\n".encode())
    assert main(["m", "--chat", "--quiet"]) == 0
    assert json.loads((tmp_path / "talk.json").read_text())["messages"] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "brown fox"},
    ]
