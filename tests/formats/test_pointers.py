"""`latest` and `best` in every form that copying, zip, git and file systems give them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from crystalline.formats import pointers
from crystalline.formats.catalog import all_checkpoints, latest_checkpoint, resolve
from crystalline.formats.checkpoint import inspect_checkpoint, prune
from crystalline.formats.pointers import pointer, restore_pointers, set_pointer
from crystalline.formats.rundir import RunDir
from tests.formats.checkpoints import names, save

TEN, TWENTY = "checkpoints/step-00000010", "checkpoints/step-00000020"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose best checkpoint is not its latest."""
    run = tmp_path / "run"
    save(run, 10, best=True)
    save(run, 20)
    return run


def copied(run: Path) -> Path:
    """Return a copy as `cp -rL` makes it: folders where there were links."""
    copy = run.with_name("copy")
    shutil.copytree(run, copy)
    assert not (copy / "latest").is_symlink()
    return copy


def links(run: Path) -> dict[str, str]:
    return {n: str((run / n).readlink()) for n in ("latest", "best") if (run / n).is_symlink()}


BOTH = {"latest": TWENTY, "best": TEN}


@pytest.mark.parametrize(
    "text", [TEN, f"{TEN}\n", TEN.replace("/", "\\") + "\r\n", f"./{TEN}/", f"/gone/{TEN}"]
)
def test_small_files_are_pointers(run: Path, text: str) -> None:
    (run / "best").unlink()
    (run / "best").write_bytes(text.encode())
    assert pointer(run, "best") == resolve(run) == resolve(run / "best") == run / TEN
    RunDir.open(run).close()
    assert links(run) == BOTH


@pytest.mark.parametrize("text", ["", "\n", "nowhere", "checkpoints", "a\0b", "\udcff", "x" * 9999])
def test_files_of_something_else_point_nowhere(run: Path, text: str) -> None:
    (run / "latest").unlink()
    (run / "latest").write_bytes(os.fsencode(text))
    assert pointer(run, "latest") is None
    assert resolve(run, "latest") == run / TWENTY
    RunDir.open(run).close()
    assert (run / "latest").is_file()  # nothing to restore it to


def test_folders_are_pointers(run: Path) -> None:
    copy = copied(run)
    assert resolve(copy) == resolve(copy / "best") == copy / TEN
    assert resolve(copy, "latest") == resolve(copy / "latest") == copy / TWENTY
    RunDir.open(copy).close()
    assert links(copy) == BOTH
    assert names(copy) == sorted([*names(run), "run.lock"])


def test_saving_moves_a_folder_that_is_a_copy(run: Path) -> None:
    """Also without `RunDir.open`: the checkpoint is whole, and pruning comes to its end."""
    copy = copied(run)
    save(copy, 30, best=True)
    assert links(copy) == dict.fromkeys(("latest", "best"), "checkpoints/step-00000030")
    assert [path.name for path in prune(copy, 1)] == ["step-00000020", "step-00000010"]


def test_a_folder_whose_checkpoint_is_gone_is_one_itself(run: Path) -> None:
    copy = copied(run)
    shutil.rmtree(copy / "checkpoints")
    assert resolve(copy) == copy / "best"
    assert resolve(copy, "20") == resolve(copy, "latest") == latest_checkpoint(copy)
    assert latest_checkpoint(copy) == copy / "latest"
    assert inspect_checkpoint(copy / "best").step == 10
    RunDir.open(copy).close()
    assert links(copy) == BOTH
    assert [path.name for path in all_checkpoints(copy)] == ["step-00000020", "step-00000010"]


def test_a_folder_takes_the_place_of_a_damaged_checkpoint(run: Path) -> None:
    copy = copied(run)
    with (copy / TWENTY / "optimizer.safetensors").open("ab") as file:
        file.write(b"x")
    RunDir.open(copy).close()
    assert links(copy) == BOTH
    assert inspect_checkpoint(copy / TWENTY).step == 20


@pytest.mark.parametrize("change", ["other", "notes", "damaged"])
def test_a_folder_that_is_no_copy_is_never_lost(run: Path, change: str, caplog) -> None:
    copy = copied(run)
    if change == "other":
        save(copy, 10, seed=99)  # the step was written again
        set_pointer(copy, "latest", copy / TWENTY)
    elif change == "notes":
        (copy / "best" / "notes.txt").write_text("mine")
    else:
        (copy / "best" / "config.json").write_text("{}")
    before = {p.name: p.read_bytes() for p in (copy / "best").iterdir()}
    RunDir.open(copy).close()
    assert {p.name: p.read_bytes() for p in (copy / "best").iterdir()} == before
    save(copy, 30, best=True)
    assert links(copy)["best"] == "checkpoints/step-00000030"
    assert {p.name: p.read_bytes() for p in (copy / "best-kept-1").iterdir()} == before
    assert "best is no copy of a checkpoint here; it is now" in caplog.text


def test_absolute_links_of_a_copy_mean_the_copy(run: Path) -> None:
    for name, step in BOTH.items():
        (run / name).unlink()
        (run / name).symlink_to(run / step)
    copy = run.with_name("copy")
    shutil.copytree(run, copy, symlinks=True)
    for _ in range(2):  # while there is the other run, and without it
        assert resolve(copy) == copy / TEN
        assert resolve(copy / "latest") == copy / TWENTY
        run.rename(run.with_name("moved"))
        run = run.with_name("moved")
    RunDir.open(copy).close()
    assert links(copy) == BOTH


def test_links_to_a_checkpoint_elsewhere_are_followed(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save(other, 7)
    (run / "best").unlink()
    (run / "best").symlink_to(other / "latest")
    assert inspect_checkpoint(resolve(run, "best")).step == 7
    (run / "latest").unlink()
    (run / "latest").symlink_to("best")  # and links to links
    assert inspect_checkpoint(resolve(run, "latest")).step == 7
    RunDir.open(run).close()
    prune(run, 1)
    assert names(other / "checkpoints") == ["step-00000007"]


def test_a_best_that_leads_nowhere_is_told(run: Path, caplog) -> None:
    (run / "best").unlink()
    (run / "best").symlink_to("checkpoints/step-00000099")
    assert resolve(run) == run / TWENTY
    assert f"{run / 'best'} points to no checkpoint; {run / TWENTY} is taken" in caplog.text


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EROFS])
def test_without_links_pointers_are_small_files(tmp_path: Path, monkeypatch, code: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run = tmp_path / "run"
    save(run, 10, best=True)
    save(run, 20)
    assert (run / "latest").read_text() == f"{TWENTY}\n"
    assert resolve(run) == run / TEN
    monkeypatch.undo()
    RunDir.open(run).close()
    assert links(run) == BOTH


def test_a_pointer_that_cannot_move_fails_no_checkpoint(run: Path, monkeypatch, caplog) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(pointers, "set_pointer", refuse)
    assert inspect_checkpoint(save(run, 30, best=True)).step == 30
    assert "latest cannot be changed (Permission denied)" in caplog.text
    assert "best cannot be changed (Permission denied)" in caplog.text


def test_what_is_no_checkpoint_stays_a_folder(run: Path) -> None:
    """Somebody's own folder of that name is moved aside, never removed."""
    (run / "best").unlink()
    (run / "best").mkdir()
    (run / "best" / "notes.txt").write_text("mine")
    restore_pointers(run)
    assert resolve(run) == run / TWENTY
    save(run, 30, best=True)
    assert (run / "best-kept-1" / "notes.txt").read_text() == "mine"


def test_empty_folders_are_removed(run: Path, caplog) -> None:
    """That is what Python's `shutil.make_archive` makes of the links."""
    for name in BOTH:
        (run / name).unlink()
        (run / name).mkdir()
    assert resolve(run, "latest") == run / TWENTY
    RunDir.open(run).close()
    assert names(run) == ["checkpoints", "run.lock", "some-tokenizer.json"]
    save(run, 30)
    assert names(run) == ["checkpoints", "latest", "run.lock", "some-tokenizer.json"]
    assert caplog.text == ""
