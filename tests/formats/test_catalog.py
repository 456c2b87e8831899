"""Which checkpoint is newest, whatever clocks say, and what is told of those we may not read."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from crystalline.errors import CheckpointError
from crystalline.formats import checkpoint as cp
from crystalline.formats.catalog import locate, newest_first
from crystalline.formats.rundir import RunDir, newest_run, read_toml
from tests.formats.checkpoints import save
from tests.permissions import permissions_hold


def steps(paths: list[Path]) -> list[int]:
    return [int(path.name[5:]) for path in paths]


def edit_manifest(path: Path, **changes: object) -> None:
    document = json.loads((path / "manifest.json").read_text()) | changes
    document = {key: value for key, value in document.items() if value is not ...}
    (path / "manifest.json").write_text(json.dumps(document))


def test_a_clock_that_was_set_back_changes_nothing(run: Path, monkeypatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    for step in (30, 40):
        save(run, step)
    assert steps(newest_first(run)) == [40, 30, 20, 10]
    cp.prune(run, 2)
    assert steps(cp.list_checkpoints(run)) == [30, 40]


def test_times_in_manifests_are_not_looked_at(run: Path) -> None:
    save(run, 30)
    for number, path in enumerate(cp.list_checkpoints(run)):
        edit_manifest(path, saved_at=1000.0 - number)
    cp.prune(run, 1)
    assert steps(cp.list_checkpoints(run)) == [30]


def test_a_run_that_went_back_and_on_leaves_its_old_branch_behind(run: Path) -> None:
    for step in (30, 15, 25):  # from 30 back to 10, and on
        save(run, step)
    assert steps(newest_first(run)) == [25, 15, 10, 30, 20]
    (run / "latest").unlink()
    assert cp.resolve(run, "latest").name == "step-00000025"
    save(run, 20)  # from 25 back to 15; this step of the first branch is written again
    assert steps(newest_first(run)) == [20, 15, 10, 25, 30]
    cp.prune(run, 3)
    assert steps(cp.list_checkpoints(run)) == [10, 15, 20]


def test_checkpoints_of_older_versions_are_ordered_by_step(run: Path) -> None:
    """Those beyond `latest` are of a branch that was left."""
    save(run, 15)  # latest
    for path in cp.list_checkpoints(run):
        edit_manifest(path, save=..., saved_at=0.0)
    assert steps(newest_first(run)) == [15, 10, 20]
    save(run, 25)
    assert steps(newest_first(run)) == [25, 20, 15, 10]  # the first that is counted


def test_runs_are_ordered_although_the_clock_was_set_back(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, now in (("b", 5000.0), ("a", 1000.0)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        save(Path("runs", name), 10)
        assert newest_run() == Path("runs", name)
    save(Path("runs/b"), 20)
    assert newest_run() == Path("runs/b")
    save(Path("elsewhere/c"), 10)  # where nobody looks for the newest
    found = json.loads(Path("elsewhere/c/latest/manifest.json").read_text())
    assert found["saved_at"] == 1000.0


def test_what_stepped_aside_and_its_successor_are_told_apart(run: Path) -> None:
    folder = run / "checkpoints"
    (folder / "step-00000020").rename(folder / ".step-00000020.77-cd.old.tmp")
    (folder / ".step-00000020.77-ef.tmp").write_text("no folder at all")
    (folder / "link").symlink_to("step-00000010")
    cp.tidy(run)
    assert steps(cp.list_checkpoints(run)) == [10, 20]
    assert sorted(p.name for p in folder.iterdir()) == ["link", "step-00000010", "step-00000020"]


def test_a_checkpoint_on_another_disk_is_only_unlinked(run: Path, tmp_path: Path) -> None:
    ten = run / "checkpoints" / "step-00000010"
    ten.rename(tmp_path / "ten")
    ten.symlink_to(tmp_path / "ten")
    cp.prune(run, 1)
    assert steps(cp.list_checkpoints(run)) == [20]
    assert (tmp_path / "ten" / "manifest.json").is_file()


def test_locate(run: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine").symlink_to("run/checkpoints/step-00000010")
    assert locate(run / "latest") == (run, "latest")
    assert locate(tmp_path / "mine") == (run, "step-00000010")
    assert locate(run) is None
    monkeypatch.chdir(run / "checkpoints" / "step-00000020")
    assert locate(Path()) == (run, "step-00000020")
    monkeypatch.chdir(run)
    assert locate(Path("latest")) == (Path(), "latest")
    assert locate(Path("checkpoints/step-00000010")) == (Path(), "step-00000010")


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_all_files_have_the_mode_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        path = save(tmp_path / "run", 10, crystal="{}")
    finally:
        os.umask(before)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.iterdir()}
    assert modes == dict.fromkeys(modes, 0o666 & ~mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("name", [*cp.FILES, cp.MANIFEST, "crystal.json"])
def test_what_may_not_be_read_is_not_called_damaged(run: Path, name: str) -> None:
    path = save(run, 30, crystal="{}")
    (path / name).chmod(0)
    readers = [cp.load_checkpoint]
    if name not in (cp.OPTIMIZER, cp.STATE):
        readers.append(cp.load_model)
    with permissions_hold():
        for read in readers:
            with pytest.raises(CheckpointError) as caught:
                read(path)
            assert caught.value.message == f"{path / name} cannot be read (Permission denied)"
            assert caught.value.advice == "Check its permissions."
            assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", [cp.CONFIG, cp.TOKENIZER, cp.MODEL, "crystal.json"])
def test_also_without_a_manifest(run: Path, name: str) -> None:
    path = save(run, 30, crystal="{}")
    (path / cp.MANIFEST).unlink()
    (path / name).chmod(0)
    with permissions_hold(), pytest.raises(CheckpointError) as caught:
        cp.load_model(path)
    assert str(caught.value) == (
        f"{path / name} cannot be read (Permission denied). Check its permissions."
    )


@pytest.mark.parametrize("place", [".", "checkpoints", "checkpoints/step-00000020"])
def test_folders_that_are_closed(run: Path, place: str) -> None:
    (run / place).chmod(0)
    try:
        with permissions_hold(), pytest.raises(CheckpointError) as caught:
            cp.load_checkpoint(cp.resolve(run, "latest"))
    finally:
        (run / place).chmod(0o755)
    assert "cannot be read (Permission denied)" in caught.value.message
    assert caught.value.advice == "Check its permissions."


def test_a_closed_checkpoint_is_not_offered(run: Path) -> None:
    (run / "checkpoints/step-00000010/model.safetensors").chmod(0)
    (run / "checkpoints/step-00000020/model.safetensors").write_bytes(b"no")
    with permissions_hold(), pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        cp.load_checkpoint(run / "checkpoints/step-00000020")


def test_closed_runs_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "mine", 10)
    save(tmp_path / "theirs", 10)
    (tmp_path / "theirs").chmod(0)
    try:
        with permissions_hold():
            assert newest_run(tmp_path) == tmp_path / "mine"
            with pytest.raises(CheckpointError, match="cannot be read"):
                RunDir.open(tmp_path / "theirs")
    finally:
        (tmp_path / "theirs").chmod(0o755)


def test_closed_settings(tmp_path: Path) -> None:
    from crystalline.errors import UsageError

    (tmp_path / "c.toml").write_text("seed = 1\n")
    (tmp_path / "c.toml").chmod(0)
    with permissions_hold(), pytest.raises(UsageError) as caught:
        read_toml(tmp_path / "c.toml")
    assert caught.value.advice == "Check its permissions."
