"""`crystalline.train` and `crystalline.resume`: runs from Python, in a notebook or a script.

    run = train("notes/", minutes=5, on_progress=print)
    run = resume(run, minutes=5)

Nothing is printed; messages go to the logger "crystalline".  Node Zero and the spheres are
processes of their own that never import `__main__`, so a caller needs no guard around it, and
may be a notebook or a script on standard input.

Signals.  In the main thread SIGINT, SIGTERM and SIGHUP finish the step and save; then, with the
run's files closed, the signal goes where it would have gone without us: Ctrl-C, and a
notebook's interrupt, raise `Interrupted`, which is a KeyboardInterrupt that knows the run;
SIGTERM ends the process, unless the program handles it.  A second signal leaves at once.  In
other threads signals are the caller's own, and `on_progress` ends a run by returning False.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalline.errors import StoppedError, UsageError
from crystalline.log import LOGGER_NAME
from crystalline.runs.begin import begin
from crystalline.runs.keywords import keywords, python_spelling, takes
from crystalline.runs.layers import Layers, toml_layer
from crystalline.runs.length import make_way
from crystalline.runs.ready import ReadyRun, require_linux
from crystalline.runs.resume import open_earlier
from crystalline.runs.run import Run
from crystalline.runs.settings import DISPLAY, RunSettings
from crystalline.train.config import LENGTHS
from crystalline.train.spec import EXIT_CODES, PYTHON, resume_command

if TYPE_CHECKING:
    from crystalline.data.prepare import Progress
    from crystalline.train.spec import RunResult
    from crystalline.train.stats import Snapshot

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
OnProgress = Callable[["Snapshot"], object]
OnPreparing = Callable[[str, int, int], object]

_SIGNALS = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM, "hangup": signal.SIGHUP}
_SHOWING = "It says how the command shows a run; here on_progress does, and nothing is printed."
# Flags of the command that are no settings of a run, and what to do instead.
_ELSEWHERE = {
    **dict.fromkeys(DISPLAY, _SHOWING),
    "eval_suite": "The command cllm-eval measures the run's checkpoints.",
    "resume": "Use crystalline.resume.",
    "version": "It is crystalline.__version__.",
    "threads": "Its name is workers.",
}
_FLAGS = ("config", "resume", "data")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a notebook's interrupt, ended a run; it is saved, and `run` can be resumed."""

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


@takes(RunSettings, exclude=("data",))
def train(
    data: Paths | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_preparing: OnPreparing | None = None,
    config: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Run:
    """Train a model on files and folders of text, and return the run.

    `data` is one path or several; without it the text is Python's standard library.  The
    settings are those of cllm-train, with _ for -; `config` names a TOML file of them, which
    keywords win over.  The environment's CLLM_ settings are the commands' own.

    `on_progress` is called about four times a second, in this thread, with a `Snapshot`: its
    `step` of `max_steps`, `loss`, `tokens_per_second`, `eta_s` and more.  When it returns False
    the run is saved and ends; when it raises, too, and then the exception goes on.
    `on_preparing` is called with (stage, done, total) while the text is read and tokenized.

    Raises:
        UsageError: a setting that cannot work, or a directory that is in use or not empty.
        DataError: text that cannot be used.
        DivergedError, EngineError, SaveError: training could not go on.
        Interrupted: Ctrl-C, in the main thread; the run is saved.
    """
    with python_spelling(RunSettings, others=_FLAGS):
        _begin_quietly()
        layers, _ = _layers(Layers(), data, config, settings)
        made = RunSettings(**layers.values)
        with begin(
            made, preparing=_preparing(on_preparing), command=PYTHON, given=layers.values.keys()
        ) as ready:
            path = ready.run.path
            session = _Session(ready, on_progress)
            session.hold()
        return session.end(path)


@takes(RunSettings, exclude=("checkpoint_dir", "data"))
def resume(
    run: Run | str | os.PathLike[str] | None = None,
    *,
    data: Paths | None = None,
    on_progress: OnProgress | None = None,
    on_preparing: OnPreparing | None = None,
    config: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Run:
    """Take a run up again where it was saved, and return it.

    `run` is a `Run`, a run directory or one of its checkpoints; without it, the run below ./runs
    that was saved last.  `data` names the text where it has moved.  A length moves the end of
    the run; what decides its bits cannot change.  All else is as in `train`.

    Raises:
        CheckpointError: there is no such run, or its checkpoint is damaged.
        UsageError: a setting that cannot be changed, or a run that is in use.
        Others: as `train`.
    """
    with python_spelling(RunSettings, others=_FLAGS):
        _begin_quietly()
        place = None if run is None else os.fsdecode(run)
        if place == "":
            raise UsageError("the run to resume is ''", advice="Name its directory.")
        if "checkpoint_dir" in settings:
            raise UsageError(
                f"checkpoint_dir is {settings['checkpoint_dir']!r}, and a resumed run stays where "
                "it is",
                advice="Leave it out.",
            )
        with open_earlier(place, command=PYTHON) as earlier:
            layers, explicit = _layers(Layers(earlier.defaults), data, config, settings)
            ready = earlier.resume(
                RunSettings(**layers.values),
                explicit=explicit,
                preparing=_preparing(on_preparing),
            )
            path = ready.run.path
            session = _Session(ready, on_progress)
            session.hold()
        return session.end(path)


def _begin_quietly() -> None:
    """Refuse what cannot train; let nothing reach stderr that the program did not ask for."""
    require_linux()
    logger = logging.getLogger(LOGGER_NAME)
    if not logger.handlers:  # or Python would print warnings in the last resort
        logger.addHandler(logging.NullHandler())


def _layers(
    layers: Layers,
    data: Paths | None,
    config: str | os.PathLike[str] | None,
    settings: dict[str, Any],
) -> tuple[Layers, set[str]]:
    """Put the file and the keywords over `layers`; also return the names that were given."""
    given = keywords(settings, RunSettings, elsewhere=_ELSEWHERE)
    if data is not None:
        given |= keywords({"data": data}, RunSettings)
        if not given["data"]:
            raise UsageError(
                "data names no text", advice="Leave it out to train on Python's standard library."
            )
    if config is not None:
        values, sources = toml_layer(RunSettings, Path(config), tolerate=DISPLAY)
        make_way(layers, values)
        layers.update(values, sources)
    make_way(layers, given)
    layers.update(given, dict.fromkeys(given, "a keyword"))
    return layers, {name for name in LENGTHS if given.get(name) is not None}


def _preparing(
    on_preparing: OnPreparing | None,
) -> Callable[[], AbstractContextManager[Progress | None]]:
    def tell(stage: str, done: int, total: int) -> None:
        assert on_preparing is not None
        on_preparing(stage, done, total)

    return lambda: contextlib.nullcontext(None if on_preparing is None else tell)


class _Session:
    """One time that a run trains: what the caller wants of it, and how it ended."""

    def __init__(self, ready: ReadyRun, on_progress: OnProgress | None) -> None:
        self._ready = ready
        self._on_progress = on_progress
        self._stop = False  # is to be asked for
        self._raised: BaseException | None = None  # by the callback
        self._result: RunResult | None = None
        self._left: StoppedError | None = None  # for a second signal

    def hold(self) -> None:
        """Train to the end, whatever that is; the run's lock is held."""
        self._ready.record()
        try:
            self._result = self._ready.train(on_snapshot=self._show, poll_actions=self._poll)
        except StoppedError as error:
            self._left = error
        else:
            self._ready.keep_plan(self._result.plan)

    def end(self, path: Path) -> Run:
        """Say how it ended: return the run, or raise what ended it; its lock is free again."""
        run = Run(path, self._result)
        if self._raised is not None:
            raise self._raised
        reason = None if self._result is None else self._result.stop_reason
        if self._left is not None:
            codes = {code: name for name, code in EXIT_CODES.items() if name in _SIGNALS}
            reason = codes.get(self._left.exit_code)
        if reason in _SIGNALS:
            words = f"saved at step {run.step}; go on with {resume_command(path, PYTHON)}"
            with _knowing(run, words if self._left is None else str(self._left)):
                signal.raise_signal(_SIGNALS[reason])
        if self._left is not None:  # the program's own handler let us go on
            raise self._left
        return run

    def _show(self, snapshot: Snapshot) -> None:
        if self._on_progress is None or self._stop:
            return
        try:
            answer = self._on_progress(snapshot)
        except BaseException as error:  # noqa: BLE001 - it goes on when the run is saved
            self._raised, self._stop = error, True
        else:
            self._stop = isinstance(answer, (bool, np.bool_)) and not answer

    def _poll(self) -> list[str]:
        return ["stop"] if self._stop else []


@contextlib.contextmanager
def _knowing(run: Run, words: str) -> Iterator[None]:
    """Let a KeyboardInterrupt know the run that it ended."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(words, run) from None
