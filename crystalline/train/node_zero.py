"""Node Zero: plans steps, watches spheres, evaluates, saves, obeys.  It computes no batch.

A fresh interpreter that the launcher starts (`crystalline.train.launcher`); it reads
a pickled `RunSpec` from standard input and reports as `crystalline.train.report` tells.

While training it is awake once a step, for some tens of microseconds: it hands out
the next step first and does the books of the last one while the spheres compute.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import logging
import math
import os
import pickle
import signal
import sys
import time
from typing import Any, NoReturn

from crystalline._kernels.atomics import die_with_parent, monotonic_ns, set_process_name
from crystalline.errors import (
    EXIT_FAILURE,
    EXIT_OK,
    CrystallineError,
    DivergedError,
    EngineError,
    SaveError,
)
from crystalline.ipc import board as b
from crystalline.ipc.arena import Arena, Layout
from crystalline.ipc.barrier import POSITIONS, Kind
from crystalline.ipc.permits import usable_cores
from crystalline.log import LOGGER_NAME, get_logger
from crystalline.train.config import MAX_WORKERS
from crystalline.train.crew import Crew
from crystalline.train.interruption import interruptible
from crystalline.train.metrics import MetricsLog, read_metrics
from crystalline.train.protocol import Program
from crystalline.train.report import ReportHandler, send
from crystalline.train.schedule import learning_rate
from crystalline.train.spec import STOP_REASONS, RunSpec, StopReason, resume_command
from crystalline.train.stats import RUN_STATES

NAP_NS = 50_000_000  # the longest sleep while a phase runs
LOOK_NS = 250_000_000  # between looks at the spheres while steps follow one another
PAUSE_NAP_NS = 250_000_000
ANNOUNCE_NS = 2_000_000_000  # a root discovery that takes longer is told of while it lasts
ATTACH_S = 20.0
DROPS_IN_A_ROW = 10
DROPS_WINDOW, DROPS_IN_WINDOW = 100, 10

logger = get_logger("train")


class _Terminated(BaseException):
    """SIGTERM: the launcher is gone, or somebody wants us gone."""


class _StopWanted(Exception):
    """Somebody wants an end, or the time is up; raised in the middle of a root discovery."""


@dataclasses.dataclass(frozen=True)
class _Step:
    """What the books need of a finished step."""

    number: int  # finished steps, this one included
    lanes: list[list[float]]  # a row of results per lane, see ipc.board
    outcome: list[float]
    lr: float
    took_ns: int


class NodeZero:
    """A run, from the first step of this session to its result."""

    def __init__(self, spec: RunSpec, report: int) -> None:
        """`report` is the file descriptor of the pipe to the launcher."""
        self._report = report
        cores = spec.permits or min(usable_cores(), max(spec.workers, POSITIONS), MAX_WORKERS)
        self.spec = spec = dataclasses.replace(spec, permits=cores)
        self.program = _build(spec)
        program = self.program
        self._units = {
            Kind.COMPUTE: -(-program.lane_count // program.lanes_per_unit),
            Kind.REDUCE: program.segment_count,
            Kind.UPDATE: program.segment_count,
            Kind.EVALUATE: program.eval_units,
            Kind.PACK: program.segment_count,
        }
        rows = max(program.lane_count, *self._units.values())
        layout = Layout(b.engine_regions(rows, cores) + program.regions())
        self._arena = Arena.create(layout, spec.run_dir)
        program.bind(self._arena)
        self.board = b.Board(
            self._arena,
            self._units,
            program.lanes_per_unit,
            -(-program.heavy_lanes // program.lanes_per_unit),
        )
        self._barrier = self.board.barrier
        self._crew = Crew(
            self.board,
            program,
            grad_clip=spec.config.grad_clip,
            jitter_s=spec.jitter_s,
            hang_s=spec.hang_s,
            arena_bytes=self._arena.layout.size_bytes,
            settle=self._arena.populate,
        )
        self._step = self._first_step = 0
        self._tokens = self._session_tokens = 0
        self._step_ns = 0  # spent in training steps, this session
        self._seconds_before = 0.0  # of earlier sessions
        self._loss: float | None = None
        self._val_loss: float | None = None
        self._val_bits: float | None = None
        self._best: float | None = None
        self._dropped: list[int] = []  # steps (1 is the first) that were dropped lately
        self._dropped_total = 0
        self._saved_step = self._evaluated_step = -1
        self._checkpoint: str | None = None
        self._requested_checkpoints = 0
        self._unbooked: _Step | None = None
        self._looked_ns = self._started_ns = monotonic_ns()
        self._logged: tuple[int, int] = (0, 0)  # step time and tokens at the last line

    # Life.

    def run(self) -> dict[str, Any]:
        """Train to the end; return the fields of a `RunResult`."""
        try:
            self._introduce()
            self._load()
            gc.collect()
            gc.freeze()  # what is here now stays shared with the spheres
            self._crew.resize(self.spec.workers)
            self._run_phase(Kind.PACK)
            with MetricsLog(self.spec.run_dir, self._step) as self._metrics:
                self._recall()
                reason = self._train()
                return self._finish(reason)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._crew.disband()
            self._arena.unlink()

    def _introduce(self) -> None:
        """Show the launcher the arena; when it has mapped it, the name can go."""
        self._enter("starting")
        self.board.status[:] = math.nan
        layout = self._arena.layout.to_json()
        self.send("arena", path=str(self._arena.path), layout=layout, permits=self.spec.permits)
        deadline = time.monotonic() + ATTACH_S
        while not self.board.control.load(b.ATTACHED):
            if time.monotonic() > deadline:
                raise EngineError(f"the launcher did not answer within {ATTACH_S:.0f} s")
            self._barrier.sleep_on_node_bell(self._barrier.node_bell(), NAP_NS)
        self._arena.unlink()

    def _load(self) -> None:
        checkpoint = self.spec.resume_from
        if checkpoint is None:
            self.program.initialize()
            return
        state = self.program.restore(checkpoint)
        self._step = self._first_step = self._saved_step = state["step"]
        self._tokens = state["tokens"]
        self._seconds_before = state["seconds"]
        self._loss = state["loss"]
        self._val_loss = state["val_loss"]
        self._val_bits = state["val_bits_per_byte"]
        self._evaluated_step = state["evaluated_step"]
        self._best = state["best_val_loss"]
        self._dropped = list(state["recently_dropped"])
        self._dropped_total = state["dropped_steps"]
        self._checkpoint = str(checkpoint)
        self.board.state.store(b.STEP, self._step)
        self.board.state.store(b.TOKENS, self._tokens)
        self.board.state.store(b.DROPPED, self._dropped_total)
        if self._loss is not None:
            self.board.status[b.LOSS] = self._loss
        self._publish_evaluation()
        self.send("checkpoint", path=self._checkpoint)

    def _recall(self) -> None:
        """Enter what a resumed run logged earlier, for watchers."""
        if not self._step:
            return
        lines = read_metrics(self._metrics.path)
        losses = [(n["step"], n["loss"]) for n in lines if n.get("loss") is not None]
        stride = 1 + len(losses) // (b.LOSS_RING // 2)
        for step, loss in losses[::stride]:
            self._enter_loss(step, loss)
        evaluations = [n for n in lines if n.get("val_loss") is not None]
        for line in evaluations[-b.EVAL_RING // 2 :]:
            self._enter_evaluation(line["step"], line["val_loss"], line["val_bits_per_byte"])

    def _train(self) -> StopReason:
        """Take steps until the last one, or until somebody wants a stop."""
        self._enter("training")
        self._started_ns = self._looked_ns = monotonic_ns()
        self.board.state.store(b.STARTED_NS, self._started_ns)
        last = self.spec.max_steps
        while True:
            if self._is_due() or (self._unbooked and self._unbooked.outcome[b.NON_FINITE]):
                self._book()
                reason = self._attend()
                if reason is not None:
                    return reason if self._step < last else "finished"
            if self._step >= last:
                self._book()
                return "finished"
            if self._is_discovery_due():
                try:
                    self._discover()
                except _StopWanted:
                    return STOP_REASONS[self.board.control.load(b.STOP)] or "time"
            self._take_step()

    def _take_step(self) -> None:
        """Points A to B and on to the end of a step; the last step's books meanwhile."""
        board, began_ns = self.board, monotonic_ns()
        lr = learning_rate(self.spec.config, self._step, self.spec.max_steps)
        board.descriptor[b.STEP_INDEX] = self._step
        board.descriptor[b.STEP_LR] = lr
        self._barrier.publish(Kind.COMPUTE, board.permits.free_count)
        self._book()
        self._wait_until_idle()
        took_ns = monotonic_ns() - began_ns
        self._step += 1
        self._unbooked = _Step(
            self._step,
            board.results[: self.program.lane_count].tolist(),
            board.outcome.tolist(),
            lr,
            took_ns,
        )

    def _run_phase(self, kind: Kind) -> None:
        """Run a phase that is not part of a step."""
        self._barrier.publish(kind, self.board.permits.free_count)
        self._wait_until_idle()

    def _wait_until_idle(self) -> None:
        barrier = self._barrier
        while True:
            heard = barrier.node_bell()
            idle = barrier.phase() & 15 == Kind.IDLE
            if monotonic_ns() - self._looked_ns > LOOK_NS:
                self._look_after()
            if idle:
                return
            if not barrier.sleep_on_node_bell(heard, NAP_NS):
                self._look_after()

    def _look_after(self) -> None:
        self._looked_ns = monotonic_ns()
        self._crew.look_after()

    # Books.

    def _book(self) -> None:
        """Enter the newest finished step: loss, counts, figures for watchers, metrics."""
        done, self._unbooked = self._unbooked, None
        if done is None:
            return
        board, state = self.board, self.board.state
        tokens = int(sum(row[b.TOKEN_COUNT] for row in done.lanes))
        loss = _finite_sum([row[b.LOSS_SUM] for row in done.lanes]) / tokens
        smoothed = None
        if self.spec.config.smooths:
            smoothed = _finite_sum([row[b.SMOOTHED_SUM] for row in done.lanes]) / tokens
            board.status[b.CRYSTALLINE_LOSS] = smoothed
        self._tokens += tokens
        self._session_tokens += tokens
        self._step_ns += done.took_ns
        self._crew.lane_ns = [row[b.UNIT_NS] for row in done.lanes]
        dropped = bool(done.outcome[b.NON_FINITE])
        if math.isfinite(loss):
            self._loss = loss
            self._enter_loss(done.number, loss)
            board.status[b.LOSS] = loss
        board.status[b.LEARNING_RATE] = done.lr
        board.status[b.GRAD_NORM] = done.outcome[b.NORM]
        board.status[b.CLIP_FACTOR] = done.outcome[b.CLIP]
        state.store(b.TOKENS, self._tokens)
        state.store(b.SESSION_TOKENS, self._session_tokens)
        state.store(b.STEP_NS, self._step_ns)
        state.store(b.STEP, done.number)
        if dropped:
            self._drop(done.number)
        if done.number % self.spec.config.log_interval == 0 or done.number == self.spec.max_steps:
            before_ns, before_tokens = self._logged
            self._logged = (self._step_ns, self._session_tokens)
            rate = (self._session_tokens - before_tokens) / (self._step_ns - before_ns) * 1e9
            self._metrics.step(
                step=done.number,
                loss=loss,
                lr=done.lr,
                grad_norm=done.outcome[b.NORM],
                tokens=self._tokens,
                tokens_per_second=rate,
                seconds=self._seconds(),
                crystalline_loss=smoothed,
            )

    def _drop(self, number: int) -> None:
        """Count a step whose gradient or loss was not finite; give up when there are many."""
        self._dropped_total += 1
        self.board.state.store(b.DROPPED, self._dropped_total)
        self._dropped = [n for n in self._dropped if n > number - DROPS_WINDOW] + [number]
        in_a_row = self._dropped[-DROPS_IN_A_ROW:] == list(
            range(number - DROPS_IN_A_ROW + 1, number + 1)
        )
        logger.warning("step %d was dropped: its gradient was not finite", number)
        self._metrics.event("dropped_step", number)
        if in_a_row or len(self._dropped) > DROPS_IN_WINDOW:
            way_on = "start again"
            if self._checkpoint is not None:
                way_on = f"the newest checkpoint is intact: {resume_command(self.spec.run_dir)}"
            raise DivergedError(
                f"the gradient was not finite in {len(self._dropped)} of the last "
                f"{min(number, DROPS_WINDOW)} steps, the last of them step {number}",
                advice="Lower --learning-rate or --grad-clip, or warm up over more steps; "
                f"{way_on}",
            )

    def _seconds(self) -> float:
        return self._seconds_before + (monotonic_ns() - self._started_ns) / 1e9

    # Between steps.

    def _is_due(self) -> bool:
        """Return whether anything is to be done before the next step."""
        control, state, spec = self.board.control, self.board.state, self.spec
        step = self._step
        return (
            control.load(b.STOP) != 0
            or control.load(b.PAUSE) != 0
            or control.load(b.CHECKPOINT) != state.load(b.CHECKPOINTS)
            or control.load(b.SET_WORKERS) not in (0, self._crew.size)
            or (spec.config.eval_interval > 0 and step % spec.config.eval_interval == 0)
            or (spec.config.save_interval > 0 and step % spec.config.save_interval == 0)
            or self._is_late()
        )

    def _is_late(self) -> bool:
        limit = self.spec.max_seconds
        return limit is not None and monotonic_ns() - self._started_ns >= limit * 1e9

    def _attend(self) -> StopReason | None:
        """Evaluate, save and obey as is due; return the reason to stop, if there is one."""
        config, control = self.spec.config, self.board.control
        step, fresh = self._step, self._step > self._first_step
        improved = False
        if fresh and config.eval_interval and step % config.eval_interval == 0:
            improved = self._evaluate()
        if fresh and (improved or (config.save_interval and step % config.save_interval == 0)):
            self._save_or_warn(improved)
        if self._is_late() and step < self.spec.max_steps:
            return "time"
        while True:
            wanted = control.load(b.SET_WORKERS)
            if wanted and wanted != self._crew.size:
                self._crew.resize(wanted)
                logger.info("%d spheres from step %d on", wanted, step)
            asked = control.load(b.CHECKPOINT)
            if asked != self.board.state.load(b.CHECKPOINTS):
                if self._saved_step != step:
                    self._save_or_warn(best=False)
                self.board.state.store(b.CHECKPOINTS, asked)
            reason = STOP_REASONS[control.load(b.STOP)]
            if reason is not None:
                return reason
            if not control.load(b.PAUSE):
                self._enter("training")
                return None
            self._enter("paused")
            heard = self._barrier.node_bell()
            if control.load(b.PAUSE) and not control.load(b.STOP):
                self._barrier.sleep_on_node_bell(heard, PAUSE_NAP_NS)
            self._look_after()

    def _evaluate(self) -> bool:
        """Evaluate over the held-out split; return whether it was the best so far."""
        if not self._units[Kind.EVALUATE] or self._evaluated_step == self._step:
            return False
        self._enter("evaluating")
        self._run_phase(Kind.EVALUATE)
        self._evaluated_step = self._step
        rows = self.board.results[: self._units[Kind.EVALUATE]].tolist()
        nats = [row[b.LOSS_SUM] for row in rows]
        tokens = int(sum(row[b.TOKEN_COUNT] for row in rows))
        if not all(map(math.isfinite, nats)):
            logger.warning("the loss over the held-out split is not finite at step %d", self._step)
            self._val_loss = self._val_bits = None
            return False
        spec = self.spec
        self._val_loss = loss = math.fsum(nats) / tokens
        tokens_per_byte = (spec.val_tokens or tokens) / spec.val_bytes
        self._val_bits = bits = loss / math.log(2) * tokens_per_byte
        improved = self._best is None or loss < self._best
        if improved:
            self._best = loss
        self._enter_evaluation(self._step, loss, bits)
        self._publish_evaluation()
        self._metrics.evaluation(step=self._step, val_loss=loss, val_bits_per_byte=bits)
        self.send("groups", groups=[list(row) for row in self.program.diagnostics()])
        return improved

    def _is_discovery_due(self) -> bool:
        """Return whether a root discovery comes before the next step.

        It comes after an evaluation and what is saved with it: a run that resumes there makes
        the discovery again, and a checkpoint is what was evaluated.
        """
        config = self.spec.config
        interval = config.discovery_interval * config.eval_interval
        return interval > 0 and self._step > 0 and self._step % interval == 0

    def _discover(self) -> None:
        """Let the program find roots anew, and tell what changed.  Raises `_StopWanted`."""
        self._enter("discovering")
        began_ns = monotonic_ns()
        announced = False

        def look() -> None:
            nonlocal announced
            if self.board.control.load(b.STOP) or self._is_late():
                raise _StopWanted
            if not announced and monotonic_ns() - began_ns > ANNOUNCE_NS:
                announced = True
                logger.info("the spheres wait while roots and tables are made anew")

        with interruptible(look, LOOK_NS / 1e9) as commit:
            found = self.program.discover(commit)
        self._enter("training")
        if found is not None:
            logger.info("root discovery after step %d: %s", self._step, found.words)
            counts = dataclasses.asdict(found)
            del counts["words"]
            # Of the step that comes: a run that resumes here discovers and tells it again.
            self._metrics.event("root_discovery", self._step + 1, **counts)

    def _enter_loss(self, step: int, loss: float) -> None:
        entries = self.board.state.load(b.LOSSES)
        self.board.losses[entries % b.LOSS_RING] = (step, loss)
        self.board.state.store(b.LOSSES, entries + 1)

    def _enter_evaluation(self, step: int, loss: float, bits: float) -> None:
        entries = self.board.state.load(b.EVALS)
        self.board.evals[entries % b.EVAL_RING] = (step, loss, bits)
        self.board.state.store(b.EVALS, entries + 1)

    def _publish_evaluation(self) -> None:
        for word, value in (
            (b.VAL_LOSS, self._val_loss),
            (b.VAL_BITS, self._val_bits),
            (b.BEST_VAL_LOSS, self._best),
        ):
            self.board.status[word] = math.nan if value is None else value

    def _save(self, best: bool) -> None:
        self._enter("saving")
        state = {
            "step": self._step,
            "tokens": self._tokens,
            "seconds": self._seconds(),
            "loss": self._loss,
            "val_loss": self._val_loss,
            "val_bits_per_byte": self._val_bits,
            "evaluated_step": self._evaluated_step,
            "best_val_loss": self._best,
            "recently_dropped": self._dropped,
            "dropped_steps": self._dropped_total,
        }
        self._metrics.flush()
        path = self.program.save(state, best=best)
        self._saved_step = self._step
        self._checkpoint = str(path)
        self.send("checkpoint", path=self._checkpoint)

    def _save_or_warn(self, best: bool) -> None:
        """Save; a failure is told, and training goes on: the next save may succeed."""
        try:
            self._save(best)
        except SaveError as error:
            logger.warning("%s Training goes on.", error)

    def _finish(self, reason: StopReason) -> dict[str, Any]:
        """Evaluate and save once more as is due; return the fields of a `RunResult`."""
        ended_ns = monotonic_ns()
        complete = reason in ("finished", "time")
        if not complete:
            self._enter("stopping")
        elif self._evaluate():
            self._save(best=True)
        if self._saved_step != self._step:
            self._save(best=False)
        self._log_positions()
        rate = self._session_tokens / self._step_ns * 1e9 if self._step_ns else 0.0
        spec = self.spec
        self._enter("finished" if complete else "stopped")
        return {
            "final_step": self._step,
            "train_loss": self._loss,
            "val_loss": self._val_loss,
            "val_bits_per_byte": self._val_bits,
            "tokens_per_second": rate,
            "seconds": (ended_ns - self._started_ns) / 1e9,
            "weights_sha256": self.program.weights_sha256(),
            "run_dir": str(spec.run_dir),
            "workers": self._crew.size,
            "precision": spec.precision,
            "isa": spec.isa,
            "stop_reason": reason,
            "dropped_steps": self._dropped_total,
            "checkpoint": self._checkpoint,
        }

    def _log_positions(self) -> None:
        """Tell how lanes were spread over the symmetry positions."""
        counts = self.board.position_table.sum(axis=0).tolist()
        lanes = sum(counts)
        steals = int(self.board.sphere_table[:, b.S_STEALS].sum())
        share = 100 * steals / lanes if lanes else 0.0
        logger.info(
            "lanes by symmetry position: %s (%.0f %% computed by spheres of another position)",
            " ".join(map(str, counts)),
            share,
        )

    # Words to the launcher.

    def _enter(self, state: str) -> None:
        self.board.state.store(b.RUN_STATE, RUN_STATES.index(state))

    def send(self, kind: str, **fields: Any) -> None:
        """Write one line of the report."""
        send(self._report, kind, **fields)


def _finite_sum(values: list[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan


def _build(spec: RunSpec) -> Program:
    module, _, function = spec.program.partition(":")
    program: Program = getattr(importlib.import_module(module), function)(spec)
    return program


def _on_sigterm(*_: object) -> NoReturn:
    raise _Terminated


def main(launcher: int, report: int) -> int:
    """Run as the process that `launcher` (a pid) started; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != launcher:
            return EXIT_FAILURE
        set_process_name("node-zero")
        handler = ReportHandler(report)
        logging.getLogger(LOGGER_NAME).addHandler(handler)
        logging.getLogger(LOGGER_NAME).setLevel(logging.INFO)
        with sys.stdin.buffer as file:
            spec: RunSpec = pickle.load(file)
        send(report, "result", **NodeZero(spec, report).run())
    except CrystallineError as error:
        send(
            report,
            "error",
            type=type(error).__name__,
            message=error.message,
            advice=error.advice,
        )
        return EXIT_FAILURE
    except (_Terminated, BrokenPipeError):  # the launcher is gone: nobody listens
        return EXIT_FAILURE
    return EXIT_OK
