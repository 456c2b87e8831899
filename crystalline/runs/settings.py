"""What a run is told besides its `TrainConfig`: its text, its workers, its directory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crystalline.engine.shape import DEPTHS, Depth, most_leaves
from crystalline.errors import UsageError
from crystalline.ipc.positions import POSITIONS
from crystalline.machine.cores import Pin
from crystalline.runs.layers import field_names
from crystalline.train.config import SaveWhileTraining, TrainConfig
from crystalline.untrusted import shown

# What is kept in a run's config.toml beside the settings that are in its checkpoints.
BESIDE = (
    "workers", "recursive_depth", "pin", "share_cores", "save_while_training", "sphere_timeout",
    "health_interval", "max_memory", "recompute",
)  # fmt: skip
# How a command shows a run; a settings file may say it, and to a run it says nothing.
DISPLAY = frozenset({"json", "plain", "quiet"})
OFF, BUILT_IN = "off", "built-in"  # what --eval-suite may be instead of a file


_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?([KMGT])I?B?", re.ASCII)

LONGEST_S = 1e6  # of settings that are seconds


@dataclass(frozen=True)
class RunSettings(TrainConfig):
    """Every setting of a run, by whatever door it is started."""

    data: tuple[str, ...] = ()
    """Files and folders of text.  Default: Python's standard library."""
    text_field: str | None = None
    """Field of JSON records that holds their text, or a conversation of messages."""
    workers: int = 12
    """Worker processes (spheres): the leaves of their tree."""
    recursive_depth: Depth = "1"
    """Levels of the tree of spheres below Node Zero: 1 (flat), 2, 3, or auto (it grows)."""
    pin: Pin = "auto"
    """Keep workers on processors of their own, physical cores first, and their memory next to them;
    'auto' does so where the machine has several nodes of memory."""
    share_cores: bool = True
    """Take turns with the other runs of yours on this machine that want the same cores, instead of
    holding each other up.  The bits of a run are the same."""
    save_while_training: SaveWhileTraining = "auto"
    """Write checkpoints from a copy of weights and moments, so that training waits for the copy
    only and not for the disk.  The copy takes 12 bytes for each parameter that is trained; 'auto'
    makes it where it fits easily into free memory.  The bits of the run are the same."""
    max_memory: str | None = None
    """The most memory that the run may take in all its processes, such as 4GB or 500MB: it makes do
    with fewer buffers for gradients, or is refused.  Default: what there is.  The bits of the run
    are the same."""
    recompute: bool = False
    """Keep only the inputs of layers for the backward pass, which computes the rest once more: an
    eighth of the memory for activations, a quarter to a third more time, the same bits."""
    sphere_timeout: float = 10.0
    """Seconds that a worker process which holds up the others may give no sign of life before it is
    replaced, and a quiet one is told of as stalled; one that computes is left alone."""
    health_interval: float = 1.0
    """Seconds between looks at the health of the run: its workers, memory and disk."""
    hold: bool = False
    """Get ready, and wait for the request to start before the first step; see cllm control."""
    eval_suite: str = OFF
    """Prompts that each new best checkpoint is measured on: a file as of cllm-eval --suite, or
    "built-in"."""
    checkpoint_dir: str | None = None
    """The new run's directory.  Default: runs/TIME-SIZE."""

    def __post_init__(self) -> None:
        if self.lanes == 0:  # auto; it is a number wherever it is kept
            object.__setattr__(self, "lanes", automatic_lanes(self.sequences_per_step))
        super().__post_init__()
        if self.recursive_depth not in DEPTHS:
            raise UsageError(
                f"--recursive-depth is {shown(self.recursive_depth)}",
                advice=f"It must be one of {', '.join(DEPTHS)}.",
            )
        most = most_leaves(self.recursive_depth)
        if not 1 <= self.workers <= most:
            deeper = ", or up to 144 with --recursive-depth 2" if most < 144 else ""
            raise UsageError(
                f"--workers is {self.workers}", advice=f"It must be between 1 and {most}{deeper}."
            )
        if self.max_memory is not None:
            parse_size("--max-memory", self.max_memory)
        for name, least in (("sphere_timeout", 0.1), ("health_interval", 0.1)):
            if not least <= getattr(self, name) <= LONGEST_S:
                raise UsageError(
                    f"--{name.replace('_', '-')} is {getattr(self, name):g}",
                    advice=f"It is seconds, {least:g} to {LONGEST_S:,.0f}.",
                )
        if not self.eval_suite:
            raise UsageError(
                "--eval-suite is empty", advice="Name a file of prompts, or built-in, or off."
            )
        for path in self.data:
            if not path:
                raise UsageError(
                    "a DATA argument is empty", advice="Name files and folders of text."
                )

    @property
    def max_bytes(self) -> int | None:
        """The most memory in bytes, None: what there is."""
        return None if self.max_memory is None else parse_size("--max-memory", self.max_memory)

    def train_config(self) -> TrainConfig:
        """Return the part that is stored in checkpoints."""
        return TrainConfig(**{name: getattr(self, name) for name in field_names(TrainConfig)})


def automatic_lanes(sequences: int) -> int:
    """Return the least lanes that keep the cores of this machine busy, at most the sequences.

    12 on up to 12 cores, and where a step has fewer than 24 sequences.
    """
    from crystalline.machine.cores import usable_cores

    return POSITIONS * max(1, min(-(-usable_cores() // POSITIONS), sequences // POSITIONS))


def parse_size(flag: str, text: str) -> int:
    """Return the bytes of a size such as 4GB; GiB and the like count in powers of 1,024.

    >>> parse_size("--max-memory", "4.5GB"), parse_size("--max-memory", "500 mib")
    (4500000000, 524288000)

    Raises:
        UsageError: it is none.
    """
    found = _SIZE.fullmatch(text.strip().upper())
    if found is None:
        raise UsageError(
            f"{flag} is {shown(text)}", advice="It is a size with its unit, such as 4GB or 500MB."
        )
    base = 1024 if "I" in text.upper() else 1000
    return int(float(found[1]) * base ** (1 + "KMGT".index(found[2])))
