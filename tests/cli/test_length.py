"""How long a run is, as commands are given it: by time and by plan, extended, and made again."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from crystalline.cli import train as cli
from crystalline.formats.checkpoint import MANIFEST, STATE, inspect_checkpoint
from crystalline.formats.rundir import read_toml
from crystalline.train.metrics import read_metrics
from crystalline.train.plan import Plan

_TINY = """--tokenizer char --num-layers 1 --num-heads 2 --embed-dim 12 --seq-len 9 --batch-size 13
    --log-interval 1 --workers 2 --plain --json"""
TINY = _TINY.split()


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*argv: object) -> dict[str, Any]:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return {**json.loads(captured.out), "err": captured.err}

    return call


def rates(run: Path) -> list[float]:
    return [line["lr"] for line in read_metrics(run / "metrics.jsonl") if "lr" in line]


def test_a_timed_run_is_made_again_by_its_config(call: Any, text: Path, tmp_path: Path) -> None:
    first = call(text, *TINY, "--minutes", 0.02, "--checkpoint-dir", tmp_path / "a")
    assert first["seconds"] < 2.0  # some steps may be held up
    stored = read_toml(tmp_path / "a" / "config.toml")
    assert Plan.parse(stored["plan"]).max_steps == stored["max_steps"] == first["final_step"]
    assert inspect_checkpoint(tmp_path / "a" / "latest").train_config["plan"] == stored["plan"]
    config = tmp_path / "a" / "config.toml"
    again = call("--config", config, "--checkpoint-dir", tmp_path / "b", "--plain", "--json")
    assert again["weights_sha256"] == first["weights_sha256"]
    replay = read_toml(tmp_path / "b" / "config.toml")
    assert replay["plan"] == stored["plan"]
    assert "minutes" not in replay  # it is carried out, not fitted to the time
    other = call("--config", config, "--max-steps", 3, "--checkpoint-dir", tmp_path / "c", "--json")
    assert other["final_step"] == 3


def test_extending_a_short_run_goes_on_with_its_rate(call: Any, text: Path, tmp_path: Path) -> None:
    """The warm-up of 20 steps is 2; more steps do not begin a warm-up of 100."""
    run = tmp_path / "run"
    call(
        text, *TINY, "--max-steps", 20, "--save-interval", 10, "--keep", 9, "--checkpoint-dir", run
    )
    before = rates(run)
    call("--resume", run, "--max-steps", 40, "--plain", "--json")
    assert rates(run)[:20] == before
    assert rates(run)[20:] == pytest.approx([1e-4] * 20)
    checkpoint = run / "checkpoints" / "step-00000010"
    call("--resume", checkpoint, "--max-steps", 40, "--plain", "--json")
    after = rates(run)
    assert after[:10] == before[:10]
    assert all(a >= b for a, b in pairwise(after[3:]))
    assert max(abs(a - b) for a, b in pairwise(after[3:])) < 1e-4
    assert read_toml(run / "config.toml")["plan"] == "0:20,10:40"
    call("--resume", run, "--plain", "--json")  # finished: says its result again


def test_an_evaluation_is_bounded_and_the_same_on_resuming(
    call: Any, text: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = ("--max-steps", 20, "--eval-interval", 10, "--eval-tokens", 40)
    first = call(text, *TINY, *flags, "--checkpoint-dir", run)
    assert first["val_tokens"] == 45  # five windows of nine
    assert "over 45 of 336 held-out tokens" in first["err"]
    lines = [n for n in read_metrics(run / "metrics.jsonl") if "val_loss" in n]
    assert [n["val_tokens"] for n in lines] == [45, 45]
    again = call("--resume", run / "checkpoints/step-00000010", "--plain", "--json")
    assert (again["val_loss"], again["val_tokens"]) == (first["val_loss"], 45)
    whole = call(
        text, *TINY, "--max-steps", 1, "--eval-tokens", "all", "--checkpoint-dir", tmp_path / "w"
    )
    assert whole["val_tokens"] == 335
    assert read_toml(tmp_path / "w" / "config.toml")["eval_tokens"] == 0


def test_a_run_of_before_evaluations_were_bounded_evaluates_all(
    call: Any, text: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    call(text, *TINY, "--max-steps", 5, "--eval-tokens", 40, "--checkpoint-dir", run)
    checkpoint = (run / "latest").resolve()
    document = json.loads((checkpoint / STATE).read_text())
    for name in ("plan", "eval_tokens"):
        del document["train"][name]
    del document["state"]["val_tokens"]
    content = json.dumps(document).encode()
    (checkpoint / STATE).write_bytes(content)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][STATE] = {"size_bytes": len(content), "sha256": digest}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    assert call("--resume", run, "--max-steps", 8, "--plain", "--json")["val_tokens"] == 335
