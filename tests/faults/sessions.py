"""Runs of a tiny real model with faults: each session's launcher is a fork of this process.

A session ends as a command does, with an exit code.  What it leaves behind is looked at from
outside: processes by a variable of theirs, names in /dev/shm, and files in the run directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from crystalline.atomic import is_temporary
from crystalline.cli.run import run_command
from crystalline.data.prepare import PreparedData
from crystalline.engine.call import Call
from crystalline.errors import CrystallineError
from crystalline.faults import COUNTS_VARIABLE, STOP, VARIABLE, Counts, Fault, parse
from crystalline.formats.checkpoint import latest_checkpoint, list_checkpoints
from crystalline.formats.files import CONTROL as SOCKET
from crystalline.formats.rundir import RunDir
from crystalline.ipc.arena import PREFIX, SHM_DIR
from crystalline.ipc.liveness import is_stopped
from crystalline.log import set_up_logging
from crystalline.train.launcher import train
from crystalline.train.spec import RunSpec
from crystalline.train.stats import Snapshot
from tests.train import real_runs

SETTINGS: dict[str, Any] = {
    "embed_dim": 8, "num_layers": 1, "num_heads": 1, "seq_len": 8, "batch_size": 12,
    "max_steps": 12, "warmup_steps": 2, "eval_interval": 6, "save_interval": 4, "keep": 1,
}  # fmt: skip
HANG_S = 0.5
SESSION_S = 40.0  # after which a session is thought to hang
GONE_S = 5.0  # that processes have to go after their launcher
STOPPED_S = 0.2  # that a process is left stopped, before it is let go on
RESIZED_AT, RESIZED_TO = 3, 5  # a step, and the spheres from then on


@dataclass(frozen=True)
class Surroundings:
    """In what kind of run a fault is met."""

    depth: str = "2"
    workers: int = 9
    companions: str = ""  # faults without which the point would not be passed
    calls: bool = False  # somebody asks the run by its socket
    saver: bool = False  # checkpoints are written while training goes on
    merges: bool = False  # lanes are summed while others are computed
    again: bool = False  # the run has gone on from an earlier step once before
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a session ended."""

    code: int  # as a shell has it, or minus the signal
    sha256: str | None  # of the weights, where it came to its end
    words: str  # what was written to standard error
    roles: tuple[str | None, ...]  # who met each fault; None where it did not happen
    recovered_s: tuple[float | None, ...]  # from the fault to the next end of a phase
    left: tuple[str, ...]  # processes, memory and files that are still there

    @property
    def met_last(self) -> bool:
        """Whether the last of the faults happened."""
        return self.roles[-1] is not None


class Runs:
    """Sessions of one run directory."""

    def __init__(self, data: PreparedData, folder: Path, around: Surroundings) -> None:
        self.folder = folder
        self.counts_of: list[Path] = []
        self._data, self._around = data, around
        folder.mkdir(parents=True)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def session(self, text: str) -> Ended:
        """Begin the run, or go on with it, with faults."""
        number = len(self.counts_of)
        path = self.folder / f"counts-{number}"
        log, told = self.folder / f"stderr-{number}", self.folder / f"result-{number}"
        self.counts_of.append(path)
        counts = Counts.open(str(path))
        before = _memory()
        launcher = os.fork()
        if launcher == 0:
            self._launch(text, path, log, told)
        wanted = parse(text) if text else []
        try:
            code = self._wait(launcher, wanted, counts)
            left = _left_behind(path, before, self.run_dir)
            return Ended(
                code,
                json.loads(told.read_text())["weights_sha256"] if told.exists() else None,
                log.read_text(),
                tuple(counts.role(number) for number in range(len(wanted))),
                tuple(counts.recovered_s(number) for number in range(len(wanted))),
                left,
            )
        finally:
            counts.close()

    def _wait(self, launcher: int, wanted: list[Fault], counts: Counts) -> int:
        """Wait for a launcher; let go on what faults have stopped; call it where that is due."""
        end = time.monotonic() + SESSION_S
        let_go: set[int] = set()
        called = not self._around.calls
        while True:
            pid, status = os.waitpid(launcher, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                os.kill(launcher, signal.SIGKILL)
                os.waitpid(launcher, 0)
                raise TimeoutError(f"{self.run_dir} hangs")
            for number, fault in enumerate(wanted):
                if fault.action == STOP and number not in let_go and counts.fired(number):
                    stopped = counts.pid(number)
                    if is_stopped(stopped) and counts.role(number) in ("launcher", "node-zero"):
                        time.sleep(STOPPED_S)
                        os.kill(stopped, signal.SIGCONT)
                        let_go.add(number)
            if not called and (self.run_dir / SOCKET).exists():
                called = _call(self.run_dir)
            time.sleep(0.01)

    def _launch(self, text: str, counts: Path, log: Path, told: Path) -> NoReturn:
        """Be the launcher."""
        code = 70
        try:
            os.environ[COUNTS_VARIABLE] = str(counts)
            os.environ.pop(VARIABLE, None)
            if text:
                os.environ[VARIABLE] = text
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            set_up_logging()
            code = run_command("cllm-train", lambda _: self._train(told), [])
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(code)

    def _train(self, told: Path) -> int:
        found = latest_checkpoint(self.run_dir)
        if self._around.again and len(self.counts_of) == 2:
            found = list_checkpoints(self.run_dir)[0]
        with RunDir.open(self.run_dir) if found else RunDir.create(self.run_dir) as run:
            if found is None:
                run.clear()
            run.write_config({})
            step, resized = 0, self._around.depth == "1"

            def watch(snapshot: Snapshot) -> None:
                nonlocal step
                step = snapshot.step

            def actions() -> list[str]:
                nonlocal resized
                if resized or step < RESIZED_AT:
                    return []
                resized = True
                return [f"workers={RESIZED_TO}"]

            result = train(
                self._spec(found), on_snapshot=watch, poll_actions=actions, interval_s=0.03
            )
        told.write_text(json.dumps(dataclasses.asdict(result)))
        return result.exit_code

    def _spec(self, checkpoint: Path | None) -> RunSpec:
        around = self._around
        spec = real_runs.spec(
            self._data, self.run_dir, workers=around.workers, resume_from=checkpoint,
            **{**SETTINGS, **around.settings},
        )  # fmt: skip
        return dataclasses.replace(
            spec,
            depth=around.depth,
            hang_s=HANG_S,
            save_hang_s=HANG_S,
            program="tests.faults.merging:build" if around.merges else spec.program,
            save_while_training=around.saver,
        )


def _call(run_dir: Path) -> bool:
    """Ask a run for its status; return whether it answered."""
    try:
        with Call.open(run_dir, SOCKET, timeout_s=2) as call:
            return bool(call.ask({"command": "status"})["ok"])
    except (OSError, CrystallineError, ValueError):
        return False


def _memory() -> set[str]:
    return {path.name for path in SHM_DIR.glob(f"{PREFIX}*")}


def _left_behind(counts: Path, before: set[str], run_dir: Path) -> tuple[str, ...]:
    """Return what a session has left, which has no launcher any more."""
    end = time.monotonic() + GONE_S
    while (processes := _processes_with(counts)) and time.monotonic() < end:
        time.sleep(0.01)
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    files = [path for path in run_dir.rglob("*") if _is_scrap(path)]
    return (
        *(f"process {pid}" for pid in processes),
        *(name for name in _memory() - before if not _creator_lives(name)),
        *(str(path.relative_to(run_dir)) for path in files),
    )


def _is_scrap(path: Path) -> bool:
    inside = any(is_temporary(parent) for parent in path.parents)
    return not inside and (is_temporary(path) or path.name.startswith(f".{PREFIX}"))


def _creator_lives(name: str) -> bool:
    return Path("/proc", name.split("-")[-2]).exists()


def _processes_with(counts: Path) -> list[int]:
    """Return the processes, but for zombies, that began with the variable of a session."""
    wanted = f"{COUNTS_VARIABLE}={counts}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # gone, or not for us to know
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
