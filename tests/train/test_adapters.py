"""Training adapters: the same bits on any number of workers, through kills and resumes.

And what the run is worth: the loss falls, the model beside them stays as it was, and what reads the
run reads the sum of both.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline._kernels.formats import trains
from crystalline.data.prepare import PreparedData
from crystalline.formats.checkpoint import load_checkpoint, resolve
from crystalline.formats.sources import open_source
from crystalline.model.adapters import AdapterConfig, adapter_table, adapters
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from crystalline.runs.door import resume as resume_run
from crystalline.runs.door import train as train_run
from crystalline.runs.model import load
from crystalline.train.launcher import train
from crystalline.train.spec import RunSpec
from crystalline.train.stats import Snapshot
from tests.train.real_runs import inflected_text, metrics, prepare_text, run, serial_run, spec

pytestmark = pytest.mark.timeout(120)

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"embed_dim": 36, "num_heads": 3, "dropout": 0.1},
    "llama": {
        "architecture": "llama", "num_kv_heads": 1, "head_size": 10, "mlp_dim": 37,
        "tie_embeddings": False, "embed_dim": 24, "num_heads": 2,
    },
}  # fmt: skip
SHORT = {"max_steps": 12, "eval_interval": 4, "save_interval": 4, "batch_size": 26}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_text(tmp_path_factory.mktemp("text"), inflected_text(), "word", 150)


@pytest.fixture(scope="module", params=SHAPES)
def base(
    request: pytest.FixtureRequest, data: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A model that has hardly learned anything: its shape by name, and its run."""
    run_dir = tmp_path_factory.mktemp("base")
    run(spec(data, run_dir, **{**SHORT, "max_steps": 3}, **SHAPES[request.param]))
    return request.param, run_dir


def tuned(data: PreparedData, base: tuple[str, Path], run_dir: Path, **changes: Any) -> RunSpec:
    """What trains adapters beside the base, which is where a run keeps it."""
    settings = {**SHORT, **SHAPES[base[0]], "lora_rank": 3, "lora_alpha": 12.0, "init_from": "base"}
    made = spec(data, run_dir, **{**settings, **changes})
    kept = run_dir / "base"
    if not kept.exists():
        open_source(base[1]).keep_base(run_dir, made.model)
    return dataclasses.replace(made, init_from=kept)


@pytest.mark.parametrize("precision", [one for one in ("float32", "bf16") if trains(one)])
def test_any_workers_kills_and_resumes_end_in_the_same_bits(
    precision: str, base: tuple[str, Path], data: PreparedData, tmp_path: Path
) -> None:
    settings = {"precision": precision}
    expected = serial_run(tuned(data, base, tmp_path / "serial", **settings))
    alone = run(tuned(data, base, tmp_path / "one", workers=1, permits=1, **settings))
    assert alone.weights_sha256 == expected
    many = run(tuned(data, base, tmp_path / "many", workers=13, permits=3, **settings))
    assert many.weights_sha256 == expected
    assert metrics(tmp_path / "many") == metrics(tmp_path / "one")
    killed: list[int] = []

    def kill_one(snapshot: Snapshot) -> None:
        busy = [s.pid for s in snapshot.spheres if s.state in ("compute", "reduce", "update")]
        if snapshot.state == "training" and busy and len(killed) < 2 and snapshot.step < 10:
            os.kill(busy[0], signal.SIGKILL)
            killed.append(busy[0])

    slow = tuned(data, base, tmp_path / "killed", workers=4, jitter_s=0.004, **settings)
    assert train(slow, on_snapshot=kill_one, interval_s=0.12).weights_sha256 == expected
    assert killed
    middle = tmp_path / "many" / "checkpoints" / "step-00000008"
    again = tuned(data, base, tmp_path / "many", workers=2, resume_from=middle, **settings)
    assert run(again).weights_sha256 == expected


def test_what_is_read_is_the_model_and_its_adapters(
    base: tuple[str, Path], data: PreparedData, tmp_path: Path
) -> None:
    made = tuned(data, base, tmp_path, max_steps=60, learning_rate=3e-2, dropout=0.0)
    run(made)
    before, after = open_source(base[1]).flat(), open_source(tmp_path).flat()
    config, adapter = made.model, AdapterConfig(3, 12.0)
    checkpoint = load_checkpoint(resolve(tmp_path))
    assert checkpoint.adapter == adapter
    views = adapter_table(config, adapter).views(checkpoint.weights)
    whole, own = parameter_table(config).views(after), parameter_table(config).views(before)
    matrices = {one.matrix.name: one for one in adapters(config, adapter)}
    for name, matrix in whole.items():
        wanted = np.float64(own[name])
        if name in matrices:
            one = matrices[name]
            a, b = (np.float64(views[p.name]) for p in (one.a, one.b))
            wanted = wanted + 4.0 * a @ b
            assert np.abs(matrix - own[name]).max() > 1e-3
        np.testing.assert_allclose(matrix, wanted, rtol=1e-5, atol=1e-6)
    # The merged model loses what the model with its adapters does.
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, 17)).astype(np.int32)
    merged = Transformer.allocate(config, after).evaluate(tokens)
    beside = Transformer.allocate(
        config, before, adapter=adapter, adapters=np.array(checkpoint.weights)
    )
    assert merged == pytest.approx(beside.evaluate(tokens), rel=1e-6)


def test_a_run_through_the_door_learns_and_goes_on(tmp_path: Path) -> None:
    """Another text than the model's; what the run was begun from may go away meanwhile."""
    words = inflected_text()
    (tmp_path / "text.txt").write_text(words)
    (tmp_path / "other.txt").write_text(words[:300] * 60)
    common: dict[str, Any] = {"workers": 2, "seq_len": 32}
    first = train_run(
        tmp_path / "text.txt", tokenizer="char", num_layers=1, num_heads=2, embed_dim=96,
        max_steps=30, checkpoint_dir=tmp_path / "first", **common,
    )  # fmt: skip
    low = train_run(
        tmp_path / "other.txt", init_from=first.path, lora_rank=4, max_steps=40,
        learning_rate=1e-2, warmup_steps=5, checkpoint_dir=tmp_path / "low", **common,
    )  # fmt: skip
    own, other = (
        sum(file.stat().st_size for file in resolve(run.path).iterdir()) for run in (low, first)
    )
    assert own < other / 3
    before, after = (load(run).perplexity(words[:300] * 3) for run in (first, low))
    assert after < 0.9 * before  # measured: 0.85
    shutil.rmtree(first.path)
    assert resume_run(low.path, max_steps=44).step == 44
