"""Checkpoints with names: found by them, kept from pruning, also as copies make them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from crystalline.errors import CheckpointError, SaveError, UsageError
from crystalline.formats import checkpoint as cp
from crystalline.formats.kept import name_checkpoint, named_checkpoints
from tests.formats.checkpoints import names, save


def at(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def test_a_name_finds_its_checkpoint_and_keeps_it(run: Path) -> None:
    name_checkpoint(run, "before-change", at(run, 10))
    for step in (30, 40, 50):
        save(run, step)
    assert cp.prune(run, 1) == [at(run, step) for step in (40, 30, 20)]
    assert named_checkpoints(run) == {"before-change": at(run, 10)}
    assert cp.resolve(run, "before-change") == at(run, 10)
    assert cp.resolve(run / "checkpoints" / "before-change").samefile(at(run, 10))
    assert cp.locate(run / "checkpoints" / "before-change") == (run, "before-change")
    assert [entry.name for entry in cp.list_checkpoints(run)] == ["step-00000010", "step-00000050"]
    assert cp.load_checkpoint(cp.resolve(run, "before-change")).step == 10
    with pytest.raises(CheckpointError) as caught:
        cp.resolve(run, "another")
    assert caught.value.advice == "It has those of steps 10, 50, and those named before-change."


def test_two_names_and_the_same_name_twice(run: Path) -> None:
    name_checkpoint(run, "a", at(run, 10))
    name_checkpoint(run, "a", at(run, 10))
    name_checkpoint(run, "b", at(run, 10))
    assert named_checkpoints(run) == {"a": at(run, 10), "b": at(run, 10)}
    with pytest.raises(UsageError, match="the name a is taken by step-00000010"):
        name_checkpoint(run, "a", at(run, 20))
    assert names(run / "checkpoints") == ["a", "b", "step-00000010", "step-00000020"]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-x", "_x", "a/b", "a b", "é", "x" * 65, "latest", "best", "500",
     "step-00000010", "step-x", "a\n", "a\0"],
)  # fmt: skip
def test_other_names_cannot_be(run: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be named"):
        name_checkpoint(run, name, at(run, 10))
    assert names(run / "checkpoints") == ["step-00000010", "step-00000020"]


def test_whatever_is_there_is_in_the_way(run: Path) -> None:
    (run / "checkpoints" / "notes").write_text("mine")
    (run / "checkpoints" / "lost").symlink_to("step-00000099")
    for name in ("notes", "lost"):
        with pytest.raises(UsageError, match=f"the name {name} is taken"):
            name_checkpoint(run, name, at(run, 10))
    assert named_checkpoints(run) == {}
    assert (run / "checkpoints" / "notes").read_text() == "mine"


def test_copies_keep_their_names(run: Path, tmp_path: Path) -> None:
    name_checkpoint(run, "a", at(run, 10))
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)  # follows links: a whole copy
    assert named_checkpoints(copied) == {"a": at(copied, 10)}
    (copied / "checkpoints" / "step-00000010").rename(tmp_path / "gone")
    assert named_checkpoints(copied) == {"a": copied / "checkpoints" / "a"}
    flat = tmp_path / "flat"
    shutil.copytree(run, flat, symlinks=True)
    (flat / "checkpoints" / "a").unlink()
    (flat / "checkpoints" / "a").write_text("step-00000010")  # git and zip on some systems
    assert named_checkpoints(flat) == {"a": at(flat, 10)}
    save(flat, 30)
    assert cp.prune(flat, 1) == [at(flat, 20)]


def test_without_links_it_is_a_small_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    name_checkpoint(run, "a", at(run, 10))
    assert (run / "checkpoints" / "a").read_text() == "step-00000010\n"
    assert named_checkpoints(run) == {"a": at(run, 10)}


def test_a_name_that_cannot_be_written_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SaveError, match="cannot be named a"):
        name_checkpoint(run, "a", at(run, 10))
    assert names(run / "checkpoints") == ["step-00000010", "step-00000020"]
    assert named_checkpoints(run.parent / "nowhere") == {}
