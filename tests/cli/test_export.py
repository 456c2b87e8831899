"""cllm-export: what it prints, where it writes, and what cannot be."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from crystalline.cli import export
from crystalline.cli.infer_view import Progress
from crystalline.data.prepare import prepare
from crystalline.data.tokenizer import Tokenizer
from crystalline.formats.sources import open_source
from tests.runs.exports import TEXT, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "novel", steps=(5, 10))


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path / "cache"))

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = export.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_it_says_what_it_wrote(call, run: Path) -> None:
    code, out, err = call(run)
    assert (code, err) == (0, "checkpoint step-00000005 (best)\n")
    size = Path("novel-f32.gguf").stat().st_size
    assert out == f"novel-f32.gguf: GGUF, f32, 119,040 parameters, {size / 1e6:.1f} MB\n"
    code, out, err = call(run, "--type", "q4_0", "--checkpoint", "latest")
    assert code == 0
    assert re.fullmatch(
        r"novel-step-00000010-q4_0\.gguf: GGUF, q4_0 \(1 q8_0, 19 f32 of 28 tensors\),"
        r" 119,040 parameters, 0\.\d MB\n",
        out,
    )
    assert err == "What q4_0 costs in quality, --measure TEXT tells.\n"


def test_a_folder_by_its_name(call, run: Path) -> None:
    code, out, _ = call(run, "-o", "model/", "--type", "bf16", "--quiet")
    assert code == 0
    assert out.startswith("model: Hugging Face's layout, bf16, 119,040 parameters, 0.")
    assert open_source(Path("model")).config.num_layers == 2


def test_the_cost_stands_under_it(call, run: Path) -> None:
    Path("text.txt").write_text(TEXT * 4)
    code, out, err = call(run, "--type", "q8_0", "--measure", "text.txt", "--quiet")
    assert (code, err) == (0, "")
    wrote, cost = out.splitlines()
    assert wrote.startswith("novel-q8_0.gguf: ")
    assert re.fullmatch(r"q8_0: perplexity [\d.]+, float32 [\d.]+ \([+-]\d\.\d\d %\)", cost)


def test_a_run_is_measured_on_what_it_held_out(call, tmp_path: Path) -> None:
    Path("text.txt").write_text(TEXT * 200)
    prepared = prepare(["text.txt"], kind="byte", vocab_size=257, val_fraction=0.1)
    own = make_run(
        tmp_path / "own",
        tokenizer=Tokenizer.load(prepared.tokenizer_path),
        state={"tokens_sha256": prepared.tokens_sha256},
    )
    code, out, err = call(own, "--type", "q4_0")
    assert code == 0
    assert "\nq4_0: perplexity " in out
    assert f"measured on {prepared.val_tokens - 1:,} tokens that the run held out\n" in err
    assert "--measure" not in err


def test_json_has_every_figure(call, run: Path) -> None:
    Path("text.txt").write_text(TEXT * 4)
    code, out, _ = call(run, "--type", "q8_0", "--measure", "text.txt", "--json")
    assert code == 0
    told = json.loads(out)
    measured = told.pop("measured")
    assert told == {
        "model": str(run / "checkpoints" / "step-00000005"),
        "out": "novel-q8_0.gguf",
        "to": "gguf",
        "type": "q8_0",
        "bytes": Path("novel-q8_0.gguf").stat().st_size,
        "parameters": 119_040,
        "tensors": {"q8_0": 9, "f32": 19},
    }
    rise = measured["perplexity"] / measured["float32_perplexity"] - 1
    assert measured["change"] == rise
    assert measured["tokens"] > 50
    code, out, _ = call(run, "--json")
    assert json.loads(out)["measured"] is None


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "no model is given. Name a run directory or a model folder, as in: cllm-export"),
        (["RUN", "--to", "hf", "--type", "q8_0"], 2, "--type q8_0 cannot be had in a folder"),
        (["RUN", "--out", "m", "--type", "f16"], 2, "--type f16 cannot be had in a folder"),
        (["RUN", "--to", "hf", "--out", "m.gguf"], 2, "--to hf makes a folder"),
        (["RUN", "--type", "q5_0"], 2, "q5_0"),
        (["RUN", "--to", "onnx"], 2, "onnx"),
        (["RUN", "--out", ""], 2, "is no name of a file"),
        (["RUN", "--out", "taken.gguf"], 2, "taken.gguf is there already. Name another"),
        (["RUN", "--out", "no/m.gguf"], 2, "no is no folder. Make it first"),
        (["RUN", "--out", "x" * 300 + ".gguf"], 1, "File name too long"),
        (["gone"], 4, "gone"),
        (["RUN", "--checkpoint", "step-00000099"], 4, "step-00000099"),
        (["RUN", "--measure", "gone.txt"], 3, "gone.txt does not exist"),
        (["RUN", "--measure", "."], 3, ". is a folder"),
        (["RUN", "--measure", "empty.txt"], 3, "the text to measure has 0 tokens"),
        (["RUN", "other"], 2, "other"),
    ],
)
def test_mistakes_are_one_sentence(call, run: Path, argv: list[str], code: int, words: str) -> None:
    Path("taken.gguf").write_text("mine")
    Path("empty.txt").write_text("")
    found, out, err = call(*[run if word == "RUN" else word for word in argv])
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("cllm-export: error: ")
    assert words in err
    assert sorted(os.listdir()) == ["empty.txt", "taken.gguf"]
    assert Path("taken.gguf").read_text() == "mine"


def test_long_work_is_told(call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def update(self: Progress, done: int, total: int) -> None:
        seen.append((self._unit, done, total))

    monkeypatch.setattr(Progress, "update", update)
    Path("text.txt").write_text(TEXT * 4)
    assert call(run, "--measure", "text.txt")[0] == 0
    written = [entry for entry in seen if entry[0] == "MB"]
    measured = [entry for entry in seen if entry[0] == "tokens"]
    assert seen == written + measured
    assert written[-1][1:] == (1, 1)  # never of 0
    assert measured[-1][1] == measured[-1][2] > 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("out", ["m.gguf", "folder"])
def test_what_is_stopped_leaves_nothing(
    call, run: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, out: str
) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    def stop(*_: object) -> None:
        assert os.listdir() != []  # something is being written
        signal.raise_signal(number)

    monkeypatch.setattr(Progress, "update", stop)
    assert call(run, "--out", out) == (code, "", "")
    assert os.listdir() == []
    after = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == handlers


def test_help_names_the_command_and_fits(call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert "usage: cllm-export" in out
    assert "cllm-export RUN --type q8_0" in out
    assert "(default: by the name of --out, else gguf)" in " ".join(out.replace("│", "").split())
    assert max(map(len, out.splitlines())) <= 80
