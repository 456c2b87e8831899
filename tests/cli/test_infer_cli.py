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
from tests.infer.fake_model import noise, spells

ROOT = Path(__file__).parents[2]


def telling(tokenizer, text, prompt):
    ids = [*tokenizer.encode(text).tolist(), tokenizer.eot_id]
    return spells(ids, tokenizer.vocab_size, prompt)


# --- text -----------------------------------------------------------------------------------------


def test_text_goes_to_stdout_and_the_rest_to_stderr(use, byte, capsys):
    asked = use(telling(byte, "there, wörld", 3), byte)
    assert main(["runs/x", "--prompt", "hi ", "--seed", "5"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "there, wörld\n"
    assert "prompt 3 tokens (" in captured.err
    assert "text 14 tokens in" in captured.err
    assert captured.err.count("/s)") == 2
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
    for name in ("", "prompt_", "decode_"):
        assert answer.pop(f"{name}seconds") > 0
        assert answer.pop(f"{name}tokens_per_second") > 0
    assert answer == {
        "model": "runs/x/step-00000007",
        "prompt": "hi",
        "prompt_tokens": 2,
        "prompt_tokens_read": 2,
        "max_tokens": 3,
        "text": "the",
        "tokens": 3,
        "decode_tokens": 2,  # the first comes with the prompt
        "finish_reason": "length",
        "context_full": False,
        "seed": 9,
        "samples": [{"text": "the", "tokens": 3, "finish_reason": "length"}],
    }


# --- what is done unasked -------------------------------------------------------------------------


def notices(capsys):
    """Return what is on stderr but for the two closing lines of a generation."""
    return capsys.readouterr().err.splitlines()[:-2]


@pytest.mark.parametrize("more", [[], ["--beam", "2"]])
def test_a_prompt_beyond_the_context_is_cut_aloud(use, char, capsys, more):
    argv = ["m", "--prompt", "abc" * 7, "--max-tokens", "1", *more]
    use(noise(char.vocab_size), char, seq_len=16)
    assert main(argv) == 0
    assert notices(capsys) == [
        "The prompt has 21 tokens, the context 16: only its newest 16 are read."
    ]
    assert main([*argv, "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert (answer["prompt_tokens"], answer["prompt_tokens_read"]) == (21, 16)
    assert captured.err == ""
    use(noise(char.vocab_size), char, seq_len=21)
    assert main(argv) == 0
    assert notices(capsys) == []


@pytest.mark.parametrize("more", [[], ["--beam", "2"]])
def test_a_context_that_fills_up_is_told_once(use, char, capsys, more):
    use(lambda _: np.eye(char.vocab_size)[char.encode("a")[0]] * 99, char, seq_len=16)
    argv = ["m", "--prompt", "abc", "--temperature", "0", *more]
    for count, full in (("14", False), ("15", True), ("60", True)):
        assert main([*argv, "--max-tokens", count]) == 0
        assert [line.startswith("The context of 16") for line in notices(capsys)] == [True] * full
        assert main([*argv, "--max-tokens", count, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["context_full"] is full


def test_words_that_the_vocabulary_lacks_are_told(use, capsys, tmp_path):
    word = Tokenizer.train("word", ["a b c a b c"], 100)
    use(noise(word.vocab_size), word)
    assert main(["m", "--prompt", "a zebra or b", "--max-tokens", "1"]) == 0
    words = "2 words of the {} are not in the vocabulary, and read as <unk>."
    assert notices(capsys) == [words.format("prompt")]
    (tmp_path / "text").write_text("a zebra or b")
    assert main(["m", "--perplexity", str(tmp_path / "text"), "--json"]) == 0
    captured = capsys.readouterr()
    assert words.format("text") in captured.err
    assert json.loads(captured.out)["unknown_words"] == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--temperature", "0", "--top-k", "5"], "--top-k has no effect at temperature 0"),
        (
            ["--temperature", "0", "--min-p", ".1", "--top-p", "1", "--num-samples", "2"],
            "--top-p and --min-p and --num-samples have no effect at temperature 0",
        ),
        (["--temperature", "0", "--seed", "1"], "--seed has no effect at temperature 0"),
        (["--beam", "2", "--seed", "1"], "--seed has no effect with --beam"),
        (["--temperature", "0", "--repeat-penalty", "2"], ""),
        (["--top-k", "5", "--seed", "1"], ""),
    ],
)
def test_options_without_effect_are_named(use, char, capsys, more, said):
    use(noise(char.vocab_size), char)
    assert main(["m", "--prompt", "a", "--max-tokens", "2", *more]) == 0
    found = notices(capsys)
    assert [line.startswith(said) for line in found] == [True] * bool(said), found


def test_perplexity_generates_nothing(use, byte, capsys, tmp_path):
    (tmp_path / "text").write_text("some text")
    use(lambda _: np.zeros(257), byte)
    argv = ["m", "--perplexity", str(tmp_path / "text")]
    assert main([*argv, "--max-tokens", "5", "--stop", "x", "--temperature", "0"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("--max-tokens and --temperature and --stop have no effect with")
    assert main(argv) == 0
    assert "effect" not in capsys.readouterr().err


def test_each_sample_says_how_it_ended(use, byte, capsys):
    rule = spells([*byte.encode("ab"), byte.eot_id], 257, 1)
    use(rule, byte)
    argv = ["m", "--prompt", "x", "--num-samples", "2"]
    assert main(argv) == 0
    assert capsys.readouterr().err.endswith(", ended by eot\n")
    assert main([*argv, "--stop", "END"]) == 0
    assert capsys.readouterr().err.endswith(", ended by eot; --stop was not reached\n")
    assert main([*argv, "--stop", "b"]) == 0
    assert capsys.readouterr().err.endswith(", ended by stop\n")
    assert main([*argv, "--max-tokens", "1", "--beam", "3"]) == 0
    assert capsys.readouterr().err.endswith(", ended by length\n")


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("best", "checkpoint step-00000007 (best)"),
        ("latest", "checkpoint step-00000007 (latest, since none is marked as best)"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("mode", ["sample", "beam", "chat", "perplexity"])
def test_a_checkpoint_that_was_not_named_is_told(
    use, byte, stdin, capsys, tmp_path, choice, said, mode
):
    (tmp_path / "text").write_text("some text")
    use(lambda _: np.zeros(257), byte, choice=choice)
    stdin(b"")
    more = {
        "sample": ["--prompt", "x"],
        "beam": ["--prompt", "x", "--beam", "2"],
        "chat": ["--chat"],
        "perplexity": ["--perplexity", str(tmp_path / "text")],
    }[mode]
    assert main(["m", "--max-tokens", "2", *more]) == 0
    words = capsys.readouterr().err
    assert said in words
    assert ("checkpoint" in words) == bool(said)


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
        "tokens": "9",
        "bytes": "9",  # the carriage return is no part of the text
    }
    assert asked == [(Path("m"), None, 1)]
    assert main(["m", "--perplexity", str(file), "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert captured.err == ""
    assert answer["perplexity"] == pytest.approx(257)
    assert answer["bits_per_byte"] == pytest.approx(math.log2(257))
    assert (answer["tokens"], answer["bytes"], answer["file"]) == (9, 9, str(file))


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


def test_a_text_is_measured_as_training_reads_it(use, byte, capsys, monkeypatch, tmp_path):
    """Mark and line ends, HTML, records with `<|endoftext|>` between them, stdin and a pipe."""
    use(lambda _: np.zeros(257), byte)

    def sizes(*argv: str) -> tuple[int, int]:
        assert main(["m", "--json", "--quiet", *argv]) == 0
        answer = json.loads(capsys.readouterr().out)
        return answer["tokens"], answer["bytes"]

    def file(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    marked = b"\xef\xbb\xbfone\r\ntwo\r\n"
    assert sizes("--perplexity", file("a.txt", marked)) == (8, 8)
    assert sizes("--perplexity", file("a.html", b"<p>one</p><script>x</script>")) == (4, 4)
    records = b'{"text": "abc"}\n{"text": "de"}\n'
    assert sizes("--perplexity", file("a.jsonl", records)) == (6, 5)
    bodies = file("b.jsonl", b'{"body": "abcd", "text": "e"}\n')
    assert sizes("--perplexity", bodies, "--text-field", "body") == (4, 4)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(marked)))
    assert sizes("--perplexity", "-") == (8, 8)
    reader, writer = os.pipe()
    os.write(writer, marked)
    os.close(writer)
    assert sizes("--perplexity", f"/dev/fd/{reader}") == (8, 8)
    os.close(reader)


@pytest.mark.parametrize("given", ["flag", "stdin"])
def test_a_prompt_is_read_as_text_is(use, byte, capsys, monkeypatch, given):
    use(lambda _: np.zeros(257), byte)
    argv = ["m", "--max-tokens", "1", "--json", "--quiet"]
    if given == "flag":
        argv += ["--prompt", "\ufeffone\r\ntwo"]
    else:
        text = io.BytesIO(b"\xef\xbb\xbfone\r\ntwo\r\n")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(text))
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "one\ntwo"


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
        (["m", "--max-tokens", "9" * 400], ["--max-tokens", "at most"]),
        (["m", "--stop", ""], ["--stop"]),
        (["m", "--stop", "a\udcff"], ["--stop", "character 2"]),
        (["m", "--seed", "9" * 5000], ["--seed"]),
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

def open_model(place, *, checkpoint=None, slots=1, **_formats):
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


def test_a_stdin_that_cannot_be_read_is_one_sentence(tmp_path):
    for more in ([], ["--chat"]):
        with (tmp_path / "file").open("wb") as written:
            done = subprocess.run(
                [sys.executable, "-c", ENDLESS, "m", *more],
                cwd=ROOT,
                env=environment(),
                stdin=written,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        assert (done.returncode, done.stdout) == (3, "")
        what = "conversation" if more else "prompt"
        assert done.stderr.splitlines()[-1] == (
            f"cllm-infer: error: the {what} cannot be read from stdin (Bad file descriptor)."
            " Redirect it from a file or a pipe."
        )


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
