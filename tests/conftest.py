"""What every test may use: the instruction-set levels, hypothesis profiles, the final sweep.

After the last test nothing of ours may be left in /dev/shm and no process that
the tests started may live.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

# Before anything imports NumPy: its threads only spin, on matrices as small as the oracles'.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED_MEMORY = Path("/dev/shm")
PREFIX = "cllm-"
SESSION_VARIABLE = "CRYSTALLINE_TEST_SESSION"  # inherited by every process the tests start
LEVEL_VARIABLE = "CRYSTALLINE_TEST_LEVEL"  # set while a module is repeated at another level
GRACE_S = 5.0  # how long the end of a process may take to show

# A suite begun in the background inherits that Ctrl-C is ignored; tests send it, and children too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("here", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def shared_memory() -> set[str]:
    """Return the names in /dev/shm that carry our prefix."""
    return {path.name for path in SHARED_MEMORY.glob(PREFIX + "*")}


def processes_of(session: str) -> list[psutil.Process]:
    """Return the living processes that carry `session` in their environment, or are our children.

    Helpers that multiprocessing itself keeps until the interpreter ends are left out.
    """
    found = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        try:
            if process.environ().get(SESSION_VARIABLE) == session:
                found.add(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return [process for process in found if _is_ours(process)]


def _is_ours(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        alive = process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    keepers = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
    is_keeper = any(keeper in command for keeper in keepers)
    return alive and process.pid != os.getpid() and not is_keeper


@pytest.fixture(autouse=True)
def _logger_as_imported() -> None:
    """Take back what a command that a test ran in this process did to the package's logger."""
    logger = logging.getLogger("crystalline")
    for handler in [one for one in logger.handlers if type(one) is logging.StreamHandler]:
        logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail the session when it leaves shared memory or processes behind; end the processes."""
    session = uuid.uuid4().hex
    before = shared_memory()
    os.environ[SESSION_VARIABLE] = session
    yield
    del os.environ[SESSION_VARIABLE]
    multiprocessing.active_children()  # reaps those that have ended
    deadline = time.monotonic() + GRACE_S
    while (processes := processes_of(session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    commands = []
    for process in processes:
        try:
            commands.append(f"pid {process.pid}: {' '.join(process.cmdline())[:200]}")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    names = {name for name in shared_memory() - before if not _belongs_to_a_stranger(name)}
    assert not commands, "processes left running:\n" + "\n".join(commands)
    assert not names, f"left in {SHARED_MEMORY}: {sorted(names)}"


def _belongs_to_a_stranger(name: str) -> bool:
    """Return whether a living process outside of this session holds the segment mapped."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(
                name in region.path for region in process.memory_maps()
            ):
                return True
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return False


@pytest.fixture
def isa_levels() -> Callable[..., None]:
    """Return a function that repeats a test module at every other instruction-set level.

    A module that tests kernels ends with

        def test_other_levels(isa_levels):
            isa_levels(__file__)

    and each level runs in a process of its own, since the level is chosen at import.
    """
    if os.environ.get(LEVEL_VARIABLE):
        pytest.skip("this is the repetition")
    from crystalline._kernels import isa

    def repeat(module: str | Path, *arguments: str, timeout_s: float = 100.0) -> None:
        for level in isa.available_levels():
            if level == isa.level():
                continue
            environment = os.environ | {"CRYSTALLINE_ISA": level, LEVEL_VARIABLE: level}
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            done = subprocess.run(
                [*command, str(module), *arguments],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout_s,
            )
            assert done.returncode == 0, f"at level {level}:\n{done.stdout}{done.stderr}"

    return repeat
