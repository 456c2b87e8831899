"""Going back in real runs: bits as resumed, crystal and all; what is foreign is refused."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from crystalline.data.prepare import PreparedData, prepare
from crystalline.formats.checkpoint import list_checkpoints, resolve
from crystalline.formats.kept import named_checkpoints
from crystalline.train.launcher import train
from crystalline.train.metrics import read_metrics
from crystalline.train.spec import RunResult, RunSpec
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import OUTSIDE
from tests.train.real_runs import TIMES, run, spec

pytestmark = pytest.mark.timeout(100)

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "crystalline": {
        "crystalline_epsilon": 0.2, "attention": "crystalline", "discovery_interval": 1,
    },
    "llama": {"architecture": "llama", "optimizer": "sgd"},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 7))) for _ in range(40)]
    (folder / "text.txt").write_text(" ".join(draw.choices(words, k=6000)))
    return prepare(
        [folder / "text.txt"], kind="char", vocab_size=300, val_fraction=0.1,
        cache_dir=folder / "cache",
    )  # fmt: skip


def asked(spec: RunSpec, *wishes: tuple[int, str]) -> RunResult:
    """Train, and ask for things, each at or behind its step."""
    waiting, step = list(wishes), 0

    def watch(snapshot: Snapshot) -> None:
        nonlocal step
        step = snapshot.step

    def actions() -> list[str]:
        return [waiting.pop(0)[1]] if waiting and step >= waiting[0][0] else []

    return train(spec, on_snapshot=watch, poll_actions=actions, interval_s=0.002)


def told(run_dir: Path) -> list[dict[str, Any]]:
    """Return the metrics without times, and without what was asked."""
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [
        {key: value for key, value in line.items() if key not in TIMES}
        for line in lines
        if line.get("event") not in OUTSIDE
    ]


def answers(run_dir: Path) -> list[dict[str, Any]]:
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [line for line in lines if line.get("event") == "request"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_that_goes_back_computes_what_a_resumed_one_does(
    data: PreparedData, tmp_path: Path, shape: str
) -> None:
    settings = {"max_steps": 40, "eval_interval": 10, "save_interval": 10, **SHAPES[shape]}
    plain = spec(data, tmp_path, **settings)
    result = asked(plain, (24, "restore=10"))
    (answer,) = answers(tmp_path)
    assert answer["ok"], answer["told"]
    assert answer["step"] == 10
    lines = told(tmp_path)
    resumed = run(
        dataclasses.replace(plain, workers=5, resume_from=resolve(tmp_path, "step-00000010"))
    )
    assert resumed.weights_sha256 == result.weights_sha256
    assert told(tmp_path) == lines
    assert result.final_step == 40
    assert resolve(tmp_path, "latest").name == "step-00000040"


def test_it_goes_back_by_name_and_the_name_survives_pruning(
    data: PreparedData, tmp_path: Path
) -> None:
    settings = {"max_steps": 60, "eval_interval": 0, "save_interval": 5, "keep": 1}
    asked(
        spec(data, tmp_path, **settings),
        (12, "checkpoint=before"), (30, "restore=before"), (50, "restore=nowhere"),
    )  # fmt: skip
    kept = named_checkpoints(tmp_path)["before"]
    back, nowhere = [a for a in answers(tmp_path) if a["command"] == "restore"]
    assert back["step"] == int(kept.name[5:])
    assert "has no checkpoint 'nowhere'" in nowhere["told"]
    assert {path.name for path in list_checkpoints(tmp_path)} == {
        kept.name, "step-00000060", *({resolve(tmp_path, "best").name}),
    }  # fmt: skip


def test_a_damaged_and_a_foreign_one_are_refused_and_change_nothing(
    data: PreparedData, tmp_path: Path
) -> None:
    settings = {"max_steps": 40, "eval_interval": 0, "save_interval": 10}
    undisturbed = run(spec(data, tmp_path / "plain", **settings))
    other = tmp_path / "other"
    run(spec(data, other, **{**settings, "max_steps": 10, "embed_dim": 12}))
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    (other / "checkpoints/step-00000010").rename(path / "checkpoints/step-00000003")
    damaged: list[Path] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.step > 12 and not damaged:
            weights = path / "checkpoints/step-00000010/model.safetensors"
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
            damaged.append(weights)

    waiting = ["restore=10", "restore=3", "restore=7"]

    def actions() -> list[str]:
        return [waiting.pop(0)] if damaged and waiting else []

    result = train(
        spec(data, path, **settings), on_snapshot=watch, poll_actions=actions, interval_s=0.002
    )
    first, second, third = answers(path)
    assert [answer["ok"] for answer in (first, second, third)] == [False] * 3
    assert "is damaged: model.safetensors" in first["told"]
    assert "step-00000003" in second["told"]
    assert "has no checkpoint '7'" in third["told"]
    assert result.weights_sha256 == undisturbed.weights_sha256
