"""Checkpoints as Node Zero makes them: when one is due is Node Zero's to say, and how it is
written the program's; here is what belongs to both, and what a save that failed comes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crystalline.engine.node import Node
from crystalline.errors import SaveError
from crystalline.log import get_logger
from crystalline.train.books import Books
from crystalline.train.config import TrainConfig
from crystalline.train.protocol import Program
from crystalline.train.spec import RunSpec
from crystalline.train.timing import TimedPlan

logger = get_logger("train")


class Saver:
    """Saves a run, and knows after which step that was done last."""

    timing: TimedPlan | None = None  # what is to know how long saves take

    def __init__(
        self,
        spec: RunSpec,
        program: Program,
        node: Node,
        books: Books,
        saved: Callable[[str], None],
    ) -> None:
        """`saved` is told the path of each checkpoint that is whole."""
        self.step = -1  # whose checkpoint is whole
        self._spec = spec
        self._program = program
        self._node = node
        self._books = books
        self._saved = saved

    def resumed(self, step: int, checkpoint: Path) -> None:
        """Take note of the checkpoint that the run begins from."""
        self.step = step
        self._saved(str(checkpoint))

    def save(self, step: int, config: TrainConfig) -> None:
        """Save after `step` steps, unless that was done.  Raises `SaveError`."""
        if self.step == step:
            return
        node, books, spec = self._node, self._books, self._spec
        node.enter_state("saving")
        began_s = node.clock.running_s()
        state = books.state_of(step)
        if spec.max_seconds is not None:
            state["seconds_left"] = spec.max_seconds - began_s
            state["most_steps"] = spec.most_steps
        books.metrics.flush()
        path = self._program.save(state, config)
        self.step = step
        books.checkpoint = str(path)
        self._saved(str(path))
        if self.timing is not None:
            self.timing.saved(step, node.clock.running_s() - began_s)

    def save_or_warn(self, step: int, config: TrainConfig) -> None:
        """Save; a failure is told, and training goes on: the next save may succeed."""
        try:
            self.save(step, config)
        except SaveError as error:
            logger.warning("%s Training goes on.", error)

    def mark_best(self, step: int) -> None:
        """Mark the checkpoint of `step`, unless it could not be saved."""
        if self.step != step or self._books.checkpoint is None:
            return
        try:
            self._program.mark_best(Path(self._books.checkpoint))
        except SaveError as error:
            logger.warning("%s Training goes on.", error)
