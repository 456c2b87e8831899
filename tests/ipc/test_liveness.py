from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from crystalline.ipc.liveness import cpu_time_ns, is_alive, memory_bytes, start_time, thread_count


def test_a_process_is_alive_until_it_is_not() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = start_time(process.pid)
    assert started > start_time(os.getpid())
    assert is_alive(process.pid, started)
    assert not is_alive(process.pid, started + 1)
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_alive(process.pid, started) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(process.pid, started)  # a zombie is not alive
    process.communicate()
    assert start_time(process.pid) == 0
    assert cpu_time_ns(process.pid) == memory_bytes(process.pid) == 0


def test_processor_time_passes_only_when_running() -> None:
    before = cpu_time_ns(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert cpu_time_ns(os.getpid()) - before >= 80_000_000


def test_memory_and_threads() -> None:
    assert memory_bytes(os.getpid()) > 10_000_000
    assert thread_count() >= 1


def test_shared_pages_are_counted_once_over_all_processes() -> None:
    block = bytearray(b"x" * 40_000_000)  # of this process, and then of both
    alone = memory_bytes(os.getpid())
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read_end, 1)
        os._exit(0)
    try:
        both = [memory_bytes(os.getpid()), memory_bytes(child)]
    finally:
        os.write(write_end, b"x")
        os.waitpid(child, 0)
        os.close(read_end)
        os.close(write_end)
    assert len(block) < sum(both) < alone + 15_000_000
    assert both[0] < alone - 10_000_000
