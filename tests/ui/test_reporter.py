"""Who reports where: the dashboard, plain lines, or nobody."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from crystalline.ui import QuietReporter, make_reporter
from crystalline.ui.dashboard import Dashboard
from crystalline.ui.plain import PlainReporter
from tests.ui.fake_snapshots import fake_snapshot
from tests.ui.pty_tools import ROOT


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A good terminal of 80 x 24."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    person, program = pty.openpty()
    with os.fdopen(program, "w", encoding="utf-8") as stream:
        yield stream
    os.close(person)


def test_a_good_terminal_gets_the_dashboard(stream: TextIO) -> None:
    assert isinstance(make_reporter(stream=stream), Dashboard)


def test_flags_take_precedence(stream: TextIO) -> None:
    assert isinstance(make_reporter(plain=True, stream=stream), PlainReporter)
    assert isinstance(make_reporter(quiet=True, stream=stream), QuietReporter)
    assert isinstance(make_reporter(plain=True, quiet=True, stream=stream), QuietReporter)


@pytest.mark.parametrize(
    ("name", "value"),
    [("TERM", "dumb"), ("TERM", ""), ("TERM", None), ("COLUMNS", "59"), ("LINES", "14")],
)
def test_a_poor_terminal_gets_plain_lines(
    stream: TextIO, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    assert isinstance(make_reporter(stream=stream), PlainReporter)


def test_a_terminal_without_unicode_gets_plain_lines(stream: TextIO) -> None:
    assert isinstance(stream, io.TextIOWrapper)
    stream.reconfigure(encoding="iso-8859-1")
    assert isinstance(make_reporter(stream=stream), PlainReporter)


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(make_reporter(stream=io.StringIO()), PlainReporter)


def test_quiet_writes_errors_only() -> None:
    stream = io.StringIO()
    with make_reporter(quiet=True, stream=stream) as reporter:
        reporter.show(fake_snapshot(100))
        reporter.message("hello")
        assert reporter.poll() == []
        assert stream.getvalue() == ""
        reporter.error("it went wrong")
    assert stream.getvalue() == "it went wrong\n"


def test_nothing_goes_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with make_reporter() as reporter:
        reporter.show(fake_snapshot(100))
        reporter.message("hello")
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello" in err


def test_import_is_cheap() -> None:
    script = "import sys, crystalline.ui; sys.exit('rich' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=30).returncode == 0
