"""Training on the assistant's turns: the mean over them alone, and the same bits on any crew."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from crystalline.data.prepare import PreparedData, prepare
from crystalline.data.tokenfile import TokenFile
from crystalline.formats.checkpoint import load_model
from crystalline.model.decode import Decoder
from crystalline.model.transformer import Transformer
from tests.train.real_runs import bound, metrics, run, serial_run, spec

SETTINGS = {"max_steps": 12, "eval_interval": 6, "save_interval": 6, "seq_len": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Talks in which the user speaks noise, and the assistant says the same few words."""
    folder = tmp_path_factory.mktemp("talks")
    draw = random.Random(3)
    lines = []
    for _ in range(120):
        noise = "".join(draw.choices("abcdefghijklmnop", k=draw.randint(5, 40)))
        said = "yes and no " * draw.randint(1, 3)
        turns = [{"role": "user", "content": noise}, {"role": "assistant", "content": said}]
        lines.append(json.dumps({"messages": turns}))
    path = folder / "talks.jsonl"
    path.write_text("\n".join(lines))
    return prepare([path], kind="char", vocab_size=0, val_fraction=0.2, cache_dir=folder / "cache")


def test_a_steps_mean_is_over_the_turns_of_all_its_lanes(
    data: PreparedData, tmp_path: Path
) -> None:
    made = spec(data, tmp_path, dropout=0.0, **SETTINGS)
    program = bound(made)
    file = TokenFile.open(data.token_path)
    assert file.train_marks is not None
    program.compute_lane(0, 0, 0, 0.0)
    lanes = [program.compute_lane(lane, 0, 0, 0.0) for lane in range(program.lane_count)]
    starts = np.concatenate([program.lane_starts(lane, 0) for lane in range(program.lane_count)])
    counts = sum(int(file.train_marks[at + 1 : at + 17].sum()) for at in starts)
    assert 0 < counts < 16 * len(starts)
    assert sum(lane[1] for lane in lanes) == counts
    # The gradient of the mean, from another model over the same windows, one at a time.
    model = Transformer.allocate(made.model, program._weights)
    total, loss = np.zeros_like(program._weights), 0.0
    for at in starts:
        window = file.train[at : at + 17].astype(np.int32)[None]
        targets = np.where(file.train_marks[at + 1 : at + 17] == 1, window[:, 1:], -1)
        loss += model.compute(
            window, total, scale=1 / counts, accumulate=True, targets=targets.astype(np.int32)
        )
    assert sum(lane[0] for lane in lanes) == pytest.approx(loss, rel=1e-5)
    for segment in range(program.segment_count):
        program.reduce_segment(segment)
    assert np.abs(program._grads - total).max() < 1e-5 * np.abs(total).max()


def test_the_same_bits_on_any_crew_and_after_a_resume(data: PreparedData, tmp_path: Path) -> None:
    one = run(spec(data, tmp_path / "one", workers=1, permits=1, **SETTINGS))
    many = run(spec(data, tmp_path / "many", workers=5, jitter_s=0.001, **SETTINGS))
    assert one.weights_sha256 == many.weights_sha256
    assert metrics(tmp_path / "one") == metrics(tmp_path / "many")
    assert one.weights_sha256 == serial_run(spec(data, tmp_path / "serial", **SETTINGS))
    middle = tmp_path / "one" / "checkpoints" / "step-00000006"
    again = run(spec(data, tmp_path / "one", resume_from=middle, **SETTINGS))
    assert again.weights_sha256 == one.weights_sha256


def test_losses_are_per_token_of_the_turns(data: PreparedData, tmp_path: Path) -> None:
    result = run(spec(data, tmp_path, **SETTINGS))
    file = TokenFile.open(data.token_path)
    assert file.val_marks is not None
    assert result.val_tokens == int(file.val_marks[1:].sum())
    model = load_model(tmp_path / "latest")
    scorer = Decoder(model.config, model.weights, cache="float32", threads=1)
    nats, counted = 0.0, 0
    for at in range(0, len(file.val) - 1, 16):
        window = file.val[at : at + 17].astype(np.int32)
        losses, marks = scorer.score(window), file.val_marks[at + 1 : at + 17]
        nats, counted = nats + float(losses @ marks), counted + int(marks.sum())
    assert result.val_loss == pytest.approx(nats / counted, rel=1e-5)
    line = metrics(tmp_path)[0]
    assert line["tokens"] < 26 * 16  # of a step


def test_a_step_without_a_turn_has_no_loss_and_changes_nothing_of_the_gradient(
    tmp_path: Path,
) -> None:
    turns = [{"role": "user", "content": "x" * 4000}, {"role": "assistant", "content": "y"}]
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"messages": turns}))
    data = prepare([path], kind="char", vocab_size=0, val_fraction=0.0, cache_dir=tmp_path / "c")
    result = run(spec(data, tmp_path / "run", batch_size=1, max_steps=3, seq_len=8))
    assert (result.final_step, result.dropped_steps) == (3, 0)
    assert [line.get("loss") for line in metrics(tmp_path / "run")] == [None] * 3
