"""The user's process: starts Node Zero, passes on what the user wants, cleans up whatever happens.

    result = train(spec, on_snapshot=reporter)

Signals: SIGINT, SIGTERM and SIGHUP finish the step, save, and end the run with the
exit code that a shell expects; a second one leaves at once.  Node Zero lives in a
session of its own, so that the terminal's Ctrl-C reaches the launcher alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from crystalline import errors
from crystalline._kernels.atomics import adopt_orphans
from crystalline.errors import CrystallineError, EngineError, StoppedError, UsageError
from crystalline.formats.checkpoint import list_checkpoints
from crystalline.ipc.arena import Arena, Layout, sweep_stale
from crystalline.log import get_logger
from crystalline.train.control import Controller
from crystalline.train.spec import EXIT_CODES, RunResult, RunSpec, StopReason, resume_command
from crystalline.train.stats import Snapshot

if TYPE_CHECKING:
    from typing_extensions import Self

LEAVE_S = 3.0  # what Node Zero gets to end after SIGTERM
END_S = 10.0  # and after its last word
# One thread each: the spheres are the parallelism.
THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
SIGNALS: dict[int, StopReason] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hangup",
}

logger = get_logger("train")


def train(
    spec: RunSpec,
    *,
    on_snapshot: Callable[[Snapshot], None],
    poll_actions: Callable[[], list[str]] = list,
    interval_s: float = 0.25,
) -> RunResult:
    """Run a training to its end and return what came of it.

    The caller has made the run directory and holds its lock.
    `on_snapshot` is called about every `interval_s`.  `poll_actions` is asked as often
    for what the user wants: "pause", "resume", "checkpoint", "stop", "workers+",
    "workers-" or "workers=N".

    Raises:
        DivergedError, CheckpointError, SaveError, …: what Node Zero met.
        EngineError: Node Zero or a sphere died and could not be replaced.
        StoppedError: a second signal came, and the run was left at once.
    """
    sweep_stale(spec.run_dir)
    adopted = adopt_orphans(True)
    try:
        with _Launch(spec) as launch, _signals_go_to(launch):
            return launch.watch(on_snapshot, poll_actions, interval_s)
    finally:
        adopt_orphans(adopted)
        sweep_stale(spec.run_dir)


class _Launch:
    """One Node Zero process and all that belongs to it."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._controller: Controller | None = None
        self._stop: StopReason | None = None  # what a signal asked for
        self._leave_now = False
        self._outcome: dict[str, Any] | None = None
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._report, report = os.pipe()
        os.set_blocking(self._report, False)
        self._text = b""
        # The path is the launcher's; nothing is imported from the working directory.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            "from crystalline.train.node_zero import main; "
            f"sys.exit(main({os.getpid()}, {report}))"
        )
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "node-zero", str(spec.run_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env={**os.environ, **THREADS},
                pass_fds=(report,),
                start_new_session=True,
            )
        finally:
            os.close(report)

    def __enter__(self) -> Self:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as file:
            pickle.dump(self._spec, file)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind."""
        if self._outcome is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._controller is not None:
            # Spheres die with Node Zero; if it could not wait for them, they are ours now.
            for pid in self._controller.sphere_pids():
                with contextlib.suppress(ChildProcessError):
                    if os.waitpid(pid, os.WNOHANG) == (0, 0):
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
        os.close(self._report)
        self._stderr.seek(0)
        text = self._stderr.read().decode("utf-8", "replace").strip()
        self._stderr.close()
        if text:
            logger.error("%s", text)

    def on_signal(self, number: int, _: object) -> None:
        """The first signal asks for a stop; the second one leaves."""
        if self._stop is not None:
            self._leave_now = True
        self._stop = SIGNALS[number]
        if self._controller is not None:
            self._controller.stop(self._stop)

    def watch(
        self,
        on_snapshot: Callable[[Snapshot], None],
        poll_actions: Callable[[], list[str]],
        interval_s: float,
    ) -> RunResult:
        """Serve the user until Node Zero has reported how the run ended."""
        next_snapshot = time.monotonic()
        while self._outcome is None:
            wait_s = max(0.0, next_snapshot - time.monotonic())
            self._read_report(min(wait_s, interval_s))
            if self._leave_now:
                self._leave()
            if self._controller is None or time.monotonic() < next_snapshot:
                if self._controller is None:
                    next_snapshot = time.monotonic() + interval_s
                continue
            next_snapshot = time.monotonic() + interval_s
            for action in poll_actions():
                self._act(action)
            on_snapshot(self._controller.snapshot())
        if self._outcome["kind"] == "error":
            raise _error(self._outcome)
        if self._controller is not None:
            on_snapshot(self._controller.snapshot())
        fields = {name: value for name, value in self._outcome.items() if name != "kind"}
        return RunResult(**fields)

    def _act(self, action: str) -> None:
        controller = self._controller
        assert controller is not None
        if action.startswith("workers"):
            change = action.removeprefix("workers")
            now = controller.workers
            wanted = int(change[1:]) if change[0] == "=" else now + (1 if change == "+" else -1)
            try:
                controller.set_workers(wanted)
            except UsageError as error:
                controller.message = str(error)
        else:
            {
                "pause": controller.pause,
                "resume": controller.resume,
                "checkpoint": controller.checkpoint,
                "stop": controller.stop,
            }[action]()

    def _read_report(self, timeout_s: float) -> None:
        """Handle what Node Zero has written, waiting for it at most `timeout_s`."""
        ready, _, _ = select.select([self._report], [], [], timeout_s)
        if not ready:
            return
        part = os.read(self._report, 1 << 16)
        *lines, self._text = (self._text + part).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))
        if not part and self._outcome is None:  # the last writer is gone
            code = self._process.wait()
            cause = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise EngineError(f"the coordinator process Node Zero {cause}", advice=self._way_on())

    def _handle(self, line: dict[str, Any]) -> None:
        kind = line["kind"]
        if kind in ("result", "error"):
            self._outcome = line
            return
        if kind == "arena":
            arena = Arena.attach(Layout.from_json(line["layout"]), Path(line["path"]))
            self._controller = Controller(self._spec, arena, line["permits"])
            if self._stop is not None:
                self._controller.stop(self._stop)
        elif kind == "log":
            logger.log(line["level"], "%s", line["text"])
            if self._controller is not None and line["level"] >= logging.INFO:
                self._controller.message = line["text"]
        elif self._controller is not None:
            if kind == "checkpoint":
                self._controller.checkpoint_path = line["path"]
            elif kind == "groups":
                self._controller.parameter_groups = tuple(
                    (name, weight, gradient) for name, weight, gradient in line["groups"]
                )

    def _way_on(self) -> str:
        """Return the sentence that tells how the run is taken up again."""
        reported = self._controller is not None and self._controller.checkpoint_path is not None
        # One that was written may not have been reported any more.
        if self._spec.resume_from or reported or list_checkpoints(self._spec.run_dir):
            return f"Go on from the newest checkpoint: {resume_command(self._spec.run_dir)}"
        return "There is no checkpoint yet: the same command starts the run over."

    def _leave(self) -> None:
        assert self._stop is not None
        error = StoppedError("left at once, without saving the last steps", advice=self._way_on())
        error.exit_code = EXIT_CODES[self._stop]
        raise error


@contextlib.contextmanager
def _signals_go_to(launch: _Launch) -> Iterator[None]:
    """Route the signals that end a run to `launch`; only the main thread can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            before[number] = signal.signal(number, launch.on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _error(line: dict[str, Any]) -> CrystallineError:
    kind: type[CrystallineError] = getattr(errors, line["type"])
    return kind(line["message"], advice=line["advice"])
