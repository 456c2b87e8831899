"""The crystalline layer in training: every part counts, and all of them keep the bits.

In the text (`inflected_text`) there are affixes to find, and words that only look as if they
had them: root discovery tells them apart, and remaps the primes.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from crystalline._kernels import isa
from crystalline.data.crystal.features import token_features
from crystalline.data.crystal.neighbors import neighbor_table
from crystalline.data.crystal.positions import lattice_positions
from crystalline.data.crystal.tokens import Crystal
from crystalline.data.prepare import PreparedData, crystal_of
from crystalline.errors import CheckpointError, DataError, UsageError
from crystalline.formats.checkpoint import load_checkpoint, load_model, resolve
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer
from crystalline.train.config import TrainConfig
from crystalline.train.launcher import train
from crystalline.train.spec import RunResult, RunSpec
from crystalline.train.stats import Snapshot
from tests.train.real_runs import (
    events,
    inflected_text,
    metrics,
    prepare_text,
    run,
    serial_run,
    spec,
)

pytestmark = pytest.mark.timeout(90)

# Discoveries come before steps 9, 17 and 25; checkpoints after every fourth step.
ALL: dict[str, Any] = {
    "tokenizer": "word", "crystalline_epsilon": 0.3, "crystalline_k": 5,
    "crystalline_schedule": "linear", "init": "lattice", "positions": "twelvefold",
    "attention": "crystalline", "discovery_interval": 1, "eval_interval": 8, "save_interval": 4,
    "max_steps": 28, "keep": 20, "learning_rate": 0.01,
}  # fmt: skip
SHORT: dict[str, Any] = {
    "tokenizer": "word", "max_steps": 8, "eval_interval": 6, "save_interval": 0,
    "learning_rate": 0.02,
}  # fmt: skip
# Weights after twelve steps of the run of `test_everything_off_…`, before there was a
# crystalline layer; in bf16 as they were when attention's products took part in it.
BEFORE = {
    "base": {
        "float32": "ade038e464e6901f75fe89974af9a056dba7c9b61ffdb1294f4f6ec274d4289a",
        "bf16": "37648a3cd64c2b4adf5cec3c80daaef32f4b9f12d94e83611cd9b5cd98d5ac75",
    },
    "avx2": {
        "float32": "b7e6bddd9f2e905f15ef80a0f5cea170a352ce387da6d379bc3697c61e5b66d7",
        "bf16": "e28a193c67b3864f290e5460b2d5f4857f9a898099299ce4a98961f3bc6696a7",
    },
    "avx512": {
        "float32": "c777302569a86ce9f4a042558e35646f820676bef7971e220b5e4a4bc3429bbd",
        "bf16": "74d51befd7505bfca1b2670944281fb178de472c4af4a44236cac3545a9f776d",
    },
    "avx512bf16": {
        "float32": "c777302569a86ce9f4a042558e35646f820676bef7971e220b5e4a4bc3429bbd",
        "bf16": "3f365e6a90ec011e2ded6dde41748c0d8a028b476663d5c4ac4136af115bb1c1",
    },
    "amx": {  # as matrix tiles of either body add up
        "float32": "c777302569a86ce9f4a042558e35646f820676bef7971e220b5e4a4bc3429bbd",
        "bf16": "0888e5f7cee38ad7ab36b6fde71bf782002c59f7a698103d209ae63dfd3f2f78",
    },
}

Outcome = tuple[RunResult, list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare_text(tmp_path_factory.mktemp("words"), inflected_text(), "word")


def outcome(spec: RunSpec) -> Outcome:
    return run(spec), metrics(spec.run_dir), events(spec.run_dir)


@pytest.fixture(scope="module", params=["float32", "bf16"])
def undisturbed(
    request: pytest.FixtureRequest, data: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Outcome]:
    """One sphere with everything on, at both precisions."""
    run_dir = tmp_path_factory.mktemp("undisturbed")
    alone = spec(data, run_dir, workers=1, permits=1, precision=request.param, **ALL)
    return request.param, outcome(alone)


def assert_same(result: RunResult, expected: Outcome) -> None:
    run_dir = Path(result.run_dir)
    assert result.weights_sha256 == expected[0].weights_sha256
    assert metrics(run_dir) == expected[1]
    assert events(run_dir) == expected[2]
    crystals = [
        Crystal.load(resolve(Path(r.run_dir), "latest") / "crystal.json").sha256
        for r in (result, expected[0])
    ]
    assert crystals[0] == crystals[1]


# --- the same bits --------------------------------------------------------------------------------


def test_it_remaps_and_learns(undisturbed: tuple[str, Outcome]) -> None:
    """What the other tests rely on: there was a remap in the middle, and it changed the tables."""
    result, lines, remaps = undisturbed[1]
    assert remaps
    assert remaps[0]["event"] == "root_discovery"
    assert (remaps[0]["step"], remaps[0]["generation"]) == (9, 1)
    assert remaps[0]["roots_changed"] > 0
    run_dir = Path(result.run_dir)
    before, at, after = (
        Crystal.load(run_dir / "checkpoints" / f"step-{step:08d}" / "crystal.json")
        for step in (4, 8, 12)
    )
    assert (before.generation, at.generation, after.generation) == (0, 0, 1)
    assert before.sha256 == at.sha256 == Crystal.load(run_dir / "crystal.json").sha256
    assert (token_features(before) != token_features(after)).any()
    assert (neighbor_table(before, 5).ids != neighbor_table(after, 5).ids).any()
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-3:]) < losses[0] - 0.3


def test_a_plain_loop_gives_the_same_bits(
    data: PreparedData, tmp_path: Path, undisturbed: tuple[str, Outcome]
) -> None:
    precision, expected = undisturbed
    assert serial_run(spec(data, tmp_path, precision=precision, **ALL)) == (
        expected[0].weights_sha256
    )


@pytest.mark.parametrize(("workers", "permits"), [(2, 2), (3, 1), (5, 4), (12, 2)])
def test_any_number_of_workers_gives_the_same_bits(
    workers: int,
    permits: int,
    data: PreparedData,
    tmp_path: Path,
    undisturbed: tuple[str, Outcome],
) -> None:
    precision, expected = undisturbed
    it = spec(data, tmp_path, workers=workers, permits=permits, precision=precision, **ALL)
    assert_same(run(it), expected)


def test_spheres_killed_at_random_moments_change_no_bit(
    data: PreparedData, tmp_path: Path, undisturbed: tuple[str, Outcome]
) -> None:
    precision, expected = undisturbed
    draw = random.Random(4)
    killed: list[int] = []

    def kill_one(snapshot: Snapshot) -> None:
        alive = [s for s in snapshot.spheres if s.pid and s.state not in ("dead", "retired")]
        if snapshot.state in ("training", "discovering") and alive and len(killed) < 4:
            victim = draw.choice(alive).pid
            if psutil.pid_exists(victim):
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
                time.sleep(0.05)

    slow = spec(data, tmp_path, workers=4, jitter_s=0.004, precision=precision, **ALL)
    result = train(slow, on_snapshot=kill_one, interval_s=0.12)
    assert len(killed) >= 2
    assert_same(result, expected)


@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_resumed_run_ends_in_the_same_bits(
    step: int, data: PreparedData, tmp_path: Path, undisturbed: tuple[str, Outcome]
) -> None:
    """Before the remap, where it is due, and after it."""
    precision, expected = undisturbed
    shutil.copytree(expected[0].run_dir, tmp_path / "run", symlinks=True)
    checkpoint = resolve(tmp_path / "run", f"step-{step:08d}")
    again = spec(
        data, tmp_path / "run", workers=3, resume_from=checkpoint, precision=precision, **ALL
    )
    assert_same(run(again), expected)


# --- everything off -------------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the bits of other processors differ")
def test_everything_off_gives_the_bits_of_before_there_was_a_crystalline_layer(
    tmp_path: Path,
) -> None:
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 7))) for _ in range(40)]
    weights = [1 / (rank + 1) for rank in range(40)]
    text = " ".join(draw.choices(words, weights, k=6000))
    plain = prepare_text(tmp_path, text, "char")
    for precision, expected in BEFORE[isa.level()].items():
        short = spec(plain, tmp_path / precision, precision=precision, max_steps=12,
                     eval_interval=5, positions="learned")  # fmt: skip
        assert run(short).weights_sha256 == expected


def test_epsilon_0_is_plain_whatever_else_is_said(data: PreparedData, tmp_path: Path) -> None:
    plain = outcome(spec(data, tmp_path / "plain", **SHORT))
    same = spec(
        data, tmp_path / "same", crystalline_epsilon=0.0, crystalline_k=3,
        crystalline_similarity="morphology", crystalline_schedule="linear", **SHORT,
    )  # fmt: skip
    result, *written = outcome(same)
    assert written == [*plain[1:]]
    assert result.weights_sha256 == plain[0].weights_sha256


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_lambda_frozen_at_0_is_plain_attention(
    optimizer: str, precision: str, data: PreparedData, tmp_path: Path
) -> None:
    """In every other tensor and in every figure; the gradient is clipped, so its norm counts."""
    both = {**SHORT, "optimizer": optimizer, "precision": precision, "grad_clip": 0.1}
    plain = outcome(spec(data, tmp_path / "plain", **both))
    frozen = outcome(
        spec(data, tmp_path / "frozen", attention="crystalline", freeze_lambda=True, **both)
    )
    assert frozen[1:] == plain[1:]
    models = [load_model(resolve(tmp_path / name, "latest")) for name in ("plain", "frozen")]
    views = [parameter_table(model.config).views(model.weights) for model in models]
    assert set(views[1]) - set(views[0]) == {
        f"transformer.h.{layer}.attn.crystal_lambda" for layer in range(2)
    }
    for name, view in views[1].items():
        assert np.array_equal(view, views[0].get(name, np.zeros(2, np.float32))), name


# --- every part counts ----------------------------------------------------------------------------


def test_every_setting_changes_the_bits(data: PreparedData, tmp_path: Path) -> None:
    smooth = {"crystalline_epsilon": 0.3}
    attend = {"attention": "crystalline"}
    variants: list[dict[str, Any]] = [
        {}, smooth, {"crystalline_epsilon": 0.2}, {**smooth, "crystalline_k": 4},
        {**smooth, "crystalline_similarity": "morphology"},
        {**smooth, "crystalline_schedule": "linear"}, {**smooth, "discovery_interval": 1},
        {"init": "lattice"}, {"positions": "learned"}, attend,
        {**attend, "discovery_interval": 1}, {**attend, "freeze_lambda": True},
        {**smooth, **attend},
    ]  # fmt: skip
    hashes = [
        serial_run(spec(data, tmp_path / str(i), **SHORT, **variant))
        for i, variant in enumerate(variants)
    ]
    assert len(set(hashes)) == len(variants)


def test_every_tensor_moves(undisturbed: tuple[str, Outcome]) -> None:
    run_dir = Path(undisturbed[1][0].run_dir)
    end = load_checkpoint(resolve(run_dir, "latest"))
    table = parameter_table(end.model_config)
    start = np.zeros(table.size, np.float32)
    initialize(
        end.model_config, start, end.train_config["seed"], positions="twelvefold",
        embeddings=lattice_positions(Crystal.load(run_dir / "crystal.json"), 24),
    )  # fmt: skip
    names = set(table.views(start))
    assert {f"transformer.h.{layer}.attn.crystal_lambda" for layer in range(2)} < names
    for name, view in table.views(start).items():
        change = np.abs(table.views(end.weights)[name] - view)
        assert change.max() > 1e-3, name
        assert (change > 0).mean() > 0.5, name


def test_the_loss_depends_on_every_tensor(data: PreparedData) -> None:
    """A loss that is computed from token ids alone cannot pass, nor one blind to any tensor."""
    crystal = crystal_of(data)
    config = ModelConfig(data.vocab_size, 7, 2, 3, 12, attention="crystalline")
    table = parameter_table(config)
    weights, grads = np.zeros(table.size, np.float32), np.zeros(table.size, np.float32)
    initialize(
        config, weights, 3, embeddings=lattice_positions(crystal, 12), positions="twelvefold"
    )
    for layer in range(2):  # at 0, no λ of a layer above would be seen
        table.views(weights)[f"transformer.h.{layer}.attn.crystal_lambda"][:] = 0.5
    model = Transformer.allocate(config, weights, features=token_features(crystal))
    model.set_neighbors(*neighbor_table(crystal, 4))
    draw = np.random.default_rng(2)
    tokens = draw.integers(0, data.vocab_size, (5, 8), dtype=np.int32)

    def losses() -> npt.NDArray[np.float64]:
        model.pack()
        plain = model.compute(tokens, grads, scale=1 / 35, epsilon=0.3)
        return np.array([plain, model.smoothed_loss])

    before = losses()
    assert before[0] != before[1]
    assert (losses() == before).all()
    for name, view in table.views(weights).items():
        kept = view.copy()
        view += 0.5 * draw.standard_normal(view.shape).astype(np.float32)
        assert (np.abs(losses() - before) > 1e-4).all(), name
        view[...] = kept
    assert (losses() == before).all()


def test_the_crystalline_loss_is_told_beside_the_plain_one(
    undisturbed: tuple[str, Outcome],
) -> None:
    steps = [line for line in undisturbed[1][1] if "loss" in line]
    gaps = [line["crystalline_loss"] - line["loss"] for line in steps]
    assert len(gaps) == 28
    assert all(np.isfinite(gaps))
    assert 0 < abs(gaps[-1]) < abs(gaps[-7]) / 3  # ε goes to 0: it is a seventh of what it was
    evaluations = [line for line in undisturbed[1][1] if "val_loss" in line]
    assert not any("crystalline_loss" in line for line in evaluations)


# --- what cannot be -------------------------------------------------------------------------------


def test_a_checkpoint_without_its_crystal_is_refused(data: PreparedData, tmp_path: Path) -> None:
    run(spec(data, tmp_path, **{**SHORT, "max_steps": 2}))
    checkpoint = resolve(tmp_path, "latest")
    smooth = {**SHORT, "crystalline_epsilon": 0.1}
    with pytest.raises(CheckpointError, match="has lost the primes of its tokens"):
        run(spec(data, tmp_path, resume_from=checkpoint, **smooth))


def test_the_crystal_of_another_vocabulary_is_refused(data: PreparedData, tmp_path: Path) -> None:
    other = prepare_text(tmp_path, "to be or not to be, that is it. " * 30, "char")
    crystal_of(other).save(tmp_path / "other.json")
    wrong = spec(data, tmp_path / "run", **SHORT, crystalline_epsilon=0.1)
    with pytest.raises(DataError, match=r"the primes are of 1. tokens, the model has"):
        run(dataclasses.replace(wrong, crystal_path=tmp_path / "other.json"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"crystalline_epsilon": 1.0}, "--crystalline-epsilon is 1.0"),
        ({"crystalline_epsilon": -0.1}, "--crystalline-epsilon is -0.1"),
        ({"crystalline_k": 0}, "--crystalline-k is 0"),
        ({"crystalline_k": 1025}, "--crystalline-k is 1025"),
        ({"discovery_interval": -1}, "--discovery-interval is -1"),
        ({"discovery_interval": 2}, "--discovery-interval 2 would change nothing"),
        (
            {"discovery_interval": 2, "crystalline_epsilon": 0.1, "eval_interval": 0},
            "--eval-interval 0 makes none",
        ),
        ({"freeze_lambda": True}, "--freeze-lambda has nothing to freeze"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        TrainConfig(**settings)
    assert caught.value.advice


def test_a_plain_run_does_not_load_the_exact_mathematics() -> None:
    code = (
        "import sys, crystalline.train.node_zero, crystalline.train.program, crystalline.cli.train;"
        "sys.exit(any(name.startswith(('crystalline.exact', 'crystalline.data.crystal.'))"
        " for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
