"""RUN/status.json: always whole, about once a second, and it says how the run ended."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from crystalline.data.artifacts import RUN_DIRECTORY, recognize
from crystalline.errors import EngineError
from crystalline.formats.rundir import RunDir
from crystalline.train import statusfile
from crystalline.train.statusfile import StatusFile
from crystalline.untrusted.files import STATUS
from tests.train.engine_runs import run
from tests.ui.fake_snapshots import fake_snapshot

pytestmark = pytest.mark.timeout(60)


def read(run_dir: Path) -> dict[str, Any]:
    return STATUS.read(run_dir / "status.json")


def test_a_run_says_what_it_does_and_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statusfile, "INTERVAL_S", 0.0)
    seen: list[dict[str, Any]] = []
    result = run(tmp_path, lambda _: seen.append(read(tmp_path)))
    assert [s["how"] for s in seen] == [None] * (len(seen) - 1) + ["finished"]
    assert {s["over"] for s in seen[:-1]} == {False}
    last = read(tmp_path)
    assert (last["over"], last["how"], last["state"], last["step"]) == (
        True, "finished", "finished", result.final_step,
    )  # fmt: skip
    assert last["val_loss"] == result.val_loss
    assert len(last["spheres"]) == 3
    assert last["loss_history"] == []
    assert abs(last["updated_at"] - time.time()) < 30


def test_an_error_is_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        run(tmp_path, options={"fail_lane": [3, 4]})
    found = read(tmp_path)
    assert found["over"] is True
    assert found["how"].startswith("error: ")


def test_an_earlier_session_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first figures of this one are there."""
    (tmp_path / "status.json").write_text('{"over": true}')
    monkeypatch.setattr(StatusFile, "_write", lambda *_: None)
    run(tmp_path, steps=3)
    assert not (tmp_path / "status.json").exists()


def test_a_stop_is_how_it_ended(tmp_path: Path) -> None:
    run(tmp_path, actions=lambda: ["stop"], steps=10_000)
    assert read(tmp_path)["how"] == "stopped"


def test_it_is_written_once_a_second(tmp_path: Path) -> None:
    file, snapshot = StatusFile(tmp_path), fake_snapshot()
    file.show(snapshot)
    first = (tmp_path / "status.json").stat().st_ino
    for _ in range(100):
        file.show(snapshot)
    assert (tmp_path / "status.json").stat().st_ino == first
    file._due_at -= statusfile.INTERVAL_S
    file.show(snapshot)
    assert (tmp_path / "status.json").stat().st_ino != first
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_it_costs_less_than_a_thousandth_of_a_core(tmp_path: Path) -> None:
    file, snapshot = StatusFile(tmp_path), fake_snapshot()
    costs = []
    for _ in range(50):
        file._due_at = 0.0
        began = time.thread_time()
        file.show(snapshot)
        costs.append(time.thread_time() - began)
    assert sorted(costs)[len(costs) // 2] < 0.001 * statusfile.INTERVAL_S


def test_a_full_disk_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = StatusFile(tmp_path / "nowhere")
    for _ in range(3):
        file.close(fake_snapshot(), "finished")
    assert len(caplog.messages) == 1


def test_figures_that_are_not_finite_become_null(tmp_path: Path) -> None:
    import dataclasses

    StatusFile(tmp_path).close(dataclasses.replace(fake_snapshot(), loss=float("nan")), "finished")
    assert json.loads((tmp_path / "status.json").read_text())["loss"] is None


def test_a_killed_run_with_socket_and_status_is_a_run_and_may_start_over(tmp_path: Path) -> None:
    import socket

    with RunDir.create(tmp_path):
        StatusFile(tmp_path).close(fake_snapshot(), "stopped")
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(tmp_path / "control.sock"))
        stale.close()
        (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "truncation": null}')
    (tmp_path / "run.lock").write_text("")
    names = [entry.name for entry in tmp_path.iterdir()]
    assert recognize(tmp_path, names) == RUN_DIRECTORY
    with RunDir.create(tmp_path) as again:
        again.clear()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.lock"]
