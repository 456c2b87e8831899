"""Training Llama and Qwen3: the same bits on any number of workers, through kills and resumes."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from crystalline._kernels.formats import trains
from crystalline.data.prepare import PreparedData
from crystalline.formats.checkpoint import load_model, resolve
from crystalline.formats.sources import open_source
from crystalline.model.decode import Decoder
from crystalline.train.launcher import train
from crystalline.train.stats import Snapshot
from tests.train.real_runs import inflected_text, metrics, prepare_text, run, serial_run, spec

pytestmark = pytest.mark.timeout(120)

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "architecture": "llama", "num_kv_heads": 1, "head_size": 10, "mlp_dim": 37,
        "tie_embeddings": False, "embed_dim": 24, "num_heads": 2,
    },
    "qwen3": {"architecture": "qwen3", "num_kv_heads": 2, "embed_dim": 32, "num_heads": 4,
              "sliding_window": 9, "attention": "crystalline"},
}  # fmt: skip
SHORT = {"max_steps": 12, "eval_interval": 4, "save_interval": 4, "batch_size": 26}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_text(tmp_path_factory.mktemp("text"), inflected_text(), "word", 150)


def settings_of(name: str, precision: str) -> dict[str, Any]:
    return {**SHORT, **SHAPES[name], "precision": precision}


@pytest.mark.parametrize("precision", [one for one in ("float32", "bf16") if trains(one)])
@pytest.mark.parametrize("name", SHAPES)
def test_any_workers_kills_and_resumes_end_in_the_same_bits(
    name: str, precision: str, data: PreparedData, tmp_path: Path
) -> None:
    settings = settings_of(name, precision)
    expected = serial_run(spec(data, tmp_path / "serial", **settings))
    alone = run(spec(data, tmp_path / "one", workers=1, permits=1, **settings))
    assert alone.weights_sha256 == expected
    many = run(spec(data, tmp_path / "many", workers=13, permits=3, **settings))
    assert many.weights_sha256 == expected
    assert metrics(tmp_path / "many") == metrics(tmp_path / "one")

    killed: list[int] = []
    draw = random.Random(3)

    def kill_one(snapshot: Snapshot) -> None:
        alive = [s for s in snapshot.spheres if s.pid and s.state not in ("dead", "retired")]
        if snapshot.state == "training" and alive and len(killed) < 2:
            victim = draw.choice(alive).pid
            if psutil.pid_exists(victim):
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
                time.sleep(0.05)

    slow = spec(data, tmp_path / "killed", workers=4, jitter_s=0.004, **settings)
    assert train(slow, on_snapshot=kill_one, interval_s=0.12).weights_sha256 == expected
    assert killed

    middle = tmp_path / "many" / "checkpoints" / "step-00000008"
    again = spec(data, tmp_path / "again", workers=2, resume_from=middle, **settings)
    assert run(again).weights_sha256 == expected


@pytest.mark.parametrize("name", SHAPES)
def test_training_lowers_the_loss_and_the_checkpoint_writes(
    name: str, data: PreparedData, tmp_path: Path
) -> None:
    settings = {
        **SHAPES[name], "max_steps": 90, "eval_interval": 30, "dropout": 0.0, "learning_rate": 3e-2,
    }  # fmt: skip
    run(spec(data, tmp_path, **settings))
    losses = [line["val_loss"] for line in metrics(tmp_path) if "val_loss" in line]
    assert losses[-1] < math.log(data.vocab_size) - 0.4  # words are drawn: there is not much more
    folder = resolve(tmp_path)
    source = open_source(tmp_path)
    assert source.config == load_model(folder).config
    with source.weights() as read:
        decoder = Decoder(source.config, read, features=features_of(source), threads=1)
    assert decoder.extend([0], [[1, 2, 3]]).shape == (1, source.config.vocab_size)


def features_of(source: Any) -> Any:
    if source.config.attention == "standard":
        return None
    from crystalline.data.crystal.features import token_features
    from crystalline.data.crystal.tokens import Crystal

    return token_features(Crystal.load(source.crystal_path))
