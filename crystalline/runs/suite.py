"""--eval-suite: each new best checkpoint of a run, measured on prompts beside the training.

    with SuiteWatch(run_dir, "built-in", questions) as watch:
        train(spec, on_snapshot=lambda _: watch.look())
        watch.finish()

A process of its own (`suite_worker`) opens the checkpoint when it is written and marked as best,
so training waits for nothing, and its bits are those of a run without.  The process has one thread
of low priority: where every core is at work, steps take somewhat longer meanwhile, which is told
at the start.  Of further best checkpoints only the newest waits; which ones were left out is told.

The figures are those of `cllm-eval`.  RUN/suite.jsonl gets a line for each checkpoint:

    {"step": 250, "suite": "built-in", "seconds": 4.2, "groups": {"code": {"perplexity": 31.2, …}}}

A run that goes back and comes to a step again has two lines of it; the later one counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline import suspension
from crystalline.atomic import json_text, replace_shared
from crystalline.errors import DataError
from crystalline.formats.files import BEST, MANIFEST, SUITE_RESULTS, step_of
from crystalline.formats.pointers import pointer
from crystalline.handlers import handling
from crystalline.log import get_logger
from crystalline.runs.settings import BUILT_IN, OFF, RunSettings
from crystalline.train.launcher import SIGNALS, THREADS, import_path
from crystalline.untrusted import open_ours, shown

if TYPE_CHECKING:
    from typing_extensions import Self

    from crystalline.infer.suite import Question

_POLL_S = 0.05

_log = get_logger("runs")


def questions_of(settings: RunSettings) -> tuple[Question, ...]:
    """Return the questions of --eval-suite; none where it is off.

    Raises:
        DataError: a file that cannot be read, or a line that is no question.
    """
    name = settings.eval_suite
    if name == OFF:
        return ()
    from crystalline.infer.suite import read_questions

    try:
        return tuple(read_questions(None if name == BUILT_IN else name))
    except DataError as error:
        raise DataError(
            f"--eval-suite: {error.message}",
            advice=f"{error.advice} Or leave it out: --eval-suite off.",
        ) from None


class SuiteWatch:
    """Looks for new best checkpoints of a run, and measures them; see above."""

    def __init__(self, run_dir: Path, name: str, questions: Sequence[Question]) -> None:
        self._run_dir = run_dir
        self._name = name
        self._questions = [(one.group, one.prompt, one.answer) for one in questions]
        _, self._best = self._newest()  # of an earlier session
        self._waiting: Path | None = None  # a checkpoint that is to be measured next
        self._measuring: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._answer = b""
        self._part: suspension.Part | None = None
        self._given_up = False

    def __enter__(self) -> Self:
        self._part = suspension.join(self._suspend, self._go_on)
        count = len(self._questions)
        _log.info(
            "Each new best checkpoint is measured on %s (%s), beside the training, by one thread of"
            " low priority: where all cores are at work, steps take somewhat longer meanwhile. The"
            " figures go to %s.",
            "1 prompt" if count == 1 else f"{count:,} prompts",
            shown(self._name),
            shown(os.fspath(self._run_dir / SUITE_RESULTS)),
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind."""
        if self._part is not None:
            suspension.leave(self._part)
        self._end()

    def look(self) -> None:
        """Take what a measurement has come to, and begin the next; returns at once."""
        found, mark = self._newest()
        if found is not None and mark != self._best:
            self._best = mark
            if self._waiting is not None:
                self._leave_out(self._waiting)
            self._waiting = found
        if self._process is not None and self._is_done():
            self._take()
        if self._process is None and self._waiting is not None:
            self._start(self._waiting)
            self._waiting = None

    def finish(self, *, is_whole: bool) -> None:
        """Measure what there is yet, after training; a signal that ends a run gives it up.

        That is the newest best checkpoint, of a run that came to its end (`is_whole`).
        """
        if is_whole:
            self.look()
        if self._process is None and self._waiting is None:
            return
        if is_whole:
            _log.info("The suite is run on the best checkpoint; Ctrl-C leaves it out.")
            with self._signals_give_up():
                while self._process is not None and not self._given_up:
                    self.look()
                    time.sleep(_POLL_S)
        for checkpoint in (self._measuring, self._waiting):
            if checkpoint is not None:
                _log.info("The suite on step %s was given up.", f"{step_of(checkpoint):,}")
        self._waiting = None
        self._end()

    def _newest(self) -> tuple[Path | None, tuple[str, int, int] | None]:
        """Return the best checkpoint, and what tells it from others, also of its name."""
        found = pointer(self._run_dir, BEST)
        if found is None:
            return None, None
        try:
            status = (found / MANIFEST).stat()
        except OSError:
            return None, None
        return found, (found.name, status.st_ino, status.st_mtime_ns)

    def _leave_out(self, checkpoint: Path) -> None:
        _log.info(
            "The suite was not run on step %s: there was a better one before its turn.",
            f"{step_of(checkpoint):,}",
        )

    # The process.

    def _start(self, checkpoint: Path) -> None:
        code = (
            f"import sys; sys.path[:] = {import_path()!r}; "
            "from crystalline._kernels.atomics import die_with_parent; "
            f"die_with_parent({signal.SIGKILL:d}); "
            "from crystalline.runs.suite_worker import main; main()"
        )
        asked = {"checkpoint": os.fspath(checkpoint), "questions": self._questions}
        self._answer = b""
        try:
            with tempfile.TemporaryFile() as file:
                file.write(json.dumps(asked).encode())
                file.seek(0)
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code, "suite", os.fspath(self._run_dir)],
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **THREADS},
                    start_new_session=True,  # Ctrl-C is ours
                )
        except OSError as error:
            self._fail(checkpoint, error.strerror or str(error))
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._measuring = checkpoint

    def _is_done(self) -> bool:
        """Read what has come of the answer; return whether that was all."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            while part := os.read(process.stdout.fileno(), 1 << 16):
                self._answer += part
        except BlockingIOError:
            return False
        return True

    def _take(self) -> None:
        process, checkpoint = self._process, self._measuring
        assert process is not None
        assert checkpoint is not None
        code = process.wait()
        self._end()
        if code or not self._answer:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self._fail(checkpoint, f"its process {how}")
            return
        answer: dict[str, Any] = json.loads(self._answer)
        if "fault" in answer:
            if not checkpoint.is_dir():  # removed, because another became the best
                self._leave_out(checkpoint)
            else:
                self._fail(checkpoint, answer["fault"])
            return
        step, seconds, groups = step_of(checkpoint), answer["seconds"], answer["groups"]
        self._append({"step": step, "suite": self._name, "seconds": seconds, "groups": groups})
        _log.info("Suite at step %s: %s (%.1f s).", f"{step:,}", told(groups), seconds)

    def _append(self, line: dict[str, Any]) -> None:
        path = self._run_dir / SUITE_RESULTS
        data = (json_text(line) + "\n").encode()
        try:
            replace_shared(path)
            descriptor = open_ours(path, append=True)
            try:
                before = os.fstat(descriptor).st_size
                if os.write(descriptor, data) < len(data):  # the disk is full
                    os.ftruncate(descriptor, before)
                    raise OSError(f"there is no room for {len(data):,} bytes")
            finally:
                os.close(descriptor)
        except OSError as error:
            reason = error.strerror or str(error)
            _log.warning("%s cannot be written (%s).", shown(os.fspath(path)), reason)

    def _fail(self, checkpoint: Path, reason: str) -> None:
        _log.warning(
            "The suite could not be run on step %s: %s.", f"{step_of(checkpoint):,}", shown(reason)
        )

    def _end(self) -> None:
        process, self._process, self._measuring = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    # Signals.

    def _suspend(self) -> None:
        self._signal(signal.SIGSTOP)

    def _go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        process = self._process
        if process is not None and process.returncode is None:  # not waited for: the pid is its
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def _give_up(self, _number: int, _frame: object) -> None:
        self._given_up = True

    @contextlib.contextmanager
    def _signals_give_up(self) -> Iterator[None]:
        """Let a signal that ends a run end the measurement; the run itself is over and saved."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
        with handling(dict.fromkeys(heard, self._give_up)):
            yield


def told(groups: dict[str, dict[str, Any]]) -> str:
    """Return the figures of a suite in a line.

    >>> told({"code": {"perplexity": 31.25, "distinct_1": 0.5, "parses": 0.25},
    ...       "mine": {"perplexity": None, "distinct_1": None, "parses": None}})
    'code: perplexity 31.25, 50% distinct words, 25% parse; mine: nothing to measure'
    """
    forms = (
        ("perplexity", "perplexity {:.2f}"),
        ("distinct_1", "{:.0%} distinct words"),
        ("parses", "{:.0%} parse"),
    )
    lines = []
    for name, figures in groups.items():
        found = [form.format(figures[key]) for key, form in forms if figures[key] is not None]
        lines.append(f"{shown(name)}: {', '.join(found) or 'nothing to measure'}")
    return "; ".join(lines)
