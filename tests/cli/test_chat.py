"""cllm-infer --chat with a fake model: answers, what the model sees, what is said of the rest."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest

from crystalline.cli.infer import main
from crystalline.data.tokenizer import Tokenizer
from crystalline.infer.scheduler import Scheduler
from tests.infer.fake_model import FakeDecoder, noise


def answering(tokenizer, answer):
    """A model that answers each turn with the text and then speaks for the user."""
    ids = tokenizer.encode(answer + "\nUser:").tolist()
    turn = tokenizer.encode("Assistant:").tolist()

    def rule(cache):
        row = np.full(tokenizer.vocab_size, -np.inf)
        said = 0
        for said in range(len(ids)):
            start = len(cache) - said - len(turn)
            if list(cache[start : len(cache) - said]) == turn and start >= 0:
                break
        row[ids[said]] = 0.0
        return row

    return rule


def prompts_seen(monkeypatch, tokenizer):
    """Return the list of what the model will have been given to read, turn by turn."""
    prompts = []
    submit = Scheduler.submit

    def spy(self, job):
        prompts.append(tokenizer.decode(job.prompt[-self.seq_len :]))
        submit(self, job)

    monkeypatch.setattr(Scheduler, "submit", spy)
    return prompts


def test_chat_with_piped_lines(use, char, stdin, capsys):
    use(answering(char, " a nice answer."), char, seq_len=400)
    stdin(b"is it nice\n\n/help\n/what\nis it\n/reset\ncan we\n/quit\nnever read\n")
    assert main(["m", "--chat"]) == 0
    captured = capsys.readouterr()
    assert captured.out == " a nice answer.\n" * 3
    assert "/reset        forget" in captured.err
    assert "/what is not a command" in captured.err
    assert "forgotten" in captured.err


def test_chat_ends_with_its_input(use, char, stdin, capsys):
    use(answering(char, " a."), char, seq_len=400)
    stdin(b"is it nice")
    assert main(["m", "--chat", "--quiet"]) == 0
    assert capsys.readouterr() == (" a.\n", "")


def test_the_model_sees_the_transcript(use, char, stdin, capsys, monkeypatch):
    use(answering(char, " a."), char, seq_len=400)
    seen = prompts_seen(monkeypatch, char)
    stdin(b"is it\nwe can\n/reset\nnew\n")
    assert main(["m", "--chat", "--prompt", "nice.", "--max-tokens", "30"]) == 0
    assert seen == [
        "nice.\nUser: is it\nAssistant:",
        "nice.\nUser: is it\nAssistant: a.\nUser: we can\nAssistant:",
        "nice.\nUser: new\nAssistant:",
    ]
    capsys.readouterr()


def test_chat_survives_a_line_it_cannot_encode(use, char, stdin, capsys):
    use(answering(char, " a."), char, seq_len=400)
    stdin("is é\nis it\n".encode())
    assert main(["m", "--chat"]) == 0
    captured = capsys.readouterr()
    assert captured.out == " a.\n"
    assert "'é'" in captured.err


def test_a_tokenizer_that_cannot_chat(use, stdin, capsys):
    use(noise(3), Tokenizer.train("char", ["abc"], 0))
    stdin(b"abc\n")
    assert main(["m", "--chat"]) == 3
    assert capsys.readouterr().out == ""


def test_a_tokenizer_that_knows_only_words(use, stdin, capsys):
    word = Tokenizer.train("word", ["User: is it nice\nAssistant: it is"], 100)
    use(noise(word.vocab_size), word)
    stdin(b"is it zebra\nis it\n")
    assert main(["m", "--chat", "--max-tokens", "2"]) == 0
    said = capsys.readouterr().err
    assert said.count("1 word of the line is not in the vocabulary") == 1
    assert "names" not in said
    assert said.count("not in the vocabulary") == 1
    other = Tokenizer.train("word", ["a b"], 100)
    use(noise(other.vocab_size), other)
    stdin(b"")
    assert main(["m", "--chat"]) == 0
    assert "words of the names of the speakers are not in" in capsys.readouterr().err


# --- what the context has no room for -------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch, char):
    """What the model has been given to read, turn by turn."""
    return prompts_seen(monkeypatch, char)


def notices(capsys):
    """Return the lines on stderr after the two of the beginning."""
    return capsys.readouterr().err.splitlines()[2:]


def turn(line, answer=" a."):
    return f"User: {line}\nAssistant:{answer}"


@pytest.mark.parametrize(
    ("seq_len", "longest"), [(16, 8), (64, 32), (128, 64), (400, 200), (1024, 200)]
)
def test_answers_leave_half_of_the_context_by_default(use, char, stdin, capsys, seq_len, longest):
    endless = np.eye(char.vocab_size)[char.encode("a")[0]] * 99
    use(lambda _: endless, char, seq_len=seq_len)
    stdin(b"is it\n")
    assert main(["m", "--chat", "--temperature", "0"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "a" * longest + "\n"
    assert f"answers of at most {longest} tokens" in captured.err
    assert f"(cut off after {longest} tokens" in captured.err


@pytest.mark.parametrize("more", [[], ["--max-tokens", "64"], ["--max-tokens", "9999"]])
def test_a_conversation_is_remembered_as_far_as_there_is_room(use, char, stdin, capsys, seen, more):
    """In a context of 128 the newest 64 characters or less, in whole turns of 27 and a newline."""
    use(answering(char, " a."), char, seq_len=128)
    stdin(b"is it\nit is\ncan we\nwe can\n/reset\nis it\nit is\nwe can\n")
    assert main(["m", "--chat", *more]) == 0
    assert seen == [
        turn("is it", ""),
        turn("is it") + "\n" + turn("it is", ""),
        turn("it is") + "\n" + turn("can we", ""),
        turn("can we") + "\n" + turn("we can", ""),
        turn("is it", ""),
        turn("is it") + "\n" + turn("it is", ""),
        turn("it is") + "\n" + turn("we can", ""),
    ]
    forgotten = (
        "The context of 128 tokens has 64 for the conversation:"
        " from here on turn 1 is forgotten, and later the next oldest."
    )
    assert notices(capsys) == [forgotten, "The conversation is forgotten.", forgotten]


def test_short_answers_leave_more_room(use, char, stdin, capsys, seen):
    use(answering(char, " a."), char, seq_len=128)
    stdin(b"is it\nit is\ncan we\n")
    assert main(["m", "--chat", "--max-tokens", "30"]) == 0
    assert seen[2] == "\n".join([turn("is it"), turn("it is"), turn("can we", "")])
    assert notices(capsys) == []


def test_a_line_longer_than_the_context(use, char, stdin, capsys, seen):
    use(answering(char, " a."), char, seq_len=64)
    line = "nice " * 20
    stdin(f"is it\n{line}\n".encode())
    assert main(["m", "--chat"]) == 0
    assert seen[1] == turn(line.strip(), "")[-64:]
    said = notices(capsys)
    assert said[0].startswith("The context of 64 tokens has 32 for the conversation")
    assert said[1] == (
        "With this line there are 116 tokens, the context holds 64: only the newest 64 are read."
    )


def test_a_preamble_that_leaves_no_room(use, char, stdin, capsys, seen):
    use(answering(char, " a."), char, seq_len=64)
    stdin(b"is it\nit is\n")
    preamble = "nice " * 5 + "we can."
    assert main(["m", "--chat", "--prompt", preamble]) == 0
    assert seen[1] == preamble + "\n" + turn("it is", "")
    assert notices(capsys)[0] == (
        "The system text and the names of the speakers have 50 tokens, which leaves no room in the"
        " context of 64 for earlier turns: each line is answered without them."
    )


@pytest.mark.parametrize(
    ("seq_len", "preamble", "what"),
    [
        (64, "nice " * 20, "The system text and the names of the speakers have 118 tokens"),
        (16, "", "The names of the speakers have 17 tokens"),
    ],
)
def test_what_is_never_read_is_said_at_the_start(
    use, char, stdin, capsys, seen, seq_len, preamble, what
):
    use(answering(char, " a."), char, seq_len=seq_len)
    stdin(b"is it\nit is\n")
    assert main(["m", "--chat", "--prompt", preamble]) == 0
    assert seen[0] == (preamble + "\n" + turn("is it", ""))[-seq_len:]
    said = notices(capsys)
    assert said[0] == (
        f"{what}, the context {seq_len}: only the newest {seq_len} of each turn are read."
    )
    assert not [line for line in said[1:] if "read" in line or "forgotten" in line]


def test_an_answer_says_how_it_was_cut(use, char, stdin, capsys):
    use(answering(char, " nice."), char, seq_len=400)
    stdin(b"is it\n")
    assert main(["m", "--chat", "--max-tokens", "3"]) == 0
    assert notices(capsys) == ["(cut off after 3 tokens; --max-tokens sets how many)"]
    stdin(b"is it\n")
    assert main(["m", "--chat", "--stop", "c"]) == 0
    captured = capsys.readouterr()
    assert captured.out == " ni\n"
    assert captured.err.splitlines()[2:] == ["(ended at --stop 'c')"]
    stdin(b"is it\n")
    assert main(["m", "--chat", "--max-tokens", "1", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_an_answer_that_moves_the_context_on_is_told_once(use, char, stdin, capsys):
    use(lambda _: np.eye(char.vocab_size)[char.encode("a")[0]] * 99, char, seq_len=64)
    stdin(b"is it\nit is\n/reset\nit is\n")
    assert main(["m", "--chat", "--temperature", "0", "--max-tokens", "90"]) == 0
    said = [line for line in notices(capsys) if line.startswith("The con")]
    full = "The context of 64 tokens was full: its newest half was kept, and so on."
    room = "The context of 64 tokens has 32 for the conversation:"
    assert [line.replace(room, "room:")[:5] if line != full else full for line in said] == [
        full, "room:", "The c", full,
    ]  # fmt: skip


# --- lines that are no text -----------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_line_that_is_not_utf8_is_left_out(use, byte, monkeypatch, capsys, errors):
    use(answering(byte, " ok."), byte, seq_len=400)
    raw = b"fine\n\xff\xfe no\n  caf\xc3\xa9\n\xc3"
    stream = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", errors=errors)
    monkeypatch.setattr(sys, "stdin", stream)
    assert main(["m", "--chat"]) == 0
    captured = capsys.readouterr()
    assert captured.out == " ok.\n" * 2
    assert captured.err.splitlines()[2:] == [
        f"cllm-infer: line {number} is not valid UTF-8. It is left out." for number in (2, 4)
    ]


def test_lines_are_utf8_in_any_locale(use, byte, monkeypatch, capsys):
    use(answering(byte, " ok."), byte, seq_len=400)
    given = prompts_seen(monkeypatch, byte)
    stream = io.TextIOWrapper(io.BytesIO("café\n".encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", stream)
    assert main(["m", "--chat", "--quiet"]) == 0
    assert given[0] == "User: café\nAssistant:"
    assert capsys.readouterr() == (" ok.\n", "")


# --- commands -------------------------------------------------------------------------------------


@pytest.fixture
def talk(use, char, stdin, capsys):
    """Chat over lines; return (exit code, stdout, the lines on stderr after the first two)."""

    def talk(*lines, argv=()):
        use(answering(char, " a nice answer."), char, seq_len=400)
        stdin("\n".join(lines).encode(errors="surrogateescape"))
        capsys.readouterr()
        code = main(["m", "--chat", *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()[2:]

    return talk


def test_a_system_text_stands_before_the_conversation(talk, seen):
    said = talk("is it", "/system  nice bits. ", "can we", "/system", "is it")[2]
    assert seen == [
        turn("is it", ""),
        "nice bits.\n" + turn("is it", " a nice answer.") + "\n" + turn("can we", ""),
        "\n".join([turn(q, " a nice answer.") for q in ("is it", "can we")])
        + "\n"
        + turn("is it", ""),
    ]
    assert said == ["The system text is set.", "There is no system text."]


def test_a_system_text_that_cannot_be_is_left_out(talk, seen):
    said = talk("/system nice", "/system é", "/system \udcff", "is it")[2]
    assert seen == ["nice\n" + turn("is it", "")]
    assert len(said) == 3
    assert said[1].startswith("cllm-infer: ")
    assert "'é'" in said[1]
    assert said[2] == "cllm-infer: line 3 is not valid UTF-8. It is left out."


def test_a_system_text_that_leaves_no_room_is_told(talk):
    said = talk("/system " + "nice " * 100)[2]
    assert said[0].startswith("The system text and the names of the speakers have 51")
    assert said[1] == "The system text is set."


def test_a_conversation_is_saved_and_gone_on_with(talk, seen, tmp_path):
    file = tmp_path / "talk it.json"  # the rest of the line is the name
    said = talk("is it", "can we", f"/save {file}", argv=("--prompt", "nice"))[2]
    assert said == [f"{file} has the 2 turns."]
    assert json.loads(file.read_text()) == {
        "messages": [
            {"role": "system", "content": "nice"},
            {"role": "user", "content": "is it"},
            {"role": "assistant", "content": "a nice answer."},
            {"role": "user", "content": "can we"},
            {"role": "assistant", "content": "a nice answer."},
        ]
    }
    seen.clear()
    said = talk("new", f"/load {file}", "is it", f"/save {file}")[2]
    before = [turn(q, " a nice answer.") for q in ("is it", "can we")]
    assert seen == [turn("new", ""), "\n".join(["nice", *before, turn("is it", "")])]
    assert said == [f"The 2 turns of {file} went before.", f"{file} has the 3 turns."]
    assert len(json.loads(file.read_text())["messages"]) == 7  # one's own may be replaced


def test_a_saved_conversation_goes_on_as_it_would_have(use, char, stdin, capsys, tmp_path):
    """With the same seed the answers after /load are those that would have come."""

    def rule(tokens):  # letters only, after a space
        row = noise(char.vocab_size)(tokens)
        row[[char.encode(c)[0] for c in "\n:"]] = -np.inf
        if char.decode(tokens).endswith("Assistant:"):
            row[:] = -np.inf
            row[char.encode(" ")[0]] = 0.0
        elif char.decode(tokens[-1:]) == " ":
            row[char.encode(" ")[0]] = -np.inf
        return row

    def chat(*lines):
        use(rule, char, seq_len=400)
        stdin("\n".join(lines).encode())
        argv = ["m", "--chat", "--seed", "4", "--max-tokens", "12", "--quiet", "--temperature", "2"]
        assert main(argv) == 0
        return capsys.readouterr().out.splitlines()

    file = tmp_path / "t"
    whole = chat("is it", "can we", f"/save {file}", "a nice")
    assert len(set(whole)) == 3
    assert chat(f"/load {file}", "a nice")[-1] == whole[-1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read (No such file"),
        ("folder", "it is a folder"),
        (b"notes", "is no conversation: it is not valid JSON"),
        (b"[]", "is no conversation: it is not a table"),
        (b'{"messages": 5}', "'messages' is 5"),
        (b'{"messages": [5]}', "message 1 is no table"),
        (b'{"messages": [{"role": "user"}]}', "message 1 has no role and content"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "its last message has no answer"),
        (
            b'{"messages": [{"role": "assistant", "content": "a"}]}',
            "message 1 should be the user's",
        ),
        (
            b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
            "message 1 is not valid Unicode",
        ),
        ('{"messages": [{"role": "system", "content": "é"}]}'.encode(), "'é'"),
    ],
)
def test_what_is_no_conversation_is_not_loaded(talk, seen, tmp_path, content, words):
    file = tmp_path / "file"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    code, _, said = talk("is it", f"/load {file}", "can we")
    assert code == 0
    assert len(said) == 1
    assert said[0].startswith("cllm-infer: ")
    assert words in said[0]
    assert seen[1] == turn("is it", " a nice answer.") + "\n" + turn("can we", "")


def test_another_file_is_not_replaced(talk, tmp_path):
    file, link = tmp_path / "notes", tmp_path / "link"
    file.write_text("precious")
    link.symlink_to(tmp_path / "nowhere")
    lines = [
        f"/save {file}",
        f"/save {tmp_path}",
        f"/save {link}",
        "/save",
        f"/save {tmp_path}/no/t",
    ]
    code, _, said = talk("is it", *lines, "/save a\0b", "/save ~nobody-at-all/t")
    assert code == 0
    assert said[0] == f"cllm-infer: {file} is there, and no conversation. Choose another name."
    assert "it is a folder" in said[1]
    assert f"{link} cannot be written" in said[2]
    assert said[3] == "cllm-infer: /save names no file. Write /save FILE."
    assert "cannot be written (No such file" in said[4]
    assert "NUL" in said[5]
    assert "cannot be written" in said[6]
    assert file.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "notes"]


def test_names_are_safe_to_show(talk, tmp_path):
    said = talk(f"/load {tmp_path}/\x1b[2Ja", f"/save {tmp_path}/no\x1b[2J/a")[2]
    assert len(said) == 2
    assert "\x1b" not in "".join(said)


@pytest.mark.parametrize("where", ["model", "terminal"])
def test_an_answer_can_be_interrupted_and_the_next_is_whole(
    use, char, stdin, capsys, monkeypatch, where
):
    """By Ctrl-C at its second piece, while the model works or while the piece is shown."""
    place, name = {
        "model": (FakeDecoder, "extend"),
        "terminal": (sys.modules["crystalline.cli.infer_view"], "show"),
    }[where]
    act, count = getattr(place, name), []

    def interrupted(*args, **options):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return act(*args, **options)

    monkeypatch.setattr(place, name, interrupted)
    use(answering(char, " a nice answer."), char, seq_len=400)
    stdin(b"is it\ncan we\n", tty=True)
    seen = prompts_seen(monkeypatch, char)
    assert main(["m", "--chat", "--quiet"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert " a nice answer.".startswith(first)
    assert len(first) == 2
    assert second == " a nice answer."
    assert seen[1].startswith("User: is it\nAssistant: a")


def test_help_names_every_command(talk):
    said = "\n".join(talk("/help")[2])
    for command in ("/system TEXT", "/save FILE", "/load FILE", "/reset", "/quit", "/help"):
        assert command in said


def test_a_turn_reads_only_what_is_new(use, char, stdin, capsys, monkeypatch):
    """What was said before is in the cache: it is not read again."""
    counts = []
    extend = FakeDecoder.extend

    def spy(self, slots, tokens):
        counts.append(sum(map(len, tokens)))
        return extend(self, slots, tokens)

    monkeypatch.setattr(FakeDecoder, "extend", spy)
    use(answering(char, " a."), char, seq_len=400)
    stdin(b"is it\nit is\n")
    assert main(["m", "--chat", "--quiet"]) == 0
    first = len(turn("is it", ""))
    new = len(turn("it is", "")) - len("User")  # it had said that much of the user's turn
    assert [count for count in counts if count > 1] == [first, new]
    capsys.readouterr()
