"""What a run is told besides its `TrainConfig`: its text, its workers, its directory."""

from __future__ import annotations

from dataclasses import dataclass

from crystalline.engine.shape import DEPTHS, Depth, most_leaves
from crystalline.errors import UsageError
from crystalline.machine.cores import Pin
from crystalline.runs.layers import field_names
from crystalline.train.config import SaveWhileTraining, TrainConfig
from crystalline.untrusted import shown

# What is kept in a run's config.toml beside the settings that are in its checkpoints.
BESIDE = (
    "workers", "recursive_depth", "pin", "share_cores", "save_while_training", "sphere_timeout",
    "health_interval",
)  # fmt: skip
# How a command shows a run; a settings file may say it, and to a run it says nothing.
DISPLAY = frozenset({"json", "plain", "quiet"})
OFF, BUILT_IN = "off", "built-in"  # what --eval-suite may be instead of a file


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
    eval_suite: str = OFF
    """Prompts that each new best checkpoint is measured on: a file as of cllm-eval --suite, or
    "built-in"."""
    sphere_timeout: float = 10.0
    """Seconds that a worker process which holds up the others may give no sign of life before it is
    replaced, and a quiet one is told of as stalled; one that computes is left alone."""
    health_interval: float = 1.0
    """Seconds between looks at the health of the run: its workers, memory and disk."""
    hold: bool = False
    """Get ready, and wait for the request to start before the first step; see cllm control."""
    checkpoint_dir: str | None = None
    """The new run's directory.  Default: runs/TIME-SIZE."""

    def __post_init__(self) -> None:
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
        if not self.eval_suite:
            raise UsageError(
                "--eval-suite is empty", advice="Name a file of prompts, or built-in, or off."
            )
        for name, least in (("sphere_timeout", 0.1), ("health_interval", 0.1)):
            if not least <= getattr(self, name) <= LONGEST_S:
                raise UsageError(
                    f"--{name.replace('_', '-')} is {getattr(self, name):g}",
                    advice=f"It is seconds, {least:g} to {LONGEST_S:,.0f}.",
                )
        for path in self.data:
            if not path:
                raise UsageError(
                    "a DATA argument is empty", advice="Name files and folders of text."
                )

    def train_config(self) -> TrainConfig:
        """Return the part that is stored in checkpoints."""
        return TrainConfig(**{name: getattr(self, name) for name in field_names(TrainConfig)})
