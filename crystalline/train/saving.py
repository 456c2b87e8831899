"""Checkpoints as Node Zero makes them, while training goes on where there is memory for that.

    training ──due──> the spheres copy (SNAPSHOT) ──> training goes on ───────────────────> …
                                                 └──> a helper writes the copy ──> it is told

Until the copy is taken nobody trains: some milliseconds, in place of all that it takes to write,
hash and sync the files.  There is one copy, so the next save waits for the last.  What goes by a
checkpoint that is whole (`best`, the path that is told, which one is the newest) comes when the
helper has ended well.  If it ends otherwise, or gives no sign of life, that save has failed as on a
full disk: it is told, what was there before is intact, and the next may succeed.

Where nobody trains anyway (at the end, for somebody who asked) Node Zero writes the arena itself,
after the helper has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from crystalline.engine.helper import Helper, Outcome
from crystalline.engine.node import Node
from crystalline.engine.runner import NAP_NS
from crystalline.errors import SaveError, remedy
from crystalline.log import LOGGER_NAME, get_logger
from crystalline.train import words as w
from crystalline.train.books import Books
from crystalline.train.config import TrainConfig
from crystalline.train.protocol import Program
from crystalline.train.spec import RunSpec
from crystalline.train.step import SNAPSHOT
from crystalline.train.timing import TimedPlan
from crystalline.train.words import TrainingWords

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
        words: TrainingWords,
        saved: Callable[[str], None],
    ) -> None:
        """`saved` is told the path of each checkpoint that is whole."""
        self.step = -1  # whose checkpoint is whole
        self.is_changed = False  # what is saved of that step, since it was saved
        self._spec = spec
        self._program = program
        self._node = node
        self._books = books
        self._words = words
        self._saved = saved
        self._helper: Helper | None = None  # at work
        self._helper_step = -1  # whose checkpoint it writes
        self._is_best = False  # so far, is that step
        node.also_look = self.look

    def resumed(self, step: int, checkpoint: Path) -> None:
        """Take note of the checkpoint that the run begins from."""
        self.step, self.is_changed = step, False
        self._saved(str(checkpoint))

    # Saving.

    def save(self, step: int, config: TrainConfig) -> Path:
        """Save after `step` steps, unless that was done; nobody trains.  Raises `SaveError`.

        Returns the checkpoint.
        """
        self.finish()
        if self.step == step and not self.is_changed and self._books.checkpoint is not None:
            return Path(self._books.checkpoint)
        began_s = self._enter_saving()
        path = self._program.save(self._state_of(step, began_s), config)
        self.is_changed = False
        self._is_whole(step, str(path))
        if self.timing is not None:
            self.timing.saved(step, self._node.clock.running_s() - began_s)
        return path

    def begin(self, step: int, config: TrainConfig) -> None:
        """Save after `step` steps; where there is room for a copy, it goes on after the return.

        A failure is told, and training goes on: the next save may succeed.
        """
        being_saved = self.step if self._helper is None else self._helper_step
        if being_saved == step and not self.is_changed:
            return
        try:
            if self._program.copies and not self._node.stop_wanted():
                self._begin(step, config)
            else:
                self.save(step, config)
        except SaveError as error:
            logger.warning("%s Training goes on.", error)

    def _begin(self, step: int, config: TrainConfig) -> None:
        began_s = self._enter_saving()
        self.finish()
        work = partial(_write, self._program, self._state_of(step, began_s), config)
        self._node.runner.begin(SNAPSHOT)
        self._node.runner.wait()
        try:
            self._helper = self._node.helper("save", step, work, silent_s=self._spec.save_hang_s)
        except OSError as error:
            raise SaveError(
                f"the process that writes checkpoints could not be started ({error.strerror})",
                advice=remedy(error),
            ) from error
        self._helper_step, self._is_best = step, False
        self.is_changed = False
        self._words.counts.store(w.SAVER_PID, self._helper.pid)
        self._words.enter(saving_step=step)
        if self.timing is not None:
            self.timing.saved(step, self._node.clock.running_s() - began_s, whole=False)

    def _enter_saving(self) -> float:
        self._node.enter_state("saving")
        return self._node.clock.running_s()

    def _state_of(self, step: int, now_s: float) -> dict[str, Any]:
        """Return what a checkpoint keeps of the run, and put the metrics before it on disk."""
        spec, state = self._spec, self._books.state_of(step)
        if spec.max_seconds is not None:
            state["seconds_left"] = spec.max_seconds - now_s
            state["most_steps"] = spec.most_steps
        self._books.metrics.flush()
        return state

    def _is_whole(self, step: int, path: str) -> None:
        self.step = step
        self._books.checkpoint = path
        self._saved(path)

    def mark_best(self, step: int) -> None:
        """Mark the checkpoint of `step`, now or when it is whole, unless it cannot be saved."""
        if self._helper is not None and self._helper_step == step:
            self._is_best = True
            return
        if self.step != step or self._books.checkpoint is None:
            return
        try:
            self._program.mark_best(Path(self._books.checkpoint))
        except SaveError as error:
            logger.warning("%s Training goes on.", error)

    # The helper.

    def look(self) -> None:
        """Take what the helper has come to, if it has ended."""
        if self._helper is None:
            return
        outcome = self._helper.poll()
        if outcome is not None:
            self._forget_helper()
            self._take(outcome)

    def finish(self, *, look_after: bool = True) -> None:
        """Wait for the helper's end, if there is one; meanwhile see to the spheres."""
        while self._helper is not None:
            self._node.enter_state("saving")
            self._helper.wait(NAP_NS / 1e9)
            if look_after:
                self._node.runner.look_after()  # and at the helper
            else:
                self.look()

    def close(self) -> None:
        """End the helper, whatever it does."""
        if self._helper is not None:
            self._helper.kill()
            self._forget_helper()

    def _forget_helper(self) -> None:
        self._helper = None
        self._words.enter(saving_step=None)
        self._words.counts.store(w.SAVER_PID, 0)

    def _take(self, outcome: Outcome) -> None:
        """Enter how a save ended."""
        answer, step = outcome.answer, self._helper_step
        if answer is None:
            error = SaveError(
                f"the checkpoint of step {step} was not written: the process that writes it "
                f"{outcome.cause}",
                advice="What was saved before is intact.",
            )
            logger.warning("%s Training goes on.", error)
            return
        for level, text in answer["log"]:
            logger.log(level, "%s", text)
        if "message" in answer:
            logger.warning(
                "%s Training goes on.", SaveError(answer["message"], advice=answer["advice"])
            )
            return
        self._is_whole(step, answer["path"])
        if self._is_best:
            self.mark_best(step)


class _Kept(logging.Handler):
    """Keeps log records: the launcher is told by Node Zero alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines.append((record.levelno, record.getMessage()))


def _write(program: Program, state: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Write the copy, in the helper; return what Node Zero is to know."""
    kept = _Kept()
    logging.getLogger(LOGGER_NAME).handlers[:] = [kept]
    try:
        path = program.save(state, config, copied=True)
    except SaveError as error:
        return {"message": error.message, "advice": error.advice, "log": kept.lines}
    return {"path": str(path), "log": kept.lines}
