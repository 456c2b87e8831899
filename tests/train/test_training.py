"""Real training through the whole engine: it learns, and in the same bits whoever computes."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from crystalline.data.prepare import PreparedData, prepare
from crystalline.errors import DivergedError
from crystalline.formats.checkpoint import load_checkpoint, resolve
from crystalline.model.params import initialize, parameter_table
from crystalline.train.launcher import train
from crystalline.train.spec import RunResult
from crystalline.train.stats import Snapshot
from tests.train.real_runs import metrics, run, spec


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Text with structure: words of a small language, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 7))) for _ in range(40)]
    weights = [1 / (rank + 1) for rank in range(40)]
    text = " ".join(draw.choices(words, weights, k=6000))
    (folder / "text.txt").write_text(text)
    return prepare(
        [folder / "text.txt"], kind="char", vocab_size=300, val_fraction=0.1,
        cache_dir=folder / "cache",
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(
    data: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunResult, list[dict[str, Any]]]:
    run_dir = tmp_path_factory.mktemp("reference")
    return run(spec(data, run_dir, workers=1, permits=1)), metrics(run_dir)


def test_it_learns(undisturbed: tuple[RunResult, list[dict[str, Any]]]) -> None:
    result, lines = undisturbed
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 50
    assert losses[0] == pytest.approx(np.log(11), abs=0.1)  # ten letters and the space
    assert np.mean(losses[-5:]) < losses[0] - 0.4
    evaluations = [line["val_loss"] for line in lines if "val_loss" in line]
    assert evaluations[0] > evaluations[-1] == result.val_loss
    assert result.val_loss is not None
    assert result.val_bits_per_byte == pytest.approx(result.val_loss / np.log(2), rel=1e-3)


@pytest.mark.parametrize(
    ("workers", "permits"), [(2, 2), (3, 1), (5, 4), (12, 2), (12, 12), (63, 2)]
)
def test_any_number_of_workers_gives_the_same_bits(
    workers: int,
    permits: int,
    data: PreparedData,
    tmp_path: Path,
    undisturbed: tuple[RunResult, list[dict[str, Any]]],
) -> None:
    result = run(spec(data, tmp_path, workers=workers, permits=permits))
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert metrics(tmp_path) == undisturbed[1]


def test_bf16_gives_the_same_bits_too(
    data: PreparedData, tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    runs = {
        workers: run(spec(data, tmp_path / str(workers), workers=workers, precision="bf16"))
        for workers in (1, 5, 12)
    }
    assert len({result.weights_sha256 for result in runs.values()}) == 1
    assert metrics(tmp_path / "1") == metrics(tmp_path / "5") == metrics(tmp_path / "12")
    assert runs[1].weights_sha256 != undisturbed[0].weights_sha256
    assert runs[1].val_loss == pytest.approx(undisturbed[0].val_loss, abs=0.02)
    checkpoint = resolve(tmp_path / "5", "step-00000020")
    again = spec(data, tmp_path / "5", workers=2, precision="bf16", resume_from=checkpoint)
    assert run(again).weights_sha256 == runs[1].weights_sha256


def test_random_sleeps_change_no_bit(
    data: PreparedData, tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    result = run(spec(data, tmp_path, workers=5, permits=3, jitter_s=0.002))
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert metrics(tmp_path) == undisturbed[1]


def test_a_resumed_run_ends_in_the_same_bits(
    data: PreparedData, tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    whole = spec(data, tmp_path, workers=4)
    stopped = threading.Event()

    def stop_after(snapshot: Snapshot) -> None:
        stopped.set() if snapshot.step >= 22 else None

    def actions() -> list[str]:
        return ["stop"] if stopped.is_set() else []

    first = train(whole, on_snapshot=stop_after, poll_actions=actions, interval_s=0.001)
    assert first.stop_reason == "stopped"
    assert 22 <= first.final_step < 50
    checkpoint = resolve(tmp_path, "step-00000020")
    result = run(dataclasses.replace(whole, workers=7, permits=3, resume_from=checkpoint))
    assert result.final_step == 50
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert metrics(tmp_path) == undisturbed[1]


def test_spheres_killed_at_random_moments_change_no_bit(
    data: PreparedData, tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    draw = random.Random(3)
    killed: list[int] = []

    def kill_one(snapshot: Snapshot) -> None:
        alive = [s for s in snapshot.spheres if s.pid and s.state not in ("dead", "retired")]
        if snapshot.state == "training" and alive and len(killed) < 4:
            victim = draw.choice(alive).pid
            if psutil.pid_exists(victim):
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
                time.sleep(0.05)

    result = train(
        spec(data, tmp_path, workers=4, permits=2, jitter_s=0.004),
        on_snapshot=kill_one, interval_s=0.15,
    )  # fmt: skip
    assert len(killed) >= 2
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert metrics(tmp_path) == undisturbed[1]


def test_times_of_spheres_are_accounted_for(data: PreparedData, tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    run(spec(data, tmp_path, workers=3, permits=2, jitter_s=0.004), seen)
    assert all(0 < s.wait_s < s.sync_s for s in seen[-1].spheres)  # it reduced, updated and waited

    def permits_s(snapshot: Snapshot) -> float:
        return sum(s.compute_s + s.sync_s for s in snapshot.spheres)

    # Between two steps two permits are in use: no time is counted twice, and most of it is.
    steps = [snapshot for snapshot in seen if 10 <= snapshot.step <= 40]
    took_s = steps[-1].elapsed_s - steps[0].elapsed_s
    spent_s = permits_s(steps[-1]) - permits_s(steps[0])
    assert 0.5 * 2 * took_s < spent_s < 2 * took_s + 0.3  # what was under way at the first look


def test_every_tensor_moves(undisturbed: tuple[RunResult, list[dict[str, Any]]]) -> None:
    run_dir = Path(undisturbed[0].run_dir)
    end = load_checkpoint(resolve(run_dir, "latest"))
    table = parameter_table(end.model_config)
    start = np.zeros(table.size, np.float32)
    initialize(end.model_config, start, end.train_config["seed"])
    for name, view in table.views(start).items():
        change = np.abs(table.views(end.weights)[name] - view)
        assert change.max() > 1e-3, name
        assert (change > 0).mean() > 0.5, name


def test_the_seed_and_every_setting_that_matters_change_the_bits(
    data: PreparedData, tmp_path: Path
) -> None:
    short: dict[str, Any] = {"max_steps": 3, "eval_interval": 0, "save_interval": 0}
    variants: list[dict[str, Any]] = [
        {}, {"seed": 7}, {"dropout": 0.2}, {"optimizer": "sgd"}, {"weight_decay": 0.3},
        {"beta1": 0.8}, {"beta2": 0.9}, {"grad_clip": 0.01}, {"learning_rate": 2e-3},
        {"batch_size": 25}, {"accumulation_steps": 2}, {"warmup_steps": 2},
    ]  # fmt: skip
    hashes = [
        run(spec(data, tmp_path / str(i), **short, **variant)).weights_sha256
        for i, variant in enumerate(variants)
    ]
    assert len(set(hashes)) == len(variants)
    again = run(spec(data, tmp_path / "again", **short, batch_size=13, accumulation_steps=2))
    assert again.weights_sha256 == hashes[0]  # 13 x 2 sequences are the same 26


def test_fewer_windows_than_lanes(tmp_path: Path) -> None:
    text = tmp_path / "little.txt"
    text.write_text("to be or not to be, that is it. " * 3)
    little = prepare([text], kind="char", vocab_size=99, val_fraction=0.0, cache_dir=tmp_path)
    result = run(spec(little, tmp_path / "run", workers=12, max_steps=5, batch_size=12))
    assert result.final_step == 5
    assert result.val_loss is None


def test_a_run_that_diverges_says_so(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="not finite in 10 of the last"):
        run(spec(data, tmp_path, learning_rate=1e30, grad_clip=0.0, warmup_steps=0,
                 optimizer="sgd", eval_interval=0))  # fmt: skip


def test_checkpoints_written_meanwhile_are_those_of_a_run_that_waits(
    data: PreparedData, tmp_path: Path, undisturbed: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    """Weights and moments to the bit, of every save, and so the run that goes on from one."""
    result = run(spec(data, tmp_path / "run", save_while_training=True))
    assert result.weights_sha256 == undisturbed[0].weights_sha256
    assert result.val_loss == undisturbed[0].val_loss
    waits = Path(undisturbed[0].run_dir)
    for number in (20, 40, 50):
        folder = f"checkpoints/step-{number:08d}"
        for name in ("model.safetensors", "optimizer.safetensors"):
            written = (tmp_path / "run" / folder / name).read_bytes()
            assert written == (waits / folder / name).read_bytes(), (number, name)
    newest = load_checkpoint(resolve(tmp_path / "run", "latest"))
    assert newest.step == 50
    again = spec(
        data, tmp_path / "again", save_while_training=True,
        resume_from=tmp_path / "run/checkpoints/step-00000020",
    )  # fmt: skip
    assert run(again).weights_sha256 == result.weights_sha256
