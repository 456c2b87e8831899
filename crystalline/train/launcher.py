"""The user's process: starts Node Zero, passes on what the user wants, cleans up whatever happens.

    result = train(spec, on_snapshot=reporter)

Signals: SIGINT, SIGTERM and SIGHUP finish the step, save, and end the run with the
exit code that a shell expects; a second one leaves at once.  Node Zero lives in a
session of its own, so that the terminal's Ctrl-C reaches the launcher alone.  Ctrl-Z
(SIGTSTP) stops Node Zero and the spheres, then the launcher; SIGCONT lets all go on.

Other processes ask by the socket RUN/control.sock (`engine.door`, `train.asking`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline import errors, suspension
from crystalline._kernels.atomics import adopt_orphans, monotonic_ns
from crystalline.engine.door import Door
from crystalline.engine.requests import Wish
from crystalline.errors import CrystallineError, EngineError, StoppedError, UsageError, remedy
from crystalline.formats.checkpoint import list_checkpoints
from crystalline.handlers import handling
from crystalline.ipc.arena import Arena, Layout, sweep_stale
from crystalline.ipc.liveness import Patience
from crystalline.log import get_logger
from crystalline.train.asking import open_door
from crystalline.train.control import Controller
from crystalline.train.spec import EXIT_CODES, RunResult, RunSpec, StopReason
from crystalline.train.stats import FAILED, Snapshot
from crystalline.train.statusfile import StatusFile

if TYPE_CHECKING:
    from typing_extensions import Self

LEAVE_S = 3.0  # what Node Zero gets to end after SIGTERM
END_S = 10.0  # and after its last word
POLL_S = 0.02
LAST_WORDS = 1 << 16  # bytes that are kept of what Node Zero writes to its standard error
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
    for what the user wants, in words of `engine.requests`.

    Raises:
        DivergedError, CheckpointError, SaveError, …: what Node Zero met.
        EngineError: Node Zero or a sphere died and could not be replaced.
        StoppedError: a second signal came, and the run was left at once.
    """
    sweep_stale(spec.run_dir)
    try:
        launch = _Launch(spec)
        with _orphans_come_here(), _signals_go_to(launch), launch:
            return launch.watch(on_snapshot, poll_actions, interval_s)
    finally:
        sweep_stale(spec.run_dir)


class _Launch:
    """One Node Zero process and all that belongs to it."""

    _report: socket.socket  # our end
    _stderr: int  # the end that we read

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._controller: Controller | None = None
        self._stop: StopReason | None = None  # what a signal asked for
        self._signals = 0  # that asked for an end
        self._leave_now = False
        self._outcome: dict[str, Any] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._suspended_at = 0
        self._text = b""  # of a line of the report whose end has not come yet
        self._descriptors: list[int] = []  # that came with lines of the report
        self._last_words = b""
        self._door: Door | None = None
        self._status = StatusFile(spec.run_dir)

    def __enter__(self) -> Self:
        """Start Node Zero and tell it what to run.  Raises `EngineError`."""
        self._status.clear()
        with contextlib.ExitStack() as stack:
            self._door = open_door(self._spec.run_dir, lambda: self._controller)
            stack.callback(self._close_door)
            self._report, report = map(stack.enter_context, socket.socketpair())
            self._stderr, stderr = os.pipe()
            stack.callback(os.close, self._stderr)
            with report, os.fdopen(stderr, "wb") as words:  # ours are closed when it has its own
                self._start(report.fileno(), words.fileno())
            for descriptor in (self._report.fileno(), self._stderr):
                os.set_blocking(descriptor, False)
            stack.pop_all()
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as file:
            pickle.dump(self._spec, file)
        return self

    def _start(self, report: int, stderr: int) -> None:
        # Node Zero never imports `__main__`, so that may be a notebook, or a script on stdin.
        # Imports take long: from before them on, the launcher's death is that of Node Zero.
        code = (
            f"import sys; sys.path[:] = {import_path()!r}; "
            "from crystalline._kernels.atomics import die_with_parent; "
            f"die_with_parent({signal.SIGKILL:d}); "
            "from crystalline.train.node_process import main; "
            f"sys.exit(main({os.getpid()}, {report}))"
        )
        if not sys.executable:
            raise EngineError(
                "this Python is part of another program, and cannot start processes of its own",
                advice="Train from a Python interpreter.",
            )
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "node-zero", str(self._spec.run_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **THREADS},
                pass_fds=(report,),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(
                f"the coordinator process Node Zero could not be started ({error.strerror})",
                advice=remedy(error),
            ) from error

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Leave no process behind, and no socket."""
        if error is not None and self._controller is not None:
            failed = dataclasses.replace(
                self._controller.snapshot(), health=FAILED, health_reasons=(str(error),)
            )
            self._status.close(failed, f"error: {error}")
        self._close_door()
        process = self._process
        assert process is not None
        if self._outcome is not None:
            self._wait(END_S)
        if process.poll() is None:
            process.terminate()
            self._signal_group(signal.SIGCONT)  # where it is stopped, it could not hear that
            self._wait(LEAVE_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        if self._controller is not None:
            # What it has forked dies with it; if it could not wait for them, they are ours now.
            for pid in self._controller.forked_pids():
                with contextlib.suppress(ChildProcessError):
                    if os.waitpid(pid, os.WNOHANG) == (0, 0):
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
        self._report.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._read_last_words()
        os.close(self._stderr)
        text = self._last_words.decode("utf-8", "replace").strip()
        if text:
            logger.error("%s", text)

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()

    def _wait(self, timeout_s: float) -> None:
        """Wait for Node Zero's end, at most `timeout_s`, and not when another signal comes."""
        assert self._process is not None
        patience, signals = Patience(timeout_s), self._signals
        while self._process.poll() is None and not patience.is_over():
            if self._signals != signals:
                return
            self._read_last_words()  # or it could not end: the pipe is full
            time.sleep(POLL_S)

    def _read_last_words(self) -> None:
        """Take what Node Zero has written to its standard error."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._stderr, 1 << 16):
                self._last_words = (self._last_words + part)[-LAST_WORDS:]

    # Ctrl-Z.

    def suspend(self) -> None:
        """Stop Node Zero and the spheres: they are a process group of their own."""
        self._suspended_at = monotonic_ns()
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on; the time between does not count."""
        if self._controller is not None:
            self._controller.add_suspended(monotonic_ns() - self._suspended_at)
        self._signal_group(signal.SIGCONT)

    def _signal_group(self, number: int) -> None:
        process = self._process
        if process is not None and process.returncode is None:  # not waited for: the pid is its
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def on_signal(self, number: int, _: object) -> None:
        """The first signal asks for a stop; the second one leaves."""
        self._signals += 1
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
            if self._door is not None:
                self._door.renew()
            for action in poll_actions():
                self._act(action)
            snapshot = self._controller.snapshot()
            self._controller.look_at_health(snapshot)
            self._status.show(snapshot)
            on_snapshot(snapshot)
        if self._outcome["kind"] == "error":
            raise self._error(self._outcome)
        fields = {name: value for name, value in self._outcome.items() if name != "kind"}
        result = RunResult(**fields)
        if self._controller is not None:
            snapshot = self._controller.snapshot()
            self._status.close(snapshot, result.stop_reason)
            on_snapshot(snapshot)
        return result

    def _act(self, action: str) -> None:
        assert self._controller is not None
        try:
            self._controller.ask(Wish.of_word(action))
        except UsageError as error:
            if not self._controller.is_stopping:
                self._controller.message = str(error)

    def _read_report(self, timeout_s: float) -> None:
        """Handle what Node Zero and others have written, waiting for it at most `timeout_s`."""
        poll = select.poll()  # takes numbers that select does not, of programs with many files
        for descriptor in (self._report.fileno(), self._stderr):
            poll.register(descriptor, select.POLLIN)
        if self._door is not None:
            self._door.register(poll)
        ready = dict(poll.poll(1000 * timeout_s))
        if self._door is not None:
            self._door.serve(ready)
        if self._stderr in ready:
            self._read_last_words()
        if self._report.fileno() not in ready:
            return
        part, descriptors, _, _ = socket.recv_fds(self._report, 1 << 16, 1, socket.MSG_CMSG_CLOEXEC)
        self._descriptors += descriptors
        *lines, self._text = (self._text + part).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))
        if not part and self._outcome is None:  # the last writer is gone
            assert self._process is not None
            code = self._process.wait()
            cause = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise EngineError(f"the coordinator process Node Zero {cause}", advice=self._way_on())

    def _handle(self, line: dict[str, Any]) -> None:
        kind = line["kind"]
        if kind in ("result", "error"):
            self._outcome = line
            return
        if kind == "arena":
            descriptor = self._descriptors.pop()
            try:
                arena = Arena.attach(Layout.from_json(line["layout"]), descriptor)
            finally:
                os.close(descriptor)
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
            elif kind == "named":
                self._controller.named_checkpoints = tuple(line["names"].items())
            elif kind == "groups":
                self._controller.parameter_groups = tuple(
                    (name, weight, gradient) for name, weight, gradient in line["groups"]
                )

    def _way_on(self) -> str:
        """Return the sentence that tells how the run is taken up again."""
        reported = self._controller is not None and self._controller.checkpoint_path is not None
        # One that was written may not have been reported any more.
        if self._spec.resume_from or reported or list_checkpoints(self._spec.run_dir):
            return f"Go on from the newest checkpoint: {self._spec.resume_command}"
        return "There is no checkpoint yet: the same command starts the run over."

    def _error(self, line: dict[str, Any]) -> CrystallineError:
        """Return the error that Node Zero met, with the way on where there is one."""
        kind: type[CrystallineError] = getattr(errors, line["type"])
        advice = line["advice"]
        has_checkpoint = self._controller and self._controller.checkpoint_path
        if kind is EngineError and has_checkpoint:
            advice = f"{advice} {self._way_on()}".strip()
        return kind(line["message"], advice=advice)

    def _leave(self) -> None:
        assert self._stop is not None
        error = StoppedError("left at once, without saving the last steps", advice=self._way_on())
        error.exit_code = EXIT_CODES[self._stop]
        raise error


def import_path() -> list[str]:
    """Return where our processes look for modules: where this process does, but not in its folder.

    What `''` meant when we were imported may be elsewhere by now, and a file there could stand
    in for a module of the library; our own folder is named, however it was found.
    """
    found = [os.path.abspath(place) for place in sys.path if isinstance(place, str) and place]  # noqa: PTH100
    own = str(Path(__file__).parents[2])
    return found if own in found else [*found, own]


_launches = 0  # that go on in this process, of whatever threads
_was_adopting = False  # before the first of them
_launches_lock = threading.Lock()


@contextlib.contextmanager
def _orphans_come_here() -> Iterator[None]:
    """Be the parent of descendants whose own parent dies, until the last launch here has ended.

    That is a property of the process, and threads may have runs of their own.
    """
    global _launches, _was_adopting
    with _launches_lock:
        if not _launches:
            _was_adopting = adopt_orphans(True)
        _launches += 1
    try:
        yield
    finally:
        with _launches_lock:
            _launches -= 1
            if not _launches:
                adopt_orphans(_was_adopting)


@contextlib.contextmanager
def _signals_go_to(launch: _Launch) -> Iterator[None]:
    """Route the signals that end a run to `launch`; only the main thread can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]  # nohup stays nohup
    with handling(dict.fromkeys(heard, launch.on_signal)):
        part = suspension.join(launch.suspend, launch.resume)
        try:
            yield
        finally:
            suspension.leave(part)
