"""What a run is, and what came of it: the two records that cross the process boundary."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crystalline.data.tokenizer_facts import NO_FACTS, TokenizerFacts
from crystalline.engine.shape import Depth
from crystalline.errors import (
    EXIT_HANGUP,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_STOPPED,
    EXIT_TERMINATED,
)
from crystalline.formats.names import shell_word
from crystalline.machine.cores import Pin
from crystalline.model.config import ModelConfig
from crystalline.train.config import TrainConfig
from crystalline.train.plan import Plan

DEFAULT_PROGRAM = "crystalline.train.program:build"
COMMAND = "cllm-train"  # what starts and resumes runs, in the words of messages
PYTHON = "crystalline"  # ... and where that is the Python door

StopReason = Literal[
    "finished", "time", "patience", "stopped", "interrupted", "terminated", "hangup"
]

EXIT_CODES: dict[StopReason, int] = {
    "finished": EXIT_OK,
    "time": EXIT_OK,
    "patience": EXIT_OK,
    "stopped": EXIT_STOPPED,
    "interrupted": EXIT_INTERRUPTED,
    "terminated": EXIT_TERMINATED,
    "hangup": EXIT_HANGUP,
}

# What the launcher asks for in the word `engine.board.STOP`.
STOP_REASONS: tuple[StopReason | None, ...] = (
    None,
    "stopped",
    "interrupted",
    "terminated",
    "hangup",
)


@dataclass(frozen=True)
class RunSpec:
    """Everything that Node Zero needs to run: settings resolved, files in place.

    `config.max_steps` or `config.plan` is set.  Byte and token counts refer to the whole
    held-out split; they scale the loss per token to bits per byte.
    """

    config: TrainConfig
    model: ModelConfig
    token_path: Path
    tokenizer_path: Path
    run_dir: Path
    val_tokens: int  # tokens of the held-out split, 0: as many as are evaluated
    val_bytes: int  # bytes of text of the held-out split
    tokens_per_epoch: int  # tokens of the training split
    workers: int
    depth: Depth = "1"  # levels of the tree of spheres, one of `engine.shape.DEPTHS`
    permits: int | None = None  # None: the cores that this process may really use
    resume_from: Path | None = None  # a checkpoint directory
    crystal_path: Path | None = None  # of a new run whose config uses the crystal; read at step 0
    # The model whose weights a new run begins with; read at step 0.  Of a run that trains adapters
    # it is RUN/base, which is read whenever the run begins or goes on.
    init_from: Path | None = None
    facts: TokenizerFacts = NO_FACTS  # what that model says of its tokenizer: for checkpoints
    max_seconds: float | None = (
        None  # of running time, saved and evaluated: the plan is fitted to it
    )
    most_steps: int | None = None  # bounds the plan that is fitted to the time
    precision: str = "float32"  # resolved, never "auto"
    isa: str = ""
    parameters: int = 0
    flops_per_token: float = 0.0
    peak_flops: float | None = None  # measured, of the cores in use, FLOP/s
    pin: Pin = "no"  # spheres to processors
    share_cores: bool = False  # with other runs of this user
    # Whether checkpoints are written from a copy of weights and moments while training goes on.
    save_while_training: bool = False
    save_hang_s: float = 600.0  # a process that writes one and gives no sign this long is ended
    hang_s: float = 10.0  # a sphere that holds up others and gives no sign this long is replaced
    health_interval_s: float = 1.0  # between looks at the health of the run
    held: bool = False  # whether it waits for the request to start before its first step
    jitter_s: float = 0.0  # longest random sleep before each unit; for tests
    program: str = DEFAULT_PROGRAM  # "module:function" that builds the Program from this spec
    program_options: dict[str, Any] = field(default_factory=dict)
    command: str = COMMAND  # in whose words messages say how to go on: a command, or PYTHON

    @property
    def plan(self) -> Plan:
        """Optimizer steps of the whole run, as planned when it starts or is resumed."""
        if self.config.plan is not None:
            return Plan.parse(self.config.plan)
        if self.config.max_steps is None:
            raise ValueError("the run's config has neither plan nor max_steps")
        return Plan.of_steps(self.config.max_steps)

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole run, as planned when it starts or is resumed."""
        return self.plan.max_steps

    @property
    def resume_command(self) -> str:
        """What takes this run up again, in the words of whoever started it."""
        return resume_command(self.run_dir, self.command)


@dataclass(frozen=True)
class RunResult:
    """How a run ended.  Losses are in nats per token."""

    final_step: int
    train_loss: float | None
    val_loss: float | None
    val_bits_per_byte: float | None
    tokens_per_second: float  # over the time spent in training steps
    seconds: float  # to the end of the last evaluation and save, this session, pauses left out
    weights_sha256: str
    run_dir: str
    workers: int
    precision: str
    isa: str
    stop_reason: StopReason
    dropped_steps: int = 0  # skipped for non-finite gradients, this run
    checkpoint: str | None = None  # the newest
    val_tokens: int | None = None  # that the last evaluation predicted
    plan: str | None = None  # as carried out; None: --max-steps, never moved

    @property
    def exit_code(self) -> int:
        """The exit code that tells this end to a shell.

        >>> EXIT_CODES["interrupted"], EXIT_CODES["finished"]
        (130, 0)
        """
        return EXIT_CODES[self.stop_reason]


def resume_command(run_dir: str | Path, command: str = COMMAND) -> str:
    """Return the command that takes a run up again.

    >>> resume_command("runs/my novel")
    "cllm-train --resume 'runs/my novel'"
    >>> resume_command("runs/my novel", PYTHON)
    "crystalline.resume('runs/my novel')"
    """
    if command == PYTHON:
        return f"{command}.resume({str(run_dir)!r})"
    return f"{command} --resume {shell_word(run_dir)}"
