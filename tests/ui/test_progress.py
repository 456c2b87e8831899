"""Progress of data preparation: silent when fast, lines or bars when slow."""

from __future__ import annotations

import io
from pathlib import Path

from crystalline.ui import DataProgress
from tests.ui.pty_tools import HIDE, SHOW, on_terminal


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def lines_of(stages: list[tuple[str, int, float]], **options: bool) -> list[str]:
    """Feed stages of (name, steps, seconds a step) and return the lines."""
    stream, clock = io.StringIO(), Clock()
    with DataProgress(stream=stream, clock=clock, **options) as progress:
        for stage, steps, step_s in stages:
            for i in range(steps + 1):
                progress(stage, i, steps)
                clock.now += step_s
    return stream.getvalue().splitlines()


def test_fast_stages_are_silent() -> None:
    assert lines_of([("reading", 9, 0.1), ("counting", 90, 0.01)]) == []


def test_slow_stages_get_a_line_now_and_then() -> None:
    assert lines_of([("reading", 100, 0.1), ("tokenizing", 40, 0.1)]) == [
        "reading: 10%, 9 s left",
        "reading: 60%, 4 s left",
        "reading: 100%",
        "tokenizing: 25%, 3 s left",
        "tokenizing: 100%",
    ]


def test_unknown_total() -> None:
    stream, clock = io.StringIO(), Clock()
    with DataProgress(stream=stream, clock=clock) as progress:
        for i in range(3):
            progress("counting größe\x1b", 1500 * i, 0)
            clock.now += 1.0
    assert stream.getvalue() == "counting gr\\xf6\\xdfe?: 1.50k\n"


def test_a_stage_of_which_nothing_is_known_but_that_it_lasts() -> None:
    stream, clock = io.StringIO(), Clock()
    with DataProgress(stream=stream, clock=clock) as progress:
        for _ in range(16):
            progress("building", 0, 0)
            clock.now += 0.5
    assert stream.getvalue().splitlines() == ["building: 1 s so far", "building: 6 s so far"]


def test_quiet_says_nothing() -> None:
    assert lines_of([("reading", 100, 1.0)], quiet=True) == []


SCRIPT = """
import time
from crystalline.ui import DataProgress
with DataProgress() as progress:
    for i in range(21):
        progress("fast", i, 20)
    for i in range(41):
        progress("read [bold]files", i, 40)
        time.sleep(0.04)
    if len(sys.argv) > 1:
        os.kill(os.getpid(), int(sys.argv[1]))
print("done")
"""


def test_bars_on_a_terminal() -> None:
    with on_terminal(SCRIPT) as session:
        assert session.end() == 0
        text = session.output.decode()
    assert "read [bold]files" in text
    assert "100%" in text
    assert "fast" not in text
    assert text.rfind(SHOW.decode()) > text.rfind(HIDE.decode())
    assert text.rstrip().endswith("done")


def test_the_cursor_comes_back_after_a_signal() -> None:
    with on_terminal(SCRIPT, "15") as session:
        assert session.end() == -15
        assert session.output.rfind(SHOW) > session.output.rfind(HIDE) >= 0


def test_used_with_a_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, DataProgress(stream=log) as progress:
        progress("reading", 1, 1)
    assert (tmp_path / "log").read_text() == ""
