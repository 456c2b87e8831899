"""Atomic writes: all or nothing, and nothing left behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from crystalline import atomic
from crystalline.atomic import (
    atomic_write,
    is_temporary,
    replace_shared,
    sweep_leftovers,
    temporary_beside,
    write_bytes,
    write_json,
    write_text,
)
from crystalline.untrusted import open_ours


def test_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    write_bytes(target, b"old")
    write_bytes(target, memoryview(b"newer"))
    assert target.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_failure_in_the_block_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as file:
        file.write(b"half of the new")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_readers_see_the_old_content_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with atomic_write(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_the_file_can_be_read_back_and_its_start_rewritten(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    with atomic_write(target) as file:
        file.write(b"....payload")
        file.seek(4)
        assert file.read() == b"payload"
        file.seek(0)
        file.write(b"head")
    assert target.read_bytes() == b"headpayload"


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file.bin", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == 0o640


def test_long_names_fit(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 127)  # 254 bytes; the limit is 255
    write_bytes(target, b"x")
    assert os.listdir(tmp_path) == [target.name]


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "missing" / "file.bin", b"x")


def test_text_and_json_are_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "Grüße\n")
    assert (tmp_path / "t").read_bytes() == b"Gr\xc3\xbc\xc3\x9fe\n"
    write_json(tmp_path / "j", {"name": "Ω", "values": [1, 2.5, None]})
    assert json.loads((tmp_path / "j").read_text("utf-8")) == {
        "name": "Ω",
        "values": [1, 2.5, None],
    }


def test_json_refuses_what_it_cannot_hold_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "j"
    write_json(target, {"a": 1})
    for value in ({"a": float("nan")}, {"a": object()}):
        with pytest.raises((TypeError, ValueError)):
            write_json(target, value)
    assert json.loads(target.read_text("utf-8")) == {"a": 1}
    assert os.listdir(tmp_path) == ["j"]


def test_leftovers_of_killed_writers_are_swept(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from crystalline.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = tmp_path / "\udcff\n"  # any name will do
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", program, folder / "a\nb.json"], timeout=30)
    assert done.returncode < 0
    (left,) = folder.iterdir()
    assert is_temporary(left)
    mine = temporary_beside(folder / "c")
    mine.mkdir()
    assert sweep_leftovers(folder, owned=False) == [left]
    assert list(folder.iterdir()) == [mine]
    assert sweep_leftovers(tmp_path / "nowhere", owned=True) == []


def test_what_another_machine_writes_stays_for_a_day(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(atomic, "_place", lambda: "0123")
    old, new = temporary_beside(tmp_path / "old"), temporary_beside(tmp_path / "new")
    monkeypatch.setattr(atomic, "_place", lambda: "4567")
    for entry in (old, new):
        entry.mkdir()
        (entry / "part").touch()
    os.utime(old, (1, 1))
    assert sweep_leftovers(tmp_path, owned=False) == [old]
    assert sweep_leftovers(tmp_path, owned=True) == [new]


def test_json_holds_names_that_are_not_utf8(tmp_path: Path) -> None:
    value = {"run_dir": "caf\udce9", "text": "Zürich 😀"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == value


def test_a_file_with_two_names_is_copied_before_it_is_written(tmp_path: Path) -> None:
    backup, path = tmp_path / "backup", tmp_path / "metrics"
    backup.write_bytes(b"old")
    backup.chmod(0o640)
    os.link(backup, path)
    replace_shared(path)
    descriptor = open_ours(path)
    os.pwrite(descriptor, b"new", 0)
    os.close(descriptor)
    assert (backup.read_bytes(), path.read_bytes()) == (b"old", b"new")
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["backup", "metrics"]


def test_a_file_with_one_name_stays_itself(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    path.write_bytes(b"old")
    inode = path.stat().st_ino
    replace_shared(path)
    os.close(open_ours(path))
    assert path.stat().st_ino == inode
    replace_shared(tmp_path / "missing")
