"""Runs that were copied, zipped, renamed, closed or killed: what a user finds of them goes on."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from tests.e2e.commands import TINY, run
from tests.e2e.conftest import Finished


def stopped_at_ten(finished: Finished, path: Path) -> Path:
    """Return a copy of the run as it was after step 10."""
    shutil.copytree(finished.path, path, symlinks=True)
    for step in (20, 30):
        shutil.rmtree(path / "checkpoints" / f"step-{step:08d}")
    for name in ("latest", "best"):
        (path / name).unlink()
        (path / name).symlink_to("checkpoints/step-00000010")
    return path


def zipped(source: Path, archive: Path, *, links_are: str) -> None:
    """Write a zip as programs do that follow links, or that keep them as what they hold."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for folder, folders, names in os.walk(source, followlinks=links_are == "folders"):
            for name in sorted(names + folders):
                path = Path(folder, name)
                place = f"{source.name}/{path.relative_to(source).as_posix()}"
                info = zipfile.ZipInfo(place, (1980, 1, 1, 0, 0, 0))
                if path.is_symlink() and links_are == "files":
                    file.writestr(info, str(path.readlink()))
                elif path.is_file():
                    file.writestr(info, path.read_bytes())


@pytest.mark.parametrize("links_are", ["folders", "files"])
def test_a_zip_of_a_run_goes_on_elsewhere(
    finished: Finished, tmp_path: Path, links_are: str
) -> None:
    zipped(stopped_at_ten(finished, tmp_path / "run"), tmp_path / "a.zip", links_are=links_are)
    elsewhere = tmp_path / "else where"
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        file.extractall(elsewhere)
    copy = elsewhere / "run"
    assert (copy / "latest").is_dir() == (links_are == "folders")
    assert not (copy / "latest").is_symlink()
    done = run("cllm-train", "--resume=run", "--keep=1", "--json", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights_sha256"] == finished.result["weights_sha256"]
    assert "cannot be" not in done.stderr
    for name in ("latest", "best"):
        assert (copy / name).readlink() == Path("checkpoints/step-00000030")
    assert os.listdir(copy / "checkpoints") == ["step-00000030"]


def test_directories_of_any_name(finished: Finished, tmp_path: Path) -> None:
    """As the working directory and as the run's, also when it is resumed."""
    name = os.fsdecode(b"caf\xe9\xff\x01\x1b[2J\x7f\n b\r")
    here = tmp_path / name
    here.mkdir()
    arguments = (finished.arguments[0], *TINY, "--max-steps=3", "--json", "--plain")
    done = run("cllm-train", *arguments, "--checkpoint-dir", name, cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_dir"] == name
    assert "\x1b[2J" not in done.stderr
    done = run("cllm-train", "--resume", name, "--max-steps=4", "--json", "--plain", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["final_step"] == 4


def test_files_are_for_all_whom_the_umask_lets(finished: Finished) -> None:
    files = [path for path in finished.path.rglob("*") if path.is_file()]
    mask = os.umask(0)
    os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes == dict.fromkeys(modes, 0o666 & ~mask)


def test_a_run_without_a_checkpoint_is_started_over(finished: Finished, tmp_path: Path) -> None:
    """By the command that is offered, which names the settings that it left."""
    path = tmp_path / "run"
    shutil.copytree(finished.path, path, symlinks=True)
    shutil.rmtree(path / "checkpoints")
    for name in ("latest", "best"):
        (path / name).unlink()
    refused = run("cllm-train", "--resume=run", cwd=tmp_path)
    assert refused.returncode == 4
    message, _, command = refused.stderr.strip().partition(" Start it over with: cllm-train ")
    assert message == "cllm-train: error: the run run has no checkpoint yet."
    done = run("cllm-train", *command.split(), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights_sha256"] == finished.result["weights_sha256"]
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    steps = [line["step"] for line in lines if "event" not in line]
    assert steps == sorted(steps)
    assert steps.count(1) == 1  # those of the first try are gone
