"""A door to a running process: a Unix socket in its folder, lines of JSON in, lines of JSON out.

    door = Door.open(folder, "control.sock", answer)
    poll = select.poll(); door.register(poll); door.serve(dict(poll.poll(250)))

There is no thread: whoever owns the door serves it between other things, and whatever comes in
costs it at most `TURN_S` of processor time until the next `renew`.  A line has at most
`LONGEST_LINE` bytes; the next line of a connection is looked at when the answer to the one
before has been taken; whoever sends half a line, or takes no answers, is let go after `IDLE_S`.
Only the owner of the process (and root) is heard, and the name has mode 0600 from the moment it
is there.  The other end is in `call`; what is asked and answered is the owner's affair.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crystalline.faults import point

LONGEST_LINE = 4096  # bytes, its end left out
MOST_CONNECTIONS = 16
IDLE_S = 30.0
TURN_S = 0.01
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a connection, by the word of the kernel."""

    pid: int  # 0: of another container
    uid: int

    @property
    def is_welcome(self) -> bool:
        """Whether it is the user of this process, or root."""
        return self.uid in (os.geteuid(), 0)


Answer = Callable[[dict[str, Any], Peer], dict[str, Any]]


@dataclass
class _Connection:
    channel: socket.socket
    peer: Peer
    moved_at: float  # when it last asked or took something
    inbox: bytes = b""  # of lines that were not answered yet
    outbox: memoryview = field(default_factory=lambda: memoryview(b""))
    is_ending: bool = False  # it is closed when it has taken its answer

    @property
    def has_line(self) -> bool:
        """Whether a whole line waits for its turn."""
        return b"\n" in self.inbox


class Door:
    """The listening socket and its connections, until `close`."""

    def __init__(self, listener: socket.socket, folder: int, name: str, answer: Answer) -> None:
        """See `open`.  `folder` is an open directory, which the door owns from now on."""
        self._listener = listener
        self._folder = folder
        self._name = name
        self._answer = answer
        self._identity = _identity(folder, name)
        self._connections: dict[int, _Connection] = {}
        self._left_s = TURN_S

    @classmethod
    def open(cls, folder: Path, name: str, answer: Answer) -> Door:
        """Make the socket `name` in `folder`; one that is there, and no other file, is replaced.

        The caller holds a lock without which nobody makes one.  `answer` gets each line that is
        an object, and who sent it, and returns the answer.  Raises `OSError`.
        """
        with contextlib.ExitStack() as stack:
            point("door.open")
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, opened)
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISSOCK(os.lstat(name, dir_fd=opened).st_mode):
                    raise FileExistsError(errno.EEXIST, f"there is another file {name}")
                os.unlink(name, dir_fd=opened)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            # Linux gives the name the mode of the socket, as far as the umask allows.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(place(opened, name))
            point("door.bound")
            listener.listen()
            listener.setblocking(False)
            door = cls(listener, opened, name, answer)
            stack.pop_all()
            return door

    def register(self, poll: select.poll) -> None:
        """Let `poll` wake up when there is something to do here."""
        if self._left_s <= 0:
            return
        poll.register(self._listener.fileno(), select.POLLIN)
        for number, connection in self._connections.items():
            has_more = connection.outbox or connection.has_line
            poll.register(number, select.POLLOUT if has_more else select.POLLIN)

    def serve(self, ready: Mapping[int, int]) -> None:
        """Do what can be done without waiting; `ready` is what the poll returned."""
        for number in [n for n in self._connections if n in ready]:
            with self._counted(), self._closing(number) as connection:
                if connection.outbox:
                    _send(connection)
                elif not connection.has_line:
                    _receive(connection)
        for number in list(self._connections):
            if self._left_s > 0:
                with self._counted(), self._closing(number) as connection:
                    self._reply(connection)
        if self._listener.fileno() in ready:
            with self._counted():
                self._accept()

    def renew(self) -> None:
        """Begin another turn: there is time to answer again, and who did nothing is let go."""
        self._left_s = TURN_S
        now = time.monotonic()
        for number, connection in list(self._connections.items()):
            if now - connection.moved_at > IDLE_S:
                self._drop(number)

    def close(self) -> None:
        """Remove the socket, if it is still ours, and let everybody go; twice is once."""
        if self._folder < 0:
            return
        with contextlib.suppress(OSError):
            if _identity(self._folder, self._name) == self._identity:
                os.unlink(self._name, dir_fd=self._folder)
        self._listener.close()
        for number in list(self._connections):
            self._drop(number)
        os.close(self._folder)
        self._folder = -1

    def _accept(self) -> None:
        try:
            point("door.accept")
            channel, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is free: ask again in the next turn
            self._left_s = 0.0
            return
        channel.setblocking(False)
        if len(self._connections) >= MOST_CONNECTIONS:
            self._drop(min(self._connections, key=lambda n: self._connections[n].moved_at))
        connection = _Connection(channel, peer_of(channel), time.monotonic())
        self._connections[channel.fileno()] = connection
        if not connection.peer.is_welcome:
            connection.inbox = b""
            with self._closing(channel.fileno()):
                _refuse(connection, "the run belongs to another user")

    def _reply(self, connection: _Connection) -> None:
        """Answer the next line, if there is one whole, and its answer can be taken."""
        if connection.outbox or connection.is_ending:
            return
        line, end, rest = connection.inbox.partition(b"\n")
        if len(line) > LONGEST_LINE:
            _refuse(connection, f"a line has more than {LONGEST_LINE} bytes")
        elif end:
            connection.inbox = rest
            connection.moved_at = time.monotonic()
            request = _parsed(line)
            if request is None:
                _refuse(connection, "a line is no JSON object")
                return
            point("door.answer")
            answer = json.dumps(self._answer(request, connection.peer), allow_nan=False)
            connection.outbox = memoryview(answer.encode() + b"\n")
            _send(connection)

    @contextlib.contextmanager
    def _closing(self, number: int) -> Iterator[_Connection]:
        """Yield a connection; close it where it is gone, or has taken its last answer."""
        connection = self._connections[number]
        try:
            yield connection
        except OSError:
            self._drop(number)
            return
        if connection.is_ending and not connection.outbox:
            self._drop(number)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        began_s = time.thread_time()
        yield
        self._left_s -= time.thread_time() - began_s

    def _drop(self, number: int) -> None:
        self._connections.pop(number).channel.close()


def place(folder: int, name: str) -> str:
    """Return a path of `name` in an open directory that is short enough for a socket's address."""
    return f"/proc/self/fd/{folder}/{name}"


def peer_of(channel: socket.socket) -> Peer:
    """Return who is at the other end."""
    raw = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)


def _identity(folder: int, name: str) -> tuple[int, int]:
    found = os.lstat(name, dir_fd=folder)
    return found.st_dev, found.st_ino


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(connection: _Connection, reason: str) -> None:
    """Say why, and hear no more of this one."""
    connection.inbox = b""
    connection.is_ending = True
    connection.outbox = memoryview(json.dumps({"ok": False, "reason": reason}).encode() + b"\n")
    _send(connection)


def _send(connection: _Connection) -> None:
    """Send what can be sent.  Raises `OSError` where nobody is there."""
    with contextlib.suppress(BlockingIOError):
        sent = connection.channel.send(connection.outbox, socket.MSG_NOSIGNAL)
        connection.outbox = connection.outbox[sent:]
        connection.moved_at = time.monotonic()


def _receive(connection: _Connection) -> None:
    """Take what came, no more than a line and its end.  Raises `OSError` at the end of it all."""
    with contextlib.suppress(BlockingIOError):
        part = connection.channel.recv(LONGEST_LINE + 1 - len(connection.inbox))
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "it has gone")
        connection.inbox += part
