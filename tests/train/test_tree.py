"""Runs over a tree of spheres: the same bits whatever its shape, and whoever dies in it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from crystalline.engine.shape import Depth
from crystalline.train.spec import RunResult
from crystalline.train.stats import Snapshot
from tests.train import real_runs
from tests.train.engine_runs import run, timeless_metrics

pytestmark = pytest.mark.timeout(120)

SHAPES = [(9, "2"), (13, "2"), (144, "2"), (30, "3"), (12, "auto")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, list[dict[str, Any]]]:
    """Thirty steps by one sphere: result and metrics without their times."""
    run_dir = tmp_path_factory.mktemp("alone")
    return run(run_dir, workers=1), timeless_metrics(run_dir)


@pytest.mark.parametrize(("workers", "depth"), SHAPES)
def test_any_shape(
    tmp_path: Path, alone: tuple[RunResult, list[dict[str, Any]]], workers: int, depth: Any
) -> None:
    snapshots: list[Snapshot] = []
    result = run(tmp_path, snapshots.append, workers=workers, depth=depth)
    assert (result.weights_sha256, result.workers) == (alone[0].weights_sha256, workers)
    assert timeless_metrics(tmp_path) == alone[1]
    last = snapshots[-1]
    controls = {sphere.parent for sphere in last.spheres}
    levels = {sphere.level for sphere in last.spheres}
    assert levels == set(range(1, 1 + (1 if depth == "auto" else int(depth))))
    for sphere in last.spheres:
        if sphere.index in controls:
            assert (sphere.lanes_done, sphere.segments_done) == (0, 0)
    leaves = [sphere for sphere in last.spheres if sphere.index not in controls]
    assert len(leaves) == workers
    assert sum(sphere.lanes_done for sphere in leaves) == 30 * 12


def test_leaves_and_controls_are_killed(
    tmp_path: Path, alone: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    chosen, killed = random.Random(11), {"leaf": 0, "control": 0}

    def kill_somebody(snapshot: Snapshot) -> None:
        nodes = [s for s in snapshot.spheres if s.pid and s.respawns < 3]
        if nodes and snapshot.step < 25 and sum(killed.values()) < 12:
            victim = chosen.choice(nodes)
            if chosen.random() < 0.5:
                victim = next((s for s in nodes if s.state == "control"), victim)
            with contextlib.suppress(ProcessLookupError):  # it is being replaced just now
                os.kill(victim.pid, signal.SIGKILL)
                killed["control" if victim.state == "control" else "leaf"] += 1

    result = run(
        tmp_path, kill_somebody, interval_s=0.05, workers=9, depth="2", permits=2,
        options={"naps": {"compute": 0.002, "update": 0.002}},
    )  # fmt: skip
    assert min(killed.values()) > 0
    assert result.weights_sha256 == alone[0].weights_sha256
    assert timeless_metrics(tmp_path) == alone[1]


def test_a_tree_that_changes_every_few_steps(
    tmp_path: Path, alone: tuple[RunResult, list[dict[str, Any]]]
) -> None:
    words = iter(["spawn=0,5", "workers=20", "terminate=1", "workers=3", "spawn=1,12", "workers=9"])
    asked: list[int] = []

    seen: list[Snapshot] = []

    def change() -> list[str]:
        step = seen[-1].step if seen and seen[-1].state == "training" else 0
        if 0 < step < 28 and (not asked or step > asked[-1] + 1):
            word = next(words, None)
            if word is not None:
                asked.append(step)
                return [word]
        return []

    result = run(
        tmp_path, seen.append, change, 0.02, workers=4, depth="2", permits=2,
        options={"naps": {"compute": 0.002}},
    )  # fmt: skip
    trees = {len(snapshot.spheres) for snapshot in seen}
    assert len(trees) > 3
    assert len(asked) >= 4
    assert result.weights_sha256 == alone[0].weights_sha256
    assert timeless_metrics(tmp_path) == alone[1]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_model_is_trained_by_a_tree(tmp_path: Path, precision: str) -> None:
    (tmp_path / "text").mkdir()
    data = real_runs.prepare_text(tmp_path / "text", real_runs.inflected_text(), "byte", 256)
    shapes: list[tuple[int, Depth]] = [(1, "1"), (9, "2"), (20, "3")]
    hashes = {
        real_runs.run(
            dataclasses.replace(
                real_runs.spec(
                    data, tmp_path / f"{workers}-{depth}", workers=workers, precision=precision,
                    max_steps=3,
                ),
                depth=depth,
            )
        ).weights_sha256
        for workers, depth in shapes
    }  # fmt: skip
    assert len(hashes) == 1
