"""The dashboard on a pty: how often it draws, what it keeps, what it passes on."""

from __future__ import annotations

import errno
import os
import pty
import select
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TextIO

import pytest

from crystalline.ui.dashboard import Dashboard
from crystalline.ui.keys import Keys
from tests.ui.fake_snapshots import extreme_snapshot, fake_snapshot
from tests.ui.pty_tools import ENTER, LEAVE, on_terminal


class Screen:
    """A terminal that only collects what is written to it."""

    def __init__(self) -> None:
        self.person, program = pty.openpty()
        self.stream: TextIO = os.fdopen(program, "w", encoding="utf-8")
        self.text = ""

    def read(self) -> str:
        while select.select([self.person], [], [], 0.02)[0]:
            self.text += os.read(self.person, 65536).decode("utf-8", "replace")
        return self.text


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    screen = Screen()
    yield screen
    screen.stream.close()
    os.close(screen.person)


def test_at_most_four_refreshes_a_second(screen: Screen) -> None:
    now = 0.0
    with Dashboard(screen.stream, clock=lambda: now) as dashboard:
        screen.read()
        for step in range(1, 101):  # ten seconds
            dashboard.show(fake_snapshot(step))
            now += 0.1
            screen.read()
    draws = screen.text.count("Crystalline")
    assert 20 <= draws <= 41  # and one when it closes


def test_a_change_of_state_is_drawn_at_once(screen: Screen) -> None:
    with Dashboard(screen.stream, clock=lambda: 0.0) as dashboard:
        dashboard.show(fake_snapshot(10))
        assert "PAUSED" not in screen.read()
        dashboard.show(replace(fake_snapshot(10), state="paused"))
        assert "PAUSED" in screen.read()


def test_messages_outlive_the_dashboard(screen: Screen) -> None:
    stderr = sys.stderr
    with Dashboard(screen.stream) as dashboard:
        dashboard.show(replace(fake_snapshot(100), message="first"))
        dashboard.show(replace(fake_snapshot(101), message="first"))
        dashboard.message("second")
        dashboard.error("third")
        print("written to ", end="", file=sys.stderr)
        print("stderr", file=sys.stderr)
        print("unfinished", end="", file=sys.stderr)
        screen.read()
    assert sys.stderr is stderr
    after = screen.read().split(LEAVE.decode())[-1]
    lines = after.replace("\r", "").split("\n")
    kept = ("first", "second", "third", "written to stderr", "unfinished", "step 101")
    places = [next(i for i, line in enumerate(lines) if text in line) for text in kept]
    assert places == sorted(places)
    assert after.count("first") == 1


def test_extreme_values_write_no_stray_codes(screen: Screen) -> None:
    with Dashboard(screen.stream) as dashboard:
        dashboard.show(extreme_snapshot())
        screen.read()
    assert "\x1b]0;" not in screen.text
    assert "\x1b[31m" not in screen.text.split(LEAVE.decode())[-1]
    assert ENTER.decode() in screen.text


def test_help_is_dealt_with_here(screen: Screen) -> None:
    person, program = pty.openpty()
    with os.fdopen(program, encoding="utf-8") as stdin:
        with Dashboard(screen.stream, keys=Keys(stdin)) as dashboard:
            dashboard.show(fake_snapshot(100))
            assert "symmetry" not in screen.read()
            os.write(person, b"p?")
            assert dashboard.poll() == ["pause"]
            assert "symmetry" in screen.read()
        assert dashboard.poll() == []
    os.close(person)


def test_the_tree_is_shown_and_put_away_by_its_key(screen: Screen) -> None:
    person, program = pty.openpty()
    with (
        os.fdopen(program, encoding="utf-8") as stdin,
        Dashboard(screen.stream, keys=Keys(stdin)) as dashboard,
    ):
        dashboard.show(fake_snapshot(100))
        assert "Node Zero" not in screen.read()
        os.write(person, b"t")
        assert dashboard.poll() == []
        assert "Node Zero" in screen.read()
        before = len(screen.text)
        os.write(person, b"t")
        assert dashboard.poll() == []
        assert "Node Zero" not in screen.read()[before:]
    os.close(person)


def test_no_snapshot_no_drawing(screen: Screen) -> None:
    with Dashboard(screen.stream) as dashboard:
        assert dashboard.poll() == []
    assert "Crystalline" not in screen.read()


def test_writing_fails_in_the_middle(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    now = 0.0
    with Dashboard(screen.stream, clock=lambda: now) as dashboard:
        dashboard.show(fake_snapshot(1))
        with monkeypatch.context() as broken:
            broken.setattr(screen.stream, "write", fail)
            now += 5.0
            dashboard.show(fake_snapshot(2))
        now += 5.0
        dashboard.show(fake_snapshot(3))  # not tried again
    assert "step 1/2,000" in screen.read()
    assert "step 3/2,000" not in screen.text.split(LEAVE.decode())[0]


def test_a_lost_terminal_does_not_stop_the_run() -> None:
    script = """
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from crystalline.ui import make_reporter
from tests.ui.fake_snapshots import fake_snapshot
with make_reporter() as reporter:
    reporter.show(fake_snapshot(1))
    time.sleep(1.0)  # meanwhile the terminal goes away
    for step in range(2, 30):
        reporter.show(fake_snapshot(step))
        reporter.poll()
        time.sleep(0.03)
os._exit(3)
"""
    with on_terminal(script) as session:
        session.wait_for(b"TRAINING")
        session.hang_up()
        assert session.process.wait(20) == 3
