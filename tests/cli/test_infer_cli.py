"""cllm-infer with a fake model: what goes to stdout, what to stderr, and the exit codes."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crystalline.cli.infer import InferSettings, main
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError
from crystalline.infer.loading import Model
from tests.infer.fake_model import FakeDecoder, noise, spells

ROOT = Path(__file__).parents[2]
CHARS = "\n :Aabceinrstuw."


@pytest.fixture
def use(monkeypatch):
    """Put a fake model in the place of any; returns a list of what was asked for."""

    def install(rule, tokenizer, seq_len=64):
        asked = []

        def open_model(place, *, checkpoint=None, slots=1):
            asked.append((place, checkpoint, slots))
            decoder = FakeDecoder(
                rule, vocab_size=tokenizer.vocab_size, seq_len=seq_len, slots=slots
            )
            return Model(place / "step-00000007", decoder, tokenizer)

        monkeypatch.setattr("crystalline.infer.loading.open_model", open_model)
        return asked

    return install


@pytest.fixture
def stdin(monkeypatch):
    def install(content: bytes, tty: bool = False):
        stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
        monkeypatch.setattr(stream, "isatty", lambda: tty, raising=False)
        monkeypatch.setattr(sys, "stdin", stream)

    return install


@pytest.fixture(scope="module")
def byte():
    return Tokenizer.train("byte", [], 0)


@pytest.fixture(scope="module")
def char():
    return Tokenizer.train("char", ["".join(CHARS) + "U"], 0)


def telling(tokenizer, text, prompt):
    ids = [*tokenizer.encode(text).tolist(), tokenizer.eot_id]
    return spells(ids, tokenizer.vocab_size, prompt)


# --- text -----------------------------------------------------------------------------------------


def test_text_goes_to_stdout_and_the_rest_to_stderr(use, byte, capsys):
    asked = use(telling(byte, "there, wörld", 3), byte)
    assert main(["runs/x", "--prompt", "hi ", "--seed", "5"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "there, wörld\n"
    assert "14 tokens" in captured.err
    assert "tokens/s" in captured.err
    assert "seed 5" in captured.err
    assert "eot" in captured.err
    assert asked == [(Path("runs/x"), None, 1)]


def test_quiet_says_nothing(use, byte, capsys):
    use(telling(byte, "there\n", 2), byte)
    assert main(["m", "--prompt", "hi", "--quiet"]) == 0
    assert capsys.readouterr() == ("there\n", "")


def test_the_prompt_may_come_from_stdin(use, byte, stdin, capsys):
    for argv in (["m"], ["m", "--prompt", "-"]):
        use(telling(byte, "ok", len("é\n".encode())), byte)
        stdin("é\n\n".encode())
        assert main([*argv, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["prompt"] == "é\n"


def test_without_a_prompt_a_document_begins(use, byte, stdin, capsys):
    use(telling(byte, "new", 1), byte)
    stdin(b"", tty=True)
    assert main(["m", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["prompt"], answer["prompt_tokens"], answer["text"]) == ("", 1, "new")


def test_a_prompt_may_be_any_text(use, byte, capsys):
    for prompt in ("-x", "None", "--json"):
        use(telling(byte, "y", len(prompt)), byte)
        assert main(["m", f"--prompt={prompt}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["prompt"] == prompt


def test_stops_can_be_repeated(use, byte, capsys):
    use(telling(byte, "one two three", 1), byte)
    assert main(["m", "--prompt", "x", "--stop", "three", "--stop", " t"]) == 0
    assert capsys.readouterr().out == "one\n"


def test_samples_differ_and_are_told_apart(use, char, capsys):
    use(noise(char.vocab_size), char)
    argv = ["m", "--prompt", "a", "--num-samples", "3", "--max-tokens", "20", "--seed", "3"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert text.count("\n---\n") == 2
    assert main([*argv, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    texts = [sample["text"] for sample in answer["samples"]]
    assert len(set(texts)) == 3
    assert text == "\n---\n".join(t.removesuffix("\n") for t in texts) + "\n"
    assert (answer["tokens"], answer["text"]) == (60, texts[0])


def test_a_seed_repeats_and_no_seed_does_not(use, char, capsys):
    use(noise(char.vocab_size), char)
    argv = ["m", "--prompt", "a", "--json", "--temperature", "1.5"]

    def answer(*more):
        assert main([*argv, *more]) == 0
        return json.loads(capsys.readouterr().out)

    assert answer("--seed", "1")["text"] == answer("--seed", "1")["text"]
    first, second = answer(), answer()
    assert first["seed"] != second["seed"]
    assert answer("--seed", str(first["seed"]))["text"] == first["text"]


def test_json_has_every_field_and_nothing_else_is_printed(use, byte, capsys):
    use(telling(byte, "there", 2), byte)
    assert main(["runs/x", "--prompt", "hi", "--json", "--seed", "9", "--max-tokens", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    answer = json.loads(captured.out)
    assert answer.pop("seconds") > 0
    assert answer.pop("tokens_per_second") > 0
    assert answer == {
        "model": "runs/x/step-00000007",
        "prompt": "hi",
        "prompt_tokens": 2,
        "max_tokens": 3,
        "text": "the",
        "tokens": 3,
        "finish_reason": "length",
        "seed": 9,
        "samples": [{"text": "the", "tokens": 3, "finish_reason": "length"}],
    }


# --- beam search ----------------------------------------------------------------------------------


def test_beams_print_the_best(use, byte, capsys):
    asked = use(telling(byte, "there", 2), byte)
    assert main(["m", "--prompt", "hi", "--beam", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "there\n"
    assert "3 beams" in captured.err
    assert asked[0][2] == 3


def test_beams_in_json(use, char, capsys):
    use(noise(char.vocab_size), char)
    argv = ["m", "--prompt", "a", "--beam", "4", "--num-samples", "2", "--max-tokens", "5"]
    assert main([*argv, "--json", "--stop", "e"]) == 0
    answer = json.loads(capsys.readouterr().out)
    scores = [sample["score"] for sample in answer["samples"]]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert all("e" not in sample["text"] for sample in answer["samples"])
    assert answer["seed"] is None


# --- perplexity -----------------------------------------------------------------------------------


def test_perplexity(use, byte, capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes("abc\r\ndefé".encode())
    asked = use(lambda _: np.zeros(257), byte, seq_len=4)
    assert main(["m", "--perplexity", str(file)]) == 0
    lines = dict(line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines == {
        "nats per token": f"{math.log(257):.4f}",
        "perplexity": "257.000",
        "bits per byte": f"{math.log2(257):.4f}",
        "tokens": "10",
        "bytes": "10",
    }
    assert asked == [(Path("m"), None, 1)]
    assert main(["m", "--perplexity", str(file), "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert captured.err == ""
    assert answer["perplexity"] == pytest.approx(257)
    assert answer["bits_per_byte"] == pytest.approx(math.log2(257))
    assert (answer["tokens"], answer["bytes"], answer["file"]) == (10, 10, str(file))


def test_long_work_reports_its_progress(use, byte, capsys, tmp_path, monkeypatch):
    clock = iter(np.arange(0.0, 1e6, 0.7).tolist())
    monkeypatch.setattr("crystalline.cli.infer.time.monotonic", lambda: next(clock))
    file = tmp_path / "text.txt"
    file.write_text("x" * 41)
    use(lambda _: np.zeros(257), byte, seq_len=4)
    assert main(["m", "--perplexity", str(file)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "left" in line]
    assert lines[0].startswith("12 of 40 tokens (30%)")  # after 2.1 s, then every 1.4 s
    assert len(lines) == 4


@pytest.mark.parametrize("content", [b"ok \xff", b"", b"a"])
def test_text_that_cannot_be_measured(use, byte, capsys, tmp_path, content):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    use(lambda _: np.zeros(257), byte)
    assert main(["m", "--perplexity", str(file)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cllm-infer: error: ")


def test_a_missing_text(use, byte, capsys, tmp_path):
    use(lambda _: np.zeros(257), byte)
    assert main(["m", "--perplexity", str(tmp_path / "gone.txt")]) == 3
    assert "gone.txt" in capsys.readouterr().err
    assert main(["m", "--perplexity", str(tmp_path)]) == 3


# --- chat -----------------------------------------------------------------------------------------


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


def test_chat_with_piped_lines(use, char, stdin, capsys):
    use(answering(char, " a nice answer."), char, seq_len=400)
    stdin(b"is it nice\n\n/help\n/what\nis it\n/reset\ncan we\n/quit\nnever read\n")
    assert main(["m", "--chat"]) == 0
    captured = capsys.readouterr()
    assert captured.out == " a nice answer.\n" * 3
    assert "/reset  forget" in captured.err
    assert "/what is not a command" in captured.err
    assert "forgotten" in captured.err


def test_chat_ends_with_its_input(use, char, stdin, capsys):
    use(answering(char, " a."), char, seq_len=400)
    stdin(b"is it nice")
    assert main(["m", "--chat", "--quiet"]) == 0
    assert capsys.readouterr() == (" a.\n", "")


def test_the_model_sees_the_transcript(use, char, stdin, capsys, monkeypatch):
    rule = answering(char, " a.")
    use(rule, char, seq_len=400)
    seen = []
    prefill = FakeDecoder.prefill

    def spy(self, tokens, slot=0):
        seen.append(char.decode(tokens))
        return prefill(self, tokens, slot)

    monkeypatch.setattr(FakeDecoder, "prefill", spy)
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


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["no model"]),
        (["m", "--temperature", "-1"], ["--temperature", "-1"]),
        (["m", "--temperature", "warm"], ["--temperature", "warm"]),
        (["m", "--top-k", "-3"], ["--top-k", "-3"]),
        (["m", "--top-p", "1.5"], ["--top-p", "1.5"]),
        (["m", "--min-p", "2"], ["--min-p", "2"]),
        (["m", "--repeat-penalty", "0"], ["--repeat-penalty", "0"]),
        (["m", "--seed", "-1"], ["--seed", "-1"]),
        (["m", "--seed", "x"], ["--seed", "x"]),
        (["m", "--max-tokens", "0"], ["--max-tokens", "0"]),
        (["m", "--stop", ""], ["--stop"]),
        (["m", "--beam", "0"], ["--beam", "0"]),
        (["m", "--num-samples", "0"], ["--num-samples", "0"]),
        (["m", "--beam", "2", "--num-samples", "3"], ["--num-samples", "3"]),
        (["m", "--beam", "2", "--top-k", "3"], ["--beam", "--top-k"]),
        (["m", "--beam", "2", "--temperature", "1.5"], ["--beam", "--temperature"]),
        (["m", "--chat", "--json"], ["--chat", "--json"]),
        (["m", "--chat", "--prompt", "-"], ["--chat", "--prompt -"]),
        (["m", "--perplexity", "f", "--prompt", "x"], ["--perplexity", "--prompt"]),
        (["m", "--tmperature", "1"], ["--tmperature"]),
        (["m", "n"], ["n"]),
    ],
)
def test_mistakes_are_one_sentence(use, byte, capsys, argv, words):
    use(noise(257), byte)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cllm-infer: error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err


def test_unknown_characters_are_bad_data(use, char, capsys):
    use(noise(char.vocab_size), char)
    assert main(["m", "--prompt", "caé"]) == 3
    assert "'é'" in capsys.readouterr().err


def test_stdin_that_is_not_utf8(use, byte, stdin, capsys):
    use(noise(257), byte)
    stdin(b"ab\xff")
    assert main(["m"]) == 3
    assert "byte 2" in capsys.readouterr().err


def test_a_missing_model_is_4_with_what_was_looked_for(capsys, tmp_path):
    assert main([str(tmp_path / "nowhere"), "--prompt", "x"]) == 4
    assert "nowhere" in capsys.readouterr().err
    assert main([str(tmp_path), "--prompt", "x"]) == 4
    assert str(tmp_path) in capsys.readouterr().err


def test_damage_is_4(monkeypatch, capsys):
    def open_model(*_, **__):
        raise CheckpointError("model.safetensors is damaged", advice="Use another.")

    monkeypatch.setattr("crystalline.infer.loading.open_model", open_model)
    assert main(["m", "--prompt", "x", "--checkpoint", "latest"]) == 4
    assert capsys.readouterr() == (
        "",
        "cllm-infer: error: model.safetensors is damaged. Use another.\n",
    )


def test_defaults_agree_with_the_engine():
    from crystalline.infer.engine import GenerationSettings

    settings = InferSettings("m", seed=0)
    assert settings.generation() == GenerationSettings()


# --- processes ------------------------------------------------------------------------------------

ENDLESS = """
import sys, time
import numpy as np
import crystalline.infer.loading as loading
from crystalline.cli.infer import main
from crystalline.data.tokenizer import Tokenizer
from tests.infer.fake_model import FakeDecoder

def rule(tokens):
    if len(tokens) == 2:
        print("at work", file=sys.stderr, flush=True)
    time.sleep(0.002)
    row = np.full(257, -np.inf)
    row[97 + len(tokens) % 3] = 0.0
    return row

def open_model(place, *, checkpoint=None, slots=1):
    decoder = FakeDecoder(rule, vocab_size=257, seq_len=64, slots=slots)
    return loading.Model(place, decoder, Tokenizer.train("byte", [], 0))

loading.open_model = open_model
sys.exit(main(sys.argv[1:]))
"""


def environment(**more: str) -> dict[str, str]:
    """This process's, but with Python's own choice of buffers and encodings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def start(*argv: str, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "m", *argv],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def interrupt_after_first_text(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    first = process.stdout.read(2)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=20)
    return first + rest, errors


def test_ctrl_c_ends_the_line_and_gives_130():
    with start("--prompt", "x", "--max-tokens", "100000") as process:
        text, errors = interrupt_after_first_text(process)
    assert process.returncode == 130
    assert text.endswith(b"\n")
    assert set(text[:-1]) <= set(b"abc")
    assert b"Traceback" not in errors
    assert b"interrupted" in errors


def test_ctrl_c_still_gives_a_json_object():
    with start("--prompt", "x", "--max-tokens", "100000", "--json") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"at work\n"
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert json.loads(text)["finish_reason"] == "interrupted"


def test_a_closed_pipe_is_quiet():
    with start("--prompt", "x", "--max-tokens", "100000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b"at work\n"
        assert process.wait(timeout=20) == 141


def test_text_is_streamed_not_saved_up():
    with start("--prompt", "x", "--max-tokens", "100000") as process:
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 65536)
        assert 1 <= len(first) < 100  # not a full buffer
        assert process.poll() is None
        process.kill()


def test_a_closed_stdin_is_an_empty_one():
    argv = [sys.executable, "-c", ENDLESS, "m", "--json", "--max-tokens", "3"]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *argv],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompt"] == ""


def test_an_ascii_terminal_shows_question_marks():
    program = (
        "from crystalline.cli.infer import _speak_utf8 as f\nf()\nprint('a\\u20ac', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == b"a?\n"


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_are_fast(flag):
    program = "import sys; from crystalline.cli.infer import main; sys.exit(main())"
    taken = []
    for _ in range(3):  # the machine may be busy: the best of three counts
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, flag],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        taken.append(time.perf_counter() - begun)
    assert min(taken) < 0.5
    assert done.stderr == ""
    if flag == "--version":
        from crystalline import __version__
        from crystalline._kernels import isa

        assert done.stdout == f"crystalline {__version__} (isa: {isa.level()})\n"
    else:
        for name in InferSettings.__dataclass_fields__:
            shown = "RUN_OR_MODEL" if name == "run_or_model" else "--" + name.replace("_", "-")
            assert shown in done.stdout
