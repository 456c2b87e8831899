"""How a run ends when signals come and processes die: nothing stays, the rest is saved."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from crystalline.errors import CrystallineError, EngineError
from crystalline.train import launcher
from crystalline.train.stats import Snapshot
from tests.train.engine_runs import make_spec, run, serial_run

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = {"steps": 100_000, "workers": 3, "options": {"naps": {"compute": 0.001}}}
END_S = 5.0  # what every process gets to end


class Run:
    """A run as a command, with the processes that belong to it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 20)
        assert ready, "the run did not start"
        word, _, pids = process.stdout.readline().partition(" ")
        assert word == "running"
        self.spheres = [psutil.Process(pid) for pid in json.loads(pids)]
        parent = self.spheres[0].parent()
        assert parent is not None
        self.node_zero = parent
        self.launcher = psutil.Process(process.pid)

    def end(self) -> tuple[int, str, str]:
        """Wait for the command; return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err

    def assert_all_gone(self) -> None:
        """Every process ends within five seconds, and no memory is left."""
        everybody = [self.node_zero, *self.spheres]
        _, alive = psutil.wait_procs(everybody, timeout=END_S)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
        assert not list(Path("/dev/shm").glob("cllm-*"))


@contextmanager
def started(run_dir: Path, **keywords: Any) -> Iterator[Run]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.train.engine_runs", str(run_dir), json.dumps(keywords)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Run(process)
        finally:
            if process.poll() is None:
                process.kill()


def newest_checkpoint(run_dir: Path) -> Path:
    return max((run_dir / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hangup"),
    ],
)
def test_a_signal_saves_and_ends(tmp_path: Path, number: int, code: int, reason: str) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        engine.process.send_signal(number)
        returned, out, err = engine.end()
        engine.assert_all_gone()
    assert returned == code, err
    result = json.loads(out)
    assert result["stop_reason"] == reason
    assert newest_checkpoint(tmp_path).name == f"step-{result['final_step']:08d}"
    assert "Traceback" not in err


def test_the_whole_group_is_interrupted_and_the_run_resumes_exactly(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal's group."""
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.train.engine_runs",
            str(tmp_path),
            json.dumps({**ENDLESS, "steps": 3000}),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        engine = Run(process)
        os.killpg(process.pid, signal.SIGINT)
        returned, out, _ = engine.end()
        engine.assert_all_gone()
    assert returned == 130
    final = json.loads(out)["final_step"]
    assert final < 2900
    resumed = run(tmp_path, steps=3000, workers=5, resume_from=str(newest_checkpoint(tmp_path)))
    program, _ = serial_run(make_spec(tmp_path, steps=3000))
    assert resumed.weights_sha256 == program.weights_sha256()


def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    keywords = {**ENDLESS, "options": {"naps": {"compute": 0.1}}}  # steps of more than 0.6 s
    with started(tmp_path, **keywords) as engine:
        engine.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        engine.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        returned, out, err = engine.end()
        assert time.monotonic() - began < END_S
        engine.assert_all_gone()
    assert returned == 130
    assert out == ""
    assert "left at once" in err
    assert "There is no checkpoint yet" in err
    assert "Traceback" not in err


def test_the_way_on_goes_by_what_is_on_disk(tmp_path: Path) -> None:
    """A checkpoint that was written may not have been reported any more."""
    launch = object.__new__(launcher._Launch)
    launch._spec, launch._controller = make_spec(tmp_path), None
    assert launch._way_on() == "There is no checkpoint yet: the same command starts the run over."
    checkpoint = tmp_path / "checkpoints" / "step-00000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    assert f"--resume {tmp_path}" in launch._way_on()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_node_zero_dies(tmp_path: Path, number: int) -> None:
    with started(tmp_path, **ENDLESS, save_interval=2) as engine:
        engine.node_zero.send_signal(number)
        returned, _, err = engine.end()
        engine.assert_all_gone()
    assert returned == 1
    assert "Node Zero" in err
    assert "--resume" in err
    assert "Traceback" not in err
    resumed = run(tmp_path, steps=30, resume_from=str(tmp_path / "checkpoints/step-00000002"))
    assert resumed.final_step == 30


def test_the_launcher_dies(tmp_path: Path) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        engine.process.kill()
        engine.end()
        engine.assert_all_gone()


def test_the_launcher_dies_while_a_sphere_is_stopped(tmp_path: Path) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        engine.spheres[1].suspend()
        engine.process.kill()
        engine.end()
        engine.assert_all_gone()


def test_all_die_at_once(tmp_path: Path) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        for process in (engine.launcher, engine.node_zero, *engine.spheres):
            process.suspend()
        for process in (engine.launcher, engine.node_zero, *engine.spheres):
            process.kill()
        engine.end()
        engine.assert_all_gone()


def test_spheres_ignore_the_signals_of_the_terminal(tmp_path: Path) -> None:
    with started(tmp_path, **ENDLESS) as engine:
        pids = [sphere.pid for sphere in engine.spheres]
        for sphere in engine.spheres:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                sphere.send_signal(number)
        engine.node_zero.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert sorted(child.pid for child in engine.node_zero.children()) == sorted(pids)
        engine.process.send_signal(signal.SIGINT)
        assert engine.end()[0] == 130
        engine.assert_all_gone()


def test_a_stop_is_heard_while_the_run_starts(tmp_path: Path) -> None:
    """SIGINT before the first step: saved at step 0 or a little later, exit code 130."""
    keywords = {**ENDLESS, "options": {"naps": {"compute": 0.001, "pack": 0.2}}}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.train.engine_runs", str(tmp_path), json.dumps(keywords)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        launcher = psutil.Process(process.pid)
        deadline = time.monotonic() + 20
        while len(launcher.children(recursive=True)) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert json.loads(out)["final_step"] == 0
    assert newest_checkpoint(tmp_path).name == "step-00000000"


def test_a_sphere_that_dies_again_and_again_leaves_a_way_on(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="died 5 times") as caught:
        run(tmp_path, steps=30, save_interval=2, options={"fail_lane": [3, 7]})
    command = f"cllm-train --resume {tmp_path}"
    assert caught.value.advice.endswith(f"Go on from the newest checkpoint: {command}")
    with pytest.raises(EngineError, match="died 5 times") as caught:
        run(tmp_path / "new", steps=30, options={"fail_lane": [3, 1]})
    assert "--resume" not in caught.value.advice


def test_a_file_cut_off_in_use_is_not_called_lack_of_memory(tmp_path: Path) -> None:
    def break_one(snapshot: Snapshot) -> None:
        if snapshot.step > 3 and snapshot.spheres[0].pid:  # 0: on its way
            with contextlib.suppress(ProcessLookupError):
                os.kill(snapshot.spheres[0].pid, signal.SIGBUS)

    options = {"lost": "the token file t was cut off while it was in use"}
    with pytest.raises(EngineError, match="was cut off while it was in use") as caught:
        run(tmp_path, break_one, steps=3000, save_interval=2, jitter_s=0.002, options=options)
    assert "memory" not in str(caught.value)
    assert f"cllm-train --resume {tmp_path}" in caught.value.advice


def test_an_arena_that_cannot_be_mapped_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("crystalline.ipc.arena.mmap.mmap", refuse)
    with pytest.raises(EngineError, match=r"cannot be mapped \(Cannot allocate memory\)"):
        run(tmp_path)
    assert not list(Path("/dev/shm").glob("cllm-*"))


def test_no_process_for_node_zero_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(EngineError, match="could not be started") as caught:
        run(tmp_path)
    assert "ulimit -u" in caught.value.advice


def test_what_the_machine_refuses_node_zero_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CrystallineError) as caught:
        run(tmp_path, options={"fail_start": "machine"})
    assert caught.value.message == "weights cannot be used (Input/output error)"
