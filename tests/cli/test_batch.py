"""cllm-infer --prompts with a fake model: the file that comes out, and how it is gone on with."""

from __future__ import annotations

import errno
import io
import json
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
from tests.cli.test_infer_cli import ENDLESS, ROOT, environment
from tests.infer.fake_model import noise

PROMPTS = ["abc", "", "nice was it", "a", "abc", "  tr "]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n")
    return path


@pytest.fixture(autouse=True)
def model(use, char):
    return use(noise(char.vocab_size), char, seq_len=16)


def call(capsys, *argv):
    """Run the command; return (exit code, stdout, stderr)."""
    capsys.readouterr()
    code = main(["m", *map(str, argv)])
    return code, *capsys.readouterr()


def records(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_prompt_gets_a_text(model, prompts, capsys, tmp_path):
    out = tmp_path / "out.jsonl"
    code, text, said = call(capsys, "--prompts", prompts, "--out", out, "-n", 20, "--seed", 3)
    assert (code, text) == (0, "")
    found = records(out)
    assert [record["prompt"] for record in found] == [p for p in PROMPTS if p]
    assert [record["index"] for record in found] == [record["id"] for record in found]
    assert [record["seed"] for record in found] == [3, 4, 5, 6, 7]
    assert found[0]["text"] != found[3]["text"]  # the same prompt, another seed
    assert {key: found[1][key] for key in ("max_tokens", "tokens", "prompt_tokens")} == {
        "max_tokens": 20,
        "tokens": 20,
        "prompt_tokens": 11,
    }
    assert found[1]["context_full"] is True
    assert "5 texts, seed 3, ended by length" in said
    assert said.count("/s)") == 2
    assert model[0][2] == 5  # slots: no more than there are prompts


def test_a_text_can_be_had_alone(prompts, capsys, tmp_path):
    out = tmp_path / "out.jsonl"
    assert call(capsys, "--prompts", prompts, "--out", out, "-n", 9, "--seed", 3)[0] == 0
    for record in records(out):
        argv = (f"--prompt={record['prompt']}", "-n", 9, "--seed", record["seed"], "--json")
        assert json.loads(call(capsys, *argv)[1])["text"] == record["text"]


@pytest.mark.parametrize("parallel", [1, 2, 7])
def test_the_file_is_the_same_whatever_is_done_at_a_time(
    model, prompts, capsys, tmp_path, parallel
):
    first, second = tmp_path / "a", tmp_path / "b"
    argv = ("--prompts", prompts, "-n", 9, "--seed", 3)
    assert call(capsys, *argv, "--out", first)[0] == 0
    assert call(capsys, *argv, "--out", second, "--parallel", parallel)[0] == 0
    assert first.read_bytes() == second.read_bytes()
    assert model[1][2] == min(parallel, 5)


@pytest.mark.parametrize("seed", [["--seed", "3"], []])
def test_it_goes_on_where_it_was(prompts, capsys, tmp_path, seed):
    """Also without --seed, whose value the first command drew."""
    out = tmp_path / "out.jsonl"
    argv = ("--prompts", prompts, "--out", out, "-n", 9, *seed)
    assert call(capsys, *argv)[0] == 0
    whole = out.read_bytes()
    rows = whole.splitlines(keepends=True)
    out.write_bytes(rows[3] + rows[0] + rows[4][:30])
    code, _, said = call(capsys, *argv)
    assert code == 0
    assert f"{out} has 2 of 5 texts; the last line was torn off" in said
    assert "3 texts, " in said
    assert out.read_bytes() == whole
    code, _, said = call(capsys, *argv)
    assert (code, said) == (0, f"{out} has 5 of 5 texts.\n")
    assert out.read_bytes() == whole


def test_it_does_not_go_on_with_other_settings(prompts, capsys, tmp_path):
    out = tmp_path / "out.jsonl"
    argv = ("--prompts", prompts, "--out", out)
    assert call(capsys, *argv, "-n", 9, "--seed", 3)[0] == 0
    whole = out.read_bytes()
    for more in (("-n", 8), ("-n", 9, "--seed", 4), ("-n", 9, "-t", 1), ("-n", 9, "--stop", "x")):
        code, _, said = call(capsys, *argv, *more)
        assert (code, said.count("\n")) == (3, 1)
        assert "has results of other requests" in said
    assert out.read_bytes() == whole


def test_without_a_file_the_texts_are_printed(stdin, capsys):
    stdin(b"abc\n\nnice\n")
    code, text, said = call(capsys, "--prompts", "-", "-n", 3, "--quiet")
    assert (code, said) == (0, "")
    found = [json.loads(line) for line in text.splitlines()]
    assert sorted((record["index"], record["prompt"]) for record in found) == [
        (0, "abc"),
        (1, "nice"),
    ]


def test_prompts_may_come_from_a_pipe_of_the_shell(capsys):
    reader, writer = os.pipe()
    os.write(writer, b"abc\n")
    os.close(writer)
    code, text, _ = call(capsys, "--prompts", f"/dev/fd/{reader}", "-n", 3)
    os.close(reader)
    assert (code, json.loads(text)["prompt"]) == (0, "abc")


def test_lines_of_json_and_a_summary(capsys, tmp_path):
    path, out = tmp_path / "p.JSONL", tmp_path / "out"
    path.write_text('{"prompt": "abc", "max_tokens": 2, "id": "x", "seed": 8}\n{"prompt": "a"}\n')
    code, text, _ = call(capsys, "--prompts", path, "--out", out, "-n", 5, "--json", "--seed", 1)
    assert code == 0
    summary = json.loads(text)
    assert [(r["id"], r["tokens"], r["seed"]) for r in records(out)] == [("x", 2, 8), (1, 5, 2)]
    assert {key: summary[key] for key in ("texts", "written", "found", "tokens", "seed")} == {
        "texts": 2, "written": 2, "found": 0, "tokens": 7, "seed": 1,
    }  # fmt: skip
    assert summary["finish_reasons"] == {"length": 2}
    assert summary["decode_tokens"] == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("abc\né\n", "line 2 of "),
        ("\n\n", "has no prompts"),
        ("abc\0", "is a binary file"),
    ],
)
def test_bad_prompts_are_told_before_anything_is_done(capsys, tmp_path, content, words):
    path, out = tmp_path / "p.txt", tmp_path / "out"
    path.write_text(content)
    code, text, said = call(capsys, "--prompts", path, "--out", out)
    assert (code, text, said.count("\n")) == (3, "", 1)
    assert words in said
    assert not out.exists() or out.read_bytes() == b""


def test_a_prompts_file_that_is_not_there(capsys, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "gone", tmp_path, tmp_path / "pipe", "x" * 5000):
        code, _, said = call(capsys, "--prompts", place, "--out", tmp_path / "out")
        assert (code, said.count("\n")) == (3, 1)
        assert str(place)[:99] in said
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--prompts", "f", "--prompt", "x"], "--prompts and --prompt "),
        (["--prompts", "f", "--chat"], "--prompts and --chat"),
        (["--prompts", "f", "--beam", "2"], "--prompts and --beam"),
        (["--prompts", "f", "--num-samples", "2"], "--prompts and --num-samples"),
        (["--prompts", "f", "--json"], "--prompts without --out and --json"),
        (["--out", "f"], "--out is for the texts of --prompts"),
        (["--prompts", "f", "--parallel", "0"], "--parallel is 0"),
        (["--quiet", "-v"], "--quiet and --verbose"),
    ],
)
def test_combinations_that_cannot_be(capsys, argv, words):
    code, _, said = call(capsys, *argv)
    assert (code, said.count("\n")) == (2, 1)
    assert words in said


def test_the_file_of_prompts_is_not_written_to(prompts, capsys, tmp_path):
    (tmp_path / "same").hardlink_to(prompts)
    before = prompts.read_bytes()
    for out in (prompts, tmp_path / "same"):
        code, _, said = call(capsys, "--prompts", prompts, "--out", out)
        assert (code, "same file" in said) == (2, True)
    assert prompts.read_bytes() == before


def test_what_is_not_seen_of_the_prompts_is_told(use, capsys, tmp_path):
    word = Tokenizer.train("word", ["a b c a b c"], 100)
    use(noise(word.vocab_size), word, seq_len=4)
    path = tmp_path / "p"
    path.write_text("a b c a b c\na zebra b\na\n")
    code, text, said = call(capsys, "--prompts", path, "-n", 1)
    assert code == 0
    assert said.splitlines()[:2] == [
        "1 prompt has more tokens than the context: only the newest 4 are read.",
        "1 word of the prompts is not in the vocabulary, and read as <unk>.",
    ]
    read = {r["index"]: r["prompt_tokens_read"] for r in map(json.loads, text.splitlines())}
    assert read[0] == 4


def test_progress_is_told(capsys, tmp_path, monkeypatch):
    clock = iter(np.arange(0.0, 1e6, 0.7).tolist())
    monkeypatch.setattr("crystalline.cli.infer_view.time.monotonic", lambda: next(clock))
    path = tmp_path / "p"
    path.write_text("a\n" * 10)
    argv = ("--prompts", path, "--out", tmp_path / "out", "--parallel", 1, "-n", 2)
    code, _, said = call(capsys, *argv)
    assert code == 0
    told = [line for line in said.splitlines() if "left" in line]
    assert told[0].startswith("3 of 10 texts (30%), ")
    assert "tokens/s, 5 s left" in told[0]
    assert len(told) == 4


def test_a_damaged_model_is_named_with_the_line(use, char, capsys, tmp_path):
    def rule(tokens):
        return noise(char.vocab_size)(tokens) * (np.nan if len(tokens) == 4 else 1)

    use(rule, char)
    path = tmp_path / "p"
    path.write_text("a\nabc\n")
    code, _, said = call(capsys, "--prompts", path, "-n", 2)
    assert code == 4
    assert f"line 2 of {path}: the model's logits are NaN" in said


def test_a_full_disk_leaves_whole_lines(prompts, capsys, tmp_path, monkeypatch):
    out = tmp_path / "out"
    argv = ("--prompts", prompts, "--out", out, "-n", 9, "--seed", 3)
    write, count = os.write, []

    def full(descriptor, data):
        count.append(1)
        if len(count) == 3:
            return write(descriptor, data[:20])
        if len(count) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr("crystalline.infer.batch.os.write", full)
    code, _, said = call(capsys, *argv)
    assert code == 1
    assert f"{out} cannot be written (No space left on device). Free some space. Then give" in said
    assert [record["index"] for record in records(out)] == [0, 1]
    assert call(capsys, *argv)[0] == 0
    assert len(records(out)) == 5


# --- verbose --------------------------------------------------------------------------------------


def test_verbose_says_what_was_opened(capsys):
    code, _, said = call(capsys, "-v", "-p", "abc", "-n", 2, "-t", 0)
    assert code == 0
    first, second = said.splitlines()[:2]
    assert first.startswith("model m/step-00000007: ")
    assert first.endswith(" parameters, context 16, char vocabulary of 17")
    assert second.startswith("loaded in ")
    assert "instruction-set level" in second


def test_short_flags_are_the_long_ones(capsys):
    short = call(capsys, "-p", "abc", "-n", 7, "-t", 1.5, "--seed", 2)
    assert (
        short[1]
        == call(capsys, "--prompt", "abc", "--max-tokens", 7, "--temperature", 1.5, "--seed", 2)[1]
    )
    assert InferSettings("m", parallel=3, num_samples=9).at_once() == 3
    assert InferSettings("m").at_once(2) == 2
    assert InferSettings("m", num_samples=99).at_once() == 16


# --- processes ------------------------------------------------------------------------------------


def test_a_stopped_batch_goes_on(tmp_path):
    """After Ctrl-C, and after a kill in the middle of whatever it was doing."""
    path, out = tmp_path / "p", tmp_path / "out"
    path.write_text("".join(f"{n}\n" for n in range(10, 40)))
    argv = [sys.executable, "-c", ENDLESS, "m", "--prompts", str(path), "--out", str(out)]

    def lines():
        return out.read_bytes().count(b"\n") if out.exists() else 0

    def run(stopped_by=None):
        before = lines()
        with subprocess.Popen(
            [*argv, "-n", "12", "--seed", "1", "--parallel", "3"],
            cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            deadline = time.monotonic() + 30
            while stopped_by and lines() == before and time.monotonic() < deadline:
                time.sleep(0.005)
            if stopped_by:
                process.send_signal(stopped_by)
            return process.wait(timeout=30), process.communicate()[1]

    code, errors = run(signal.SIGINT)
    assert code == 130
    assert f"{lines()} of 30 texts are in {out}; the same command goes on with the rest" in errors
    assert "Traceback" not in errors
    assert run(signal.SIGKILL)[0] == -signal.SIGKILL
    assert 0 < lines() < 30
    out.write_bytes(out.read_bytes() + b'{"index": 2')  # as a kill in the middle of a line
    code, errors = run()
    assert code == 0
    assert " of 30 texts; the last line was torn off" in errors
    assert [record["index"] for record in records(out)] == list(range(30))
    assert {record["text"] for record in records(out)} == {"cabcabcabcab"}


def test_stdin_prompts_cannot_be_read_twice(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, _, said = call(capsys, "--prompts", "-")
    assert code == 3
    assert "stdin has no prompts" in said
