"""cllm-train: train a language model on text.

    cllm-train                                  the Python standard library's sources
    cllm-train my-texts/ --minutes 30
    cllm-train --resume runs/20260504-030201-3.2M

Progress and messages go to stderr; stdout gets one JSON object with --json, else nothing.
The work is in the layers below; here settings are resolved and a run is put together.
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
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from crystalline.cli.length import (
    LENGTHS,
    given_lengths,
    make_way,
    new_length,
    resumed_length,
    steps_of,
)
from crystalline.cli.run import parse_settings, run_command, version_line
from crystalline.cli.settings import (
    Layers,
    environment_layer,
    field_names,
    flag_of,
    flag_value,
    parse_layered,
    toml_layer,
)
from crystalline.errors import (
    EXIT_OK,
    CheckpointError,
    DataError,
    UnsupportedError,
    UsageError,
)
from crystalline.log import LOGGER_NAME, set_up_logging
from crystalline.train.config import MAX_WORKERS, TrainConfig
from crystalline.train.plan import Plan
from crystalline.untrusted import printable

if TYPE_CHECKING:
    from crystalline.cli.length import Length
    from crystalline.data.crystal.tokens import Crystal
    from crystalline.data.prepare import PreparedData
    from crystalline.formats.checkpoint import CheckpointInfo
    from crystalline.formats.rundir import RunDir
    from crystalline.model.config import ModelConfig
    from crystalline.train.spec import RunResult, RunSpec
    from crystalline.train.stats import Snapshot
    from crystalline.ui import Reporter

PROGRAM = "cllm-train"
# Lines that begin with a space stay lines; the parser would join others into one.
DESCRIPTION = """Train a language model on text, on this machine's processor.

  cllm-train my-texts/ --minutes 30
  cllm-train book.txt --tokenizer char --num-layers 4 --max-steps 2000
  cllm-train --resume runs/NAME

The crystalline parts make tokens numbers: roots get primes, and what an affix
  makes of them their products. Each of them is off unless asked for:

  cllm-train book.txt --crystalline-epsilon 0.1 --crystalline-schedule linear
  cllm-train book.txt --init lattice
  cllm-train book.txt --attention crystalline --discovery-interval 4

Every setting can also stand in a TOML file (--config; seq_len = 64) or in the
  environment (CLLM_SEQ_LEN=64). A flag wins over the environment, that over the
  file.

Ctrl-C finishes the step, saves, and says how to go on."""

# What a resumed run may change; all else decides its bits.
CHANGEABLE = frozenset({*LENGTHS, "eval_interval", "save_interval", "log_interval", "keep"})
NOT_STORED = frozenset({"config", "resume", "version", "checkpoint_dir", "json", "plain", "quiet"})
FLAGS_ONLY = frozenset({"config", "resume", "version"})
TIME_SHARE = 0.97  # of --minutes that the first plan is fitted to

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


def _text_field() -> Any:
    return tyro.conf.arg(
        metavar="NAME",
        constructor=str,
        help_behavior_hint="(default: text, else messages or conversations)",
    )


_Sized = _optional(int, "sized from the text")


@dataclass(frozen=True)
class TrainSettings(TrainConfig):
    """Every option of the command; the text under a field is its help."""

    embed_dim: Annotated[int | None, _Sized] = None
    """Channels per token; a multiple of --num-heads."""
    num_layers: Annotated[int | None, _Sized] = None
    """Transformer blocks."""
    num_heads: Annotated[int | None, _Sized] = None
    """Attention heads per block."""
    min_lr: Annotated[float | None, _optional(float, "a tenth of --learning-rate")] = None
    """Learning rate at the end of the schedule."""
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
    text_field: Annotated[str | None, _text_field()] = None
    """Field of JSON records that holds their text, or a conversation of messages."""
    workers: Annotated[int, tyro.conf.arg(aliases=("--threads",))] = 12
    """Worker processes (spheres), 1 to 63; never more at work than this machine has cores."""
    checkpoint_dir: Annotated[str | None, _optional(str, "runs/TIME-SIZE")] = None
    """The new run's directory."""
    config: Annotated[str | None, _optional(str, "none")] = None
    """A TOML file with settings, such as the config.toml of another run."""
    resume: Annotated[
        str | None,
        tyro.conf.arg(metavar="[RUN]", constructor=str, help_behavior_hint="(default: a new run)"),
    ] = None
    """Go on with this run or from this checkpoint; without a name, with the newest in ./runs."""
    json: bool = False
    """Print one JSON object with the results to stdout at the end."""
    plain: bool = False
    """Print lines instead of the dashboard."""
    quiet: bool = False
    """Print nothing but warnings and errors."""
    version: bool = False
    """Print the version and the instruction-set level in use, and exit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(
                f"--workers is {self.workers}", advice=f"It must be between 1 and {MAX_WORKERS}."
            )
        for path in self.data:
            if not path:
                raise UsageError(
                    "a DATA argument is empty", advice="Name files and folders of text."
                )

    def train_config(self) -> TrainConfig:
        """Return the part that is stored in checkpoints."""
        return TrainConfig(**{name: getattr(self, name) for name in field_names(TrainConfig)})


@dataclass(frozen=True)
class _Ready:
    """A run that can begin."""

    settings: TrainSettings
    spec: RunSpec
    run: RunDir
    text: str  # above the settings in config.toml

    def write_config(self, config: TrainConfig) -> None:
        """Write config.toml."""
        paths = [os.path.abspath(path) for path in self.settings.data]  # noqa: PTH100
        values = {
            "data": paths or None,
            "text_field": self.settings.text_field,
            **config.to_dict(),
            "workers": self.settings.workers,
        }
        self.run.write_config(values, comment=self.text)

    def keep_plan(self, plan: str | None) -> None:
        """Write the plan as it was carried out; a failure is told, for the run is done."""
        if plan is None or plan == self.spec.config.plan:
            return
        steps = Plan.parse(plan).max_steps
        try:
            self.write_config(dataclasses.replace(self.spec.config, plan=plan, max_steps=steps))
        except UsageError as error:
            logging.getLogger(LOGGER_NAME).warning("%s", error)


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
    if sys.platform != "linux":
        raise UnsupportedError(
            f"crystalline trains on Linux only, and this is {sys.platform}",
            advice="Use a Linux machine, container or virtual machine.",
        )
    with contextlib.ExitStack() as stack:
        if flag_value(argv, "--resume") is None:
            settings = _parse(argv, Layers())
            _set_up_logging(settings)
            ready = _new_run(settings, stack)
        else:
            ready = _resumed_run(argv, stack)
        result = _train(ready.settings, ready.spec)
        ready.keep_plan(result.plan)
    _report(ready.settings, ready.spec, result)
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


def _parse(argv: list[str], layers: Layers) -> TrainSettings:
    """Put the file, the environment and the flags over `layers`."""
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
    return parse_layered(TrainSettings, argv, layers, program=PROGRAM, description=DESCRIPTION)


def _set_up_logging(settings: TrainSettings) -> None:
    set_up_logging(logging.WARNING if settings.quiet else logging.INFO)


# --- a new run ------------------------------------------------------------------------------------


def _new_run(settings: TrainSettings, stack: contextlib.ExitStack) -> _Ready:
    """Prepare data, model and run directory; `stack` holds the directory's lock."""
    from crystalline.formats.rundir import RunDir
    from crystalline.machine.cores import usable_cores
    from crystalline.model.params import parameter_table
    from crystalline.train.footprint import check_model, check_run, check_sizes
    from crystalline.train.precision import resolve_precision
    from crystalline.train.sizing import choose_model, evaluation_tokens
    from crystalline.train.speed import MODEL_SHARE, measure_peak

    check_sizes(settings)
    check_model(settings.train_config(), settings.workers)
    run = None
    if settings.checkpoint_dir is not None:  # its faults are told before the long work
        run = _enter(RunDir.create(Path(settings.checkpoint_dir)), stack)
    data = _prepare(settings)
    crystal = _crystal(settings, data) if settings.uses_crystal else None
    cores = min(usable_cores(), settings.workers)
    config = steps_of(settings.train_config())
    config = dataclasses.replace(
        config, precision=resolve_precision(config), eval_tokens=evaluation_tokens(config)
    )
    peak = measure_peak(cores, config.precision)
    model = choose_model(
        config,
        vocab_size=data.vocab_size,
        train_tokens=data.train_tokens,
        flops_per_second=MODEL_SHARE * peak,
    )
    check_run(config, model, data, settings.workers)
    length = new_length(config, data.train_tokens, _speed_of(model, data, cores))
    config = dataclasses.replace(
        length.config,
        embed_dim=model.embed_dim,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
    )
    if run is None:
        run = _enter(RunDir.create_default(parameter_table(model).count), stack)
    run.clear()
    length = dataclasses.replace(length, config=config)
    spec = _spec(settings, length, model, data, run, peak)
    if crystal is not None:
        spec = dataclasses.replace(spec, crystal_path=run.keep_crystal(crystal.to_json()))
    return _describe(settings, spec, data, run)


def _speed_of(model: ModelConfig, data: PreparedData, cores: int) -> Callable[[TrainConfig], float]:
    """Return what measures the steps a second that a run of --minutes is first planned with."""
    from crystalline.train.sizing import evaluation_tokens
    from crystalline.train.speed import measure_speed

    def measure(config: TrainConfig) -> float:
        tokens = evaluation_tokens(config) or data.val_tokens
        speed = measure_speed(model, config, cores)
        return TIME_SHARE * speed.steps_per_second(config, min(tokens, data.val_tokens))

    return measure


def _enter(run: RunDir, stack: contextlib.ExitStack) -> RunDir:
    """Keep a new run's lock until the end; what was never used is removed."""
    stack.enter_context(run)
    stack.callback(run.discard_unused)
    return run


def _prepare(settings: TrainSettings) -> PreparedData:
    from crystalline.data.prepare import prepare
    from crystalline.data.windows import check_fits
    from crystalline.ui import DataProgress

    with DataProgress(plain=settings.plain, quiet=settings.quiet) as progress:
        data = prepare(
            settings.data or None,
            kind=settings.tokenizer,
            vocab_size=settings.vocab_size,
            val_fraction=settings.val_fraction,
            text_field=settings.text_field,
            progress=progress,
        )
    check_fits(data.train_tokens, data.val_tokens, settings.seq_len)
    return data


def _crystal(settings: TrainSettings, data: PreparedData) -> Crystal:
    """Return the numbers of the vocabulary; what training makes of them at first is cached."""
    from crystalline.data.crystal.neighbors import load_or_build
    from crystalline.data.prepare import crystal_of
    from crystalline.ui import DataProgress

    with DataProgress(plain=settings.plain, quiet=settings.quiet) as progress:
        crystal = crystal_of(data, progress)
        if settings.smooths:
            load_or_build(
                data.token_path.parent,
                crystal,
                settings.crystalline_k,
                settings.crystalline_similarity,
                progress=progress,
            )
    return crystal


def _spec(
    settings: TrainSettings,
    length: Length,
    model: ModelConfig,
    data: PreparedData,
    run: RunDir,
    peak: float,
) -> RunSpec:
    from crystalline._kernels import isa
    from crystalline.model.params import parameter_table
    from crystalline.train.sizing import flops_per_token
    from crystalline.train.spec import RunSpec

    return RunSpec(
        config=length.config,
        model=model,
        token_path=data.token_path,
        tokenizer_path=run.keep_tokenizer(data.tokenizer_path),
        run_dir=run.path,
        val_tokens=data.val_tokens,
        val_bytes=data.val_bytes,
        tokens_per_epoch=data.train_tokens,
        workers=settings.workers,
        max_seconds=length.seconds,
        most_steps=length.most_steps,
        precision=length.config.precision,
        isa=isa.level(),
        parameters=parameter_table(model).count,
        flops_per_token=flops_per_token(model),
        peak_flops=peak,
    )


# --- a resumed run --------------------------------------------------------------------------------


def _resumed_run(argv: list[str], stack: contextlib.ExitStack) -> _Ready:
    """Take a run up again where its checkpoint left it; `stack` holds the directory's lock."""
    from crystalline.formats.checkpoint import (
        CHECKPOINTS,
        LATEST,
        move_pointer,
        require_readable,
    )
    from crystalline.formats.rundir import CONFIG, RunDir
    from crystalline.machine.cores import usable_cores
    from crystalline.train.footprint import check_run
    from crystalline.train.speed import measure_peak

    run_path, name = _find_run(flag_value(argv, "--resume"), flag_value(argv, "--checkpoint-dir"))
    run = stack.enter_context(RunDir.open(run_path))
    require_readable(run_path / CONFIG)
    info = _inspect(_checkpoint(run_path, name))
    stored = _stored_settings(run, info)
    # Lengths that this command gives are told from those that the run has.
    settings = _parse(argv, Layers({n: v for n, v in stored.items() if n not in LENGTHS}))
    _set_up_logging(settings)
    _refuse_changes(settings, stored, run_path)
    if not settings.data and not (run_path / CONFIG).is_file():
        raise DataError(
            f"{run_path} has lost its {CONFIG}, which names the text it is trained on",
            advice="Name the DATA.",
        )
    data = _prepare(settings)
    _check_same_data(data, info)
    cores = min(usable_cores(), settings.workers)
    config = settings.train_config()
    config = dataclasses.replace(config, precision=stored["precision"])  # never "auto"
    check_run(config, info.model_config, data, settings.workers)
    speed = _speed_of(info.model_config, data, cores)
    length = resumed_length(config, stored, argv, info, data.train_tokens, speed)
    peak = measure_peak(cores, config.precision)
    spec = _spec(settings, length, info.model_config, data, run, peak)
    spec = dataclasses.replace(spec, resume_from=info.path)
    ready = _describe(settings, spec, data, run, step=info.step)
    if info.path.parent == run_path / CHECKPOINTS:  # the run is there now, even if it stops at once
        move_pointer(run_path, LATEST, info.path)
    return ready


def _find_run(resume: str | None, checkpoint_dir: str | None) -> tuple[Path, str | None]:
    """Return the run directory and the name of the checkpoint, if one is meant."""
    from crystalline.formats.checkpoint import CONFIG, MANIFEST, OPTIMIZER, locate
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
        files = {name for name in (CONFIG, MANIFEST, OPTIMIZER) if (path / name).is_file()}
    except OSError:  # told when the run is opened
        return path, None
    if CONFIG in files:
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


def _checkpoint(run_path: Path, name: str | None) -> Path:
    from crystalline.formats.checkpoint import CHECKPOINTS, LATEST, latest_checkpoint, resolve
    from crystalline.formats.names import shell_word
    from crystalline.formats.rundir import CONFIG

    if name is not None and name.startswith("step-"):
        return run_path / CHECKPOINTS / name
    if latest_checkpoint(run_path) is None and (run_path / CONFIG).is_file():
        config = shell_word(run_path / CONFIG)
        raise CheckpointError(
            f"the run {run_path} has no checkpoint yet",
            advice="Start it over with: "
            f"cllm-train --config {config} --checkpoint-dir {shell_word(run_path)}",
        )
    return resolve(run_path, name or LATEST)


def _inspect(checkpoint: Path) -> CheckpointInfo:
    """Return what a checkpoint says about itself; where it is damaged, how to go on."""
    from crystalline.formats.checkpoint import inspect_checkpoint
    from crystalline.formats.names import shell_word

    try:
        return inspect_checkpoint(checkpoint)
    except CheckpointError as error:
        if error.undamaged is not None:
            place = shell_word(error.undamaged)
            error.advice = error.advice.partition(":")[0] + f": go on with --resume {place}."
        raise


def _stored_settings(run: RunDir, info: CheckpointInfo) -> dict[str, Any]:
    """Return the settings of the run: those of the checkpoint, of the text, and the workers."""
    from crystalline.cli.stored import stored_config
    from crystalline.formats.rundir import CONFIG

    stored = stored_config(info)
    if (run.path / CONFIG).is_file():
        described, _ = toml_layer(TrainSettings, run.path / CONFIG, exclude=FLAGS_ONLY)
        named = ("data", "text_field", "workers")
        stored |= {name: described[name] for name in named if name in described}
    return stored


def _refuse_changes(settings: TrainSettings, stored: dict[str, Any], run_path: Path) -> None:
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


# --- training -------------------------------------------------------------------------------------


class _Steering:
    """Between the reporter and the engine: wishes in the engine's words."""

    WORDS = {"checkpoint": "checkpoint", "stop": "stop", "more": "workers+", "fewer": "workers-"}  # noqa: RUF012

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
                actions.append(self.WORDS[wish])
        return actions


class _ReporterHandler(logging.Handler):
    """Hands log records to the reporter, which knows where there is room for them."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter
        self.newest: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        tell: Callable[[str], None] = (
            self._reporter.error if record.levelno >= logging.WARNING else self._reporter.message
        )
        self.newest = record.getMessage()
        for line in self.newest.splitlines():
            tell(line)


@contextlib.contextmanager
def _log_to(reporter: Reporter) -> Iterator[_ReporterHandler]:
    logger = logging.getLogger(LOGGER_NAME)
    before, handler = logger.handlers[:], _ReporterHandler(reporter)
    logger.handlers[:] = [handler]
    try:
        yield handler
    finally:
        logger.handlers[:] = before


def _train(settings: TrainSettings, spec: RunSpec) -> RunResult:
    from crystalline.train.launcher import train
    from crystalline.ui import make_reporter

    with (
        make_reporter(plain=settings.plain, quiet=settings.quiet) as reporter,
        _log_to(reporter) as handler,
    ):
        steering = _Steering(reporter, handler)
        return train(spec, on_snapshot=steering.show, poll_actions=steering.poll)


# --- words ----------------------------------------------------------------------------------------


def _tell(settings: TrainSettings, text: str) -> None:
    """Write to stderr; a run that nobody listens to goes on."""
    if not settings.quiet:
        with contextlib.suppress(OSError):
            print(printable(text), file=sys.stderr)


def _count(number: int, noun: str) -> str:
    """Return a number and its noun.

    >>> _count(1, "layer"), _count(2, "head")
    ('1 layer', '2 heads')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _describe(
    settings: TrainSettings, spec: RunSpec, data: PreparedData, run: RunDir, *, step: int = 0
) -> _Ready:
    """Show the resolved settings, and store them in config.toml."""
    from crystalline import __version__
    from crystalline.formats.rundir import short_count
    from crystalline.train.precision import summary
    from crystalline.train.schedule import effective_warmup

    config, model = spec.config, spec.model
    warmup = effective_warmup(config, spec.plan.length)
    cut = f" (not {config.warmup_steps}: the run is short)" if warmup < config.warmup_steps else ""
    passes = spec.max_steps * config.tokens_per_step / data.train_tokens
    about = "" if spec.max_seconds is None else "about "
    lines = {
        "data": data.description + (f"; left out: {data.left_out}" if data.left_out else ""),
        "model": f"{short_count(spec.parameters)} parameters: "
        f"{_count(model.num_layers, 'layer')}, {_count(model.num_heads, 'head')}, "
        f"{_count(model.embed_dim, 'channel')}, context {model.seq_len}, "
        f"vocabulary {model.vocab_size:,}",
        "steps": f"{about}{spec.max_steps:,} of {config.sequences_per_step} × {config.seq_len} "
        f"tokens, {passes:.3g} epochs" + (f", from step {step:,} on" if step else ""),
        "rate": f"{config.optimizer}, {config.lr_schedule} {config.learning_rate:g} to "
        f"{config.final_lr:g}, warm-up {warmup}{cut}",
        **_crystalline_parts(config),
        "machine": f"{_count(spec.workers, 'worker')}, "
        f"{summary(spec.precision, settings.train_config())}, {spec.isa}",
        "run": str(run.path),
    }
    text = "\n".join(f"{name:8} {line}" for name, line in lines.items())
    _tell(settings, text)
    ready = _Ready(settings, spec, run, f"Resolved by cllm-train {__version__}.\n\n{text}")
    ready.write_config(config)
    return ready


def _crystalline_parts(config: TrainConfig) -> dict[str, str]:
    """Return the line that tells which crystalline parts are on, if any is.

    >>> _crystalline_parts(TrainConfig(crystalline_epsilon=0.1, init="lattice"))
    {'crystal': 'loss 0.1 constant over 16 neighbors by primes, lattice embeddings'}
    """
    parts = []
    if config.smooths:
        parts.append(
            f"loss {config.crystalline_epsilon:g} {config.crystalline_schedule} over "
            f"{_count(config.crystalline_k, 'neighbor')} by {config.crystalline_similarity}"
        )
    if config.init != "normal":
        parts.append(f"{config.init} embeddings")
    if config.positions != TrainConfig.positions:
        parts.append(f"{config.positions} positions")
    if config.attention != "standard":
        parts.append(f"{config.attention} attention" + ", λ at 0" * config.freeze_lambda)
    if config.discovery_interval:
        parts.append(
            f"root discovery every {config.discovery_interval * config.eval_interval:,} steps"
        )
    return {"crystal": ", ".join(parts)} if parts else {}


def _report(settings: TrainSettings, spec: RunSpec, result: RunResult) -> None:
    """Say how the run ended."""
    from crystalline.formats.names import shell_word
    from crystalline.train.spec import resume_command

    step, command = f"step {result.final_step:,}", resume_command(spec.run_dir)
    if result.stop_reason in ("finished", "time"):
        loss = "" if result.val_loss is None else f", validation loss {result.val_loss:.4f}"
        if result.val_tokens is not None:
            loss += f" over {result.val_tokens:,}"
            loss += f" of {spec.val_tokens:,} held-out tokens"
        if result.stop_reason == "time":
            _tell(settings, f"The time was up at {step} of {spec.max_steps:,}{loss}.")
        else:
            _tell(settings, f"Finished {step}{loss}.")
        longer = "--max-steps N" if spec.max_seconds is None else "--minutes N"
        _tell(settings, f"Train longer with:  {command} {longer}")
        model = shell_word(spec.run_dir)
        _tell(settings, f'Generate text with: cllm-infer {model} --prompt "..."')
    else:
        _tell(settings, f"Saved {step}. Resume with: {command}")
    if settings.json:
        print(json.dumps({key: getattr(result, key) for key in RESULT_KEYS}))
