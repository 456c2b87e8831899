"""One owner of SIGTSTP: who takes part is called in order, and the last signal holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import os, signal, sys, time
from crystalline import suspension
say = lambda text: os.write(1, text.encode() + b"\\n")
first = suspension.join(lambda: say("first stops"), lambda: say("first goes on"))
second = suspension.join(lambda: say("second stops"), lambda: say("second goes on"))
say("ready")
{body}
suspension.leave(second)
suspension.leave(second)
suspension.leave(first)
say(repr((signal.getsignal(signal.SIGTSTP), signal.getsignal(signal.SIGCONT))))
say(repr(signal.set_wakeup_fd(-1)))
"""
DEFAULTS = "(<Handlers.SIG_DFL: 0>, <Handlers.SIG_DFL: 0>)\n-1\n"
ROUND = "second stops\nfirst stops\nfirst goes on\nsecond goes on\n"


def start(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)], cwd=ROOT, stdout=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def test_a_group_without_a_shell_stops_too() -> None:
    """The kernel itself ignores SIGTSTP there."""
    with start("time.sleep(0.3)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTSTP)
        deadline = time.monotonic() + 10
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == ROUND + DEFAULTS


@pytest.mark.parametrize(
    ("signals", "stops"),
    [
        ("SIGTSTP SIGCONT", False),
        ("SIGCONT SIGTSTP", True),
        ("SIGTSTP SIGCONT SIGTSTP", True),
        ("SIGTSTP SIGCONT SIGTSTP SIGCONT", False),
    ],
)
def test_the_last_signal_holds_when_the_handler_comes_late(signals: str, stops: bool) -> None:
    """All come while the interpreter is busy elsewhere: the handlers run afterwards, by number."""
    with start("say('busy'); sum(range(20_000_000))") as process:  # looks at no signals
        assert process.stdout is not None
        while process.stdout.readline() != "busy\n":
            pass
        time.sleep(0.05)  # it counts by now
        for name in signals.split():
            os.kill(process.pid, getattr(signal, name))
            time.sleep(0.01)
        it = psutil.Process(process.pid)
        deadline = time.monotonic() + 20
        while (status := it.status()) not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=10)
    assert (status == psutil.STATUS_STOPPED) == stops
    assert out == ROUND + DEFAULTS


def test_handlers_of_the_program_are_left_alone() -> None:
    code = (
        "import signal; from crystalline import suspension\n"
        "mine = lambda *_: None\n"
        "signal.signal(signal.SIGTSTP, mine)\n"
        "part = suspension.join(print)\n"
        "assert signal.getsignal(signal.SIGTSTP) is mine\n"
        "suspension.leave(part)\n"
        "assert signal.getsignal(signal.SIGTSTP) is mine\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=20)
