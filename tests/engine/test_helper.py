"""One forked process, one piece of work: its answer, or how it came to none."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from crystalline.engine import helper
from crystalline.engine.helper import Helper, Outcome

pytestmark = pytest.mark.timeout(20)


def outcome_of(at_work: Helper) -> Outcome:
    while (outcome := at_work.poll()) is None:
        at_work.wait(0.05)
    return outcome


def sleep() -> dict[str, Any]:
    time.sleep(60)
    return {}


def test_the_answer_comes_whole() -> None:
    """Larger than a pipe holds; and the process steps back for the spheres."""
    here = os.nice(0)

    def work() -> dict[str, Any]:
        return {"text": "x" * 300_000, "nice": os.nice(0), "pid": os.getpid()}

    at_work = Helper("test", 7, work, silent_s=10)
    answer = outcome_of(at_work).answer
    assert answer is not None
    assert (len(answer["text"]), answer["pid"]) == (300_000, at_work.pid)
    assert answer["nice"] == here + helper.NICENESS
    with pytest.raises(ChildProcessError):
        os.waitpid(at_work.pid, os.WNOHANG)


def test_a_bug_is_told() -> None:
    def work() -> dict[str, Any]:
        raise LookupError("what it says")

    outcome = outcome_of(Helper("test", 0, work, silent_s=10))
    assert outcome == Outcome(None, "failed with exit code 1 (LookupError: what it says)")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGVTALRM])
def test_a_death_is_told(number: int) -> None:
    at_work = Helper("test", 0, sleep, silent_s=10)
    os.kill(at_work.pid, number)
    assert f"was killed by signal {number:d} (" in outcome_of(at_work).cause


def test_who_gives_no_sign_of_life_is_ended() -> None:
    """Processor time is a sign: who works may take as long as it likes."""

    def works() -> dict[str, Any]:
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            pass
        return {"done": True}

    silent, busy = (Helper("test", 0, work, silent_s=0.3) for work in (sleep, works))
    assert outcome_of(silent) == Outcome(None, "gave no sign of life for 0.3 s")
    assert outcome_of(busy).answer == {"done": True}


def test_it_can_be_ended() -> None:
    at_work = Helper("test", 0, sleep, silent_s=10)
    at_work.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(at_work.pid, 0)


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork_workers(_name: str, _numbers: Any, pids: Any, _dies: bool) -> int:
        pids[0] = 11
        return -1

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(helper, "fork_workers", fork_workers)
    with pytest.raises(BlockingIOError):
        Helper("test", 0, sleep, silent_s=10)
    assert len(os.listdir("/proc/self/fd")) == before
