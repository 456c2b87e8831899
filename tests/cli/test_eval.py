"""cllm-eval with a fake model: the table, the comparison, JSON, and what cannot be."""

from __future__ import annotations

import json

import pytest

from crystalline.cli.eval import main
from crystalline.data.tokenizer import Tokenizer
from crystalline.infer.loading import Model
from tests.infer.fake_model import FakeDecoder, noise


@pytest.fixture
def call(capsys):
    def call(*argv):
        capsys.readouterr()
        code = main(list(map(str, argv)))
        return code, *capsys.readouterr()

    return call


@pytest.fixture(autouse=True)
def asked(monkeypatch, byte):
    """Models whose logits depend on their name; returns what was asked for."""
    found = []

    def open_model(place, *, checkpoint=None, slots=1, **_formats):
        found.append((str(place), checkpoint, slots))
        scale = 1.0 if "first" in str(place) else 0.1

        def rule(tokens):
            return scale * noise(257)(tokens)

        decoder = FakeDecoder(rule, vocab_size=257, seq_len=128, slots=slots)
        return Model(place / "step-00000007", decoder, byte, "best")

    monkeypatch.setattr("crystalline.infer.loading.open_model", open_model)
    return found


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "suite.jsonl"
    path.write_text(
        '{"group": "code", "prompt": "p\\n", "answer": "x = 1"}\n'
        '{"group": "mine", "prompt": "q", "answer": "yes"}\n{"group": "mine", "prompt": "r"}\n'
    )
    return path


def test_one_model_is_a_table(call, suite, asked):
    code, text, said = call("first", "--suite", suite, "-n", 80)
    assert code == 0
    head, *rows = text.splitlines()
    assert head == "first/step-00000007"
    assert rows[0] == "code, 1 prompt"
    assert rows[1].split()[:3] == ["perplexity", "of", "answers"]
    assert [row.strip().rsplit(None, 1)[0] for row in rows[1:8]] == [
        "perplexity of answers",
        "bits per byte",
        "distinct words",
        "distinct pairs",
        "code that parses",
        "tokens per text",
        "characters per text",
    ]
    assert rows[8] == "mine, 2 prompts"
    assert not [row for row in rows[9:] if "parses" in row]
    assert max(map(len, rows)) <= 80
    assert said == "checkpoint step-00000007 (best)\n"
    assert asked == [("first", None, 3)]


def test_two_models_are_compared(call, suite):
    code, text, _ = call("first", "second", "--suite", suite, "-n", 8)
    assert code == 0
    rows = text.splitlines()
    assert rows[:2] == ["A  first/step-00000007", "B  second/step-00000007"]
    assert rows[2].split() == ["A", "B", "change"]
    cells = {row[:24].strip(): row[24:].split() for row in rows[4:11]}
    first, second, change = cells["perplexity of answers"]
    assert float(first) > float(second)
    assert change == f"{100 * (float(second) / float(first) - 1):+.1f}%"
    assert cells["code that parses"][-1] == "pp"
    assert max(map(len, rows)) <= 80


def test_json_has_every_figure(call, suite):
    code, text, said = call("first", "second", "--suite", suite, "--json", "--quiet", "-t", 0)
    assert (code, said, text.count("\n")) == (0, "", 1)
    answer = json.loads(text)
    assert (answer["suite"], answer["temperature"], answer["seed"]) == (str(suite), 0, 0)
    assert [model["model"] for model in answer["models"]] == [
        f"{name}/step-00000007" for name in ("first", "second")
    ]
    group = answer["models"][0]["groups"]["mine"]
    assert group["questions"] == 2
    assert group["perplexity"] > 1
    assert group["parses"] is None
    assert set(group) >= {"distinct_1", "distinct_2", "tokens", "chars", "bits_per_byte"}


def test_the_built_in_suite(call, asked):
    code, text, _ = call("first", "-n", 4, "--parallel", 5)
    assert code == 0
    assert [row for row in text.splitlines() if not row.startswith(" ")] == [
        "first/step-00000007",
        "code, 8 prompts",
        "questions, 8 prompts",
    ]
    assert asked[0][2] == 5


def test_prompts_that_are_left_out_are_told(call, suite, monkeypatch):
    char = Tokenizer.train("char", ["pqrx\n =1"], 0)

    def open_model(place, **_):
        decoder = FakeDecoder(
            noise(char.vocab_size), vocab_size=char.vocab_size, seq_len=64, slots=2
        )
        return Model(place, decoder, char)

    monkeypatch.setattr("crystalline.infer.loading.open_model", open_model)
    code, _, said = call("m", "--suite", suite, "-n", 2)
    assert code == 0
    assert said == (
        "1 of the 2 prompts of mine are left out: the tokenizer lacks their characters.\n"
    )


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "no model"),
        (["m", "-n", "0"], 2, "--max-tokens is 0"),
        (["m", "-t", "-1"], 2, "--temperature is -1"),
        (["m", "--parallel", "0"], 2, "--parallel is 0"),
        (["m", "n", "--checkpoint", "best"], 2, "--checkpoint"),
        (["m", "n", "o"], 2, "o"),
        (["m", "--suite", "gone.jsonl"], 3, "gone.jsonl cannot be read"),
        (["m", "--suite", "."], 3, "it is a folder"),
    ],
)
def test_mistakes_are_one_sentence(call, argv, code, words):
    found, text, said = call(*argv)
    assert (found, text, said.count("\n")) == (code, "", 1)
    assert said.startswith("cllm-eval: error: ")
    assert words in said


def test_help_names_the_command(call):
    code, text, _ = call("--help")
    assert code == 0
    assert "usage: cllm-eval" in text
    assert "--suite" in text
