"""cllm-infer --chat with models that have a chat template: what they read, and what is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crystalline.cli.infer import main
from crystalline.data.tokenizer_facts import TokenizerFacts
from crystalline.formats.checkpoint import save_model_folder
from crystalline.formats.sources import open_source
from crystalline.infer.scheduler import Scheduler
from tests.formats.gguf.models import config_of, saved, tensors_of, trained
from tests.infer.test_chat_form import CHATML, NO_SYSTEM, tokenizer_of

BEGIN = "<|im_start|>assistant\n"
OWN = "The conversation is written by the chat template of the model. /help for commands."


def turn(line, answer=None):
    asked = f"<|im_start|>user\n{line}<|im_end|>\n{BEGIN}"
    return asked if answer is None else f"{asked}{answer}<|im_end|>\n"


def system(text):
    return f"<|im_start|>system\n{text}<|im_end|>\n"


def answering(tokenizer, answer):
    """A model that says the text when it is asked for an answer."""
    ids = tokenizer.encode(answer).tolist()
    begin = tokenizer.encode(BEGIN).tolist()

    def rule(cache):
        row = np.full(tokenizer.vocab_size, -np.inf)
        said = next(
            n for n in range(len(ids))
            if list(cache[len(cache) - n - len(begin) : len(cache) - n]) == begin
        )  # fmt: skip
        row[ids[said]] = 0.0
        return row

    return rule


@pytest.fixture
def seen(monkeypatch):
    """What the models have been given to read, turn by turn, in tokens."""
    prompts = []
    submit = Scheduler.submit

    def spy(self, job):
        prompts.append(list(job.prompt))
        submit(self, job)

    monkeypatch.setattr(Scheduler, "submit", spy)
    return prompts


@pytest.fixture
def talk(use, stdin, capsys, seen, tmp_path):
    """Chat over lines; return (exit code, stdout, lines on stderr, what the model read)."""

    def talk(
        *lines, argv=(), template=CHATML, answer="brown fox<|im_end|>", seq_len=900, **special
    ):
        tokenizer = tokenizer_of("qwen2", template, tmp_path, **special)
        use(answering(tokenizer, answer), tokenizer, seq_len=seq_len)
        stdin("\n".join(lines).encode())
        capsys.readouterr()
        seen.clear()
        code = main(["m", "--chat", *argv])
        captured = capsys.readouterr()
        read = [tokenizer.decode(prompt) for prompt in seen]
        return code, captured.out, captured.err.splitlines(), read

    return talk


@pytest.mark.parametrize("eos", ["<|im_end|>", "<|endoftext|>"])
def test_the_model_reads_its_own_form_and_its_answer_ends_with_its_turn(talk, eos):
    code, out, said, read = talk("hello", "/system Be brief.", "the fox", "/reset", "new",
                                 eos_token=eos)  # fmt: skip
    assert (code, out) == (0, "brown fox\n" * 3)
    assert read == [
        turn("hello"),
        system("Be brief.") + turn("hello", "brown fox") + turn("the fox"),
        system("Be brief.") + turn("new"),
    ]
    assert said[0] == OWN
    assert said[2:] == ["The system text is set.", "The conversation is forgotten."]


def test_the_oldest_turns_are_forgotten_whole(talk):
    lines = ["hello", "the fox", "the dog", "quick"]
    _, _, said, read = talk(*lines, argv=("-p", "Be brief.", "-n", "30"), seq_len=104)
    assert read[-1].startswith(system("Be brief.") + "<|im_start|>user\nthe dog")
    assert read[-1].endswith(turn("the dog", "brown fox") + turn("quick"))
    assert sum("is forgotten" in line for line in said) == 1


def test_a_conversation_goes_on_in_either_form(talk, tmp_path):
    file = tmp_path / "talk"
    talk("hello", f"/save {file}", argv=("-p", "Be brief."))
    assert json.loads(file.read_text())["messages"][-1]["content"] == "brown fox"
    _, _, _, read = talk(f"/load {file}", "the fox")
    assert read == [system("Be brief.") + turn("hello", "brown fox") + turn("the fox")]


def test_the_plain_form_can_be_chosen(use, byte, stdin, capsys, talk):
    said = talk(argv=("--chat-template", "plain"))[2]
    assert said[0] == (
        "The model continues a transcript of User: and Assistant:."
        " Its own chat template is not used. /help for commands."
    )
    assert talk(argv=("--chat-template", "model"))[2][0] == OWN
    use(lambda _: np.zeros(byte.vocab_size), byte)
    stdin(b"")
    assert main(["m", "--chat", "--chat-template", "model"]) == 3
    assert "the model has no chat template" in capsys.readouterr().err


def test_it_is_about_chats_only(use, byte, capsys):
    use(lambda _: np.zeros(byte.vocab_size), byte)
    assert main(["m", "--prompt", "a", "--chat-template", "plain", "--max-tokens", "1"]) == 0
    assert "--chat-template has no effect without --chat." in capsys.readouterr().err


def test_a_role_that_the_template_refuses(talk):
    code, out, said, _ = talk("hello", argv=("-p", "Be brief."), template=NO_SYSTEM)
    assert (code, out) == (3, "")
    assert "\n".join(said) == (
        "cllm-infer: error: the chat template of the model refuses the conversation:"
        " TemplateError: System role not supported. Use --chat-template plain, or leave out a"
        " system text that it has no place for."
    )
    code, out, said, read = talk("/system Be brief.", "hello", template=NO_SYSTEM)
    assert (code, out, read) == (0, "brown fox\n", [turn("hello")])
    assert [line for line in said if "System role not supported" in line]
    assert "The system text is set." not in said


def test_a_system_text_that_the_template_leaves_out_is_told(talk):
    deaf = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + CHATML
    _, _, said, read = talk("hello", argv=("-p", "Be brief."), template=deaf)
    assert read == [turn("hello")]
    assert "The chat template of the model leaves the system text out." in said


def test_a_line_that_the_template_refuses_is_left_out(talk):
    picky = (
        "{% if 'dog' in messages[-1].content %}{{ raise_exception('no dogs') }}{% endif %}" + CHATML
    )
    code, out, said, read = talk("hello", "the dog", "the fox", template=picky)
    assert (code, out) == (0, "brown fox\n" * 2)
    assert read[-1] == turn("hello", "brown fox") + turn("the fox")
    assert sum("no dogs" in line for line in said) == 1


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_the_template_in_a_models_files_is_used(kind, stdin, capsys, seen, tmp_path):
    template = "@{{ messages[-1].content }}@"
    if kind == "gguf":
        place = saved(tmp_path, chat_template=template)
    else:
        place = tmp_path / "model"
        config = config_of("llama")
        content = trained("bpe", tmp_path).read_bytes()
        facts = TokenizerFacts((), {}, template)
        save_model_folder(place, config, tensors_of(config), content, facts)
    stdin(b"hello\n")
    assert main([str(place), "--chat", "-n", "2"]) == 0
    assert OWN in capsys.readouterr().err
    tokenizer = open_source(place).tokenizer()
    assert [tokenizer.decode(prompt) for prompt in seen] == ["@hello@"]
