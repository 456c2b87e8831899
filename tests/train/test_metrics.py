"""The metrics file: whole lines, NaN as null, truncation on resume, torn ends."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.errors import SaveError
from crystalline.train import metrics
from crystalline.train.metrics import MetricsLog, read_metrics

STEP = {"learning_rate": 1e-3, "tokens": 99, "tokens_per_second": 5.0, "seconds": 0.5}
EVALUATION = {"val_loss": 2.5, "val_bits_per_byte": 1.25, "val_tokens": 90}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def fill(path: Path) -> None:
    with MetricsLog(path.parent) as writer:
        for step in (10, 20, 30):
            writer.enter("step", {"step": step, "loss": 4.0 - step / 10, "grad_norm": 0.5, **STEP})
            writer.enter("evaluation", {"step": step, **EVALUATION})
        writer.event("sphere_replaced", 35, sphere=3)


def test_lines_have_the_documented_keys(path: Path) -> None:
    fill(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    keys = ["step", "loss", "lr", "grad_norm", "tokens", "tokens_per_second", "seconds"]
    assert list(lines[0]) == keys
    assert lines[0]["loss"] == 3.0
    assert lines[1] == {"step": 10, "val_loss": 2.5, "val_bits_per_byte": 1.25, "val_tokens": 90}
    assert lines[-1] == {"event": "sphere_replaced", "step": 35, "sphere": 3}
    assert read_metrics(path) == lines


def test_a_line_is_in_the_file_at_once(path: Path) -> None:
    with MetricsLog(path.parent) as writer:
        writer.event("resumed", 1)
        assert path.read_text() == '{"event": "resumed", "step": 1}\n'


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_is_null(path: Path, bad: float) -> None:
    with MetricsLog(path.parent) as writer:
        writer.enter("step", {"step": 1, "loss": bad, "grad_norm": bad, **STEP})
    assert "NaN" not in path.read_text()
    assert read_metrics(path)[0]["loss"] is None
    assert read_metrics(path)[0]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("step", "last"), [(0, None), (9, None), (10, 10), (25, 20), (30, 30), (40, 35)]
)
def test_resuming_drops_later_lines(path: Path, step: int, last: int | None) -> None:
    fill(path)
    before = path.read_bytes()
    MetricsLog(path.parent, step).close()
    assert before.startswith(path.read_bytes())
    lines = read_metrics(path)
    assert (lines[-1]["step"] if lines else None) == last
    with MetricsLog(path.parent, step) as writer:
        writer.enter("step", {"step": step + 1, "loss": 1.0, "grad_norm": 0.5, **STEP})
    assert len(read_metrics(path)) == len(lines) + 1


@given(cut=st.integers(0, 400))
def test_a_torn_end_is_tolerated(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    fill(path)
    lines = read_metrics(path)
    data = path.read_bytes()[: -cut or None]
    path.write_bytes(data)
    whole = data.count(b"\n")
    assert read_metrics(path) == lines[:whole]
    with MetricsLog(path.parent, 1000) as writer:
        writer.event("resumed", 30)
    assert read_metrics(path) == [*lines[:whole], {"event": "resumed", "step": 30}]


def test_a_fresh_file_can_be_resumed(path: Path) -> None:
    MetricsLog(path.parent, 5).close()
    assert read_metrics(path) == []


def test_a_damaged_line_is_told(path: Path) -> None:
    path.write_text('{"step": 1}\n[2]\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch, caplog) -> None:
    fill(path)
    before = path.read_bytes()
    write = os.write
    with MetricsLog(path.parent, 35) as writer:
        left = [7, 0, 0, 999]

        def full(fd: int, data: bytes) -> int:
            if not (room := left.pop(0)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(fd, data[:room])

        monkeypatch.setattr(metrics.os, "write", full)
        writer.event("checkpoint", 40)
        assert path.read_bytes() == before
        writer.event("checkpoint", 50)
        writer.event("checkpoint", 60)
    assert path.read_bytes() == before + b'{"event": "checkpoint", "step": 60}\n'
    assert caplog.messages == [f"{path} cannot be written (No space left on device)."]


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="No such file"):
        MetricsLog(tmp_path / "missing")
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(SaveError, match="it is a folder"):
        MetricsLog(tmp_path)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_but_a_file_of_ours_is_written(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "metrics.jsonl"
    if kind == "link":
        path.symlink_to(outside)
    else:
        os.mkfifo(path)
    with pytest.raises(SaveError, match=f"it is a {kind}"):
        MetricsLog(tmp_path / "run")
    assert outside.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "line",
    ['{"step": -1}', '{"step": 1e300}', '{"step": NaN}', '{"step": 1, "loss": "x"}', "[" * 9999],
)
def test_a_run_is_resumed_before_a_line_that_cannot_be(path: Path, line: str) -> None:
    fill(path)
    before = path.read_bytes()
    path.write_bytes(before + line.encode() + b"\n" + before)
    MetricsLog(path.parent, 1000).close()
    assert path.read_bytes() == before


def test_a_line_without_end_is_cut_off(path: Path) -> None:
    path.write_bytes(b'{"step": 1}\n' + b"x" * (5 << 20))
    MetricsLog(path.parent, 1000).close()
    assert path.read_bytes() == b'{"step": 1}\n'
