"""What the tests of commands share: for cllm-infer a fake model in the place of any and a standard
input, for cllm-train a text and the command in this process."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from crystalline.cli import train as cli
from crystalline.data.tokenizer import Tokenizer
from crystalline.infer.loading import Model
from tests.infer.fake_model import FakeDecoder
from tests.surroundings import TEXT

CHARS = "\n :Aabceinrstuw."


@pytest.fixture
def use(monkeypatch):
    """Put a fake model in the place of any; returns a list of what was asked for."""

    def install(rule, tokenizer, seq_len=64, choice=""):
        asked = []

        def open_model(place, *, checkpoint=None, slots=1, **_formats):
            asked.append((place, checkpoint, slots))
            decoder = FakeDecoder(
                rule, vocab_size=tokenizer.vocab_size, seq_len=seq_len, slots=slots
            )
            return Model(place / "step-00000007", decoder, tokenizer, choice)

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


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def call_train(capsys):
    """Run cllm-train in this process; return (exit code, stdout, stderr)."""

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
