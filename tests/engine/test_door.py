"""The door's socket: what it answers, whom it hears, and what hostile clients cost it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crystalline.engine import door as module
from crystalline.engine.call import Call
from crystalline.engine.door import LONGEST_LINE, MOST_CONNECTIONS, Door, Peer, place
from crystalline.errors import CrystallineError, EngineError

pytestmark = pytest.mark.timeout(30)

NAME = "control.sock"


def echo(request: dict[str, Any], peer: Peer) -> dict[str, Any]:
    return {"ok": True, "got": request, "pid": peer.pid}


@contextlib.contextmanager
def served(folder: Path, answer: module.Answer = echo) -> Iterator[Door]:
    """A door that a thread serves, as the launcher's loop does."""
    door, over = Door.open(folder, NAME, answer), threading.Event()

    def loop() -> None:
        while not over.is_set():
            door.renew()
            turn(door, 20)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield door
    finally:
        over.set()
        thread.join()
        door.close()


def turn(door: Door, wait_ms: float = 0) -> None:
    poll = select.poll()
    door.register(poll)
    door.serve(dict(poll.poll(wait_ms)))


def connect(folder: Path) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    opened = os.open(folder, os.O_RDONLY)
    try:
        channel.connect(place(opened, NAME))
        channel.settimeout(10)
    finally:
        os.close(opened)
    return channel


def test_lines_are_answered_in_order(tmp_path: Path) -> None:
    with served(tmp_path), Call.open(tmp_path, NAME, timeout_s=5) as call:
        for number in range(50):
            answer = call.ask({"n": number})
            assert answer == {"ok": True, "got": {"n": number}, "pid": os.getpid()}


def test_several_lines_at_once_and_the_end_of_the_sender(tmp_path: Path) -> None:
    with served(tmp_path), connect(tmp_path) as channel, channel.makefile() as lines:
        channel.sendall(b'{"n": 1}\n{"n": 2}\n{"n": 3}\n')
        channel.shutdown(socket.SHUT_WR)
        assert [json.loads(line)["got"]["n"] for line in lines] == [1, 2, 3]


def test_the_socket_is_the_owners_and_goes_with_the_door(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        door = Door.open(tmp_path, NAME, echo)
    finally:
        os.umask(before)
    mode = (tmp_path / NAME).lstat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
    door.close()
    door.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_path_is_longer_than_an_address(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    with served(folder), Call.open(folder, NAME, timeout_s=5) as call:
        assert call.ask({})["ok"]


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    door = Door.open(tmp_path, NAME, echo)
    with contextlib.ExitStack() as stack, pytest.raises(EngineError, match="did not answer"):
        while True:  # as many as the kernel lets wait
            stack.enter_context(Call.open(tmp_path, NAME, timeout_s=0.05))
    door.close()


def test_a_stale_socket_is_replaced_and_no_other_file(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / NAME))
    stale.close()
    with pytest.raises(ConnectionRefusedError):
        Call.open(tmp_path, NAME, timeout_s=5)
    with served(tmp_path), Call.open(tmp_path, NAME, timeout_s=5) as call:
        assert call.ask({})["ok"]
    (tmp_path / NAME).write_text("mine")
    with pytest.raises(FileExistsError):
        Door.open(tmp_path, NAME, echo)
    assert (tmp_path / NAME).read_text() == "mine"


def test_a_socket_that_took_its_place_is_left_alone(tmp_path: Path) -> None:
    first = Door.open(tmp_path, NAME, echo)
    second = Door.open(tmp_path, NAME, echo)
    first.close()
    assert (tmp_path / NAME).is_socket()
    second.close()


def test_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = Peer(1234, os.geteuid() + 1)
    with served(tmp_path) as door:
        monkeypatch.setattr(module, "peer_of", lambda _: stranger)
        with connect(tmp_path) as channel, channel.makefile() as lines:
            assert json.loads(lines.readline()) == {
                "ok": False, "reason": "the run belongs to another user",
            }  # fmt: skip
            assert lines.readline() == ""
        assert not door._connections


def test_an_impostor_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crystalline.engine import call

    monkeypatch.setattr(call, "peer_of", lambda _: Peer(1234, 4321))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with (
        served(tmp_path),
        pytest.raises(CrystallineError, match="somebody else than you answers"),
    ):
        Call.open(tmp_path, NAME, timeout_s=5)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\n", "a line is no JSON object"),
        (b"[]\n", "a line is no JSON object"),
        (b"\xff\xfe\n", "a line is no JSON object"),
        (b"[" * LONGEST_LINE + b"\n", "a line is no JSON object"),
        (b"9" * LONGEST_LINE + b"\n", "a line is no JSON object"),
        (b"x" * (LONGEST_LINE + 1), "a line has more than 4096 bytes"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "a line is no JSON object"),
    ],
)
def test_garbage_is_refused_once(tmp_path: Path, sent: bytes, reason: str) -> None:
    with served(tmp_path), connect(tmp_path) as channel:
        channel.sendall(sent)
        got = channel.recv(1 << 16)
        assert json.loads(got) == {"ok": False, "reason": reason}


def others_are_heard(folder: Path) -> None:
    with Call.open(folder, NAME, timeout_s=5) as call:
        assert call.ask({})["ok"]


def test_ten_megabytes_of_garbage(tmp_path: Path) -> None:
    with served(tmp_path) as door, connect(tmp_path) as channel:
        with contextlib.suppress(OSError):
            channel.sendall(b"x" * 10_000_000)
        others_are_heard(tmp_path)
        assert sum(len(c.inbox) for c in door._connections.values()) <= LONGEST_LINE + 1


def test_half_a_line_holds_nobody_up_and_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path), connect(tmp_path) as channel:
        channel.sendall(b'{"n": ')
        others_are_heard(tmp_path)
        monkeypatch.setattr(module, "IDLE_S", 0.1)
        assert channel.recv(1) == b""


def test_who_never_reads_keeps_one_answer_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def much(_: dict[str, Any], __: Peer) -> dict[str, Any]:
        asked.append(1)
        return {"ok": True, "much": "x" * 1_000_000}

    with served(tmp_path, much) as door, connect(tmp_path) as channel:
        channel.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                channel.send(b"{}\n" * 1000)
        others_are_heard(tmp_path)
        assert len(asked) <= 2
        assert sum(len(c.outbox) for c in door._connections.values()) < 1_100_000
        monkeypatch.setattr(module, "IDLE_S", 0.1)
        deadline = time.monotonic() + 5
        while door._connections:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_hundred_connections(tmp_path: Path) -> None:
    with served(tmp_path) as door, contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(tmp_path))
        others_are_heard(tmp_path)
        assert len(door._connections) <= MOST_CONNECTIONS


def test_no_free_descriptor(tmp_path: Path) -> None:
    door = Door.open(tmp_path, NAME, echo)
    with connect(tmp_path):
        door._listener = _Exhausted(door._listener)  # type: ignore[assignment]
        turn(door)
        turn(door)
        assert door._listener.times == 1  # type: ignore[attr-defined]
    door.close()


class _Exhausted:
    def __init__(self, listener: socket.socket) -> None:
        self._listener, self.times = listener, 0

    def accept(self) -> None:
        self.times += 1
        raise OSError(24, "Too many open files")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)


def test_a_flood_costs_a_bounded_share(tmp_path: Path, burn: Callable[[float], None]) -> None:
    """Without `renew` the door answers for about `TURN_S`, then waits."""

    def slow(_: dict[str, Any], __: Peer) -> dict[str, Any]:
        burn(0.004)
        return {"ok": True}

    door = Door.open(tmp_path, NAME, slow)
    with connect(tmp_path) as channel:
        channel.sendall(b"{}\n" * 1000)
        for _ in range(200):
            turn(door)
        first = channel.recv(1 << 16).count(b"\n")
        assert 1 <= first <= 4
        door.renew()
        for _ in range(200):
            turn(door)
        assert 1 <= channel.recv(1 << 16).count(b"\n") <= 4
    door.close()


@pytest.fixture
def burn() -> Callable[[float], None]:
    def burn(seconds: float) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    return burn


def test_a_door_that_nobody_serves_is_waited_for_so_long(tmp_path: Path) -> None:
    door = Door.open(tmp_path, NAME, echo)
    with (
        Call.open(tmp_path, NAME, timeout_s=0.2) as call,
        pytest.raises(EngineError, match=r"did not answer within 0\.2 s"),
    ):
        call.ask({})
    door.close()


def test_a_door_that_closes_meanwhile(tmp_path: Path) -> None:
    door = Door.open(tmp_path, NAME, echo)
    with Call.open(tmp_path, NAME, timeout_s=5) as call:
        door.close()
        with pytest.raises(ConnectionError):
            call.ask({})
