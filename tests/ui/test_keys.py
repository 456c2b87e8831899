"""Keys on a real pty: what they mean, and that the terminal is put back."""

from __future__ import annotations

import io
import os
import pty
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from crystalline.ui.keys import Keys


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, int]]:
    """The side of a program as a stream, and the side of the person as a descriptor."""
    person, program = pty.openpty()
    with os.fdopen(program, "r", closefd=True) as stream:
        yield stream, person
    os.close(person)


def flags(stream: TextIO) -> int:
    return int(termios.tcgetattr(stream.fileno())[3])


def test_mode_is_changed_and_put_back(terminal: tuple[TextIO, int]) -> None:
    stream, _ = terminal
    before = termios.tcgetattr(stream.fileno())
    with Keys(stream) as keys:
        assert keys.active
        assert not flags(stream) & (termios.ECHO | termios.ICANON)
        assert flags(stream) & termios.ISIG  # Ctrl-C still interrupts
    assert not keys.active
    assert termios.tcgetattr(stream.fileno()) == before


def test_mode_is_put_back_after_an_exception(terminal: tuple[TextIO, int]) -> None:
    stream, _ = terminal
    before = termios.tcgetattr(stream.fileno())
    with pytest.raises(ZeroDivisionError), Keys(stream):
        _ = 1 // 0
    assert termios.tcgetattr(stream.fileno()) == before


@pytest.mark.parametrize(
    ("typed", "actions"),
    [
        (b"", []),
        (b"p", ["pause"]),
        (b"c", ["checkpoint"]),
        (b"+=", ["workers+", "workers+"]),
        (b"-_", ["workers-", "workers-"]),
        (b"qQ", ["stop", "stop"]),
        (b"?h", ["help", "help"]),
        (b"pcx\nz\xc3\xa4q", ["pause", "checkpoint", "stop"]),
        (b"\x1b[A\x1b[1;5C\x1bOP\x1bOp\x1bq", []),  # up, Ctrl-right, F1, keypad 0, Alt-q
        (b"\x1b[200~p", ["pause"]),
    ],
)
def test_actions(terminal: tuple[TextIO, int], typed: bytes, actions: list[str]) -> None:
    stream, person = terminal
    with Keys(stream) as keys:
        os.write(person, typed)
        assert keys.poll() == actions
        assert keys.poll() == []


def test_a_sequence_in_two_pieces(terminal: tuple[TextIO, int]) -> None:
    stream, person = terminal
    with Keys(stream) as keys:
        os.write(person, b"c\x1bO")
        assert keys.poll() == ["checkpoint"]
        os.write(person, b"pq")  # keypad 0, then a real q
        assert keys.poll() == ["stop"]


def test_the_escape_key_alone_swallows_nothing_later(terminal: tuple[TextIO, int]) -> None:
    stream, person = terminal
    with Keys(stream) as keys:
        os.write(person, b"\x1b")
        assert keys.poll() == []
        assert keys.poll() == []
        os.write(person, b"q")
        assert keys.poll() == ["stop"]


def test_without_a_terminal_nothing_happens() -> None:
    with Keys(io.StringIO("q")) as keys:
        assert not keys.active
        assert keys.poll() == []


def test_a_terminal_that_goes_away() -> None:
    person, program = pty.openpty()
    with os.fdopen(program, "r") as stream, Keys(stream) as keys:
        os.close(person)
        assert keys.poll() == []
        assert not keys.active
        assert keys.poll() == []
