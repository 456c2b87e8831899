"""Several processes at once: nothing is lost, nothing is done twice."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from crystalline._kernels.atomics import Words
from crystalline.ipc.arena import Arena
from crystalline.ipc.barrier import IDLE, Barrier, Handout
from tests.ipc.contender import ADDITIONS, LAYOUT, ROUNDS, UNITS, WORK

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 4


@pytest.mark.timeout(60)
def test_processes_share_the_work_of_many_phases(tmp_path: Path) -> None:
    arena = Arena.create(LAYOUT, tmp_path)
    command = [sys.executable, "-m", "tests.ipc.contender", str(arena.descriptor)]
    processes = [
        subprocess.Popen([*command, str(who)], cwd=ROOT, pass_fds=[arena.descriptor])
        for who in range(PROCESSES)
    ]
    try:
        counter = Words(arena["counter"])
        barrier = Barrier(arena["barrier"], arena["claims"], [Handout(UNITS)])
        deadline = time.monotonic() + 30
        while counter.load(1) < PROCESSES and time.monotonic() < deadline:
            time.sleep(0.01)
        counter.store(2, 1)
        counter.wake(2, PROCESSES)
        for _ in range(ROUNDS):
            barrier.publish(WORK)
            while barrier.phase() & 15 != IDLE and time.monotonic() < deadline:
                barrier.sleep_on_node_bell(barrier.node_bell(), 1_000_000)
        assert [process.wait(20) for process in processes] == [0] * PROCESSES
        assert counter.load(0) == PROCESSES * ADDITIONS
        assert (arena["taken"] == 1).all()
        assert (arena["handed"] == 1).all()
    finally:
        arena.close()
        for process in processes:
            process.kill()
            process.wait()
