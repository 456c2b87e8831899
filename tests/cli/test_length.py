"""How long a run is: by steps, by epochs, by time and by plan; new, resumed, and made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from crystalline.cli import train as cli
from crystalline.cli.length import make_way, new_length, resumed_length
from crystalline.cli.settings import Layers
from crystalline.errors import UsageError
from crystalline.formats.checkpoint import MANIFEST, STATE, CheckpointInfo, inspect_checkpoint
from crystalline.formats.rundir import read_toml
from crystalline.model.config import ModelConfig
from crystalline.train.config import TrainConfig
from crystalline.train.metrics import read_metrics
from crystalline.train.plan import Plan

CONFIG = TrainConfig(batch_size=8, seq_len=30)  # 240 tokens a step, of 10,000: 42 steps an epoch
STORED = dataclasses.replace(CONFIG, max_steps=100).to_dict()


def speed(_: TrainConfig) -> float:
    return 2.0


def info(step: int, **state: Any) -> CheckpointInfo:
    return CheckpointInfo(step, ModelConfig(9, 8, 1, 1, 4), {}, state, Path(), Path(), None)


@pytest.mark.parametrize(
    ("settings", "plan", "steps", "seconds", "most"),
    [
        ({"max_steps": 7}, None, 7, None, None),
        ({"max_steps": 7, "epochs": 3.0}, None, 7, None, None),
        ({"epochs": 2.0}, None, 84, None, None),
        ({"minutes": 1.0}, "0:120", 120, 60.0, None),
        ({"minutes": 1.0, "epochs": 2.0}, "0:84", 84, 60.0, 84),
        ({"minutes": 1.0, "epochs": 50.0}, "0:120", 120, 60.0, 2084),
        ({"minutes": 1.0, "max_steps": 900}, "0:120", 120, 60.0, 900),
        ({"plan": "0:9,4:7", "max_steps": 7, "epochs": 50.0}, "0:9,4:7", 7, None, None),
    ],
)
def test_new(
    settings: dict[str, Any], plan: str | None, steps: int, seconds: float | None, most: int | None
) -> None:
    found = new_length(dataclasses.replace(CONFIG, **settings), 10_000, speed)
    assert (found.config.plan, found.config.max_steps) == (plan, steps)
    assert (found.seconds, found.most_steps) == (seconds, most)


def resumed(
    given: dict[str, Any], stored: dict[str, Any], step: int, argv: str = "", **state: Any
) -> tuple[Any, ...]:
    config = dataclasses.replace(CONFIG, **given)
    found = resumed_length(
        config, {**STORED, **stored}, argv.split(), info(step, **state), 10_000, speed
    )
    config = found.config
    return config.plan, config.max_steps, config.minutes, found.seconds, found.most_steps


@pytest.mark.parametrize(
    ("given", "stored", "expected"),
    [
        ({}, {}, (None, 100, None, None, None)),
        ({"max_steps": 100}, {}, (None, 100, None, None, None)),
        ({"max_steps": 300}, {}, ("0:100,40:300", 300, None, None, 300)),
        ({"max_steps": 50}, {}, ("0:100,40:50", 50, None, None, 50)),
        ({"epochs": 2.0}, {}, ("0:100,40:84", 84, None, None, 84)),
        ({"minutes": 1.0}, {}, ("0:100,40:160", 160, 1.0, 60.0, None)),
        ({"minutes": 1.0, "epochs": 2.0}, {}, ("0:100,40:84", 84, 1.0, 60.0, 84)),
        (
            {"max_steps": 300},
            {"plan": "0:200,30:100"},
            ("0:200,30:100,40:300", 300, None, None, 300),
        ),
        ({}, {"plan": "0:200,30:100"}, ("0:200,30:100", 100, None, None, None)),
        # A run of one minute that has had 45 seconds: it goes on by time, unless steps are given.
        ({}, {"minutes": 1.0}, ("0:100", 100, 1.0, 15.0, None)),
        ({"max_steps": 300}, {"minutes": 1.0}, ("0:100,40:300", 300, None, None, 300)),
        ({"minutes": 2.0}, {"minutes": 1.0}, ("0:100,40:280", 280, 2.0, 120.0, None)),
    ],
)
def test_resumed_after_40_steps(
    given: dict[str, Any], stored: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    assert resumed(given, stored, 40, seconds=45.0) == expected


def test_as_many_minutes_again_are_a_new_time() -> None:
    again = resumed({"minutes": 1.0}, {"minutes": 1.0}, 40, "--minutes 1", seconds=58.0)
    assert again == ("0:100,40:160", 160, 1.0, 60.0, None)


def test_a_later_session_counts_its_own_time() -> None:
    """The run has had 300 seconds in all, of the newest minute 20."""
    state = {"seconds": 300.0, "seconds_left": 40.0, "most_steps": 500}
    assert resumed({}, {"minutes": 1.0}, 40, **state) == ("0:100", 100, 1.0, 40.0, 500)


def test_what_is_too_short_or_changes_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="has done 40 steps, more than the 39 wanted"):
        resumed({"max_steps": 39}, {}, 40)
    with pytest.raises(UsageError, match="differs from the 0:100 of the run"):
        resumed({"plan": "0:100,50:90"}, {}, 40)
    with pytest.raises(UsageError, match="come down to 0 at step 100") as caught:
        resumed({"max_steps": 200, "min_lr": 0.0}, {}, 100)
    assert "--min-lr" in caught.value.advice


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["seed"], {"plan", "max_steps", "minutes"}),
        (["minutes"], {"minutes"}),
        (["epochs"], {"minutes"}),
        (["max_steps"], {"minutes"}),
        (["plan"], set()),
    ],
)
def test_a_length_makes_a_plan_below_it_void(given: list[str], left: set[str]) -> None:
    layers = Layers({"plan": "0:9,4:7", "max_steps": 7, "minutes": 1.0, "seed": 4})
    make_way(layers, given)
    assert set(layers.values) - {"seed"} == left


# --- whole commands -------------------------------------------------------------------------------

_TINY = """--tokenizer char --num-layers 1 --num-heads 2 --embed-dim 12 --seq-len 9 --batch-size 13
    --log-interval 1 --workers 2 --plain --json"""
TINY = _TINY.split()


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLLM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog, and again; " * 60)
    return path


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
