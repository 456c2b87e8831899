"""What a training run does for those who ask, besides what the engine does: between steps.

    checkpoint [NAME]   save now; a name is a pointer that protects it from pruning
    restore CKPT        be where a checkpoint of this run is, as a run that is resumed there
    lr-factor F         multiply the learning rates of the schedule from the next step on

What changes training is part of the state that is saved: a run that is resumed later computes what
this one does.  A checkpoint that does not belong here, or is damaged, is refused before anything
has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystalline.engine.obeying import Handler, RefusedError
from crystalline.engine.requests import Wish
from crystalline.errors import CrystallineError, SaveError
from crystalline.formats.catalog import damage
from crystalline.formats.files import STATE, step_of
from crystalline.log import get_logger
from crystalline.train.config import CHANGEABLE, TrainConfig
from crystalline.train.plan import Plan, stored_plan
from crystalline.train.progress import checked_progress
from crystalline.train.protocol import Loaded, Program
from crystalline.untrusted import BadContent

logger = get_logger("train")


@dataclass(frozen=True)
class Place:
    """Where a run is to go back to: a checkpoint that was read, and its state, checked."""

    checkpoint: Path
    loaded: Loaded
    state: dict[str, Any]

    @property
    def plan(self) -> Plan:
        """The plan that the run had there."""
        return stored_plan(self.loaded.config)


def read_place(program: Program, checkpoint: Path) -> Place:
    """Read a checkpoint that fits a program.  Raises `CheckpointError`; nothing changes."""
    loaded = program.load(checkpoint)
    try:
        return Place(checkpoint, loaded, checked_progress(loaded.state))
    except BadContent as error:
        raise damage(checkpoint, f"{checkpoint / STATE} cannot be used: {error}") from None


class Wishes:
    """The requests of a training run, by name."""

    is_over = False  # whether the run is past its last step, and cannot go back any more

    def __init__(
        self,
        program: Program,
        config: TrainConfig,
        *,
        save: Callable[[], Path],
        finish_saves: Callable[[], None],
        go_back: Callable[[Place], None],
        set_factor: Callable[[float], None],
        named: Callable[[dict[str, int]], None],
        is_timed: bool,
    ) -> None:
        """`save` saves the step of now, `finish_saves` waits for those that go on, `go_back` goes
        to a place, `named` is told of all names.
        """
        self._program = program
        self._config = config
        self._save = save
        self._finish_saves = finish_saves
        self._go_back = go_back
        self._set_factor = set_factor
        self._named = named
        self._is_timed = is_timed

    def handlers(self) -> dict[str, Handler]:
        """Return what does what is asked."""
        return {
            "checkpoint": self._checkpoint,
            "restore": self._restore,
            "lr-factor": self._factor,
        }

    def tell_names(self) -> None:
        """Tell of the checkpoints that have names."""
        self._named(self._program.named())

    def _checkpoint(self, wish: Wish) -> str:
        name = wish.argument
        try:
            path = self._save()
            if not isinstance(name, str):
                return f"the checkpoint of step {step_of(path):,} is written"
            self._program.name(path, name)
        except SaveError as error:
            logger.warning("%s Training goes on.", error)
            raise RefusedError(error.message, advice=error.advice) from None
        except CrystallineError as error:
            raise RefusedError(error.message, advice=error.advice) from None
        self.tell_names()
        return f"the checkpoint of step {step_of(path):,} is written, and kept as {name}"

    def _restore(self, wish: Wish) -> str:
        if self.is_over:
            raise RefusedError("the run is past its last step", advice="Resume it there instead.")
        if self._is_timed:
            raise RefusedError(
                "the run's steps are fitted to the time that it has",
                advice="Stop it, and resume that checkpoint.",
            )
        self._finish_saves()  # one may be what is asked for, and each prunes others
        try:
            place = read_place(self._program, self._program.find(str(wish.argument)))
        except CrystallineError as error:
            raise RefusedError(error.message, advice=error.advice) from None
        other = differing(self._config, place.loaded.config)
        if other is not None:
            raise RefusedError(
                f"the checkpoint {place.checkpoint} is of another run: its {other} differs",
                advice="Start that run, or resume it, in a directory of its own.",
            )
        self._go_back(place)
        return f"the run is at step {place.state['step']:,} again"

    def _factor(self, wish: Wish) -> str:
        assert isinstance(wish.argument, (int, float))
        self._set_factor(float(wish.argument))
        return f"the learning rate is that of the schedule times {wish.argument:g}"


def differing(config: TrainConfig, stored: Mapping[str, Any]) -> str | None:
    """Return a setting that decides the bits of a run and is another in a checkpoint, if any.

    One that the checkpoint does not know says nothing.

    >>> differing(TrainConfig(seed=1), {"seed": 2, "keep": 9}), differing(TrainConfig(), {})
    ('seed', None)
    """
    changeable = CHANGEABLE - {"eval_interval"} if config.discovery_interval else CHANGEABLE
    for name, value in config.to_dict().items():
        if name not in changeable and stored.get(name, value) != value:
            return name
    return None
