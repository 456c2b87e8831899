"""The commands as a shell runs them: started, watched through their files, and seen off.

Nothing here calls into the package: a test sees what a user sees, and what the
operating system knows of the processes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = Path("/dev/shm")
MARK = "CRYSTALLINE_E2E"  # in the environment of one command and all that it starts
END_S = 5.0  # what every process gets to end
START_S = 60.0

# A model with which a start takes longer than the training.
TINY = (
    "--tokenizer=char", "--num-layers=1", "--num-heads=2", "--embed-dim=16", "--seq-len=16",
    "--batch-size=12", "--warmup-steps=5", "--log-interval=1",
)  # fmt: skip


def words(size: int, *, seed: int = 1, symbols: str = "abcdefghijklmnopqrstuvwxyz") -> str:
    """Return `size` characters of made-up words and sentences; a model can learn from them."""
    draw = random.Random(seed)
    vocabulary = [
        "".join(draw.choices(symbols, k=draw.randint(1, 9))).capitalize()
        if index % 5 == 0
        else "".join(draw.choices(symbols, k=draw.randint(1, 9)))
        for index in range(400)
    ]
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    parts: list[str] = []
    length = 0
    while length < size:
        sentence = " ".join(draw.choices(vocabulary, weights, k=draw.randint(3, 12))) + ".\n"
        parts.append(sentence)
        length += len(sentence)
    return "".join(parts)[:size]


def command(program: str, *arguments: str | Path) -> list[str]:
    """Return the command line of `cllm-train` or `cllm-infer`, without an installation."""
    module = program.removeprefix("cllm-")
    code = f"from crystalline.cli.{module} import main; raise SystemExit(main())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this environment without settings of ours, and with a mark of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CLLM_")}
    own |= {"PYTHONPATH": str(ROOT), "CLLM_CACHE": os.environ["CLLM_CACHE"], MARK: uuid.uuid4().hex}
    own.pop("COLUMNS", None)
    return own | dict(extra or {})


def run(
    program: str,
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    text: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; nothing of it may be left then."""
    own = environment(env)
    done = subprocess.run(
        command(program, *arguments),
        cwd=cwd,
        env=own,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert marked(own[MARK]) == []
    return done


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that carry `mark` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            dead = process.status() == psutil.STATUS_ZOMBIE
            if not dead and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


class Training:
    """A `cllm-train` that runs; use `training`."""

    def __init__(self, process: subprocess.Popen[str], run_dir: Path, mark: str) -> None:
        self.process = process
        self.run_dir = run_dir
        self._mark = mark
        self._memory_before = shared_memory()

    def step(self) -> int:
        """Return the newest step in metrics.jsonl, 0 before there is one."""
        return max((line.get("step", 0) for line in self.metrics()), default=0)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the whole lines of metrics.jsonl."""
        path = self.run_dir / "metrics.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]

    def wait_for_step(self, step: int) -> None:
        """Wait until `step` has been done."""
        deadline = time.monotonic() + START_S
        while self.step() < step:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"step {step} was not reached"
            time.sleep(0.01)

    @property
    def node_zero(self) -> psutil.Process:
        """Node Zero: the launcher's only child."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def spheres(self) -> list[psutil.Process]:
        """Return the spheres that live now."""
        return self.node_zero.children()

    def end(self, timeout_s: float = 30.0) -> tuple[int, str, str]:
        """Wait for the command; return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def assert_all_gone(self) -> None:
        """Every process ends within five seconds, and no memory is left."""
        deadline = time.monotonic() + END_S
        while left := marked(self._mark):
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.02)
        while names := shared_memory() - self._memory_before:
            assert time.monotonic() < deadline, f"left in {SHARED_MEMORY}: {names}"
            time.sleep(0.02)


@contextmanager
def training(
    *arguments: str | Path, run_dir: Path, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[Training]:
    """Start `cllm-train` in plain words; whatever happens, nothing of it outlives the block."""
    own = environment(env)
    with subprocess.Popen(
        command("cllm-train", *arguments, "--plain"),
        cwd=cwd,
        env=own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Training(process, run_dir, own[MARK])
        finally:
            for left in marked(own[MARK]):
                left.send_signal(signal.SIGKILL)


def shared_memory() -> set[str]:
    """Return the names of our segments."""
    return {path.name for path in SHARED_MEMORY.glob("cllm-*")}


def files_below(folder: Path) -> dict[str, bytes | str]:
    """Return what every file and link below `folder` holds, but for locks."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in ("run.lock", "train.log"):  # they tell who came last, refused or not
            continue
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
        elif path.is_dir():
            found[name] = "directory"
    return found
