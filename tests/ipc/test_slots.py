"""Cores shared by several runs: one holder each, turns, deaths, stops, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crystalline.ipc import slots
from crystalline.ipc.liveness import is_stopped
from crystalline.ipc.slots import TURN_NS, OwnCores, SharedCores, open_cores, slots_path

pytestmark = pytest.mark.timeout(20)

SECOND = 1_000_000_000
# Another process: takes a slot of the cores that it is told of, says so, and does as it is told.
OTHER = """
import sys
from pathlib import Path
from time import monotonic_ns
from crystalline.ipc.slots import SharedCores
shared = SharedCores(Path(sys.argv[1]), [int(core) for core in sys.argv[2:]])
for line in sys.stdin:
    found = {"take": shared.take, "keep": shared.keep}.get(line.strip(), lambda _: shared.rest())
    print(found(monotonic_ns()), shared._byte, flush=True)
"""


class Other:
    """A process of another run."""

    def __init__(self, path: Path, *cores: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(path), *map(str, cores)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, word: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()[0]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slots"


@pytest.fixture
def other(path: Path) -> Iterator[Other]:
    process = Other(path, 0)
    yield process
    process.end()


def tries(shared: SharedCores, now_ns: int = SECOND) -> bool:
    """Try as often as it takes to look at who is stopped."""
    return any(shared.take(now_ns) for _ in range(slots._LOOK))


def test_alone_it_keeps_what_it_has_without_a_word(path: Path, monkeypatch) -> None:
    """One look a turn, however many units are done in it."""
    shared = SharedCores(path, [0, 1])
    assert not shared.keep(SECOND)
    assert shared.take(SECOND)
    asked = []
    monkeypatch.setattr(slots.fcntl, "fcntl", lambda *a: asked.append(a))
    assert all(shared.keep(SECOND + t) for t in range(0, TURN_NS, TURN_NS // 50))
    assert not asked
    monkeypatch.undo()
    assert shared.keep(SECOND + TURN_NS)
    shared.leave()
    assert not path.exists()


def test_a_core_has_one_holder_and_goes_to_who_waits(path: Path, other: Other) -> None:
    assert other.ask("take") == "True"
    shared = SharedCores(path, [0])
    assert not tries(shared)
    time.sleep(TURN_NS / 1e9)
    assert other.ask("keep") == "False"  # its turn is over, and somebody waits
    assert other.ask("take") == "False"  # it does not push in before us
    assert shared.take(SECOND)
    assert other.ask("take") == "False"
    assert not shared.keep(SECOND + TURN_NS)  # now the other waits
    assert other.ask("take") == "True"
    shared.leave()
    assert path.exists()  # the other is there


def test_two_cores_have_two_holders(path: Path, other: Other) -> None:
    assert other.ask("take") == "True"
    shared = SharedCores(path, [0, 1])
    assert shared.take(SECOND)
    assert shared._byte == 1
    shared.leave()


def test_who_dies_gives_back_at_once(path: Path, other: Other) -> None:
    assert other.ask("take") == "True"
    shared = SharedCores(path, [0])
    assert not shared.take(SECOND)
    other.end()
    assert shared.take(SECOND)
    shared.leave()
    assert not path.exists()


def test_who_is_stopped_is_passed_over(path: Path, other: Other) -> None:
    """Whoever holds the core and whoever is at the turnstile; and they get it back."""
    head = Other(path, 0)
    shared = SharedCores(path, [0])
    try:
        assert other.ask("take") == "True"
        assert head.ask("take") == "False"
        assert not tries(shared)
        other.stop()
        head.stop()
        assert tries(shared)
        assert shared.keep(SECOND + TURN_NS)  # nobody who can run waits
        other.process.send_signal(signal.SIGCONT)
        while is_stopped(other.process.pid):
            time.sleep(0.001)
        assert not shared.keep(SECOND + 3 * TURN_NS)  # it has the core again
        assert not tries(shared)
    finally:
        head.end()
        shared.leave()


def test_nobody_waits_for_ever(path: Path, other: Other) -> None:
    assert other.ask("take") == "True"
    shared = SharedCores(path, [0])
    assert not shared.take(SECOND)
    assert not shared.take(SECOND + slots.PATIENCE_NS - 1)
    late = SECOND + slots.PATIENCE_NS
    assert shared.take(late)
    assert shared.keep(late + TURN_NS - 1)
    assert not shared.keep(late + TURN_NS)
    assert not shared.take(late + TURN_NS)
    shared.leave()


def test_who_has_nothing_to_do_holds_up_nobody(path: Path, other: Other) -> None:
    shared = SharedCores(path, [0])
    assert shared.take(SECOND)
    assert other.ask("take") == "False"
    shared.rest()
    assert other.ask("take") == "True"
    assert not shared.take(SECOND)
    shared.rest()
    assert other.ask("keep") == "True"
    shared.leave()


def test_a_file_that_was_removed_meanwhile_is_made_again(path: Path, monkeypatch) -> None:
    """The last run removes the file while another has opened it: they would not meet."""
    path.touch()
    lstat = Path.lstat

    def removed_once(self: Path) -> os.stat_result:
        if self == path and path.exists():
            monkeypatch.undo()
            path.unlink()
        return lstat(self)

    monkeypatch.setattr(Path, "lstat", removed_once)
    shared = SharedCores(path, [0])
    assert os.path.samestat(os.fstat(shared._fd), path.stat())
    shared.leave()
    shared.leave()


def test_where_runs_meet(tmp_path: Path, monkeypatch) -> None:
    """In the user's own folder, where nobody else can write, else among the temporary files."""
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(mine))
    assert slots_path() == mine / "cllm-cores"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "everybody's").mkdir()
    (tmp_path / "everybody's").chmod(0o777)
    for named in ("", str(tmp_path / "gone"), str(tmp_path / "everybody's")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", named)
        assert slots_path() == tmp_path / f"cllm-cores-{os.geteuid()}"
    shared = open_cores([0])
    shared.leave()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "everybody's", mine]


@pytest.mark.parametrize("fault", ["a link", "a folder", "a pipe", "no place"])
def test_a_place_that_cannot_be_used_is_told_of(
    tmp_path: Path, monkeypatch, caplog, fault: str
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = slots_path()
    if fault == "a link":
        (tmp_path / "precious").write_text("mine")
        path.symlink_to(tmp_path / "precious")
    elif fault == "a folder":
        path.mkdir()
    elif fault == "a pipe":
        os.mkfifo(path)
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    cores = open_cores([0])
    assert isinstance(cores, OwnCores)
    assert len(caplog.records) == 1
    assert str(slots_path()) in caplog.text
    assert cores.keep(0)
    cores.leave()


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch, caplog) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    monkeypatch.setattr(slots.fcntl, "fcntl", no_locks)
    before = len(os.listdir("/proc/self/fd"))
    assert isinstance(open_cores([0]), OwnCores)
    assert "will hold each other up" in caplog.text
    assert len(os.listdir("/proc/self/fd")) == before
