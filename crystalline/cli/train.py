"""cllm-train: train a language model on text.

    cllm-train                                  the Python standard library's sources
    cllm-train my-texts/ --minutes 30
    cllm-train --resume runs/20260504-030201-3.2M

Progress and messages go to stderr; stdout gets one JSON object with --json, else nothing.
The work is in the layers below, which runs are put together in (`runs`); here settings are
parsed, and what becomes of them is shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from crystalline.cli.options import TextField, Version
from crystalline.cli.run import called, parse_settings, run_command, version_line
from crystalline.cli.settings import (
    DATA_DIR,
    environment_layer,
    flag_value,
    given_flags,
    given_lengths,
    parse_layered,
)
from crystalline.engine.shape import Depth
from crystalline.errors import EXIT_OK, UsageError
from crystalline.log import LOGGER_NAME, set_up_logging
from crystalline.logfile import LOG_LINE, LogFile
from crystalline.runs.layers import Layers, field_names, toml_layer
from crystalline.runs.length import make_way
from crystalline.runs.settings import OFF, RunSettings
from crystalline.untrusted import open_regular, printable

if TYPE_CHECKING:
    from crystalline.runs.ready import ReadyRun
    from crystalline.train.spec import RunResult, RunSpec
    from crystalline.train.stats import Snapshot
    from crystalline.ui import DataProgress, Reporter

PROGRAM = "cllm-train"
# Lines that begin with a space stay lines; the parser would join others into one.
DESCRIPTION = """Train a language model on text, on this machine's processor.

  cllm-train my-texts/ --minutes 30
  cllm-train book.txt --tokenizer char --num-layers 4 --max-steps 2000
  cllm-train --resume runs/NAME
  cllm-train --init-from MODEL more-texts/
  cllm-train --init-from MODEL --lora-rank 8 more-texts/

The crystalline parts make tokens numbers: roots get primes, and what an affix
  makes of them their products. Each of them is off unless asked for:

  cllm-train book.txt --crystalline-epsilon 0.1 --crystalline-schedule linear
  cllm-train book.txt --init lattice
  cllm-train book.txt --attention crystalline --discovery-interval 4

Every setting can also stand in a TOML file (--config; seq_len = 64) or in the
  environment (CLLM_SEQ_LEN=64). A flag wins over the environment, that over the
  file. CLLM_DATA_DIR names the DATA where nothing else does, CLLM_CACHE the folder
  that prepared text is kept in.

Ctrl-C finishes the step, saves, and says how to go on."""

FLAGS_ONLY = frozenset({"config", "resume", "create", "profile", "version"})
RESULT_KEYS = (
    "final_step", "train_loss", "val_loss", "val_bits_per_byte", "tokens_per_second", "seconds",
    "weights_sha256", "run_dir", "workers", "precision", "isa", "val_tokens",
)  # fmt: skip


def _optional(kind: type, default: str) -> Any:
    """Return the look of an option that may be None: a type, and what None means."""

    def hint(shown: str) -> str:  # the parser's words for the default: "['None']"
        value = shown.strip("[']")
        return f"(default: {default if value == 'None' else value})"

    metavar = "PATH" if kind is str else kind.__name__.upper()
    return tyro.conf.arg(metavar=metavar, constructor=kind, help_behavior_hint=hint)


_TokensOrAll = tyro.constructors.PrimitiveConstructorSpec[int](
    nargs=1,
    metavar="INT|all",
    instance_from_str=lambda words: 0 if words[0] == "all" else int(words[0]),
    is_instance=lambda value: isinstance(value, int),
    str_from_instance=lambda value: [str(value)],
)


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_Sized = _optional(int, "sized from the text")


@dataclass(frozen=True)
class TrainSettings(RunSettings):
    """Every option of the command; the text under a field is its help."""

    embed_dim: Annotated[int | None, _Sized] = None
    """Channels per token; a multiple of --num-heads."""
    num_layers: Annotated[int | None, _Sized] = None
    """Transformer blocks."""
    num_heads: Annotated[int | None, _Sized] = None
    """Attention heads per block."""
    min_lr: Annotated[float | None, _optional(float, "a tenth of --learning-rate")] = None
    """Learning rate at the end of the schedule."""
    weight_decay: Annotated[float | None, _optional(float, "0.1, and 0 in adam")] = None
    """Weight decay, on matrices only, decoupled but in adam, where it is a part of the gradient."""
    epochs: Annotated[float | None, _optional(float, "from --max-steps or --minutes, else 10")] = (
        None
    )
    """Passes over the training text; together with --minutes, whichever is less. On --resume as
    --max-steps."""
    max_steps: Annotated[int | None, _optional(int, "from --epochs or --minutes")] = None
    """Optimizer steps; takes precedence over --epochs. On --resume it moves the end of the run:
    the learning rate goes on from where it is, and comes to its end with the run. Where it has
    come there before, it stays there."""
    minutes: Annotated[float | None, _optional(float, "no limit")] = None
    """Time to train, in minutes, from the first step to the end of the last evaluation and save;
    preparing the text comes before it, and a pause does not count. The model is sized for it, and
    the number of steps fitted to it as the run goes on, so that the learning rate comes to its
    end when the time does. On --resume it is the time from now on."""
    plan: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="PLAN", constructor=str, help_behavior_hint="(default: from --max-steps)"
        ),
    ] = None
    """Steps of the run as FROM_STEP:STEPS_IN_ALL,...: 0:660,120:580 plans 660 steps, and from step
    120 on 580 in all. A run of --minutes keeps its plan in config.toml; with that plan the same
    settings make the same bits at any speed."""
    eval_tokens: Annotated[
        int | None,
        _TokensOrAll,
        tyro.conf.arg(help_behavior_hint="(default: 3 percent of the time between evaluations)"),
    ] = None
    """Tokens of the held-out text that an evaluation predicts, in windows spread evenly over it and
    the same throughout the run; 0 or all is the whole of it. Losses compare only over the same."""
    data: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(
            metavar="[DATA ...]", help_behavior_hint="(default: Python's standard library)"
        ),
    ] = ()
    """Files and folders of text: UTF-8 of any kind, HTML, JSON records (.jsonl, or a .json array).
    Runs, model folders and caches that lie among them are left out."""
    text_field: TextField = None
    """Field of JSON records that holds their text, or a conversation of messages."""
    workers: Annotated[int, tyro.conf.arg(aliases=("--threads",))] = 12
    """Worker processes (spheres), 1 to 63, with --recursive-depth 2 to 144, 3 to 1728; never more
    at work than this machine has cores."""
    recursive_depth: Depth = "1"
    """Levels of the tree of spheres below Node Zero: 1 is flat; a sphere that has children (up to
    12) looks after them and computes nothing; auto begins flat and grows where that pays. The
    result is the same, bit for bit, whatever the tree."""
    init_from: Annotated[
        str | None,
        tyro.conf.arg(metavar="MODEL", constructor=str, help_behavior_hint="(default: none)"),
    ] = None
    """Begin from this model instead of random weights: a run, a checkpoint, a folder in Hugging
    Face's layout (gpt2, llama, qwen3), a GGUF file. Its tokenizer and its shape are kept; only
    --seq-len, --dropout and --attention crystalline may differ. Moments, schedule and text are new,
    and the run does not need the model's files once it has begun."""
    lora_alpha: Annotated[float | None, _optional(float, "twice --lora-rank")] = None
    """What the adapters' products count for: they are multiplied by it over --lora-rank."""
    max_memory: Annotated[str | None, tyro.conf.arg(
        metavar="SIZE", constructor=str, help_behavior_hint="(default: what there is)"
    )] = None  # fmt: skip
    """The most memory that the run may take in all its processes, such as 4GB or 500MB: it makes do
    with fewer buffers for gradients, or is refused.  The bits of the run are the same."""
    checkpoint_dir: Annotated[str | None, _optional(str, "runs/TIME-SIZE")] = None
    """The new run's directory."""
    config: Annotated[str | None, _optional(str, "none")] = None
    """A file with settings, such as the config.toml of another run: TOML, or INI where its name
    ends in .conf or .ini. They may stand in sections [model], [training], [optimizer], [scheduler]
    and [checkpointing], and be called embedding_dim, sequence_length, num_epochs, gradient_clip
    and, in the first, third and fourth of these, type."""
    resume: Annotated[
        str | None,
        tyro.conf.arg(metavar="[RUN]", constructor=str, help_behavior_hint="(default: a new run)"),
    ] = None
    """Go on with this run or from this checkpoint; without a name, with the newest in ./runs."""
    profile: Annotated[
        str | None,
        tyro.conf.arg(metavar="FILE.json", constructor=str, help_behavior_hint="(default: off)"),
    ] = None
    """Record where the time of 50 steps goes, once 10 are done: phases, the passes within lanes,
    waiting by cause, and what the system counts. A table is shown at the end; the file is for
    chrome://tracing and Perfetto. It changes no bits and costs less than 1 percent."""
    create: bool = False
    """Make the run and a checkpoint of the untrained model, step 0, and end; --resume trains it to
    the bits of a run that was never interrupted."""
    eval_suite: Annotated[str, tyro.conf.arg(metavar="FILE|built-in|off")] = OFF
    """Measure each new best checkpoint on prompts, as the command eval does: those of a file (JSON
    lines with "group", "prompt", "answer"), or the built-in ones. A process of its own does it,
    with one thread of low priority; where all cores are at work, steps take somewhat longer
    meanwhile. The weights do not change. The figures are shown in a line, and go to suite.jsonl of
    the run. On --resume it goes on, until it is off."""
    json: bool = False
    """Print one JSON object with the results to stdout at the end."""
    plain: bool = False
    """Print lines instead of the dashboard."""
    quiet: bool = False
    """Print nothing but warnings and errors."""
    log_level: LogLevel = "INFO"
    """Messages that are shown, and go to --log-file: of this level and above. DEBUG tells of every
    step which sphere did how many lanes, how long its phases took and how many claims were stolen;
    a dashboard leaves that to the log. The run's own train.log has INFO and above, whatever this
    is, and DEBUG where it is asked for."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=("-v",))] = False
    """The same as --log-level DEBUG."""
    log_file: Annotated[str | None, _optional(str, "train.log of the run only")] = None
    """Append messages to this file, too, from before the run has a directory to after its end, with
    time, level and logger; at 10 MB it becomes FILE.1, and five such are kept. Where its name ends
    in .log it is never taken for text to train on."""
    version: Version = False


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code (see `crystalline.errors`)."""
    return run_command(PROGRAM, _main, argv)


def _main(argv: list[str]) -> int:
    argv = _complete_resume(argv)
    if "--version" in argv:
        print(version_line())
        return EXIT_OK
    if not {"-h", "--help"}.isdisjoint(argv):
        parse_settings(TrainSettings, argv, program=PROGRAM, description=DESCRIPTION)
    from crystalline.runs.begin import begin
    from crystalline.runs.ready import require_linux
    from crystalline.runs.resume import open_earlier

    require_linux()
    with contextlib.ExitStack() as stack:
        if flag_value(argv, "--resume") is None:
            layers = Layers()
            settings = _parse(argv, layers, data_dir=os.environ.get(DATA_DIR))
            _set_up_logging(settings, stack)
            ready = stack.enter_context(
                begin(
                    settings,
                    preparing=_preparing(settings),
                    command=called(PROGRAM),
                    given=layers.values.keys() | given_flags(argv, field_names(TrainSettings)),
                )
            )
        else:
            places = flag_value(argv, "--resume"), flag_value(argv, "--checkpoint-dir")
            if places == ("", None):  # the newest, unless a variable says where runs are made
                places = "", os.environ.get("CLLM_CHECKPOINT_DIR") or None
            _refuse_create(argv)
            earlier = stack.enter_context(open_earlier(*places, command=called(PROGRAM)))
            settings = _parse(argv, Layers(earlier.defaults))
            _set_up_logging(settings, stack)
            ready = earlier.resume(
                settings, explicit=given_lengths(argv), preparing=_preparing(settings)
            )
        profile = None if settings.profile is None else Path(settings.profile).absolute()
        spec = dataclasses.replace(ready.spec, create=settings.create, profile=profile)
        ready = dataclasses.replace(ready, spec=spec)
        _tell(settings, ready.summary)
        ready.record()
        result = _train(settings, ready)
        ready.keep_plan(result.plan)
    _report(settings, ready.spec, result)
    return result.exit_code


# --- settings -------------------------------------------------------------------------------------


def _complete_resume(argv: list[str]) -> list[str]:
    """Give a bare --resume, which means the newest run, an empty value."""
    return [
        "--resume="
        if argument == "--resume" and (index + 1 == len(argv) or argv[index + 1].startswith("-"))
        else argument
        for index, argument in enumerate(argv)
    ]


def _parse(argv: list[str], layers: Layers, *, data_dir: str | None = None) -> TrainSettings:
    """Put the file, the environment and the flags over `layers`.

    `data_dir` is trained on where neither the file nor the flags name a text.
    """
    from crystalline.cli.infer import InferSettings

    file = flag_value(argv, "--config")
    if file is not None:
        values, sources = toml_layer(TrainSettings, Path(file), exclude=FLAGS_ONLY)
        make_way(layers, values)
        layers.update(values, sources)
    values, sources = environment_layer(
        TrainSettings, os.environ, exclude=FLAGS_ONLY, tolerate=field_names(InferSettings)
    )
    make_way(layers, values)
    layers.update(values, sources)
    make_way(layers, given_lengths(argv))
    if data_dir:
        layers.values.setdefault("data", (data_dir,))
    return parse_layered(TrainSettings, argv, layers, program=PROGRAM, description=DESCRIPTION)


def _set_up_logging(settings: TrainSettings, stack: contextlib.ExitStack) -> None:
    """Let messages go where they are wanted, --log-file until the end of `stack`."""
    _check_profile(settings)
    level = _level(settings)
    set_up_logging(max(level, logging.WARNING) if settings.quiet else level)
    if settings.log_file is not None:
        path = Path(settings.log_file)
        _require_log(path)
        stack.enter_context(LogFile(path, level))


def _check_profile(settings: TrainSettings) -> None:
    """Refuse a --profile that cannot be, before the long work; nothing else is written over."""
    if settings.profile is None:
        return
    from crystalline.data.artifacts import is_trace

    path = Path(settings.profile)
    if settings.create:
        raise UsageError(
            "--create trains no step that --profile could tell of",
            advice="Leave one of them out.",
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"--profile {path} cannot be written", advice="Name a file in a folder that is there."
        )
    if os.path.lexists(path) and not is_trace(path):
        raise UsageError(
            f"--profile {path} is there already, and is no profile", advice="Name another file."
        )


def _level(settings: TrainSettings) -> int:
    return logging.DEBUG if settings.verbose else int(getattr(logging, settings.log_level))


def _require_log(path: Path) -> None:
    """Refuse a --log-file that is something else: messages are added at its end."""
    try:
        with open_regular(path) as file:
            head = file.read(200)
    except OSError:  # there is none yet, or it is told when it is written
        return
    if head and LOG_LINE.match(head) is None:
        raise UsageError(
            f"--log-file {path} is a file that holds something else",
            advice="Name a new file, or one that was written as a log before.",
        )


def _refuse_create(argv: list[str]) -> None:
    if given_flags(argv, ["create"]):
        raise UsageError(
            "--create makes a new run, and --resume goes on with one",
            advice="Leave one of them out.",
        )


def _preparing(settings: TrainSettings) -> Callable[[], DataProgress]:
    from crystalline.ui import DataProgress

    return lambda: DataProgress(plain=settings.plain, quiet=settings.quiet)


# --- training -------------------------------------------------------------------------------------


class _Steering:
    """Between the reporter and the engine: the key that pauses lets a paused run go on."""

    def __init__(self, reporter: Reporter, handler: _ReporterHandler) -> None:
        self._reporter = reporter
        self._handler = handler
        self._paused = False

    def show(self, snapshot: Snapshot) -> None:
        self._paused = snapshot.state == "paused"
        if snapshot.message == self._handler.newest:  # told already
            snapshot = dataclasses.replace(snapshot, message=None)
        self._reporter.show(snapshot)

    def poll(self) -> list[str]:
        actions = []
        for wish in self._reporter.poll():
            if wish == "pause":
                self._paused = not self._paused
                actions.append("pause" if self._paused else "resume")
            else:
                actions.append(wish)
        return actions


class _ReporterHandler(logging.Handler):
    """Hands log records to the reporter, which knows where there is room for them."""

    def __init__(self, reporter: Reporter, level: int) -> None:
        """`level` is the lowest that is shown; what is below it counts as told all the same."""
        super().__init__()
        self._reporter = reporter
        self._shown = level
        self.newest: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        tell: Callable[[str], None] = (
            self._reporter.error if record.levelno >= logging.WARNING else self._reporter.message
        )
        text = record.getMessage()
        if record.levelno >= logging.INFO:
            self.newest = text
        if record.levelno < self._shown:
            return
        for line in text.splitlines():
            tell(line)


@contextlib.contextmanager
def _log_to(reporter: Reporter, settings: TrainSettings) -> Iterator[_ReporterHandler]:
    from crystalline.ui.plain import PlainReporter

    logger = logging.getLogger(LOGGER_NAME)
    least = logging.DEBUG if isinstance(reporter, PlainReporter) else logging.INFO
    if settings.quiet:
        least = logging.WARNING
    handler = _ReporterHandler(reporter, max(least, _level(settings)))
    before, logger.handlers[:] = logger.handlers[:], [handler]
    level = logger.level
    logger.setLevel(min(level, logging.INFO))  # what is not shown must be known to be told
    try:
        yield handler
    finally:
        logger.handlers[:] = before
        logger.setLevel(level)


def _train(settings: TrainSettings, ready: ReadyRun) -> RunResult:
    from crystalline.ui import make_reporter

    with (
        make_reporter(plain=settings.plain, quiet=settings.quiet) as reporter,
        _log_to(reporter, settings) as handler,
    ):
        steering = _Steering(reporter, handler)
        return ready.train(on_snapshot=steering.show, poll_actions=steering.poll)


# --- words ----------------------------------------------------------------------------------------


def _tell(settings: TrainSettings, text: str) -> None:
    """Write to stderr; a run that nobody listens to goes on."""
    if not settings.quiet:
        with contextlib.suppress(OSError):
            print(printable(text), file=sys.stderr)


def _report(settings: TrainSettings, spec: RunSpec, result: RunResult) -> None:
    """Say how the run ended."""
    from crystalline.formats.names import shell_word

    step, command = f"step {result.final_step:,}", spec.resume_command
    if result.stop_reason in ("finished", "time", "patience"):
        loss = "" if result.val_loss is None else f", validation loss {result.val_loss:.4f}"
        if result.val_tokens is not None:
            loss += f" over {result.val_tokens:,}"
            loss += f" of {spec.val_tokens:,} held-out tokens"
        if result.stop_reason == "time":
            _tell(settings, f"The time was up at {step} of {spec.max_steps:,}{loss}.")
        elif result.stop_reason == "patience":
            few = spec.config.patience
            _tell(
                settings,
                f"Stopped at {step} of {spec.max_steps:,}{loss}: "
                f"{few} evaluation{'s' if few > 1 else ''} in a row brought nothing better.",
            )
        else:
            _tell(settings, f"Finished {step}{loss}.")
        longer = "--max-steps N" if spec.max_seconds is None else "--minutes N"
        if result.stop_reason == "patience":
            longer = "--patience N"
        _tell(settings, f"Train longer with:  {command} {longer}")
        model = shell_word(spec.run_dir)
        _tell(settings, f'Generate text with: {called("cllm-infer")} {model} --prompt "..."')
    elif result.stop_reason == "created":
        _tell(settings, f"Made {shell_word(spec.run_dir)}, untrained. Train it with: {command}")
    else:
        _tell(settings, f"Saved {step}. Resume with: {command}")
    if result.profile:
        _tell(settings, result.profile)
    if settings.json:
        print(json.dumps({key: getattr(result, key) for key in RESULT_KEYS}))
