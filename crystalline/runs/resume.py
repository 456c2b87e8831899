"""A run taken up again: found, opened, its settings read, and made ready to go on.

with open_earlier(place) as earlier:
    settings = RunSettings(**earlier.defaults | changes)
    ready = earlier.resume(settings, explicit=changes, preparing=...)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.errors import CheckpointError, DataError, UsageError
from crystalline.log import least_level
from crystalline.logfile import LogFile
from crystalline.runs.describe import describe
from crystalline.runs.layers import field_names, flag_of, toml_layer
from crystalline.runs.length import resumed_length
from crystalline.runs.ready import (
    Preparing,
    ReadyRun,
    make_spec,
    prepare_text,
    session_log,
    settle,
    speed_of,
)
from crystalline.runs.settings import BESIDE, DISPLAY, RunSettings
from crystalline.train.config import CHANGEABLE, LENGTHS, TrainConfig
from crystalline.train.spec import COMMAND, PYTHON, resume_command

if TYPE_CHECKING:
    from crystalline.data.prepare import PreparedData
    from crystalline.formats.checkpoint import CheckpointInfo
    from crystalline.formats.rundir import RunDir


@dataclass(frozen=True)
class EarlierRun:
    """A run that was opened to go on at one of its checkpoints."""

    run: RunDir
    info: CheckpointInfo
    stored: dict[str, Any]  # its settings: see `stored_settings`
    command: str  # in whose words messages say how to go on
    log: LogFile

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings that it goes on with, without its lengths: they may be given anew."""
        return {name: value for name, value in self.stored.items() if name not in LENGTHS}

    def resume(
        self, settings: RunSettings, *, explicit: Collection[str], preparing: Preparing
    ) -> ReadyRun:
        """Make the run ready to go on with `settings`, which are `defaults` and what may change.

        `explicit` names settings that were given in so many words: see `resumed_length`.

        Raises:
            UsageError: a setting that decides its bits differs, or its length cannot be.
            DataError: the text is another, or cannot be found.
        """
        from crystalline.data.tokenizer import GivenTokenizer
        from crystalline.data.tokenizer_facts import NO_FACTS
        from crystalline.formats.checkpoint import CHECKPOINTS, facts_of
        from crystalline.formats.rundir import CONFIG
        from crystalline.machine.cores import usable_cores
        from crystalline.runs.suite import questions_of
        from crystalline.train.footprint import check_run
        from crystalline.train.speed import measure_peak

        self.log.setLevel(least_level())  # who wants how much is known by now
        path, info, stored = self.run.path, self.info, self.stored
        _refuse_changes(settings, stored, path)
        questions = questions_of(settings)
        if not settings.data and not (path / CONFIG).is_file():
            raise DataError(
                f"{path} has lost its {CONFIG}, which names the text it is trained on",
                advice="Name the DATA.",
            )
        given, facts = None, NO_FACTS
        if settings.init_from is not None:  # the model itself may be gone; what counts is here
            facts = facts_of(info.path, info.base)
            given = GivenTokenizer.load(info.tokenizer_path, facts, info.model_config.vocab_size)
        data = prepare_text(settings, preparing, given)
        _check_same_data(data, info)
        cores = min(usable_cores(), settings.workers)
        config = settings.train_config()
        config = dataclasses.replace(config, precision=stored["precision"])  # never "auto"
        room = check_run(
            config, info.model_config, data, settings.workers, settings.recursive_depth,
            settings.save_while_training, recompute=settings.recompute,
            max_bytes=settings.max_bytes,
        )  # fmt: skip
        speed = speed_of(info.model_config, data, cores)
        length = resumed_length(config, stored, explicit, info, data.train_tokens, speed)
        peak = measure_peak(cores, config.precision)
        spec = make_spec(settings, length, info.model_config, data, self.run, peak, self.command)
        # What its adapters belong to is in the run, or lies where the checkpoint is.
        spec = dataclasses.replace(
            settle(spec, room), resume_from=info.path, facts=facts, init_from=info.base
        )
        summary = describe(settings, spec, data, step=info.step)
        newest = info.path if info.path.parent == path / CHECKPOINTS else None
        return ReadyRun(settings, spec, self.run, summary, newest, questions)


@contextlib.contextmanager
def open_earlier(
    resume: str | None, checkpoint_dir: str | None = None, *, command: str = COMMAND
) -> Iterator[EarlierRun]:
    """Find and open the run of `resume`; its lock is held until the block ends.

    `resume` is a run directory or one of its checkpoints; without it, `checkpoint_dir`, or the
    run below ./runs that was saved last.  Messages on how to go on are in the words of `command`.

    Raises:
        CheckpointError: there is no such run or checkpoint, or it is damaged.
        UsageError: it is in use or cannot be written, or both places are given.
    """
    from crystalline.formats.checkpoint import require_readable
    from crystalline.formats.files import LOG
    from crystalline.formats.rundir import CONFIG, RunDir

    path, name = find_run(resume, checkpoint_dir)
    with session_log() as log, RunDir.open(path) as run:
        log.open(path / LOG)
        require_readable(path / CONFIG)
        info = inspect(find_checkpoint(path, name, command), command)
        yield EarlierRun(run, info, stored_settings(run, info), command, log)


def find_run(resume: str | None, checkpoint_dir: str | None) -> tuple[Path, str | None]:
    """Return the run directory and the name of the checkpoint, if one is meant."""
    from crystalline.formats.checkpoint import CONFIG, MANIFEST, OPTIMIZER, locate
    from crystalline.formats.files import ADAPTER_CONFIG
    from crystalline.formats.rundir import newest_run

    if resume and checkpoint_dir is not None:
        raise UsageError(
            f"--resume {resume} and --checkpoint-dir {checkpoint_dir} cannot be combined",
            advice="A resumed run stays in its directory; leave --checkpoint-dir out.",
        )
    if not resume:
        return (newest_run() if checkpoint_dir is None else Path(checkpoint_dir)), None
    path = Path(resume)
    found = locate(path)
    if found is not None:
        return found
    try:
        names = (CONFIG, ADAPTER_CONFIG, MANIFEST, OPTIMIZER)
        files = {name for name in names if (path / name).is_file()}
    except OSError:  # told when the run is opened
        return path, None
    if files & {CONFIG, ADAPTER_CONFIG}:
        if {MANIFEST, OPTIMIZER} <= files:
            raise CheckpointError(
                f"{path} is a model, not a run: a checkpoint that lies outside of its run",
                advice="Put it into the folder checkpoints/ of the run, and name the run.",
            )
        raise CheckpointError(
            f"{path} is a model, not a run: it has no optimizer state to go on with",
            advice="Name a run directory, or one of the checkpoints in it.",
        )
    return path, None


def find_checkpoint(run_path: Path, name: str | None, command: str = COMMAND) -> Path:
    """Return the checkpoint of a run that is meant: by default the newest."""
    from crystalline.formats.checkpoint import CHECKPOINTS, LATEST, latest_checkpoint, resolve
    from crystalline.formats.names import shell_word
    from crystalline.formats.rundir import CONFIG

    if name is not None and name.startswith("step-"):
        return run_path / CHECKPOINTS / name
    if latest_checkpoint(run_path) is None and (run_path / CONFIG).is_file():
        config, place = run_path / CONFIG, run_path
        again = f"{command} --config {shell_word(config)} --checkpoint-dir {shell_word(place)}"
        if command == PYTHON:
            again = f"{command}.train(config={str(config)!r}, checkpoint_dir={str(place)!r})"
        raise CheckpointError(
            f"the run {run_path} has no checkpoint yet", advice=f"Start it over with: {again}"
        )
    return resolve(run_path, name or LATEST)


def inspect(checkpoint: Path, command: str = COMMAND) -> CheckpointInfo:
    """Return what a checkpoint says about itself; where it is damaged, how to go on."""
    from crystalline.formats.checkpoint import inspect_checkpoint
    from crystalline.formats.names import shell_word

    try:
        return inspect_checkpoint(checkpoint)
    except CheckpointError as error:
        if error.undamaged is not None:
            way_on = f"--resume {shell_word(error.undamaged)}"
            if command == PYTHON:
                way_on = resume_command(error.undamaged, command)
            error.advice = error.advice.partition(":")[0] + f": go on with {way_on}."
        raise


def stored_settings(run: RunDir, info: CheckpointInfo) -> dict[str, Any]:
    """Return the settings of the run: those of the checkpoint, of the text, and the workers."""
    from crystalline.formats.rundir import CONFIG
    from crystalline.runs.stored import stored_config

    stored = stored_config(info)
    if (run.path / CONFIG).is_file():
        described, _ = toml_layer(RunSettings, run.path / CONFIG, tolerate=DISPLAY)
        named = ("data", "text_field", "eval_suite", *BESIDE)
        stored |= {name: described[name] for name in named if name in described}
    return stored


def _refuse_changes(settings: RunSettings, stored: dict[str, Any], run_path: Path) -> None:
    changeable = CHANGEABLE
    if stored["discovery_interval"]:  # counts evaluations
        changeable -= {"eval_interval"}
    for name in sorted(field_names(TrainConfig) - changeable):
        wanted, before = getattr(settings, name), stored[name]
        if wanted == before or (name, wanted) == ("precision", "auto"):
            continue
        raise UsageError(
            f"{flag_of(name)} {wanted} differs from the {before} that the run {run_path} "
            "was started with",
            advice="Leave it out, or start a new run.",
        )


def _check_same_data(data: PreparedData, info: CheckpointInfo) -> None:
    same = data.tokens_sha256 == info.state.get("tokens_sha256")
    if not same or data.tokenizer_path.read_bytes() != info.tokenizer_path.read_bytes():
        raise DataError(
            f"{data.description} is not the text that the checkpoint {info.path} was trained on",
            advice="Name the same DATA, unchanged, or start a new run.",
        )
