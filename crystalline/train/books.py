"""The books of a run: what its steps and evaluations came to, for watchers, metrics and state.

Node Zero enters what was done; the words of the arena, the lines of metrics.jsonl and the
state in a checkpoint follow from it.  When to do anything is left to Node Zero.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystalline.engine.board import Board
from crystalline.engine.clock import RunningClock
from crystalline.errors import DivergedError
from crystalline.log import get_logger
from crystalline.train import words as w
from crystalline.train.epochs import ends_epochs, epochs_done, first_step, lanes_by_position
from crystalline.train.evaluation import Outcome
from crystalline.train.metrics import MetricsLog, metrics_lines
from crystalline.train.spec import RunSpec
from crystalline.train.words import TrainingWords

DROPS_IN_A_ROW = 10
DROPS_WINDOW, DROPS_IN_WINDOW = 100, 10
EVALUATION = ("val_loss", "val_bits_per_byte")  # what a line of metrics needs to be one

logger = get_logger("train")


@dataclass(frozen=True)
class Step:
    """What the books need of a finished step."""

    number: int  # finished steps, this one included
    lanes: list[list[float]]  # a row of results per lane, see train.words
    outcome: list[float]
    lr: float
    took_ns: int
    is_last: bool


class Books:
    """Counts, losses and evaluations of one run; `open` comes before the first step's."""

    metrics: MetricsLog

    def __init__(
        self, board: Board, words: TrainingWords, spec: RunSpec, clock: RunningClock
    ) -> None:
        self._board = board
        self._words = words
        self._spec = spec
        self._clock = clock
        self.tokens = self.session_tokens = 0
        self.step_ns = 0  # spent in training steps, this session
        self._seconds_before = 0.0  # of earlier sessions
        self.loss: float | None = None
        self.val_loss: float | None = None
        self.val_bits: float | None = None
        self.val_tokens: int | None = None
        self._best: float | None = None
        # Events of before `open`; None from then on.
        self._early: list[tuple[str, int, dict[str, Any]]] | None = []
        self._lane_count = 0  # of a step
        self.evaluated_step = -1
        self.since_best = 0  # evaluations
        self._epoch_nats, self._epoch_tokens = 0.0, 0  # of the pass over the split that goes on
        self.lr_factor = 1.0  # of the schedule's learning rates, from the next step on
        self._dropped: list[int] = []  # steps (1 is the first) that were dropped lately
        self.dropped_total = 0
        self.checkpoint: str | None = None  # the newest
        self._logged: tuple[int, int] = (0, 0)  # step time and tokens at the last line

    def open(self, metrics: MetricsLog) -> None:
        """Take the file for lines, and write what has happened already."""
        self.metrics = metrics
        early, self._early = self._early or [], None
        for event, step, values in early:
            metrics.event(event, step, **values)

    # What a resumed run knows.

    def restore(self, state: dict[str, Any], checkpoint: Path) -> None:
        """Take the counts of a checkpoint's state; `state_of` wrote them.

        The run may have gone on from elsewhere in this session, and then goes back.
        """
        self.tokens = state["tokens"]
        self._seconds_before = state["seconds"]
        if self._early is None:
            self._seconds_before -= self._clock.running_s()
        self._logged = (self.step_ns, self.session_tokens)
        self.loss = state["loss"]
        self.val_loss = state["val_loss"]
        self.val_bits = state["val_bits_per_byte"]
        self.val_tokens = state.get("val_tokens")  # not known to checkpoints of before
        self.evaluated_step = state["evaluated_step"]
        self._best = state["best_val_loss"]
        self.since_best = state.get("evaluations_since_best", 0)  # not known before --patience
        nats = state.get("epoch_nats", 0.0)  # not known to checkpoints of before, nor is the next
        self._epoch_nats = math.nan if nats is None else nats
        self._epoch_tokens = state.get("epoch_tokens", 0)
        self.set_lr_factor(state.get("lr_factor", 1.0))  # not known to checkpoints of before
        self._dropped = list(state["recently_dropped"])
        self.dropped_total = state["dropped_steps"]
        self.checkpoint = str(checkpoint)
        self._words.enter(
            step=state["step"], tokens=self.tokens, dropped_steps=self.dropped_total,
            loss=self.loss,
        )  # fmt: skip
        self._publish_evaluation()

    def set_lr_factor(self, factor: float) -> None:
        """Multiply the learning rates of the schedule from now on."""
        self.lr_factor = factor
        self._words.enter(lr_factor=factor)

    def recall(self, step: int, eval_tokens: int) -> bool:
        """Enter what a run resumed at `step` logged earlier; return whether `step` is its best.

        A checkpoint is saved before its evaluation.  If that was finished, and is in the
        metrics, it need not be made again.
        """
        losses: list[tuple[int, float]] = []  # every so many; the file may have any number
        evaluations: deque[dict[str, Any]] = deque(maxlen=w.EVAL_RING // 2)
        stride, seen = 1, 0
        for line in metrics_lines(self.metrics.path):
            if line.get("loss") is not None:
                if seen % stride == 0:
                    losses.append((line["step"], line["loss"]))
                seen += 1
                if len(losses) > w.LOSS_RING // 2:
                    del losses[1::2]
                    stride *= 2
            if all(line.get(name) is not None for name in EVALUATION):
                evaluations.append(line)
        for number, loss in losses:
            self._enter_loss(number, loss)
        for line in evaluations:
            self._enter_evaluation(line["step"], line["val_loss"], line["val_bits_per_byte"])
        if not evaluations or self.evaluated_step == step:
            return False
        last = evaluations[-1]
        if last["step"] != step or last.get("val_tokens") != eval_tokens:
            return False
        return self._take(
            step, Outcome(last["val_loss"], last["val_bits_per_byte"], last["val_tokens"])
        )

    def state_of(self, step: int) -> dict[str, Any]:
        """Return what a checkpoint of `step` keeps of the books."""
        return {
            "step": step,
            "tokens": self.tokens,
            "seconds": self.seconds(),
            "loss": self.loss,
            "val_loss": self.val_loss,
            "val_bits_per_byte": self.val_bits,
            "val_tokens": self.val_tokens,
            "evaluated_step": self.evaluated_step,
            "best_val_loss": self._best,
            "evaluations_since_best": self.since_best,
            "epoch_nats": self._epoch_nats if math.isfinite(self._epoch_nats) else None,
            "epoch_tokens": self._epoch_tokens,
            "lr_factor": self.lr_factor,
            "recently_dropped": self._dropped,
            "dropped_steps": self.dropped_total,
        }

    def result(self) -> dict[str, Any]:
        """Return what the `RunResult` has from the books."""
        rate = self.session_tokens / self.step_ns * 1e9 if self.step_ns else 0.0
        return {
            "train_loss": self.loss,
            "val_loss": self.val_loss,
            "val_bits_per_byte": self.val_bits,
            "val_tokens": self.val_tokens,
            "tokens_per_second": rate,
            "dropped_steps": self.dropped_total,
            "checkpoint": self.checkpoint,
        }

    def seconds(self) -> float:
        """Return the seconds that the whole run has had."""
        return self._seconds_before + self._clock.running_s()

    # Entries.

    def enter_step(self, done: Step) -> None:
        """Enter a finished step: loss, counts, figures for watchers, metrics."""
        words = self._words
        tokens = int(sum(row[w.TOKEN_COUNT] for row in done.lanes))
        # A step whose windows hold no turn of the model's has no loss.
        loss = _finite_sum([row[w.LOSS_SUM] for row in done.lanes]) / (tokens or math.nan)
        smoothed = None
        if self._spec.config.smooths:
            smoothed = _finite_sum([row[w.SMOOTHED_SUM] for row in done.lanes])
            smoothed /= tokens or math.nan
        self.tokens += tokens
        self.session_tokens += tokens
        self.step_ns += done.took_ns
        if math.isfinite(loss):
            self.loss = loss
            self._enter_loss(done.number, loss)
        words.enter(
            loss=self.loss, crystalline_loss=smoothed, learning_rate=done.lr,
            grad_norm=done.outcome[w.NORM], clip_factor=done.outcome[w.CLIP], tokens=self.tokens,
        )  # fmt: skip
        words.counts.store(w.SESSION_TOKENS, self.session_tokens)
        words.counts.store(w.STEP_NS, self.step_ns)
        words.enter(step=done.number)
        if done.outcome[w.NON_FINITE]:
            self._drop(done.number)
        lately = [number for number in self._dropped if number > done.number - DROPS_WINDOW]
        words.enter(dropped_lately=len(lately))
        if done.number % self._spec.config.log_interval == 0 or done.is_last:
            before_ns, before_tokens = self._logged
            self._logged = (self.step_ns, self.session_tokens)
            rate = (self.session_tokens - before_tokens) / (self.step_ns - before_ns) * 1e9
            self._log("step", loss=loss, crystalline_loss=smoothed, tokens_per_second=rate)
        self._lane_count = len(done.lanes)
        self._enter_epoch(done.number, loss, tokens)

    def _enter_epoch(self, step: int, loss: float, tokens: int) -> None:
        """Add a step to the pass over the split that goes on; tell of one that ends with it.

        A step without a loss counts for nothing.  Passes of fewer steps than a line of the metrics
        is for are not told of one by one.
        """
        if math.isfinite(loss):
            self._epoch_nats += loss * tokens
            self._epoch_tokens += tokens
        config, size = self._spec.config, self._spec.tokens_per_epoch
        if not ends_epochs(step, 1, config.tokens_per_step, size):
            return
        number = epochs_done(step, config.tokens_per_step, size)
        mean = self._epoch_nats / (self._epoch_tokens or math.nan)
        self._epoch_nats, self._epoch_tokens = 0.0, 0
        if size >= config.log_interval * config.tokens_per_step:
            self.metrics.event(
                "epoch", step, epoch=number, mean_loss=mean, seconds=self.seconds(),
                lanes_by_position=lanes_by_position(
                    self._lane_count, first_step(number, config.tokens_per_step, size), step
                ),
            )  # fmt: skip
            steps = self._words.count_of("max_steps")
            all_of_them = epochs_done(steps, config.tokens_per_step, size)
            val = "" if self.val_loss is None else f", val {self.val_loss:.4f}"
            logger.info(
                "epoch %d/%d: mean loss %.4f%s", number, max(number, all_of_them), mean, val
            )

    def enter_evaluation(self, step: int, found: Outcome) -> bool:
        """Enter an evaluation after `step` steps; return whether it is the best so far."""
        if not math.isfinite(found.loss):
            logger.warning("the loss over the held-out split is not finite at step %d", step)
            self.evaluated_step = step
            self.since_best += 1
            self.val_loss = self.val_bits = self.val_tokens = None
            return False
        self._enter_evaluation(step, found.loss, found.bits_per_byte)
        self._log(
            "evaluation", step=step, val_loss=found.loss, val_bits_per_byte=found.bits_per_byte,
            val_tokens=found.tokens,
        )  # fmt: skip
        return self._take(step, found)

    def _log(self, kind: str, **figures: Any) -> None:
        """Write a line of metrics: the figures of now, and what it has beside them."""
        known = self._words.run_figures()
        self.metrics.enter(kind, {**known, "seconds": self.seconds(), **figures})

    def enter_event(self, event: str, step: int, **values: Any) -> None:
        """Enter something that happened after `step` steps."""
        if self._early is None:
            self.metrics.event(event, step, **values)
        else:
            self._early.append((event, step, values))

    def _take(self, step: int, found: Outcome) -> bool:
        self.evaluated_step = step
        self.val_loss, self.val_bits, self.val_tokens = (
            found.loss, found.bits_per_byte, found.tokens
        )  # fmt: skip
        improved = self._best is None or found.loss < self._best
        self.since_best = 0 if improved else self.since_best + 1
        if improved:
            self._best = found.loss
        self._publish_evaluation()
        return improved

    def _drop(self, number: int) -> None:
        """Count a step whose gradient or loss was not finite; give up when there are many."""
        self.dropped_total += 1
        self._words.enter(dropped_steps=self.dropped_total)
        self._dropped = [n for n in self._dropped if n > number - DROPS_WINDOW] + [number]
        in_a_row = self._dropped[-DROPS_IN_A_ROW:] == list(
            range(number - DROPS_IN_A_ROW + 1, number + 1)
        )
        logger.warning("step %d was dropped: its gradient was not finite", number)
        self.metrics.event("dropped_step", number)
        if in_a_row or len(self._dropped) > DROPS_IN_WINDOW:
            way_on = "start again"
            if self.checkpoint is not None:
                way_on = f"the newest checkpoint is intact: {self._spec.resume_command}"
            raise DivergedError(
                f"the gradient was not finite in {len(self._dropped)} of the last "
                f"{min(number, DROPS_WINDOW)} steps, the last of them step {number}",
                advice="Lower --learning-rate or --grad-clip, or warm up over more steps; "
                f"{way_on}",
            )

    # Words for watchers.

    def log_positions(self) -> None:
        """Tell how lanes were spread over the symmetry positions."""
        counts = self._words.position_table.sum(axis=0).tolist()
        lanes = sum(counts)
        steals = int(self._board.sphere_table[:, w.sphere_word("steals")].sum())
        share = 100 * steals / lanes if lanes else 0.0
        logger.info(
            "lanes by symmetry position: %s (%.0f %% computed by spheres of another position)",
            " ".join(map(str, counts)),
            share,
        )

    def _enter_loss(self, step: int, loss: float) -> None:
        entries = self._words.counts.load(w.LOSSES)
        self._words.losses[entries % w.LOSS_RING] = (step, loss)
        self._words.counts.store(w.LOSSES, entries + 1)

    def _enter_evaluation(self, step: int, loss: float, bits: float) -> None:
        entries = self._words.counts.load(w.EVALS)
        self._words.evals[entries % w.EVAL_RING] = (step, loss, bits)
        self._words.counts.store(w.EVALS, entries + 1)

    def _publish_evaluation(self) -> None:
        self._words.enter(
            val_loss=self.val_loss, val_bits_per_byte=self.val_bits, best_val_loss=self._best
        )


def _finite_sum(values: list[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan
