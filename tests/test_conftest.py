"""The final sweep of the tests sees what is left behind, and the level helper sees failures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from crystalline._kernels import isa

ROOT = Path(__file__).resolve().parent.parent

LEAVES_A_CHILD = """
import subprocess, sys

def test_it():
    global child
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open("pid", "w").write(str(child.pid))
"""

LEAVES_AN_ORPHAN = """
import subprocess, sys

def test_it():
    script = "sleep 60 >/dev/null 2>&1 & echo $!"
    done = subprocess.run(["setsid", "sh", "-c", script], capture_output=True, check=True)
    open("pid", "wb").write(done.stdout)
"""

LEAVES_SHARED_MEMORY = """
import os

def test_it():
    open(f"/dev/shm/cllm-test-{os.environ['NAME']}", "w").close()
"""

IS_REPEATED = """
from crystalline._kernels import isa

def test_level():
    open(__file__ + ".levels", "a").write(isa.level() + "\\n")
    assert isa.level() != FAILING

def test_other_levels(isa_levels):
    isa_levels(__file__)
"""


def run_pytest(folder: Path, test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one test file, under a copy of our conftest, in a process of its own."""
    conftest = Path(__file__).with_name("conftest.py").read_text("utf-8")
    assert "GRACE_S = 5.0" in conftest
    impatient = conftest.replace("GRACE_S = 5.0", "GRACE_S = 0.3")
    (folder / "conftest.py").write_text(impatient, "utf-8")
    (folder / "test_it.py").write_text(test)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CRYSTALLI")}
    inherited["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_clean_session_passes(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "def test_it():\n    pass\n")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("test", [LEAVES_A_CHILD, LEAVES_AN_ORPHAN], ids=["child", "orphan"])
def test_process_left_running_fails_and_is_ended(tmp_path: Path, test: str) -> None:
    done = run_pytest(tmp_path, test)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "processes left running" in done.stdout
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_shared_memory_left_behind_fails(tmp_path: Path) -> None:
    name = f"sweep-{os.getpid()}"
    try:
        done = run_pytest(tmp_path, LEAVES_SHARED_MEMORY, NAME=name)
    finally:
        Path(f"/dev/shm/cllm-test-{name}").unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    assert name in done.stdout


@pytest.mark.skipif(len(isa.available_levels()) < 2, reason="this machine has one level only")
def test_module_is_repeated_at_every_other_level(tmp_path: Path) -> None:
    test = IS_REPEATED.replace("FAILING", repr("no level"))
    done = run_pytest(tmp_path, test)
    assert done.returncode == 0, done.stdout + done.stderr
    levels = (tmp_path / "test_it.py.levels").read_text().split()
    assert sorted(levels) == sorted(isa.available_levels())


@pytest.mark.skipif(len(isa.available_levels()) < 2, reason="this machine has one level only")
def test_failure_at_another_level_is_a_failure(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, IS_REPEATED.replace("FAILING", repr("base")))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "at level base" in done.stdout
