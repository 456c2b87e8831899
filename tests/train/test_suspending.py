"""Ctrl-Z and its relatives: the whole run stops, uses nothing, and goes on as if nothing was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.train.engine_runs import make_spec, serial_run
from tests.train.test_endings import ENDLESS, ROOT, Run, started

pytestmark = pytest.mark.timeout(60)

QUIET_S = 1.0
MOST_CPU_S = 0.025  # in that time, of all processes together
BUSY: dict[str, Any] = {**ENDLESS, "options": {"burn_s": 0.001}}
EVALUATING: dict[str, Any] = {
    **ENDLESS, "eval_interval": 1, "options": {"eval_units": 200, "naps": {"evaluate": 0.01}},
}  # fmt: skip


def everybody(engine: Run) -> list[psutil.Process]:
    return [engine.launcher, engine.node_zero, *engine.spheres]


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def wait_until(processes: list[psutil.Process], stopped: bool) -> None:
    deadline = time.monotonic() + 5.0
    while any((p.status() == psutil.STATUS_STOPPED) != stopped for p in processes):
        assert time.monotonic() < deadline, [p.status() for p in processes]
        time.sleep(0.005)


def assert_quiet(engine: Run) -> None:
    before = cpu_s(everybody(engine))
    time.sleep(QUIET_S)
    assert cpu_s(everybody(engine)) - before <= MOST_CPU_S


def assert_working(engine: Run) -> None:
    """Somebody computes, or at least sleeps in the middle of units."""
    before = sum(sum(p.num_ctx_switches()) for p in engine.spheres)
    deadline = time.monotonic() + 5.0
    while sum(sum(p.num_ctx_switches()) for p in engine.spheres) < before + 10:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_ends_well(engine: Run) -> None:
    engine.process.send_signal(signal.SIGINT)
    returned, _, err = engine.end()
    engine.assert_all_gone()
    assert returned == 130, err
    assert "answer" not in err  # nobody was taken for hanging
    assert "replaced" not in err


@pytest.mark.parametrize("keywords", [BUSY, EVALUATING], ids=["training", "evaluating"])
def test_a_stop_stops_all_and_they_go_on(tmp_path: Path, keywords: dict[str, Any]) -> None:
    with started(tmp_path, **keywords, hang_s=0.5) as engine:
        for round_ in range(3):
            engine.process.send_signal(signal.SIGTSTP)
            wait_until(everybody(engine), stopped=True)
            if not round_:
                assert_quiet(engine)
            engine.process.send_signal(signal.SIGCONT)
            wait_until(everybody(engine), stopped=False)
            assert_working(engine)
        assert_ends_well(engine)


def test_a_launcher_stopped_otherwise_stops_the_spheres(tmp_path: Path) -> None:
    """SIGSTOP cannot be caught, and Node Zero sees it."""
    with started(tmp_path, **BUSY, hang_s=0.5) as engine:
        engine.process.send_signal(signal.SIGSTOP)
        wait_until([engine.launcher, *engine.spheres], stopped=True)
        assert_quiet(engine)
        engine.process.send_signal(signal.SIGCONT)
        wait_until([engine.launcher, *engine.spheres], stopped=False)
        assert_working(engine)
        assert_ends_well(engine)


def test_stops_and_continues_at_once_change_nothing(tmp_path: Path) -> None:
    """However closely they follow each other, the last one holds."""
    keywords = {"steps": 150, "workers": 3, "options": {"naps": {"compute": 0.001}}}
    with started(tmp_path, **keywords) as engine:
        for round_ in range(60):
            engine.process.send_signal(signal.SIGTSTP)
            time.sleep(0.0005 * (round_ % 4))
            engine.process.send_signal(signal.SIGCONT)
            time.sleep(0.0005 * (round_ % 3))
        returned, out, err = engine.end()
        engine.assert_all_gone()
    assert returned == 0, err
    program, _ = serial_run(make_spec(tmp_path, **keywords))
    assert json.loads(out)["weights_sha256"] == program.weights_sha256()


def test_a_stopped_run_is_killed_whole(tmp_path: Path) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        engine.process.send_signal(signal.SIGTSTP)
        wait_until(everybody(engine), stopped=True)
        engine.process.kill()
        engine.end()
        engine.assert_all_gone()


@pytest.mark.parametrize("spheres_too", [False, True])
def test_the_launcher_dies_while_node_zero_is_stopped(tmp_path: Path, spheres_too: bool) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        victims = [engine.node_zero, *(engine.spheres if spheres_too else ())]
        for process in victims:
            process.suspend()
        engine.process.kill()
        engine.end()
        engine.assert_all_gone()


def test_a_signal_to_end_is_heard_when_the_run_goes_on(tmp_path: Path) -> None:
    """As a shell's `kill %1` does it: SIGTERM to a stopped job, then SIGCONT."""
    with started(tmp_path, **ENDLESS) as engine:
        engine.process.send_signal(signal.SIGTSTP)
        wait_until(everybody(engine), stopped=True)
        engine.process.send_signal(signal.SIGTERM)
        engine.process.send_signal(signal.SIGCONT)
        returned, out, err = engine.end()
        engine.assert_all_gone()
    assert returned == 143, err
    assert json.loads(out)["stop_reason"] == "terminated"


def test_the_launcher_dies_while_node_zero_is_stopped_among_its_imports(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.engine_runs", str(tmp_path), json.dumps(ENDLESS)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        launcher = psutil.Process(process.pid)
        deadline = time.monotonic() + 20
        while not (children := launcher.children()) or not _has_loaded(children[0], "/atomics."):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.01)  # the call that follows the first import
        children[0].suspend()
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def _has_loaded(process: psutil.Process, library: str) -> bool:
    maps = Path(f"/proc/{process.pid}/maps")
    return "node-zero" in process.cmdline() and library in maps.read_text()
