"""Ctrl-Z, bg and fg as a shell does them, to a training on a terminal."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.commands import MARK, TINY, command, environment, marked
from tests.ui.pty_tools import ENTER, LEAVE, on_terminal

pytestmark = pytest.mark.timeout(60)

# A shell with one job: it obeys the lines "bg" and "fg" of the fifo that it is given.
SHELL = """
import json, signal
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
command, orders = json.loads(sys.argv[1]), sys.argv[2]
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(command[0], command)
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        os._exit(os.waitstatus_to_exitcode(status))
    os.write(1, b"job stopped\\n")
    for order in open(orders):
        if order.strip() == "fg":
            os.tcsetpgrp(0, job)
        os.killpg(job, signal.SIGCONT)
        if order.strip() == "fg":
            break
"""


@pytest.mark.parametrize("plain", [False, True], ids=["dashboard", "plain"])
def test_ctrl_z_bg_and_fg(text: Path, tmp_path: Path, plain: bool) -> None:
    orders = tmp_path / "orders"
    os.mkfifo(orders)
    own = environment()
    arguments = (
        str(text), *TINY, "--max-steps=1000000", "--eval-interval=0",
        f"--checkpoint-dir={tmp_path / 'run'}", *(["--plain"] if plain else []),
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    line = json.dumps(command("cllm-train", *arguments))

    def wait_for_steps(more: int) -> None:
        deadline = time.monotonic() + 20
        before = metrics.stat().st_size if metrics.exists() else 0
        while not metrics.exists() or metrics.stat().st_size < before + 100 * more:
            session.read()
            assert time.monotonic() < deadline, session.output[-3000:]

    with on_terminal(SHELL, line, str(orders), **own) as session:
        try:
            wait_for_steps(3)
            for round_ in range(2):
                seen = session.output.count(b"job stopped")
                session.send(b"\x1a")
                while session.read().count(b"job stopped") == seen:
                    assert session.process.poll() is None, session.output[-3000:]
                assert session.mode() == (True, True)
                assert session.output.count(LEAVE) == session.output.count(ENTER)
                job = [p for p in marked(own[MARK]) if p.pid != session.process.pid]
                assert len(job) > 3
                assert {p.status() for p in job} == {psutil.STATUS_STOPPED}
                size = metrics.stat().st_size
                time.sleep(0.2)
                assert metrics.stat().st_size == size
                with orders.open("w") as file:
                    if not round_:
                        print("bg", file=file, flush=True)
                        wait_for_steps(3)
                        assert session.mode() == (True, True)
                    print("fg", file=file, flush=True)
                wait_for_steps(3)
            session.send(b"\x03")
            assert session.end() == 130
            assert session.mode() == (True, True)
            assert b"Traceback" not in session.output
            deadline = time.monotonic() + 5
            while marked(own[MARK]):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            for left in marked(own[MARK]):
                left.kill()
