"""Run directories: creation, the lock, names, and the settings file."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.errors import CheckpointError, UsageError
from crystalline.formats import rundir
from crystalline.formats.rundir import (
    RunDir,
    default_run_dirs,
    newest_run,
    read_toml,
    run_of,
    to_toml,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def with_checkpoint(run: Path, step: int = 7) -> Path:
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


def test_creates_parents_and_locks(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with RunDir.create(path) as run:
        assert run.path == path
        with pytest.raises(UsageError) as caught:
            RunDir.open(path)
    assert re.fullmatch(
        rf"the run directory {path} is in use by process {os.getpid()} on \S+",
        caught.value.message,
    )
    RunDir.open(path).close()  # free again


def test_an_empty_directory_will_do(tmp_path: Path) -> None:
    RunDir.create(tmp_path).close()
    RunDir.create(tmp_path).close()  # only the lock file is in it


@pytest.mark.parametrize("content", ["notes.txt", ".hidden", "checkpoints"])
def test_never_overwrites(tmp_path: Path, content: str) -> None:
    (tmp_path / content).mkdir()
    with pytest.raises(UsageError, match="is not empty") as caught:
        RunDir.create(tmp_path)
    assert caught.value.exit_code == 2
    assert caught.value.advice == "Choose another --checkpoint-dir."
    RunDir.open(tmp_path).close()  # and the lock was given back


def test_offers_to_resume_what_can_be_resumed(tmp_path: Path) -> None:
    with_checkpoint(tmp_path)
    with pytest.raises(UsageError) as caught:
        RunDir.create(tmp_path)
    assert f"--resume {tmp_path}" in caught.value.advice


def test_a_directory_in_use_is_said_to_be_in_use(tmp_path: Path) -> None:
    """And not merely to be full."""
    with RunDir.create(tmp_path) as run:
        run.write_config({"seed": 1})
        with pytest.raises(UsageError, match="in use by process"):
            RunDir.create(tmp_path)


def test_the_lock_is_gone_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from crystalline.formats.rundir import RunDir\n"
        "run = RunDir.create(Path(sys.argv[1]))\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    path = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            with pytest.raises(UsageError, match=f"in use by process {process.pid} on"):
                RunDir.open(path)
        finally:
            process.kill()
    RunDir.open(path).close()


def test_an_unreadable_owner_is_another_process(tmp_path: Path) -> None:
    with RunDir.create(tmp_path):
        (tmp_path / "run.lock").write_bytes(b"")
        with pytest.raises(UsageError, match="in use by another process"):
            RunDir.open(tmp_path)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, problem in (("file", "is a file"), ("file/run", "cannot be written")):
        with pytest.raises(UsageError, match=problem) as caught:
            RunDir.create(tmp_path / path)
        assert "--checkpoint-dir" in caught.value.advice
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("call", ["mkdir", "open", "ftruncate"])
def test_no_permission(tmp_path: Path, monkeypatch, call: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UsageError, match=r"cannot be written \(Operation not permitted\)"):
        RunDir.create(tmp_path / "run")


def test_opening_clears_up(tmp_path: Path) -> None:
    checkpoint = with_checkpoint(tmp_path)
    leftover = checkpoint.with_name(".step-00000009.1-ab.tmp")
    leftover.mkdir()
    RunDir.open(tmp_path).close()
    assert checkpoint.exists()
    assert not leftover.exists()


def test_opening_needs_a_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no run at"):
        RunDir.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_discards_only_what_was_never_used(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{}")
    with RunDir.create(tmp_path / "unused") as run:
        run.write_config({"seed": 1})
        assert run.keep_tokenizer(tmp_path / "t.json").read_text() == "{}"
        run.discard_unused()
    assert not (tmp_path / "unused").exists()
    with RunDir.create(tmp_path / "used") as run:
        run.write_config({"seed": 1})
        (tmp_path / "used" / "metrics.jsonl").write_text("{}\n")
        run.discard_unused()
    assert sorted(os.listdir(tmp_path / "used")) == ["config.toml", "metrics.jsonl", "run.lock"]


def test_default_names_do_not_collide(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    now = datetime(2026, 1, 2, 3, 4, 5)
    names = default_run_dirs(10_770_816, now=now)
    first, second = next(names), next(names)
    assert first == Path("runs/20260102-030405-10.8M")
    assert second == Path("runs/20260102-030405-10.8M-2")
    first.mkdir(parents=True)
    with RunDir.create_default(10_770_816, now=now) as run:
        assert run.path == second


def test_runs_that_start_at_once_get_directories_of_their_own(tmp_path: Path) -> None:
    """Some are given up at once, and take the folder `runs` with them when it is empty."""
    program = (
        "import sys\n"
        "from datetime import datetime\n"
        "from crystalline.formats.rundir import RunDir\n"
        "sys.stdin.readline()\n"
        "for number in range(40):\n"
        "    run = RunDir.create_default(7000, now=datetime(2026, 1, 2))\n"
        "    if number % 20:\n"
        "        run.discard_unused()\n"
        "        run.close()\n"
        "    else:\n"
        "        run.write_config({'number': number})\n"
        "        print(run.path)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    paths = []
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        paths += out.split()
    assert len(paths) == len(set(paths)) == 8
    assert sorted(f"runs/{name}" for name in os.listdir(tmp_path / "runs")) == sorted(paths)


def test_a_lock_that_its_owner_removed_is_not_taken(tmp_path: Path, monkeypatch) -> None:
    """Between opening the file and locking it, the owner discards the directory and ends."""
    lock, path = fcntl.flock, tmp_path / "run"
    first = RunDir.create(path)

    def late(fd: int, how: int) -> None:
        if first._fd >= 0:
            first.discard_unused()
            first.close()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with RunDir.create(path) as run:
        assert run.path.is_dir()
        with pytest.raises(UsageError, match="in use"):
            RunDir.open(path)


def test_newest_run_is_the_one_saved_last(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run with a checkpoint"):
        newest_run(tmp_path)
    # Copying gave the files the times of the copy, in another order.
    files = {"config.json": {"size_bytes": 1, "sha256": "0" * 64}}
    for name, seconds, copied in (("a", 30, 9), ("b", 50, 7), ("c", 40, 8)):
        folder = with_checkpoint(tmp_path / name)
        (folder / "manifest.json").write_text(
            json.dumps({"format": 1, "step": 7, "saved_at": seconds, "files": files})
        )
        os.utime(folder, (copied, copied))
    (tmp_path / "d").mkdir()
    (tmp_path / "file").write_text("")
    (with_checkpoint(tmp_path / "e") / "manifest.json").write_text("damaged")
    assert newest_run(tmp_path) == tmp_path / "b"
    assert run_of(tmp_path / "b" / "checkpoints" / "step-00000007") == tmp_path / "b"


def killed_before_its_first_checkpoint(path: Path) -> None:
    """Leave what a run leaves that is killed in the middle of its first save."""
    path.mkdir()
    (path / "run.lock").write_text('{"pid": 1, "host": "gone"}\n')
    for name in ("config.toml", "tokenizer.json", "crystal.json", "metrics.jsonl"):
        (path / name).write_text("old\n")
    half = path / "checkpoints" / f".step-00000003.{GONE}-00000000abcd.tmp"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{")
    (path / f".config.toml.{GONE}-0123abcd.tmp").write_text("half")
    (path / ".cllm-0123abcd-99999-1").write_bytes(b"arena")


GONE = 1 << 22  # more than the largest number of a process


def test_what_was_killed_before_its_first_checkpoint_may_be_started_over(tmp_path: Path) -> None:
    path = tmp_path / "run"
    killed_before_its_first_checkpoint(path)
    with RunDir.create(path) as run:
        assert (path / "config.toml").read_text() == "old\n"
        run.clear()
        assert sorted(os.listdir(path)) == [".cllm-0123abcd-99999-1", "run.lock"]
        (path / ".cllm-0123abcd-99999-1").unlink()
        run.write_config({"seed": 1})
        run.discard_unused()
    assert not path.exists()


def test_a_start_that_fails_leaves_the_leftovers(tmp_path: Path) -> None:
    """They hold the settings that the run may be started over with."""
    path = tmp_path / "run"
    killed_before_its_first_checkpoint(path)
    with RunDir.create(path) as run:
        run.discard_unused()
    assert (path / "config.toml").read_text() == "old\n"


@pytest.mark.parametrize(
    "also", ["notes.txt", "latest", "checkpoints/notes.txt", "checkpoints/step-00000003", "config"]
)
def test_but_not_what_holds_anything_else(tmp_path: Path, also: str) -> None:
    path = tmp_path / "run"
    killed_before_its_first_checkpoint(path)
    if also == "latest":
        (path / also).symlink_to("checkpoints/step-00000003")
    elif also == "config":
        (path / "config.toml").unlink()
        (path / "config.toml").mkdir()
    else:
        (path / also).write_text("mine")
    before = sorted(os.listdir(path))
    with pytest.raises(UsageError, match="is not empty"):
        RunDir.create(path)
    assert sorted(os.listdir(path)) == before
    (path / "run.lock").unlink()
    with pytest.raises(UsageError, match="is not empty"):
        RunDir.create(path)
    assert not (path / "run.lock").exists()


def test_a_checkpoint_that_had_stepped_aside_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    path = tmp_path / "run"
    killed_before_its_first_checkpoint(path)
    aside = path / "checkpoints" / f".step-00000003.{GONE}-00000000abcd.old.tmp"
    with_checkpoint(path).rename(aside)
    with pytest.raises(UsageError, match="Continue it with --resume"):
        RunDir.create(path)
    assert (path / "checkpoints" / "step-00000003").is_dir()


def test_opening_sweeps_what_killed_processes_left(tmp_path: Path) -> None:
    path = tmp_path / "run"
    killed_before_its_first_checkpoint(path)
    with_checkpoint(path)
    (path / f".latest.{GONE}-0123abcd.tmp").symlink_to("checkpoints/step-00000007")
    alive = path / f".tokenizer.json.{os.getpid()}-0123abcd.tmp"
    mine = path / ".notes.tmp"
    for entry in (alive, mine):
        entry.write_text("")
    RunDir.open(path).close()
    assert {alive.name, mine.name, "checkpoints", "config.toml"} < set(os.listdir(path))
    assert [name for name in os.listdir(path) if str(GONE) in name] == []
    assert os.listdir(path / "checkpoints") == ["step-00000007"]


keys = st.from_regex(r"\A[a-z_]{1,12}\Z")
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(st.dictionaries(keys, st.one_of(scalars, st.lists(st.text(max_size=5), max_size=3))))
def test_toml_round_trip(values: dict) -> None:
    found = tomllib.loads(to_toml(values, comment="one\n\ntwo"))
    assert found == values
    assert [type(value) for value in found.values()] == [type(v) for v in values.values()]


def test_toml_extremes() -> None:
    values = {"tiny": 5e-324, "big": 1.7e308, "endless": math.inf, "path": Path("a/b"), "no": None}
    text = to_toml(values)
    assert tomllib.loads(text) == {
        "tiny": 5e-324, "big": 1.7e308, "endless": math.inf, "path": "a/b",
    }  # fmt: skip
    with pytest.raises(TypeError, match="dict"):
        to_toml({"a": {}})


def test_config_is_written_and_read(tmp_path: Path) -> None:
    with RunDir.create(tmp_path) as run:
        run.write_config({"seed": 5, "data": (Path("a"), "b")}, comment="made by a test")
    assert (tmp_path / rundir.CONFIG).read_text().startswith("# made by a test\nseed = 5\n")
    assert read_toml(tmp_path / rundir.CONFIG) == {"seed": 5, "data": ["a", "b"]}


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe", b"seed = 1\nseed = 2\n"])
def test_bad_toml_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"my\.toml cannot be used: it is not"):
        read_toml(path)
    with pytest.raises(UsageError, match=r"no\.toml cannot be read \(No such file"):
        read_toml(tmp_path / "no.toml")
