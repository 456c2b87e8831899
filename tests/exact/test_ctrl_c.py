"""Ctrl-C ends every long call of crystalline.exact, wherever in it the signal comes.

The calls, and how a nursery of processes interrupts them, are in `long_calls`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from crystalline import exact
from crystalline._kernels.fixedarray import division
from tests.exact.long_calls import CALLS

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 0.1  # of processor time, before the signal
LATE_S = 0.5  # of processor time, from the signal to the exception; some 0.02 are usual

Report = dict[str, Any]


@pytest.fixture(scope="module")
def reports() -> Iterator[Callable[[str], Report]]:
    """Run all calls in the background, in their order; give the report of one when it is there."""
    known: dict[str, Report] = {}
    news = threading.Condition()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.exact.long_calls", str(WAIT_S)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            report = json.loads(line)
            with news:
                known[report["name"]] = report
                news.notify_all()

    thread = threading.Thread(target=listen)
    thread.start()

    def find(name: str) -> Report:
        with news:
            assert news.wait_for(lambda: name in known or process.poll() is not None, 100)
            return known[name]

    yield find
    process.terminate()
    process.wait()
    thread.join()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("name", CALLS)
def test_ends_a_call(name: str, reports: Callable[[str], Report]) -> None:
    report = reports(name)
    assert report["said"] == "stopped", report
    assert report["late_s"] < LATE_S, report
    assert report["gap_s"] < LATE_S, report
    assert report["works"], "a short computation after the long one is wrong"


class AlarmError(Exception):
    """What the handler raises."""


def test_short_divisions_hear_it_too() -> None:
    """Elements wide enough for the recursive division ask for signals themselves."""
    a = exact.BigFixedArray(200000, 4096, 3000)
    a.limbs[:] = np.uint64(0x0123456789ABCDEF)
    b = a.limbs[:1] >> np.uint64(1)

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise AlarmError

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        for delay_s in (0.01, 0.02, 0.03):
            signal.setitimer(signal.ITIMER_REAL, delay_s)
            with pytest.raises(AlarmError):
                division.divide(a.limbs, a.limbs, b, 3000)
                pytest.fail("the division came to its end")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
