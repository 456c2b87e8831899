"""cllm-train --eval-suite: best checkpoints are measured beside the run, whose bits stay."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from crystalline.cli.best_suite import BUILT_IN, BestSuite
from crystalline.cli.eval import main as evaluate
from crystalline.cli.train import main
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


def mark_best(run: Path) -> None:
    checkpoint = run / "checkpoints" / "step-00000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    (run / "best").symlink_to("checkpoints/step-00000003")


def test_each_best_checkpoint_is_measured(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(text), *SMALL, "--checkpoint-dir=plain"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main([str(text), *SMALL, "--checkpoint-dir=run", "--eval-suite=suite.txt"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["weights_sha256"] == plain["weights_sha256"]
    run = Path("run")
    assert "eval_suite" not in (run / "config.toml").read_text()
    best = (run / "best").readlink().name
    found = results(run)
    assert found[-1]["step"] == int(best[5:])
    assert f"{best}: talk: perplexity" in captured.err
    # The same figures as cllm-eval's own.
    assert evaluate([str(run / "best"), "--json", "--quiet", "--suite", "suite.txt"]) == 0
    groups = json.loads(capsys.readouterr().out)["models"][0]["groups"]
    assert found[-1]["groups"] == groups


def test_ctrl_c_in_the_last_measurement_leaves_the_run_whole(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: BestSuite) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BestSuite, "finish", interrupted)
    assert main([str(text), *SMALL, "--checkpoint-dir=run", "--eval-suite=suite.txt"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["final_step"] == 12
    assert "the last best checkpoint was given up" in captured.err


def test_a_file_that_is_no_suite_is_told_before_training(
    text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.txt").write_text("no question\n")
    assert main([str(text), *SMALL, "--checkpoint-dir=run", "--eval-suite=wrong.txt"]) == 3
    assert "wrong.txt" in capsys.readouterr().err
    assert not (Path("run") / "checkpoints").exists()
    assert main([str(text), *SMALL, "--checkpoint-dir=run", "--eval-suite=none.txt"]) == 3


def test_a_measurement_that_fails_is_told_and_stops_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    suite = BestSuite(tmp_path, BUILT_IN, told.append)
    suite.look()
    assert suite._process is None
    mark_best(tmp_path)  # of which nothing can be read
    suite.finish()
    assert told[0] == "measuring step-00000003 ..."
    assert told[1].startswith("step-00000003 was not measured: ")
    assert not (tmp_path / "suite.jsonl").exists()
    suite.look()
    assert suite._process is None  # once is enough


def test_what_was_best_before_is_not_measured_again(tmp_path: Path) -> None:
    mark_best(tmp_path)
    suite = BestSuite(tmp_path, BUILT_IN, lambda _: None)
    suite.look()
    assert suite._process is None


def test_no_process_is_left(tmp_path: Path) -> None:
    suite = BestSuite(tmp_path, BUILT_IN, lambda _: None)
    mark_best(tmp_path)
    began = time.monotonic()
    suite.look()
    assert time.monotonic() - began < 1.0  # it does not wait
    process = suite._process
    assert process is not None
    suite.close()
    assert process.returncode is not None
    suite.close()
