from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from crystalline._kernels import atomics
from crystalline._kernels.atomics import Words, monotonic_ns


@pytest.fixture
def words() -> Words:
    return Words(np.arange(10, dtype=np.int64))


def test_words_are_the_array(words: Words) -> None:
    array = np.array([5, -7, 2**62], np.int64)
    words = Words(array)
    assert [words.load(i) for i in range(3)] == [5, -7, 2**62]
    words.store(1, -(2**63))
    words.put(0, 9)
    words.bump(0, -20)
    assert array.tolist() == [-11, -(2**63), 2**62]
    assert words.size == 3


def test_compare_exchange(words: Words) -> None:
    assert not words.compare_exchange(4, 5, 99)
    assert words.load(4) == 4
    assert words.compare_exchange(4, 4, 99)
    assert words.load(4) == 99


def test_fetch_add_returns_the_old_value(words: Words) -> None:
    assert words.fetch_add(7, -3) == 7
    assert words.fetch_add(7, 1) == 4


def test_first_below() -> None:
    words = Words(np.array([9, 4, 7, 3, 9], np.int64))
    assert words.first_below(0, 5, 5) == 1
    assert words.first_below(2, 5, 5) == 3
    assert words.first_below(4, 5, 9) == -1
    assert words.first_below(2, 2, 100) == -1


def test_claim_below_walks_with_its_stride() -> None:
    array = np.array([0, 0, 5, 0, 0, 0], np.int64)
    words = Words(array)
    assert words.claim_below(2, 6, 2, 5, 8) == 4
    assert words.claim_below(2, 6, 2, 5, 8) == -1
    assert array.tolist() == [0, 0, 5, 0, 8, 0]


@pytest.mark.parametrize("call", [
    lambda w: w.load(10),
    lambda w: w.load(-1),
    lambda w: w.store(10, 0),
    lambda w: w.fetch_add(11, 1),
    lambda w: w.first_below(0, 11, 0),
    lambda w: w.claim_below(-1, 3, 1, 0, 0),
    lambda w: w.wait(10, 0, 0),
    lambda w: w.wake(-5, 1),
    lambda w: w.spin(10, 0, 0),
])  # fmt: skip
def test_indices_are_checked(words: Words, call: object) -> None:
    assert callable(call)
    with pytest.raises(IndexError, match="of 10"):
        call(words)


def test_arguments_are_checked(words: Words) -> None:
    with pytest.raises(ValueError, match="stride is 0"):
        words.claim_below(0, 1, 0, 0, 0)
    with pytest.raises(ValueError, match="timeout_ns is -1"):
        words.wait(0, 0, -1)
    with pytest.raises(ValueError, match="aligned"):
        Words(np.zeros(17, np.uint8)[1:].view(np.int64))
    with pytest.raises(ValueError, match="read-only"):
        array = np.zeros(3, np.int64)
        array.flags.writeable = False
        Words(array)


def test_wait_times_out_and_sees_a_difference(words: Words) -> None:
    began = monotonic_ns()
    assert words.wait(3, 3, 20_000_000) is False
    assert monotonic_ns() - began >= 20_000_000
    assert words.wait(3, 4, 10_000_000_000) is True


def test_wake_reaches_a_sleeper_and_the_gil_is_free_meanwhile(words: Words) -> None:
    woken: list[bool] = []
    sleeper = threading.Thread(target=lambda: woken.append(words.wait(0, 0, 20_000_000_000)))
    sleeper.start()
    deadline = time.monotonic() + 10
    while not words.wake(0, 1) and time.monotonic() < deadline:  # needs the GIL
        time.sleep(0.001)
    sleeper.join(10)
    assert woken == [True]
    assert words.wake(0, 1) == 0


def test_spin_sees_a_change_by_another_thread(words: Words) -> None:
    timer = threading.Timer(0.02, words.store, (0, 1))
    timer.start()
    assert words.spin(0, 0, 10_000_000_000) is True
    timer.join()
    began = monotonic_ns()
    assert words.spin(0, 1, 5_000_000) is False
    assert monotonic_ns() - began >= 5_000_000


def test_a_signal_ends_a_wait(words: Words) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        words.wait(0, 0, 30_000_000_000)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


def test_only_the_low_half_is_a_futex() -> None:
    """The protocol's words change in their low half whenever they change."""
    words = Words(np.array([2**32 + 7], np.int64))
    assert words.wait(0, 7, 1_000_000) is False
    assert words.wait(0, 8, 1_000_000) is True


def test_process_controls() -> None:
    comm = Path("/proc/self/comm")
    name = comm.read_text().strip()
    atomics.set_process_name("a-name-longer-than-fits")
    try:
        assert comm.read_text().strip() == "a-name-longer-t"
    finally:
        atomics.set_process_name(name)
    assert atomics.adopt_orphans(True) is False
    assert atomics.adopt_orphans(False) is True
    atomics.die_with_parent(0)
    with pytest.raises(OSError, match="Invalid argument"):
        atomics.die_with_parent(1000)


FORKING = """
import os, signal, sys
import numpy as np
from crystalline._kernels.atomics import fork_workers
os.register_at_fork(after_in_child=lambda: os._exit(9))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
pids = np.zeros(3, np.intc)
place = fork_workers("worker", np.array([7, 8, 30], np.intc), pids, True)
if place >= 0:
    os.write(1, b"%d %d\\n" % (place, os.getpid()))
    signal.pause()
os.write(1, b"%d %d %d %d\\n" % (place, *pids))
signal.pause()
"""


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_forked_workers_are_numbered_named_deaf_to_the_terminal_and_die_with_their_parent() -> None:
    """And the hooks of `os.register_at_fork` are left out."""
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        lines = [tuple(map(int, parent.stdout.readline().split())) for _ in range(4)]
        ((place, *pids),) = (line for line in lines if len(line) == 4)
        assert place == -4
        assert sorted(line for line in lines if len(line) == 2) == list(enumerate(pids))
        for number, pid in zip((7, 8, 30), pids, strict=True):
            status = status_of(pid)
            assert status["Name"] == f"worker-{number}"
            for deaf_to in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                assert int(status["SigIgn"], 16) >> (deaf_to - 1) & 1
            assert int(status["SigBlk"], 16) == 0
        parent.kill()
        assert parent.stdout.read() == ""  # the last writer is gone
