"""cllm-train --eval-suite: what is told and written; how it is done is in tests/runs/test_suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crystalline.cli.train import main
from crystalline.formats.rundir import read_toml
from tests.train.real_runs import inflected_text

pytestmark = pytest.mark.timeout(120)

SMALL = [
    "--tokenizer=char", "--num-layers=1", "--num-heads=2", "--embed-dim=16", "--seq-len=32",
    "--max-steps=12", "--eval-interval=6", "--warmup-steps=2", "--learning-rate=1e-2",
    "--workers=2", "--plain", "--json",
]  # fmt: skip


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(inflected_text())
    questions = [
        {"group": "talk", "prompt": "ba", "answer": "da"},
        {"group": "talk", "prompt": "a"},
    ]
    (tmp_path / "suite.txt").write_text("".join(json.dumps(q) + "\n" for q in questions))
    return tmp_path / "text.txt"


def results(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "suite.jsonl").read_text().splitlines()]


def test_the_best_checkpoint_is_measured(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(text), *SMALL, "--checkpoint-dir=run", "--eval-suite=suite.txt"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["final_step"] == 12
    run = Path("run")
    assert read_toml(run / "config.toml")["eval_suite"] == str(text.with_name("suite.txt"))
    best = (run / "best").readlink().name
    found = results(run)
    assert found[-1]["step"] == int(best[5:])
    assert f"Suite at step {int(best[5:])}: talk: perplexity" in captured.err
    assert list(found[-1]["groups"]) == ["talk"]


def test_a_file_that_is_no_suite_is_told_before_training(
    text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.txt").write_text("no question\n")
    assert main([str(text), *SMALL, "--checkpoint-dir=run", "--eval-suite=wrong.txt"]) == 3
    assert "wrong.txt" in capsys.readouterr().err
    assert not Path("run").exists()
    assert main([str(text), *SMALL, "--checkpoint-dir=run", "--eval-suite=none.txt"]) == 3
