"""Diagnostics: figures against NumPy's of the same arrays, verdicts, culprits, runs with them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crystalline.data.prepare import PreparedData, prepare
from crystalline.train.diagnosis import CONSTANT_STEPS, Verdicts
from crystalline.train.metrics import read_metrics
from crystalline.train.program import TrainingProgram
from crystalline.train.stats import Diagnosis, Sizes, Snapshot
from tests.train import engine_runs, real_runs

SIZES = Sizes("mlp", 0.02, 0.1, 1e-3, 5e-4, 1e-2, 0.0, 1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A little text, twice as many sequences a step as lanes, and two more."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(5)
    text = "".join(draw.choices("abcdefghij ", k=9000))
    (folder / "text.txt").write_text(text)
    return prepare(
        [folder / "text.txt"], kind="char", vocab_size=300, val_fraction=0.1,
        cache_dir=folder / "cache",
    )  # fmt: skip


def stepped(data: PreparedData, folder: Path, *, lr: float = 1e-3, **settings: object) -> tuple[
    TrainingProgram, np.ndarray
]:  # fmt: skip
    """A program after its first step, and the weights before it."""
    program = real_runs.bound(real_runs.spec(data, folder, **settings))
    before = program._weights.copy()
    for lane in range(program.lane_count):
        program.compute_lane(lane, 0, 0, 0.0)
    for segment in range(program.segment_count):
        program.reduce_segment(segment)
    for segment in range(program.segment_count):
        program.update_segment(segment, 0, 0, lr, 0.5)
    for segment in range(program.segment_count):
        program.diagnose_segment(segment, 0, lr)
    return program, before


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_figures_are_those_of_the_arrays(
    data: PreparedData, tmp_path: Path, optimizer: str
) -> None:
    # So large a rate that what a step adds is not lost in the rounding of weights.
    program, before = stepped(data, tmp_path, optimizer=optimizer, lr=0.5)
    found = program.diagnosis(1)
    table = program.table
    groups = {one.name: one for one in found.groups}
    assert set(groups) == {"embeddings", "positions", "attention", "mlp", "norms"}
    assert [one.name for one in found.layers] == ["layer 0", "layer 1"]
    for name, belongs in [
        *((g, lambda p, g=g: p.group == g) for g in groups),
        *((f"layer {n}", lambda p, n=n: p.layer == n) for n in range(2)),
    ]:
        parts = [np.arange(p.offset, p.offset + p.size) for p in table.parameters if belongs(p)]
        where = np.concatenate(parts)
        w = program._weights[where].astype(np.float64)
        g = program._grads[where].astype(np.float64)
        change = w - before[where].astype(np.float64)
        one = groups.get(name) or next(layer for layer in found.layers if layer.name == name)
        assert one.weight_rms == pytest.approx(math.sqrt((w**2).mean()), rel=1e-12)
        assert one.weight_max == np.abs(w).max()
        assert one.gradient_rms == pytest.approx(math.sqrt((g**2).mean()), rel=1e-12)
        assert one.gradient_mean == pytest.approx(np.abs(g).mean(), rel=1e-12)
        assert one.gradient_max == np.abs(g).max()
        assert one.gradient_zeros == (g == 0).mean()
        assert one.update_ratio == pytest.approx(
            math.sqrt((change**2).mean() / (w**2).mean()), rel=2e-4
        )


def test_a_diagnosis_changes_no_bit(data: PreparedData, tmp_path: Path) -> None:
    results = [
        real_runs.run(real_runs.spec(data, tmp_path / str(n), max_steps=6, diagnostics_interval=n))
        for n in (0, 2)
    ]
    assert results[0].weights_sha256 == results[1].weights_sha256


def test_they_come_at_the_first_step_and_every_interval(data: PreparedData, tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    spec = real_runs.spec(data, tmp_path, max_steps=7, diagnostics_interval=3, warmup_steps=0)
    real_runs.run(spec, seen)
    events = [
        line
        for line in read_metrics(tmp_path / "metrics.jsonl")
        if line.get("event") == "diagnostics"
    ]
    assert [line["step"] for line in events] == [1, 3, 6]
    assert seen[-1].diagnosis is not None
    assert seen[-1].diagnosis.to_json() == {
        name: value for name, value in events[-1].items() if name != "event"
    }
    assert Snapshot.from_json(seen[-1].to_json()).diagnosis == seen[-1].diagnosis


def test_the_same_figures_whoever_measures(data: PreparedData, tmp_path: Path) -> None:
    lines = []
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        real_runs.run(real_runs.spec(data, folder, workers=workers, max_steps=3))
        lines.append([x for x in read_metrics(folder / "metrics.jsonl") if "groups" in x])
    assert lines[0] == lines[1] != []


def judged(verdicts: Verdicts, **changes: float) -> list[str]:
    return verdicts.judge(Diagnosis(1, (replace(SIZES, **changes),), ()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight_rms": 0.0, "weight_max": 0.0}, "all weights are zero"),
        ({"gradient_rms": 0.0, "gradient_max": 0.0}, "gradients of mlp are all zero"),
        ({"gradient_rms": 9e-7}, "gradients of mlp vanish"),
        ({"gradient_rms": 1.5}, "gradients of mlp explode"),
    ],
)
def test_verdicts_are_told_once_until_they_change(changes: dict[str, float], words: str) -> None:
    verdicts = Verdicts()
    assert judged(verdicts) == []
    told = judged(verdicts, **changes)
    assert len(told) == 1
    assert words in told[0]
    assert "--" in told[0]  # a remedy
    assert judged(verdicts, **changes) == []
    assert judged(verdicts) == []
    assert judged(verdicts, **changes) == told


def test_a_loss_that_stands_still_is_told() -> None:
    verdicts = Verdicts()
    for _ in range(CONSTANT_STEPS - 1):
        verdicts.enter_loss(2.0)
    assert judged(verdicts) == []
    verdicts.enter_loss(2.0001)
    (told,) = judged(verdicts)
    assert "has not moved" in told
    verdicts.enter_loss(2.01)
    assert judged(verdicts) == []


# Where a dropped step went wrong.


def examined(program: TrainingProgram, losses: list[float]) -> object:
    for segment in range(program.segment_count):
        program.diagnose_segment(segment, 0, 1e-3)
    program.examine(0, 0, 0.0, losses, lambda: None)
    return program.culprit(0)


def test_a_weight_is_named(data: PreparedData, tmp_path: Path) -> None:
    program, _ = stepped(data, tmp_path)
    p = program.table["transformer.h.1.mlp.c_fc.weight"]
    program._weights[p.offset + 2 * p.shape[1] + 5] = -np.inf
    culprit = examined(program, [math.nan] * program.lane_count)
    assert culprit.to_event() == {
        "what": "weight", "value": "-inf", "tensor": p.name, "index": (2, 5),
    }  # fmt: skip


def test_a_loss_is_named_by_lane_and_sequence(data: PreparedData, tmp_path: Path) -> None:
    program, _ = stepped(data, tmp_path)
    spoiled = program.lane_starts(1, 0)[2]
    program._models[0] = _Spoiled(program._models[0], program.tokens.train, int(spoiled))
    losses = [1.0] * program.lane_count
    losses[1] = math.nan
    culprit = examined(program, losses)
    assert (culprit.what, culprit.lanes) == ("loss", (1,))
    assert culprit.sequences == (1 + 2 * 12,)
    assert culprit.positions == (int(spoiled),)
    assert "sequence 25" in culprit.words()


class _Spoiled:
    """A model whose loss of one sequence is not finite."""

    def __init__(self, model: object, tokens: np.ndarray, start: int) -> None:
        self._model, self._tokens, self._start = model, tokens, start

    def evaluate(self, tokens: np.ndarray, _: object) -> float:
        bad = np.array_equal(tokens[0], self._tokens[self._start : self._start + len(tokens[0])])
        return math.nan if bad else 1.0


def test_a_gradient_is_named_with_its_lanes(data: PreparedData, tmp_path: Path) -> None:
    program, _ = stepped(data, tmp_path)
    p = program.table["transformer.wte.weight"]
    program._grads[p.offset + 3] = np.nan
    compute = program.compute_into

    def spoil(lane: int, permit: int, step: int, epsilon: float, grads: np.ndarray,
              side: object) -> float:  # fmt: skip
        loss = compute(lane, permit, step, epsilon, grads, side)
        if lane in (2, 7):
            grads[p.offset + 3] = np.nan
        return loss

    program.compute_into = spoil
    culprit = examined(program, [1.0] * program.lane_count)
    assert (culprit.what, culprit.tensor, culprit.index) == ("gradient", p.name, (0, 3))
    assert culprit.lanes == (2, 7)
    assert culprit.sequences[:2] == (2, 14)


def test_a_dropped_step_tells_where_it_began(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    engine_runs.run(tmp_path, seen.append, options={"nan_steps": [4]})
    (event,) = [
        line
        for line in read_metrics(tmp_path / "metrics.jsonl")
        if line.get("event") == "dropped_step"
    ]
    assert (event["tensor"], event["index"], event["lanes"]) == ("all", [5], [3])
    assert event["value"] == "nan"
    assert any("all[5] of its gradient is nan, first in lane 3" in str(s.message) for s in seen)
