"""The terminal comes back on every way out: each is tried on a pty by a process of its own."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.ui.pty_tools import ENTER, HIDE, LEAVE, SHOW, Session, on_terminal

RUN = """
import time
from crystalline.ui import make_reporter, restore_terminal
from tests.ui.fake_snapshots import fake_snapshot
with make_reporter() as reporter:
    for step in range(2, 3000):
        reporter.show(fake_snapshot(step % 100 + 1))
        actions = reporter.poll()
        if actions:
            reporter.message(f"asked for {' '.join(actions)}")
        if "stop" in actions:
            break
        if "workers+" in actions:
            raise KeyError("an error of ours")
        if "workers-" in actions:
            restore_terminal()
            os._exit(9)
        if "checkpoint" in actions:
            sys.exit(7)
        time.sleep(0.02)
print("the end")
"""


def check_restored(session: Session) -> None:
    assert session.mode() == (True, True)
    assert session.output.count(LEAVE) == session.output.count(ENTER)
    assert session.output.rfind(LEAVE) > session.output.rfind(ENTER)
    assert session.output.rfind(SHOW) > session.output.rfind(HIDE)


@pytest.mark.parametrize(
    ("key", "status", "last_words"),
    [
        (b"q", 0, b"the end"),
        (b"+", 1, b"KeyError"),
        (b"c", 7, b"asked for checkpoint"),
        (b"-", 9, b""),
        (b"\x03", -signal.SIGINT, b"KeyboardInterrupt"),
        (b"\x1c", -signal.SIGQUIT, b""),
    ],
)
def test_ways_out_by_key(key: bytes, status: int, last_words: bytes) -> None:
    with on_terminal(RUN) as session:
        session.wait_for(b"TRAINING")
        assert session.mode() == (False, False)
        session.send(key)
        assert session.end() == status
        check_restored(session)
        # What was said is on the normal screen, after the dashboard has gone.
        assert last_words in session.output[session.output.rfind(LEAVE) :]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ways_out_by_signal(number: signal.Signals) -> None:
    with on_terminal(RUN) as session:
        session.wait_for(b"TRAINING")
        os.kill(session.process.pid, number)
        assert session.end() == -number
        check_restored(session)


def test_a_handler_of_the_program_is_left_alone() -> None:
    script = (
        "import signal\n"
        "def stop(number, frame): raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
    )
    with on_terminal(script + RUN) as session:
        session.wait_for(b"TRAINING")
        os.kill(session.process.pid, signal.SIGTERM)
        assert session.end() == 143
        check_restored(session)


def test_handlers_are_returned() -> None:
    script = """
import signal
from crystalline.ui import make_reporter
before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)]
with make_reporter() as reporter:
    inside = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)]
after = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)]
print("same" if before == after else "changed", "other" if inside != before else "same inside")
"""
    with on_terminal(script) as session:
        assert session.end() == 0
        assert b"same other" in session.output


SHELL = """
import signal, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-c", "import os, sys\\n" + sys.argv[1]])
_, status = os.waitpid(job, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else "ended", flush=True)
time.sleep(0.3)
os.killpg(job, signal.SIGCONT)
_, status = os.waitpid(job, 0)
os._exit(os.waitstatus_to_exitcode(status))
"""


def test_ctrl_z_gives_the_terminal_back_for_a_while() -> None:
    with on_terminal(SHELL, RUN) as session:
        session.wait_for(b"TRAINING")
        session.send(b"\x1a")
        session.wait_for(b"stopped")
        check_restored(session)
        drawn = session.output.count(b"TRAINING")
        deadline = time.monotonic() + 10
        while session.read().count(b"TRAINING") <= drawn:
            assert time.monotonic() < deadline
        assert session.mode() == (False, False)
        session.send(b"q")
        assert session.end() == 0
        check_restored(session)


def test_a_background_job_leaves_the_terminal_alone() -> None:
    script = SHELL.replace("    os.tcsetpgrp(0, os.getpid())\n", "")
    short = RUN.replace("3000", "20")
    with on_terminal(script, short) as session:
        session.wait_for(b"the end")
        assert ENTER not in session.output
        assert b"step 3/2000  loss" in session.output
        assert session.mode() == (True, True)
